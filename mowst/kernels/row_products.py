"""A sparse matrix by rows times a dense one, as a Triton kernel: one program a row, some neighbours at a time.

Weights are multiplied in, and sums are kept in float32, whatever the precision of the dense side. Triton comes with
torch's CUDA builds; nothing else imports this module (`mowst.kernels.choosing`).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

STEP = 8
"""Neighbours that are read at a time."""
WIDEST = 256
"""Columns of one program."""


def _row_product(
    start: tl.tensor,
    column: tl.tensor,
    value: tl.tensor,
    x: tl.tensor,
    out: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    near = tl.arange(0, STEP)
    last = tl.load(start + row + 1)
    total = tl.zeros((BLOCK,), tl.float32)
    for first in range(tl.load(start + row), last, STEP):
        entry = first + near
        there = entry < last
        source = tl.load(column + entry, mask=there, other=0).to(tl.int64)
        both = there[:, None] & inside[None, :]
        piece = tl.load(x + source[:, None] * stride + place[None, :], mask=both, other=0.0).to(tl.float32)
        if WEIGHTED:
            piece *= tl.load(value + entry, mask=there, other=0.0).to(tl.float32)[:, None]
        total += tl.sum(piece, axis=0)
    tl.store(out + row * width + place, total.to(out.dtype.element_ty), mask=inside)


_kernel: Any = triton.jit(_row_product)


def row_product(start: Tensor, column: Tensor, value: Tensor | None, x: Tensor) -> Tensor:
    """Multiply a matrix by rows (CSR) with a dense one [M, H] in float32 or bfloat16, -> [N, H] in that precision.

    Args:
        start: where each row begins in `column`, and where the last one ends, [N + 1].
        column: the column of each entry, [E].
        value: the entries, [E]; none: all are 1.
        x: its rows may lie apart.
    """
    x = x if x.stride(1) == 1 else x.contiguous()
    rows, width = len(start) - 1, x.size(1)
    out = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    block = min(WIDEST, triton.next_power_of_2(width))
    given = start, column, start if value is None else value, x, out, width, x.stride(0)
    meta = {"WEIGHTED": value is not None, "BLOCK": block, "STEP": STEP, "num_warps": 1}
    _kernel[rows, triton.cdiv(width, block)](*given, **meta)
    return out
