"""Entries of a sparse matrix put in order, row by row: by counting, with numbers of nodes in 32 bits.

A sort of keys takes four times the memory and the time. On another device than a CPU torch sorts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mowst.kernels.turning import BLOCK, transpose

MOST = 2**31 - 1
"""Entries, rows and columns that 32 bits can number."""


class Compressed(NamedTuple):
    """A sparse matrix by rows."""

    start: Tensor
    """[N + 1] where each row begins among the entries, and where the last one ends."""
    column: Tensor
    """[E] of each entry."""
    order: Tensor | None
    """[E] place that each entry had before; none: they are where they were, or nobody has asked."""


def compressed(row: Tensor, column: Tensor, shape: tuple[int, int] | torch.Size, *, order: bool = True) -> Compressed:
    """Order entries by row, then by column; those of one place stay as they were, and stay apart.

    Args:
        row, column: of each entry, [E].
        shape: of the matrix.
        order: whether the places that the entries had are asked for.
    """
    small = max(*shape, len(row)) <= MOST
    narrow = torch.int32 if small else torch.int64
    if in_order(row, column):
        return Compressed(starts(row, shape[0]).to(narrow), column.to(narrow), None)
    if row.device.type == "cpu" and small and not order and in_order(column, row):
        return Compressed(*transpose(starts(column, shape[1]), row.to(narrow), int(shape[0])), None)
    if row.device.type != "cpu" or not small:
        place = torch.argsort(row.long() * shape[1] + column, stable=True)
        return Compressed(starts(row[place], shape[0]).to(narrow), column[place].to(narrow), place)
    return _counted(row.to(narrow), column.to(narrow), (int(shape[0]), int(shape[1])), order)


def _counted(row: Tensor, column: Tensor, shape: tuple[int, int], order: bool) -> Compressed:
    """Order entries by counting, first by column, unless they come so, then by row."""
    from scipy.sparse import csc_array, csr_array

    entries = len(row)
    place: Any = torch.arange(entries, dtype=torch.int32) if order else torch.zeros(entries, dtype=torch.int8)
    if bool((column[1:] >= column[:-1]).all()):
        start = starts(column, shape[1]).int()
    else:
        each = torch.arange(entries + 1, dtype=torch.int32)
        ids = torch.arange(entries, dtype=torch.int32)
        grouped = csr_array((ids.numpy(), column.numpy(), each.numpy()), shape=(entries, shape[1])).tocsc()
        came = torch.from_numpy(grouped.data)
        start, row, place = torch.from_numpy(grouped.indptr), row[came], came if order else place
    held = csc_array((place.numpy(), row.numpy(), start.numpy()), shape=shape).tocsr()
    found = torch.from_numpy(held.data).long() if order else None
    return Compressed(torch.from_numpy(held.indptr), torch.from_numpy(held.indices), found)


def starts(row: Tensor, rows: int) -> Tensor:
    """Return where each row begins, [N + 1], of entries in the order of rows, [E]."""
    bounds = torch.arange(rows + 1, device=row.device, dtype=row.dtype)
    return torch.searchsorted(row.contiguous(), bounds, out_int32=len(row) <= MOST)


def in_order(row: Tensor, column: Tensor, *, strictly: bool = False) -> bool:
    """Tell whether entries are ordered by row, then by column; strictly: and no place has two."""
    return all(
        _in_order(row[first : first + BLOCK + 1], column[first : first + BLOCK + 1], strictly)
        for first in range(0, len(row), BLOCK)
    )


def _in_order(row: Tensor, column: Tensor, strictly: bool) -> bool:
    """Tell it of some entries."""
    if bool((row[1:] < row[:-1]).any()):
        return False
    later = column[1:] > column[:-1] if strictly else column[1:] >= column[:-1]
    return bool((later | (row[1:] > row[:-1])).all())
