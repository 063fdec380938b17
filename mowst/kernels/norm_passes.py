"""Batch norm of a step, ReLU and dropout in one pass, forward and backward: how the Triton kernels for it are run.

Forward a matrix is read twice: for each column's mean and squares, then for the result. Backward twice as well: for two
sums of a column, then for the gradient. Triton comes with torch's CUDA builds; nothing else imports this module
(`mowst.kernels.choosing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
from torch import Tensor

from mowst.kernels.norm_kernels import back_of, forth_of, merged, moments_of

if TYPE_CHECKING:
    from mowst.kernels.normed import Settings

STEP = 8
"""Rows of a group, which lie one below the other: a draw has eight numbers of 16 bits."""
PARTS = 512
"""Parts of the rows at most, each of which is added up on its own."""
BYTES, LANES = 512, 512
"""Of a row that a program reads at a time; and entries that it holds at least of each row of its groups."""
TOGETHER = 16
"""Columns whose parts one program puts together."""


class Cut(NamedTuple):
    """How a matrix is read."""

    groups: int
    block: int
    """Columns of a program."""
    each: int
    """Rows of a part."""
    parts: int

    @classmethod
    def of(cls, x: Tensor) -> Cut:
        """Return how one is."""
        block = min(BYTES // x.element_size(), triton.next_power_of_2(x.size(1)))
        groups = max(4, LANES // block)
        each = triton.cdiv(triton.cdiv(len(x), PARTS), groups * STEP) * groups * STEP
        return cls(groups, block, each, triton.cdiv(len(x), each))

    def programs(self, x: Tensor, rows: int) -> tuple[int, int]:
        """Return how many there are, of so many rows each."""
        return triton.cdiv(len(x), rows), triton.cdiv(x.size(1), self.block)

    @property
    def meta(self) -> dict[str, int]:
        """What kernels are told of it."""
        return {"GROUPS": self.groups, "BLOCK": self.block, "STEP": STEP, "num_warps": 4}


def forth(x: Tensor, weight: Tensor | None, bias: Tensor | None, settings: Settings) -> tuple[Tensor, Tensor]:
    """Return the result [N, H] in the precision of `x`, and mean and one over the deviation of its columns [2, H].

    Args:
        x: [N, H] in float32 or bfloat16, N > 1, H > 0; its rows may lie apart.
        weight, bias: of the norm, [H]; none: 1, 0.
        settings: what is remembered is brought up to date.
    """
    x, cut, tracked, dropping = _in_rows(x), Cut.of(x), settings.tracked, settings.dropping
    rows, width = x.shape
    parts, moments = (torch.empty(count, width, dtype=torch.float32, device=x.device) for count in (2 * cut.parts, 2))
    moments_of[cut.programs(x, cut.each)](x, parts, rows, width, x.stride(0), cut.each, **cut.meta)
    remembered = (moments, moments, 0.0) if tracked is None else tracked
    numbers = rows, width, cut.each, cut.parts, settings.eps, remembered[2]
    meta = {"TRACKED": tracked is not None, "PARTS": triton.next_power_of_2(cut.parts), "BLOCK": TOGETHER}
    merged[(triton.cdiv(width, TOGETHER),)](x, parts, moments, *remembered[:2], *numbers, **meta, num_warps=8)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    seed, drops, grow = (moments, 0, 1.0) if dropping is None else dropping
    read = x, out, moments, *_there(moments, weight, bias), seed
    flags, programs = _flags(weight, bias, settings), cut.programs(x, cut.groups * STEP)
    forth_of[programs](*read, rows, width, x.stride(0), drops, grow, **flags, **cut.meta)
    return out, moments


def back(
    gradient: Tensor, x: Tensor, affine: tuple[Tensor | None, Tensor | None], moments: Tensor, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `x`, [N, H], and of bias and weight, [2, H].

    Args:
        gradient: of the result.
        x, settings: as `forth` had them.
        affine: weight and bias.
        moments: what `forth` returned.
    """
    x, gradient, cut = _in_rows(x), _in_rows(gradient), Cut.of(x)
    rows, width = x.shape
    parts = torch.empty(cut.parts, 2, width, dtype=torch.float32, device=x.device)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    seed, drops, grow = (moments, 0, 1.0) if settings.dropping is None else settings.dropping
    meta = _flags(*affine, settings) | cut.meta

    def run(each: int, out: Tensor, sums: Tensor, *, adds: bool) -> None:
        read = x, gradient, out, moments, sums, *_there(moments, *affine), seed
        numbers = rows, width, x.stride(0), gradient.stride(0), each, drops, grow
        back_of[cut.programs(x, each)](*read, *numbers, ADDS=adds, **meta)

    run(cut.each, parts, moments, adds=True)
    sums = parts.sum(0)
    run(cut.groups * STEP, out, sums, adds=False)
    return out, sums


def _in_rows(x: Tensor) -> Tensor:
    """Return a matrix whose rows do not have holes."""
    return x if x.stride(1) == 1 else x.contiguous()


def _there(other: Tensor, *given: Tensor | None) -> list[Tensor]:
    """Return what is given; another tensor, which is not read, in place of none."""
    return [other if each is None else each for each in given]


def _flags(weight: Tensor | None, bias: Tensor | None, settings: Settings) -> dict[str, bool]:
    return {"WEIGHT": weight is not None, "BIAS": bias is not None, "DROPS": settings.dropping is not None}
