"""Names for the variants of everything here: `graphkd.names`, speaking as this package does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import graphkd.names
from graphkd.names import callable_only as callable_only
from mowst.errors import InputError, meant

T = TypeVar("T")


class Names(graphkd.names.Names[T]):
    """The variants of one kind by short name, by `package.module:name`, or by an entry point of `mowst.<kind>`."""

    package = "mowst"

    def unknown(self, query: Any, choices: Iterable[str], reason: str) -> InputError:
        """Return the error for a name that stands for nothing of this kind."""
        names = sorted(choices)
        guess = "" if reason else meant(str(query), names)
        why = f" ({reason})" if reason else ""
        ways = f"choose from {', '.join(names)}, or give package.module:name"
        return InputError(f"{self.kind}: unknown {query!r}{why}; {guess}{ways}")


def resolve(what: str, path: str) -> Any:
    """Return the object at a dotted path.

    Raises:
        InputError: there is none; `what` says for what it was to be.
    """
    try:
        return graphkd.names.resolve(path)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from error
