"""Which product of a sparse matrix and a dense one is taken on a CUDA device: torch's, or our own one where it pays.

It is tried when a product of a width and precision first comes up, with its own numbers, a few times each; the matrix
keeps what was found. As long as nobody has seen that on a GPU it is done where asked alone (`measuring`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import Tensor

FASTER = 1.2
"""Times as fast our own product is at least where it is taken."""
TURNS, ROWS = 5, 2**16
APART = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""How far results may be apart, as a share of their size, by precision; in others nothing is tried."""

Product = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]
"""`(start, column, value, x) -> rows`: `mowst.kernels.row_products.row_product`."""
Clock = Callable[[Callable[[], object]], float]
"""Returns how long something takes."""

_measures: list[bool] = []


def own_product() -> Product | None:
    """Return our own product; none where Triton is not installed, or does not work here."""
    if find_spec("triton") is None:
        return None
    try:
        from mowst.kernels.row_products import row_product
    except Exception:  # whatever a half-installed Triton raises
        return None
    return row_product


@contextmanager
def measuring(enabled: bool = True) -> Iterator[None]:
    """Let products be chosen by measurement inside."""
    _measures.append(enabled)
    try:
        yield
    finally:
        _measures.pop()


def worth_trying(x: Tensor) -> bool:
    """Tell whether a product with a dense matrix may be measured here and now."""
    if not (_measures and _measures[-1]) or x.device.type != "cuda" or x.dtype not in APART:
        return False
    return not torch.cuda.is_current_stream_capturing()


def pays(own: Callable[[], Tensor], other: Callable[[], Tensor], clock: Clock) -> bool:
    """Tell whether a product works, comes to the same as another one, and is `FASTER` times as fast."""
    try:
        found, wanted = own(), other()
        if (found.dtype, found.shape) != (wanted.dtype, wanted.shape) or not apart(found, wanted) <= APART[found.dtype]:
            return False
        ours, theirs = zip(*[(clock(own), clock(other)) for _ in range(TURNS)], strict=True)
        return median(ours) * FASTER <= median(theirs)
    except Exception:  # a compiler that is missing, a card that it does not know
        return False


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
