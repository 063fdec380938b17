"""Options of constructors, refused where they are nothing of the kind: whole numbers, numbers in a range, modules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

from torch import nn

from graphkd.checks import shown as shown
from mowst.errors import InputError

MOST_LAYERS = 10_000
"""What a number of layers may be: beyond it a model is built for hours."""


def one_line(text: str, most: int = 120) -> str:
    """Put a text into one line, and end it where it becomes too long."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def whole(what: str, value: Any, least: int = 1, most: int = 2**31 - 1) -> int:
    """Return a whole number.

    Raises:
        InputError: it is none, or not from `least` to `most`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(f"{what} must be a whole number of at least {least}, got {shown(value)}")
    if int(value) > most:
        raise InputError(f"{what} must be at most {most:,}, got {shown(value)}")
    return int(value)


def layers(what: str, value: Any) -> int:
    """Return a number of layers.

    Raises:
        InputError: it is none, or there would be none, or too many.
    """
    return whole(what, value, most=MOST_LAYERS)


def number(what: str, value: Any, fits: Callable[[float], bool] = math.isfinite, right: str = "a number") -> float:
    """Return a number.

    Raises:
        InputError: it is none, or does not fit; `right` says what would.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(float(value)):
        raise InputError(f"{what} must be {right}, got {shown(value)}")
    return float(value)


def probability(what: str, value: Any) -> float:
    """Return a number from 0 to 1.

    Raises:
        InputError: it is none.
    """
    return number(what, value, lambda p: 0 <= p <= 1, "a probability, from 0 to 1")


def numbers(what: str, values: Any, count: int, fits: Callable[[float], bool], right: str) -> tuple[float, ...]:
    """Return so many numbers.

    Raises:
        InputError: they are none, or not so many, or one does not fit.
    """
    if not isinstance(values, (tuple, list)) or len(values) != count:
        raise InputError(f"{what} must be {right}, got {shown(values)}")
    return tuple(number(what, value, fits, right) for value in values)


def listed(what: str, values: Any) -> Sequence[Any]:
    """Return a list that has something in it; a word is no list of letters.

    Raises:
        InputError: it is none, or empty.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise InputError(f"{what} must be a list of at least one, got {shown(values)}")
    return values


def module(what: str, value: Any) -> nn.Module:
    """Return a module.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, nn.Module):
        made = ", a class: make one" if isinstance(value, type) else ""
        raise InputError(f"{what} must be a torch.nn.Module, got {shown(value)}{made}")
    return value
