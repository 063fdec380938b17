"""An adjacency of ones divided by degrees, made some rows at a time: it takes little beside what is returned."""

from __future__ import annotations

import torch
from torch import Tensor

from mowst.kernels.sparse import Rows
from mowst.kernels.turning import blocks


def has_loops(rows: Rows) -> bool:
    """Tell whether an entry is on the diagonal."""
    parts = ((first, rows.between(first, last)) for first, last in blocks(rows.start))
    return any(bool((part.row + first == part.column).any()) for first, part in parts)


def shares(rows: Rows, dtype: torch.dtype) -> Tensor:
    """Return for each entry of a matrix one by the number of entries of its row, [E], some rows at a time."""
    degree = rows.start.diff()
    each = degree.to(dtype).reciprocal()
    share = torch.empty(len(rows.column), dtype=dtype, device=each.device)
    for first, last in blocks(rows.start):
        share[rows.start[first] : rows.start[last]] = each[first:last].repeat_interleave(degree[first:last])
    return share


def normalized_rows(rows: Rows, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return D^-1/2 (A + I) D^-1/2 of a matrix of ones without self-loops, entry for entry as `gcn_norm` has it.

    Starts [N + 1], columns and values [E + N].
    """
    nodes, entries = len(rows.start) - 1, len(rows.column)
    narrow = torch.int32 if nodes + entries < 2**31 else torch.int64
    degree = rows.start.diff() + 1
    root = degree.to(dtype).pow(-0.5)
    start = rows.start.to(narrow) + torch.arange(nodes + 1, device=root.device, dtype=narrow)
    column = torch.empty(nodes + entries, device=root.device, dtype=narrow)
    value = torch.empty(nodes + entries, device=root.device, dtype=dtype)
    for first, last in blocks(rows.start):
        here = slice(int(start[first]), int(start[last]))
        column[here] = ids = _with_loops(rows.between(first, last), first)
        value[here] = root[ids].mul_(root[first:last].repeat_interleave(degree[first:last], output_size=len(ids)))
    return start, column, value


def _with_loops(rows: Rows, first: int) -> Tensor:
    """Return the columns of some rows, the first of which has this number, with the diagonal in its place."""
    each = torch.arange(len(rows.start) - 1, device=rows.start.device)
    below = rows.column < rows.row + first
    diagonal = rows.start[:-1] + each + torch.segment_reduce(below.float(), "sum", offsets=rows.start.long()).long()
    place = torch.arange(len(rows.column), device=each.device) + rows.row + ~below
    column = torch.empty(len(rows.column) + len(each), device=each.device, dtype=rows.column.dtype)
    column[diagonal], column[place] = (each + first).to(column.dtype), rows.column
    return column
