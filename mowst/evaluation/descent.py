"""The least value of a smooth loss of a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Graded(torch.autograd.Function):
    """A number whose gradients are there with it: `forward` returns it, and one for each of the first arguments."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the gradients."""
        ctx.others = len(inputs) - len(output[1:])
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        return (*(gradient * each for each in ctx.saved_tensors), *[None] * ctx.others)


def descend(
    parameters: Iterable[Tensor],
    loss: Callable[[], Tensor],
    iterations: int = 200,
    gradient: float = 1e-7,
    change: float = 1e-9,
    history: int = 100,
) -> None:
    """Change parameters so that a loss of them is least, by L-BFGS with a strong Wolfe line search.

    Args:
        parameters: leaves that have a gradient.
        loss: of the parameters as they are, a scalar.
        iterations: at most so many.
        gradient, change: the greatest entry of the gradient, and the change of loss or parameters, at which it ends.
        history: steps that it remembers.
    """
    optimizer = torch.optim.LBFGS(
        list(parameters),
        max_iter=iterations,
        tolerance_grad=gradient,
        tolerance_change=change,
        history_size=history,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
