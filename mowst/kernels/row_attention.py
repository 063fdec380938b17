"""Graph attention as Triton kernels: one program for a node and a head, some neighbours at a time.

Neither messages nor weights are written down. The weight of an edge is computed where it is needed from the scores of
its ends and two numbers of its target, the largest score there and the sum of the exponentials below it (as in flash
attention, arXiv 2205.14135), and whether the edge is dropped from a seed and its number (Philox). Sums are kept in
float32, and every number is added up by one program: the same comes out twice.

A node's output depends on its score as a target, one number; its derivative with respect to that is computed beside it,
so that the gradient of the score is a product of two rows, and the edges are gone through once forward and once
backward, there by their sources.

Triton comes with torch's CUDA builds; `mowst.kernels.attention` imports this module where it is there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from mowst.kernels.adjacency import Adjacency
from mowst.kernels.sparse import LONG, Rows

STEP, TILE = 16, 2048
"""Neighbours that are read at a time, at most, and numbers of theirs in one warp."""
WIDER = 8
"""Times as many neighbours at a time for nodes with more than `LONG` of them."""


def _span(start: tl.tensor, listed: tl.tensor, heads: tl.tensor, longest: tl.tensor, LISTED: tl.constexpr) -> tl.tensor:
    """Return the row of a program, where its entries begin and end, and whether it is done here; none are, if not."""
    row = (tl.program_id(0) // heads).to(tl.int64)
    if LISTED:
        row = tl.load(listed + row)
    begin, last = tl.load(start + row), tl.load(start + row + 1)
    mine = last - begin <= longest
    return row, begin, tl.where(mine, last, begin), mine


_span_of: Any = triton.jit(_span)


def _attend(
    start: tl.tensor,
    column: tl.tensor,
    listed: tl.tensor,
    x: tl.tensor,
    source: tl.tensor,
    target: tl.tensor,
    seed: tl.tensor,
    out: tl.tensor,
    along: tl.tensor,
    top: tl.tensor,
    inverse: tl.tensor,
    heads: tl.tensor,
    width: tl.tensor,
    slope: tl.tensor,
    dropout: tl.tensor,
    louder: tl.tensor,
    longest: tl.tensor,
    LISTED: tl.constexpr,
    DROPS: tl.constexpr,
    LEARNS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Average what the neighbours of a node say in a head, in one pass: sums are brought to each new highest score."""
    head = tl.program_id(0) % heads
    row, begin, last, mine = _span_of(start, listed, heads, longest, LISTED)
    lane, near = tl.arange(0, BLOCK), tl.arange(0, STEP)
    inside = lane < tl.where(mine, width, 0)
    place = row * heads + head
    asks = tl.load(target + place)
    if DROPS:
        drawn = tl.load(seed)
    said, drift = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    highest = tl.full([], float("-inf"), tl.float32)
    total, steepness = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    for first in range(begin, last, STEP):
        entry = first + near
        there = entry < last
        at = tl.load(column + entry, mask=there, other=0).to(tl.int64) * heads + head
        before = asks + tl.load(source + at, mask=there, other=0.0)
        steep = tl.where(before > 0, 1.0, slope)
        score = tl.where(there, before * steep, float("-inf"))
        higher = tl.maximum(highest, tl.max(score, axis=0))
        weight, shrunk = tl.exp(score - higher), tl.exp(highest - higher)
        highest = higher
        total = total * shrunk + tl.sum(weight, axis=0)
        if LEARNS:
            steepness = steepness * shrunk + tl.sum(weight * steep, axis=0)
        if DROPS:
            number = entry.to(tl.int64) * heads + head
            weight = tl.where(tl.rand(drawn, number) >= dropout, weight, 0.0)
        both = there[:, None] & inside[None, :]
        piece = tl.load(x + at[:, None] * width + lane[None, :], mask=both, other=0.0).to(tl.float32)
        said = said * shrunk + tl.sum(weight[:, None] * piece, axis=0)
        if LEARNS:
            drift = drift * shrunk + tl.sum((weight * steep)[:, None] * piece, axis=0)
    share = 1.0 / tl.where(total > 0, total, 1.0)
    said *= share * louder
    tl.store(out + place * width + lane, said.to(out.dtype.element_ty), mask=inside)
    if LEARNS:
        drift = drift * share * louder - steepness * share * said
        tl.store(along + place * width + lane, drift.to(along.dtype.element_ty), mask=inside)
        tl.store(top + place, highest, mask=mine)
        tl.store(inverse + place, share, mask=mine)


