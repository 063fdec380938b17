"""The transpose of a matrix of ones in order of rows, made some rows at a time: what it takes beside is small.

Whole, a transpose takes five numbers an entry; here it takes the result alone, or, where only asked whether a matrix is
its own transpose, nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**20
"""Entries that are turned at a time, or two for each row, if that is more."""


def blocks(start: Tensor, entries: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Yield the first row, and the one after the last, of blocks of about so many entries.

    Args:
        start: where each row begins among the entries, [N + 1].
        entries: of a block, to which its last row adds what it has.
    """
    rows, first = len(start) - 1, 0
    while first < rows:
        last = int(torch.searchsorted(start, min(int(start[first]) + entries, int(start[-1]))))
        yield first, (last := min(max(last, first + 1), rows))
        first = last


def turned(start: Tensor, column: Tensor, into: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield places among the entries of the transpose, [n], and the column that each has there, [n], block by block.

    Args:
        start: where each row begins, [N + 1], on the CPU.
        column: of each entry, [E].
        into: where each row of the transpose begins, [M + 1].
    """
    from scipy.sparse import csr_array

    width, following = len(into) - 1, into[:-1].clone()
    for first, last in blocks(start, max(BLOCK, 2 * width)):
        begin, end = int(start[first]), int(start[last])
        ids = column[begin:end].to(torch.int32).numpy()
        each = (start[first : last + 1] - begin).to(torch.int32).numpy()
        block = csr_array((np.zeros(end - begin, np.int8), ids, each), shape=(last - first, width)).tocsc()
        bounds = torch.from_numpy(block.indptr)
        count = bounds.diff()
        place = (following - bounds[:-1]).repeat_interleave(count, output_size=end - begin)
        place += torch.arange(end - begin, dtype=place.dtype)
        following += count
        yield place, torch.from_numpy(block.indices) + first


def is_symmetric(start: Tensor, column: Tensor) -> bool:
    """Tell whether a square matrix of ones, by rows and in order, is its own transpose; arguments as of `transpose`."""
    into = begins(column, len(start) - 1)
    return torch.equal(into, start.long()) and all(
        bool((column[place] == row).all()) for place, row in turned(start, column, into)
    )


def transpose(start: Tensor, column: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the transpose of a matrix of ones by rows, as starts [M + 1] and columns [E]; the same two if it is that.

    Args:
        start: where each row begins, [N + 1], on the CPU.
        column: of each entry, [E].
        width: number of columns, M.
    """
    if width == len(start) - 1 and is_symmetric(start, column):
        return start, column
    into, found = begins(column, width), torch.empty_like(column)
    for place, row in turned(start, column, into):
        found[place] = row.to(found.dtype)
    return into.to(start.dtype), found


def begins(column: Tensor, width: int) -> Tensor:
    """Return where each row of the transpose begins, [M + 1], by counting the entries of each column, [E]."""
    count = torch.zeros(width + 1, dtype=torch.long)
    for part in torch.split(column, max(BLOCK, width)):
        count[1:] += torch.bincount(part, minlength=width)
    return count.cumsum(0)
