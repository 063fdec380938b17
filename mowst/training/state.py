"""The whole state of a module, parameters and buffers, by name: copies of it, and its moving average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy the whole state of a module: parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class MovingAverage:
    """The exponential moving average of a model's state over epochs, which may stand in for the state itself.

    After n epochs the decay is min(decay, (1 + n) / (10 + n)): it grows, so that what is best early is not held back by
    where it began. Numbers that are counted are not averaged, and what does not change stays as it is, infinities too.
    (torch's `AveragedModel` copies the model, and with it what its hooks and layers hold.)

    Args:
        model: whose state is averaged.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.epochs = model, decay, 0
        self.state = snapshot(model)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the state of one more epoch; the average after the first is that state."""
        n, self.epochs = self.epochs, self.epochs + 1
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        for name, now in self.model.state_dict().items():
            mean = self.state[name]
            if mean.is_floating_point() or mean.is_complex():
                now = torch.where(mean == now, mean, mean.lerp(now, 1 - decay))
            mean.copy_(now)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Let the model have the average for its state, for a while."""
        own = snapshot(self.model)
        self.model.load_state_dict(self.state)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
