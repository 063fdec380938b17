"""Settings of a whole process, for the command line programs: no library function ever touches them.

What they bring is measured by `benchmarks/speed.py`; results differ from the plain settings by the draw of the
dropout masks, whose probability is rounded to a 256th, at most.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mowst.errors import InputError

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # Names of glibc's malloc.h, which has them as numbers.


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in the process, and answer whether it did; other systems are left as they are.

    A large tensor is otherwise given back to the system when freed, and the next one pays for fresh pages: more than
    the arithmetic on it costs. The price is that the process stays as large as its largest moment.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and all([mallopt(MMAP_THRESHOLD, 1 << 30), mallopt(TRIM_THRESHOLD, (1 << 31) - 1)])


class ByteMask(torch.autograd.Function):
    """Multiply by a mask of bytes and a number, and the gradient by the same; a byte is all that is kept per entry."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return masked(x, kept, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ByteMask.apply(gradient, *ctx.saved_tensors, ctx.scale), None, None  # type: ignore[no-untyped-call]


def masked(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Multiply by a mask of bytes and a number, a million entries at a time, for which the mask becomes floats."""
    out = torch.empty(x.shape, dtype=x.dtype)
    pieces = (torch.split(each.contiguous().view(-1), 2**20) for each in (x, kept, out))
    for part, mask, place in zip(*pieces, strict=True):
        torch.mul(part, mask, out=place).mul_(scale)
    return out


def byte_dropout(x: Tensor, p: float = 0.5) -> Tensor:
    """Drop entries of `x` with probability `p` rounded to a 256th, and scale the others so that the mean stays.

    It takes one to eight bits per entry from torch's generator (so a seed fixes them), one for p = 1/2, where
    `F.dropout` makes a draw per entry, all on one thread.
    """
    kept = 256 - round(p * 256)
    mask = coins(x.numel(), kept).view(x.shape)
    return ByteMask.apply(x, mask, 256 / kept)  # type: ignore[no-untyped-call]


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


class _ByteDropout(TorchFunctionMode):
    """Answers `F.dropout` where it is the slow one: in training, on a CPU, out of place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.dropout:
            return self.dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    @staticmethod
    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and not inplace and x.device.type == "cpu" and 0.5 < p * 256 < 255.5:
            return byte_dropout(x, p)
        return F.dropout(x, p, training, inplace)


def float32_products(precision: str, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Run a command with dense float32 products in torch's `highest`, `high` (TF32) or `medium` (bfloat16) precision.

    Raises:
        InputError: at once, if less than the highest is asked of a device other than a CUDA one.
    """
    if precision != "highest" and device.type != "cuda":
        raise InputError(f"--matmul {precision}: needs a CUDA device, this is {device.type}; choose from highest")
    return _products_in(precision)


@contextlib.contextmanager
def _products_in(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def tune_process(enabled: bool = True, *, keep_memory: bool = True) -> Iterator[None]:
    """Run a command with what makes a CPU fast: dropout draws bits, and freed memory stays in the process."""
    if not enabled:
        yield
        return
    if keep_memory:
        keep_freed_memory()
    with _ByteDropout():
        yield
