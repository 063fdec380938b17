"""The one exception that speaks to the person at the keyboard."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1000
"""Characters of a message."""


class InputError(ValueError):
    """Something handed in from outside is wrong: one line that says what, where, and what would be right.

    The commands print it and exit with code 2; library users catch it as a `ValueError`. Whatever was handed in, and
    stands in the message, it is one line of some length.
    """

    def __init__(self, message: str):
        line = " ".join(message.split())
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}")


def unknown(what: str, value: object, choices: Iterable[object]) -> InputError:
    """Return the error for a name that is not among `choices`, which are listed."""
    names = sorted(map(str, choices))
    return InputError(f"{what}: unknown {value!r}; {meant(str(value), names)}choose from {', '.join(names)}")


def meant(word: str, names: Iterable[str]) -> str:
    """Ask whether the nearest of some names was meant; empty if none is near."""
    known = list(names)
    near = [each for each in known if sorted(each) == sorted(word)] or get_close_matches(word, known, 1, 0.6)
    return f"did you mean {near[0]}? " if near else ""


def some(names: Iterable[object], most: int = 5) -> str:
    """List the first few of some names."""
    words = [str(name) for name in names]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def many(number: int, one: str, more: str) -> str:
    """Write a number and the words that go with it: those for one thing, or those for several or none."""
    return f"{number:,} {one if number == 1 else more}"
