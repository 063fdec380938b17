"""From a short name, a dotted path or an entry point to the object it stands for.

The one resolver of this project: `graphkd` finds its losses by it, and `mowst.names` everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pkgutil import resolve_name
from typing import Any, Generic, TypeVar

from class_resolver import FunctionResolver

from graphkd.checks import shown

T = TypeVar("T")


def is_path(name: str) -> bool:
    """Tell a dotted path, `package.module:name` or `package.module.name`, from a short name."""
    return "." in name or ":" in name


def resolve(path: str) -> Any:
    """Return the object at a dotted path.

    Raises:
        ValueError: there is none; the message says why.
    """
    try:
        return resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot import {shown(path)}: {_line(error)}") from error
    except Exception as error:  # what a module may raise while it is imported
        raise ValueError(f"cannot import {shown(path)}: {type(error).__name__}: {_line(error)}") from error


class Names(Generic[T]):
    """The variants of one kind by short name; `package.module:name` reaches one that lives elsewhere.

    Upper and lower case, dashes and underscores do not matter. Packages that declare an entry point in the group add
    their names by being installed.

    Args:
        kind: what they are, for messages.
        variants: by name.
        group: of entry points; by default `graphkd.<kind>`.
        adapt: turns what was found into a variant, or raises a `ValueError` that says why it is none; by default it
            must be callable.
    """

    package = "graphkd"

    def __init__(
        self,
        kind: str,
        variants: Mapping[str, Any],
        *,
        group: str | None = None,
        adapt: Callable[[Any], T] | None = None,
    ):
        self.kind, self.adapt = kind, adapt or callable_only
        self.found: FunctionResolver[..., Any] = FunctionResolver([])
        self.found.synonyms = {self.found.normalize(name): variant for name, variant in variants.items()}
        self.found.register_entrypoint(group or f"{self.package}.{kind}")
        self._own = tuple(variants)

    @property
    def names(self) -> tuple[str, ...]:
        """All short names: the project's own in their order, then those of installed packages."""
        own = set(map(self.found.normalize, self._own))
        return (*self._own, *sorted(name for name in self.found.lookup_dict if name not in own))

    def knows(self, name: str) -> bool:
        """Tell whether this is a short name."""
        return isinstance(name, str) and self.found.normalize(name) in {*map(self.found.normalize, self.names)}

    def lookup(self, query: Any) -> T:
        """Return the variant called `query`; what is none of these names but an object already is adapted.

        Raises:
            ValueError: there is none; the message names the choices. (`InputError` for the names of `mowst`.)
        """
        try:
            if isinstance(query, str):
                return self.adapt(resolve(query) if is_path(query) else self.found.lookup(query))
            return self.adapt(query)
        except KeyError:
            raise self.unknown(query, self.names, "") from None
        except (TypeError, ValueError) as error:
            raise self.unknown(query, self.names, str(error)) from None

    def unknown(self, query: Any, choices: Iterable[str], reason: str) -> ValueError:
        """Return the error for a name that stands for nothing of this kind, with the reason if one is known."""
        if reason:
            return ValueError(f"{self.kind} {shown(query)}: {reason}")
        hint = "or give a dotted path package.module.Class"
        return ValueError(f"unknown {self.kind} {shown(query)}; choose from {', '.join(sorted(choices))}, {hint}")


def _line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return " ".join(str(error).split())[:500]


def callable_only(found: Any) -> Any:
    """Refuse what cannot be called."""
    if not callable(found):
        raise TypeError(f"is a {type(found).__name__}, which cannot be called")
    return found
