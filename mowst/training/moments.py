"""What changes while epochs pass: a moment that can be put back, and the best state of a stretch of epochs.

Both write into tensors in place, so that a recorded epoch finds them where they were.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mowst.training.draws import random_states, set_random_states
from mowst.training.progress import Progress


class Work(NamedTuple):
    """What an epoch consists of."""

    train: Callable[[int, Sequence[float | Tensor], bool], list[Tensor]]
    """`(epoch, weights of the terms, checked) -> [loss of each step]`; checked: one that is no number is raised."""
    judge: Callable[[], Tensor]
    """Scores the model on validation nodes, []; not a number where an expert's logits are not."""
    again: bool = False
    """Whether every epoch takes one step, on the very tensors of the one before."""


class Moment:
    """What the epochs of a phase change, as it is now."""

    def __init__(self, here: Progress):
        self.here, average, optimizer = here, here.average, here.optimizer
        assert optimizer is not None
        parts = [here.model, *here.losses]
        self.live = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
        self.live += [] if average is None else average.state.values()
        self.held = [tensor.detach().clone() for tensor in self.live]
        self.states = {parameter: _held(state) for parameter, state in optimizer.state.items()}
        self.counters = here.epoch, here.waited, 0 if average is None else average.epochs
        self.best, self.random = copy.copy(here.best), random_states()

    @torch.no_grad()
    def put_back(self) -> None:
        """Let everything be as it was; what has been recorded of the phase's history stays."""
        here = self.here
        assert here.optimizer is not None
        for live, held in zip(self.live, self.held, strict=True):
            live.copy_(held)
        for parameter, state in here.optimizer.state.items():
            for name, held in self.states[parameter].items():
                if isinstance(held, Tensor):
                    state[name].copy_(held)
                else:
                    state[name] = held
        here.epoch, here.waited, epochs = self.counters
        if here.average is not None:
            here.average.epochs = epochs
        vars(here.best).update(vars(self.best))
        set_random_states(self.random)


class Lead:
    """The best state of a stretch of epochs; it is kept where it is computed, and nobody waits for it.

    Args:
        here: where the phase stands.
        always: whether the last state is the best.
    """

    def __init__(self, here: Progress, *, always: bool):
        self.best, self.always = here.best, always
        model = here.model.state_dict() if here.average is None else here.average.state
        self.live = [model, *(loss.state_dict() for loss in here.best.losses)]
        self.held = [{name: value.detach().clone() for name, value in each.items()} for each in self.live]
        device = next(here.model.parameters()).device
        self.score = torch.full((), -math.inf, dtype=torch.float64, device=device)

    def begin(self, score: float) -> None:
        """Begin a stretch before which the best score was this."""
        self.score.fill_(score)

    def judging(self, judge: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Return a function that scores the model, and keeps its state where that is the best of the stretch."""

        def judged() -> Tensor:
            score = judge().to(self.score)
            self.offer(score)
            return score

        return judged

    @torch.no_grad()
    def offer(self, score: Tensor) -> None:
        """Keep the present state if its score, [], is the best."""
        better = score.isfinite() if self.always else score > self.score
        for live, held in zip(self.live, self.held, strict=True):
            for name, value in held.items():
                value.copy_(torch.where(better, live[name], value))
        self.score.copy_(torch.where(better, score, self.score))

    def give(self) -> None:
        """Let the state that was kept be the best of the phase."""
        model, *losses = ({name: value.clone() for name, value in each.items()} for each in self.held)
        self.best.weights, self.best.losses = model, dict(zip(self.best.losses, losses, strict=True))


def _held(state: dict[str, Any]) -> dict[str, Any]:
    """Copy the tensors of an optimiser's state."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