def _level(
    pushed: tl.tensor,
    out: tl.tensor,
    along: tl.tensor,
    level: tl.tensor,
    target: tl.tensor,
    pairs: tl.tensor,
    width: tl.tensor,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Multiply a gradient by the output and by its derivative, for some nodes and heads at a time."""
    pair = tl.program_id(0).to(tl.int64) * STEP + tl.arange(0, STEP)
    lane = tl.arange(0, BLOCK)
    there = pair < pairs
    both = there[:, None] & (lane < width)[None, :]
    place = pair[:, None] * width + lane[None, :]
    got = tl.load(pushed + place, mask=both, other=0.0).to(tl.float32)
    tl.store(level + pair, tl.sum(got * tl.load(out + place, mask=both, other=0.0).to(tl.float32), axis=1), mask=there)
    moved = tl.load(along + place, mask=both, other=0.0).to(tl.float32)
    tl.store(target + pair, tl.sum(got * moved, axis=1), mask=there)


def _push(
    start: tl.tensor,
    column: tl.tensor,
    listed: tl.tensor,
    turn: tl.tensor,
    x: tl.tensor,
    source: tl.tensor,
    target: tl.tensor,
    seed: tl.tensor,
    top: tl.tensor,
    inverse: tl.tensor,
    level: tl.tensor,
    pushed: tl.tensor,
    x_pushed: tl.tensor,
    source_pushed: tl.tensor,
    heads: tl.tensor,
    width: tl.tensor,
    slope: tl.tensor,
    dropout: tl.tensor,
    louder: tl.tensor,
    longest: tl.tensor,
    LISTED: tl.constexpr,
    DROPS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Push the gradients of all who hear a node in a head to what it says, and to its score."""
    head = tl.program_id(0) % heads
    node, begin, last, mine = _span_of(start, listed, heads, longest, LISTED)
    lane, near = tl.arange(0, BLOCK), tl.arange(0, STEP)
    inside = lane < tl.where(mine, width, 0)
    place = node * heads + head
    asked = tl.load(source + place)
    if DROPS:
        drawn = tl.load(seed)
    said = tl.load(x + place * width + lane, mask=inside, other=0.0).to(tl.float32)
    total, scores = tl.zeros((BLOCK,), tl.float32), tl.zeros((STEP,), tl.float32)
    for first in range(begin, last, STEP):
        entry = first + near
        there = entry < last
        at = tl.load(column + entry, mask=there, other=0).to(tl.int64) * heads + head
        before = asked + tl.load(target + at, mask=there, other=0.0)
        steep = tl.where(before > 0, 1.0, slope)
        weight = tl.exp(before * steep - tl.load(top + at, mask=there, other=float("inf")))
        weight *= tl.load(inverse + at, mask=there, other=0.0)
        heard = weight
        if DROPS:
            number = tl.load(turn + entry, mask=there, other=0) * heads + head
            heard = tl.where(tl.rand(drawn, number) >= dropout, weight * louder, 0.0)
        both = there[:, None] & inside[None, :]
        got = tl.load(pushed + at[:, None] * width + lane[None, :], mask=both, other=0.0).to(tl.float32)
        total += tl.sum(heard[:, None] * got, axis=0)
        gain = heard * tl.sum(got * said[None, :], axis=1) - weight * tl.load(level + at, mask=there, other=0.0)
        scores += steep * gain
    tl.store(x_pushed + place * width + lane, total.to(x_pushed.dtype.element_ty), mask=inside)
    tl.store(source_pushed + place, tl.sum(scores, axis=0), mask=mine)


_attend_kernel: Any = triton.jit(_attend)
_level_kernel: Any = triton.jit(_level)
_push_kernel: Any = triton.jit(_push)


class _Asked(NamedTuple):
    """What goes with the tensors: slope of the leaky ReLU, probability of dropping, whether gradients are wanted."""

    slope: float
    dropout: float
    learns: bool

    def numbers(self, x: Tensor) -> tuple[float, ...]:
        """Return heads and their width, and by what scores below zero and the edges that are kept are multiplied."""
        louder = 1 / (1 - self.dropout) if self.dropout < 1 else 0.0
        return x.size(1), x.size(2), self.slope, self.dropout, louder


class _ByRows(torch.autograd.Function):
    """Attention of every node and head in one kernel, and its gradients in two."""

    @staticmethod
    def forward(ctx: Any, adjacency: Adjacency, asked: _Asked, seed: Tensor, *given: Tensor) -> Tensor:
        given = tuple(each.detach().contiguous() for each in given)
        x, _, target = given
        out = target.new_empty(*target.shape, x.size(2))
        along, *top = 3 * (out,)  # nobody writes there
        if asked.learns:
            along, *top = torch.empty_like(out, dtype=x.dtype), *target.new_empty(2, *target.shape)
        options = {"LEARNS": asked.learns, "DROPS": asked.dropout > 0}
        tensors = *given, seed, out, along, *top
        _launch(_attend_kernel, adjacency.rows, tensors, asked.numbers(x), options)
        ctx.adjacency, ctx.asked = adjacency, asked
        ctx.save_for_backward(*given, seed, *top, out, along)
        return out.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, source, target, seed, *top, out, along = ctx.saved_tensors
        asked, adjacency, pushed = ctx.asked, ctx.adjacency, gradient.contiguous()
        width, drops = x.size(2), asked.dropout > 0
        level, target_pushed, source_pushed = (torch.empty_like(each) for each in (target, target, source))
        tile = _tile(width)
        if level.numel():
            grid = (triton.cdiv(level.numel(), tile["STEP"]),)
            _level_kernel[grid](pushed, out, along, level, target_pushed, level.numel(), width, **tile)
        x_pushed = torch.empty_like(x)
        tensors = x, source, target, seed, *top, level, pushed, x_pushed, source_pushed
        tensors = adjacency.turn if drops else seed, *tensors
        _launch(_push_kernel, adjacency.columns, tensors, asked.numbers(x), {"DROPS": drops})
        return None, None, None, x_pushed, source_pushed, target_pushed


def _tile(width: int) -> dict[str, int]:
    """Return how many numbers and neighbours a program reads at a time, and how many warps it has."""
    block = triton.next_power_of_2(width)
    step = min(STEP, max(4, TILE // block))
    return {"BLOCK": block, "STEP": step, "num_warps": max(1, block * step // TILE)}


def _launch(kernel: Any, rows: Rows, tensors: tuple[Tensor, ...], numbers: Any, options: dict[str, bool]) -> None:
    """Run a kernel for every row and head; long rows by themselves, with more warps."""
    heads, width, *_ = numbers
    tile, given = _tile(width), (rows.start, rows.column, rows.long, *tensors, *numbers)
    if count := len(rows.long) * heads:
        more = {"STEP": WIDER * tile["STEP"], "num_warps": WIDER * tile["num_warps"]}
        kernel[(count,)](*given, len(rows.column), LISTED=True, **options, **(tile | more))
    if count := (len(rows.start) - 1) * heads:
        kernel[(count,)](*given, LONG, LISTED=False, **options, **tile)


_attended: Any = _ByRows.apply


def attend_by_rows(
    adjacency: Adjacency, x: Tensor, source: Tensor, target: Tensor, *, slope: float, dropout: float
) -> Tensor:
    """Do what `mowst.kernels.attend` does; nodes in float32 or bfloat16, scores in float32.

    Which edges are dropped is drawn by torch's generator on the device as one number, so that a recorded call draws
    anew when it is replayed.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or source.requires_grad or target.requires_grad)
    seed = torch.empty((1,) if dropout else (0,), dtype=torch.long, device=x.device).random_()
    return _attended(adjacency, _Asked(float(slope), float(dropout), learns), seed, x, source, target)
