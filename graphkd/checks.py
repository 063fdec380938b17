"""What arguments must be: each rule stands here once, for the losses and for the functions alike.

A check is given the name under which a caller knows an argument and its value. It raises a `ValueError` of one line
(what was given, where, what would be right), and returns the value where that may be brought into shape without loss.
In a compiled function, and where a caller says that numbers are `known`, sizes and types alone are checked.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST, LARGEST = 1e-18, 1e18
"""The sizes of options: the square of one is a float32 that is neither 0 nor infinite."""
INT64 = 2**63 - 1
WIDEST = 100_000
"""Columns of a hidden layer, and classes, that a head may have."""
MOST_WEIGHTS = 10**8
"""Of all heads of a loss: 400 MB."""
REACH = 2e4
"""How far a teacher's logit may lie below the largest of its row: as far as +1e4 and -1e4 are apart. A masked class,
-inf, is brought there, where its probability is 0 just as well and no loss meets 0 times infinity."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shown(value: Any) -> str:
    """Describe a value for a message, on one line and in a few words."""
    if isinstance(value, Tensor):
        kind = "meta " if value.is_meta else "" if value.layout == torch.strided else "sparse "
        return f"a {kind}tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    try:
        return " ".join(_short.repr(value).split())
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a very large {type(value).__name__}"


# --- options


def number(name: str, value: Any) -> None:
    """Refuse what is no number, NaN, and what float32 could not square."""
    numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not numeric or not abs(value) <= LARGEST:
        raise ValueError(f"{name} must be a number of at most {LARGEST:g}, got {shown(value)}")


def positive(name: str, value: Any) -> None:
    """Refuse what is no number above zero."""
    number(name, value)
    if value < SMALLEST:
        least = "above 0" if value <= 0 else f"at least {SMALLEST:g}"
        raise ValueError(f"{name} must be {least}, got {shown(value)}")


def not_negative(name: str, value: Any) -> None:
    """Refuse what is no number from zero."""
    number(name, value)
    if value < 0:
        raise ValueError(f"{name} must be a number from 0, got {shown(value)}")


def share(name: str, value: Any) -> None:
    """Refuse what is no number between 0 and 1."""
    not_negative(name, value)
    if value > 1:
        raise ValueError(f"{name} must be a number between 0 and 1, got {shown(value)}")


