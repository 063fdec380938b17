"""From a short name, a dotted path or an entry point to the object it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any

from class_resolver import FunctionResolver

from mowst.errors import InputError, meant


class Names(FunctionResolver[..., Any]):
    """The variants of one kind by short name; `package.module:name` reaches one that lives elsewhere.

    Upper and lower case, dashes and underscores do not matter. Packages that declare an entry point in the group
    `mowst.<kind>` add their names by being installed.
    """

    def __init__(self, kind: str, variants: Mapping[str, Callable[..., Any]]):
        super().__init__([])
        self.synonyms = {self.normalize(name): variant for name, variant in variants.items()}
        self.kind, self.names = kind, tuple(variants)
        self.register_entrypoint(f"mowst.{kind}")

    def lookup(self, query: Any, default: Callable[..., Any] | None = None) -> Callable[..., Any]:
        """Return the variant called `query`; raise `InputError` naming the choices when there is none."""
        dotted = isinstance(query, str) and ("." in query or ":" in query)
        try:
            found: Any = resolve_name(query) if dotted else super().lookup(query, default)
            if not callable(found):
                raise TypeError(f"is a {type(found).__name__}, which cannot be called")
            return found
        except (KeyError, TypeError, ValueError, ImportError, AttributeError) as error:
            reason = f" ({error})" if dotted else ""
            choices = sorted({*self.names, *self.lookup_dict})
            guess = "" if dotted else meant(str(query), choices)
            raise InputError(
                f"{self.kind}: unknown {query!r}{reason}; {guess}choose from {', '.join(choices)}, or give "
                "package.module:name"
            ) from None
