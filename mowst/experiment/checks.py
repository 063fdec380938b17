"""Fields of configurations that check themselves: their types, limits, and where they mean something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from mowst.errors import InputError

if TYPE_CHECKING:
    from mowst.experiment.config import Config

Says = Callable[["Config"], bool]


def setting(
    default: Any, search: Any = None, when: Says | None = None, beside: Says | None = None, **limits: float
) -> Any:
    """Return a field with a default, a range for studies, and limits (`at_least`, `below`, ...) checked on creation.

    `when` answers, of a whole configuration, whether the field changes anything in what a study judges; `beside`,
    whether in anything else that is trained.
    """
    return field(default=default, metadata={"search": search, "when": when, "beside": beside, **limits})


LIMITS: dict[str, tuple[Any, str]] = {
    "at_least": (lambda value, bound: value >= bound, "at least"),
    "above": (lambda value, bound: value > bound, "above"),
    "below": (lambda value, bound: value < bound, "below"),
}


@dataclass(frozen=True)
class Checked:
    """Checks types and limits of every field when an instance is made."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in fields(self):
            value = getattr(self, entry.name)
            check_type_of(entry.name, value, hints[entry.name])
            for limit, (holds, words) in LIMITS.items():
                bound = entry.metadata.get(limit)
                if bound is not None and not holds(value, bound):
                    raise InputError(f"{entry.name}: must be {words} {bound}, got {value!r}")


def check_type_of(name: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type than its field's; a whole number is a number, true and false are none.

    Raises:
        InputError: it is one.
    """
    from typeguard import TypeCheckError, check_type

    try:
        check_type(value, hint)
        if hint in (int, float) and isinstance(value, bool):
            raise TypeCheckError("is a bool")
    except TypeCheckError:
        wanted = hint.__name__ if isinstance(hint, type) else hint
        raise InputError(f"{name}: must be {wanted}, got {value!r}") from None


def metadata(holder: Any, name: str) -> Mapping[str, Any]:
    """Return what stands beside a field."""
    return type(holder).__dataclass_fields__[name].metadata


def used(config: Config, holder: Any, name: str) -> bool:
    """Tell whether a field of a configuration, or of a part that it holds, changes anything."""
    when = metadata(holder, name).get("when")
    return when is None or when(config)