def whole(name: str, value: Any, least: int = 0, most: int = INT64) -> None:
    """Refuse what is no whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        end = f" to {most:,}" if most < INT64 else ", below 2^63"
        raise ValueError(f"{name} must be a whole number from {least}{end}, got {shown(value)}")


def flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")


def choose(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse, naming the choices, a value that is not one of them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: unknown {shown(value)}; choose from {', '.join(choices)}")


RULES: Mapping[str, Callable[[str, Any], None]] = {
    **dict.fromkeys(("temperature", "width", "min_std", "max_step", "power", "epsilon"), positive),
    **dict.fromkeys(("alpha", "beta", "gamma", "mu", "distance", "angle", "low", "high"), not_negative),
    **dict.fromkeys(("center", "author_code", "normalize", "refit", "mixup"), flag),
    "momentum": share,
    "direction": partial(choose, choices=("forward", "reverse")),
    "gamma_on": partial(choose, choices=("all", "target")),
    "feature": partial(choose, choices=("mean", "rms")),
    "matching": partial(choose, choices=("identity", "sorted")),
}
"""What an option of that name must be, of whichever loss or function it is one."""


def options(**given: Any) -> None:
    """Refuse, by name, an option that breaks its rule."""
    for name, value in given.items():
        RULES[name](name, value)


# --- tensors


def tensor(name: str, value: Any, what: str, dims: int, right: Callable[[Tensor], bool], hint: str = "") -> Tensor:
    """Return the value if it is a dense tensor with so many dimensions and the right numbers; `what` says which."""
    dense = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    if dense and value.dim() == dims and right(value):
        return value
    raise ValueError(f"{name} must be {what}, got {shown(value)}{hint and f'; {hint}'}")


def matrix(name: str, value: Any, rows: int | None = None) -> Tensor:
    """Return real numbers [N, H], of that many nodes if it is said how many."""
    what = f"a float tensor [{'N' if rows is None else rows}, H]"
    return tensor(name, value, what, 2, lambda it: it.is_floating_point() and rows in (None, it.size(0)))


def logits(name: str, value: Any) -> Tensor:
    """Return logits [N, C] with at least two classes."""
    found = tensor(name, value, "logits [N, C], a float tensor", 2, Tensor.is_floating_point)
    if found.size(1) < 2:
        raise ValueError(
            f"{name} are {list(found.shape)}, and a softmax needs a column for each class, two or more; "
            "of one logit z make two: torch.cat([torch.zeros_like(z), z], dim=-1)"
        )
    return found


def alike(where: str, **pair: Tensor) -> None:
    """Refuse two tensors, by name, that differ in shape or device."""
    (first, one), (second, other) = pair.items()
    if one.shape != other.shape:
        shapes = f"{first} {list(one.shape)} and {second} {list(other.shape)}"
        raise ValueError(f"{where}: {shapes} must be logits of the same nodes and classes")
    together(where, **pair)


def together(where: str, **pair: Tensor) -> None:
    """Refuse two tensors, by name, on different devices."""
    (first, one), (second, other) = pair.items()
    if one.device != other.device:
        raise ValueError(
            f"{where}: {first} is on {one.device} and {second} on {other.device}; bring them to one device"
        )


def believable(name: str, rows: Tensor) -> Tensor:
    """Return a teacher's logits [N, C] in at least float32, none more than `REACH` below the largest of its row.

    Rows that hold NaN or +inf, or nothing but -inf, are refused. What lies closer together is the very same tensor:
    then all that this costs is one look at the numbers.
    """
    rows = full(rows)
    if rows.numel() == 0:
        return rows
    if not looking():
        return torch.maximum(rows, rows.detach().amax(-1, keepdim=True) - REACH)
    low, high = rows.detach().aminmax()
    if float(high - low) <= REACH:
        return rows
    largest = rows.detach().amax(-1, keepdim=True)
    bad = (~largest.isfinite()).squeeze(-1).nonzero().squeeze(-1)
    if len(bad):
        raise ValueError(
            f"{name}: {len(bad)} of {rows.size(0)} rows, row {int(bad[0])} the first, hold NaN or inf, or -inf alone; "
            "leave those nodes out, or give them finite logits (-inf may mask some classes of a row)"
        )
    return torch.maximum(rows, largest - REACH)


def finite(name: str, value: Tensor) -> Tensor:
    """Return the tensor in at least float32 if it holds neither NaN nor infinities."""
    value = full(value)
    if looked_at(value):
        low, high = value.detach().aminmax()
        if not bool((low > -torch.inf) & (high < torch.inf)):
            raise ValueError(f"{name} holds NaN or inf, and must be finite")
    return value


def shares(name: str, value: Any, rows: int) -> Tensor:
    """Return how far each of the nodes can be believed, [N]: between 0 and 1."""
    what = f"a float tensor [{rows}], a number between 0 and 1 a node"
    found = finite(name, tensor(name, value, what, 1, lambda it: it.is_floating_point() and it.size(0) == rows))
    if looked_at(found):
        low, high = map(float, found.detach().aminmax())
        if low < 0 or high > 1:
            raise ValueError(f"{name} must be numbers between 0 and 1, got {low if low < 0 else high:g}")
    return found


def classes(name: str, value: Any, rows: int | None, C: int | None) -> Tensor:
    """Return labels [N] as int64: below C, anything negative where there is none."""
    hint = ""
    if isinstance(value, Tensor) and value.dim() == 2:
        hint = "give target.view(-1)" if value.size(1) == 1 else "if a row is one-hot, give target.argmax(-1)"
    elif isinstance(value, Tensor) and value.dim() == 1 and not integers(value):
        hint = "if these are class numbers, give target.long()"
    what = f"class numbers [{'N' if rows is None else rows}], an integer tensor"
    found = tensor(name, value, what, 1, lambda it: integers(it) and rows in (None, it.size(0)), hint).long()
    if C is not None and looked_at(found) and (largest := int(found.max())) >= C:
        raise ValueError(
            f"{name}: label {largest} with {C} classes; they count from 0 to {C - 1}, -100 stands for no label"
        )
    return found


def nodes(name: str, value: Any, first: int | None, N: int) -> Tensor:
    """Return node numbers as int64, each below N: a list [n], or with `first` rows [first, P]."""
    size = "[n]" if first is None else f"[{first}, E]"
    what = f"node numbers {size}, an integer tensor"
    dims = 1 if first is None else 2
    found = tensor(name, value, what, dims, lambda it: integers(it) and first in (None, it.size(0))).long()
    if looked_at(found):
        low, high = map(int, found.aminmax())
        if low < 0 or high >= N:
            raise ValueError(f"{name}: node {low if low < 0 else high} with {N} nodes; they count from 0 to {N - 1}")
    return found


def mask(name: str, value: Any, rows: int) -> Tensor:
    """Return a boolean mask [N]."""
    hint = "give mask.bool()" if isinstance(value, Tensor) and list(value.shape) == [rows] else ""
    return tensor(
        name, value, f"a boolean mask [{rows}]", 1, lambda it: it.dtype == torch.bool and it.size(0) == rows, hint
    )


def mask_or_nodes(name: str, value: Any, rows: int) -> Tensor:
    """Return a boolean mask [N], or node numbers [n]; zeros and ones for every node are neither."""
    if not isinstance(value, Tensor) or not integers(value):
        return mask(name, value, rows)
    found = nodes(name, value, None, rows)
    if len(found) == rows > 2 and int(found.max()) <= 1:
        raise ValueError(f"{name}: zeros and ones for all {rows} nodes are no node numbers; give mask.bool()")
    return found


def graph(name: str, value: Any) -> Tensor:
    """Return a graph of classes [k, k], finite."""
    what = "a graph [k, k] of one class or more, a square float tensor"
    return finite(name, tensor(name, value, what, 2, lambda it: it.is_floating_point() and 0 < len(it) == it.size(1)))


_known = ContextVar("known", default=False)


@contextmanager
def known() -> Iterator[None]:
    """Let sizes and types alone be checked inside, where numbers have been looked at before.

    On a GPU a look at numbers makes Python wait for them, and cannot be part of a CUDA graph.
    """
    token = _known.set(True)
    try:
        yield
    finally:
        _known.reset(token)


def looking() -> bool:
    """Tell whether numbers are looked at: nobody says that they are `known`, and no compiler traces what is done."""
    return not torch.compiler.is_compiling() and not _known.get()


def looked_at(value: Tensor) -> bool:
    """Tell whether these numbers are looked at, if there are some."""
    return value.numel() > 0 and looking()


def integers(value: Tensor) -> bool:
    """Tell whether these are whole numbers; truth values are not."""
    return value.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def full(value: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 where it is that already."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()
