"""Fields of configurations that check themselves: their types, limits, and where they mean something."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from mowst.errors import InputError
from mowst.system.typed import check_type_of

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
    "at_most": (lambda value, bound: value <= bound, "at most"),
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
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{entry.name}: must be a finite number, got {value!r}")
            for limit, (holds, words) in LIMITS.items():
                bound = entry.metadata.get(limit)
                if not (bound is None or value is None or holds(value, bound)):
                    raise InputError(f"{entry.name}: must be {words} {bound}, got {value!r}")


def metadata(holder: Any, name: str) -> Mapping[str, Any]:
    """Return what stands beside a field."""
    return type(holder).__dataclass_fields__[name].metadata


def used(config: Config, holder: Any, name: str) -> bool:
    """Tell whether a field of a configuration, or of a part that it holds, changes anything."""
    when = metadata(holder, name).get("when")
    return when is None or when(config)
