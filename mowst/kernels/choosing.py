"""Which way of computing something is taken on a CUDA device: torch's, or our own one where it pays.

It is tried when a product of a sparse matrix and a dense one, attention, or a norm with what is behind it, of a width
and precision first comes up, with its own numbers, a few times each; what was found is kept. As long as nobody has seen
that on a GPU it is done where asked alone (`measuring`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor

FASTER = 1.2
"""Times as fast our own way is at least where it is taken."""
TURNS, ROWS = 5, 2**16
APART = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""How far results may be apart, as a share of their size, by precision; in others nothing is tried."""

Product = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]
"""`(start, column, value, x) -> rows`: `mowst.kernels.row_products.row_product`."""
Clock = Callable[[Callable[[], object]], float]
"""Returns how long something takes."""
Results = Tensor | tuple[Tensor, ...]

_measures: list[bool] = []


def by_triton(module: str) -> Any:
    """Return a module of this room that needs Triton; none where that is not installed, or does not work here."""
    if find_spec("triton") is None:
        return None
    try:
        return import_module(f"mowst.kernels.{module}")
    except Exception:  # whatever a half-installed Triton raises
        return None


def own_product() -> Product | None:
    """Return our own product; none where there is no Triton."""
    module = by_triton("row_products")
    return None if module is None else module.row_product


@contextmanager
def measuring(enabled: bool = True) -> Iterator[None]:
    """Let ways be chosen by measurement inside."""
    _measures.append(enabled)
    try:
        yield
    finally:
        _measures.pop()


def measured(x: Tensor) -> bool:
    """Tell whether what is done with a dense matrix is chosen by measurement."""
    return bool(_measures and _measures[-1]) and x.device.type == "cuda" and x.dtype in APART


def worth_trying(x: Tensor) -> bool:
    """Tell whether what is done with a dense matrix may be measured here and now."""
    return measured(x) and not torch.cuda.is_current_stream_capturing()


def pays(
    own: Callable[[], Results],
    other: Callable[[], Results],
    clock: Clock,
    wanted: Callable[[Results], Results] | None = None,
) -> bool:
    """Tell whether our own way works, comes to the same as another one, and is `FASTER` times as fast.

    Args:
        own, other: the two ways.
        clock: how long they take.
        wanted: what ours is to come to, where that depends on what it drew; none: what the other one comes to.
    """
    try:
        found = own()
        if not alike(found, other() if wanted is None else wanted(found)):
            return False
        del found
        ours, theirs = zip(*[(clock(own), clock(other)) for _ in range(TURNS)], strict=True)
        return median(ours) * FASTER <= median(theirs)
    except Exception:  # a compiler that is missing, a card that it does not know
        return False


def alike(found: Results, wanted: Results) -> bool:
    """Tell whether matrices are the same up to what the lowest precision among them rounds."""
    one, other = ((each,) if isinstance(each, Tensor) else each for each in (found, wanted))
    if [(each.dtype, each.shape) for each in one] != [(each.dtype, each.shape) for each in other]:
        return False
    bound = max(APART[each.dtype] for each in one)
    return all(apart(*each) <= bound for each in zip(one, other, strict=True))


def apart(found: Tensor, wanted: Tensor) -> float:
    """Return how far a matrix is from another one as a share of that, in Frobenius norm; some rows at a time."""
    squares = []
    for first in range(0, len(wanted), ROWS):
        one, other = (each[first : first + ROWS].double() for each in (found, wanted))
        squares.append(((one - other).square().sum(), other.square().sum()))
    difference, size = (float(torch.stack(each).sum().sqrt()) for each in zip(*squares, strict=True))
    return difference / size if difference else 0.0


def milliseconds(work: Callable[[], object]) -> float:
    """Return how long a CUDA device takes for something."""
    make: Any = torch.cuda.Event
    begin, end = make(enable_timing=True), make(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
