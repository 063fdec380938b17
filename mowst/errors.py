"""The one exception that speaks to the person at the keyboard."""

from __future__ import annotations


class InputError(ValueError):
    """Something handed in from outside is wrong: one line that says what, where, and what would be right.

    The commands print it and exit with code 2; library users catch it as a `ValueError`.
    """


def unknown(what: str, value: object, choices: object) -> InputError:
    """Return the error for a name that is not among `choices`, which are listed."""
    return InputError(f"{what}: unknown {value!r}; choose from {', '.join(sorted(map(str, choices)))}")  # type: ignore[call-overload]
