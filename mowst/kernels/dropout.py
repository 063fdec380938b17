"""Dropout that takes few random bits, and ReLU with dropout behind it in one step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PIECE = 2**20
"""Entries of a tensor that are masked at a time."""


class Masked(torch.autograd.Function):
    """`masked`, whose gradient is masked by the same."""

    @staticmethod
    def forward(x: Tensor, kept: Tensor, scale: float) -> Tensor:
        return masked(x, kept, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.scale = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _masked(gradient, kept, ctx.scale), None, None


class ReLUMasked(torch.autograd.Function):
    """ReLU, then a mask (of bytes, or none: then torch's own dropout draws one), then a number.

    Its result is above zero just where there is a gradient, and what comes next keeps the result in any case: so
    neither ReLU's result nor the mask is kept.
    """

    @staticmethod
    def forward(x: Tensor, kept: Tensor | None, scale: float) -> Tensor:
        return F.dropout(x.relu(), 1 - 1 / scale) if kept is None else masked(x, kept, scale, relu=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor | None, float], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.scale = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return _masked(gradient, kept, ctx.scale), None, None


def _masked(gradient: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Mask a gradient; where it is to have one itself, so that it has."""
    if not torch.is_grad_enabled():
        return masked(gradient, kept, scale)
    return mask(gradient, kept, scale)


mask: Callable[..., Tensor] = Masked.apply
relu_mask: Callable[..., Tensor] = ReLUMasked.apply


def masked(x: Tensor, kept: Tensor, scale: float, *, relu: bool = False) -> Tensor:
    """Return `x`, or ReLU(x), times a number where `kept` is above zero, else zero.

    At most `PIECE` entries are done at a time, so that what is made on the way stays in the cache.
    """
    out = torch.empty(x.shape, dtype=x.dtype)
    whole = (x, kept, out)
    pieces = (torch.split(each.contiguous().view(-1), PIECE) for each in whole) if x.numel() > PIECE else zip(whole)
    for part, seen, place in zip(*pieces, strict=True):
        torch.gt(seen, 0, out=place).mul_(part.relu() if relu else part).mul_(scale)
    return out


def byte_dropout(x: Tensor, p: float = 0.5, *, relu: bool = False) -> Tensor:
    """Drop entries of `x` with probability `p` rounded to a 256th, and scale the others so that the mean stays.

    It takes one to eight bits per entry from torch's generator (so a seed fixes them), one for p = 1/2, where
    `F.dropout` makes a draw per entry, all on one thread. With `relu`, of ReLU(x).
    """
    heads = 256 - round(p * 256)
    kept = coins(x.numel(), heads).view(x.shape)
    return (relu_mask if relu else mask)(x, kept, 256 / heads)


def coins(count: int, heads: int) -> Tensor:
    """Draw bytes [count] that are 1 with probability heads / 256, else 0; `heads` is from 1 to 255.

    Sixty-four at a time are built up in the bits of a word: "or" with a word of fair bits takes a probability q to
    (1 + q) / 2, "and" to q / 2, which from the lowest digit to the highest makes any binary fraction.
    """
    words = torch.zeros((count + 63) // 64, dtype=torch.long)
    for digit in range((heads & -heads).bit_length() - 1, 8):
        fair = torch.empty_like(words).random_(-(2**63), None)
        words = words | fair if heads >> digit & 1 else words & fair
    spread = (words[:, None] >> torch.arange(8)) & 0x0101010101010101
    return spread.view(torch.uint8).view(-1)[:count]


def relu_dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Return `F.dropout(F.relu(x), p, training)`, the same draws included, and keep on a CPU less for the gradient.

    What is kept there is the result, which must not be written over then; and `torch.vmap` has no rule for it.
    Where dropout is to draw bits (`draw_bits`), so does this.
    """
    if F.dropout is _bit_dropout and _draws_bits(x, p, training):
        return byte_dropout(x, p, relu=True)
    if not training or not 0 < p < 1 or x.device.type != "cpu":
        return F.dropout(x.relu(), p, training)
    return relu_mask(x, None, 1 / (1 - p))


class ReLUDropout(nn.Dropout):
    """ReLU with dropout behind it, as one layer."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, H] -> [N, H]."""
        return relu_dropout(x, self.p, self.training)


_dropout = F.dropout


def _draws_bits(x: Tensor, p: float, training: bool) -> bool:
    return training and x.device.type == "cpu" and 0.5 < p * 256 < 255.5


def _bit_dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Answer `F.dropout` by `byte_dropout` where it is the slow one: in training, on a CPU, out of place."""
    if inplace or not _draws_bits(input, p, training):
        return _dropout(input, p, training, inplace)
    return byte_dropout(input, p)


@contextlib.contextmanager
def draw_bits() -> Iterator[None]:
    """Let dropout draw bits in the whole process: what is called as `torch.nn.functional.dropout`, and `relu_dropout`.

    A `TorchFunctionMode` would also reach what was imported by name, and costs 20 to 40 % of a small training.
    """
    before, F.dropout = F.dropout, _bit_dropout
    try:
        yield
    finally:
        F.dropout = before
