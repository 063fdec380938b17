"""The least value of a smooth loss of a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


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
