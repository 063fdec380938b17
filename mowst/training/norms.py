"""Batch norm of a step that several processes share: mean and deviation are those of the rows of all shares.

torch's `SyncBatchNorm` does so on CUDA devices alone, and takes the place of modules. Here modules stay what they are:
what they call, `torch.nn.functional.batch_norm`, is answered otherwise while a step is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Sum = Callable[[Tensor], Tensor]
"""Returns the sum of what all processes have, in all of them."""


class Summed(torch.autograd.Function):
    """The sum over the processes; so is the gradient, as each of them has a part of the loss."""

    @staticmethod
    def forward(context: Any, ours: Tensor, total: Sum) -> Tensor:
        """Return the sum, of the same shape."""
        context.total = total
        return total(ours)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the sum of their gradients."""
        return context.total(gradients[0]), None


summed: Callable[[Tensor, Sum], Tensor] = Summed.apply


class StepNorm(TorchFunctionMode):
    """Inside, batch norm in training sees all rows of a step. Every process must come to the same norms in turn.

    Args:
        rank, size: of this process, and of all.
        total: adds up what they have.
    """

    def __init__(self, rank: int, size: int, total: Sum):
        super().__init__()
        self.rank, self.size, self.total = rank, size, total

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs.get("training"):
            return self.normalised(*args, **kwargs)
        return func(*args, **kwargs)

    def normalised(self, x: Tensor, mean: Tensor | None, var: Tensor | None, **given: Any) -> Tensor:
        """Do what `batch_norm` does in training, [n, C, ...] -> [n, C, ...], and update the running mean and variance.

        One message carries count, mean and sum of squares of each share.
        """
        wide = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(1, -1).flatten(0, -2)
        ours = wide.sum(0) / max(1, len(wide))  # of no row: 0, which counts for nothing
        table = wide.new_zeros(self.size, 2 * x.size(1) + 1)
        table[self.rank] = torch.cat([ours, (wide - ours).square().sum(0), ours.new_tensor([len(wide)])])
        means, squares, counts = torch.split(summed(table, self.total), [x.size(1), x.size(1), 1], dim=1)
        count = counts.sum()
        middle = (counts * means).sum(0) / count
        spread = (squares + counts * (means - middle).square()).sum(0) / count
        if mean is not None and var is not None:
            mean.lerp_(middle.detach().to(mean.dtype), given["momentum"])
            var.lerp_((spread * count / (count - 1).clamp_min(1)).detach().to(var.dtype), given["momentum"])
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = (spread + given["eps"]).rsqrt() * (1.0 if given.get("weight") is None else given["weight"])
        shift = 0.0 if given.get("bias") is None else given["bias"].view(shape)
        return ((x - middle.view(shape)) * scale.view(shape) + shift).to(x.dtype)
