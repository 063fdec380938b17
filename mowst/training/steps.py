"""The steps of one epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mowst.models import Output
from mowst.training.batches import Batch
from mowst.training.phases import Phase
from mowst.training.progress import Progress
from mowst.training.world import World


class Stepper(NamedTuple):
    """Takes the steps of a phase."""

    phase: Phase
    here: Progress
    parts: Sequence[nn.Module]
    """Which train."""
    batches: Callable[[int], Iterable[Batch]]
    """Of an epoch."""
    call: Callable[[Batch], Output]
    """Runs the model on a batch."""
    world: World
    """The processes that take the steps together."""

    def train(self, epoch: int, weights: Sequence[float | Tensor], checked: bool) -> list[Tensor]:
        """Take a step on each batch of an epoch, or on all processes' shares of it, and return their losses, [] each.

        Args:
            epoch: of the phase, from 1.
            weights: of the phase's terms; a tensor, [], stands for a number that is filled in later.
            checked: whether each loss is looked at before its step.

        Raises:
            FloatingPointError: a loss that is looked at is not a number.
        """
        for part in self.parts:
            part.train()
        losses = _taken(self, self.batches(epoch), weights, checked)
        self.world.settle(*self.parts, *self.here.losses)
        return losses


def _taken(
    stepper: Stepper, batches: Iterable[Batch], weights: Sequence[float | Tensor], checked: bool
) -> list[Tensor]:
    phase, (call, world), optimizer = stepper.phase, stepper[-2:], stepper.here.optimizer
    assert optimizer is not None
    losses = []
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with world.stepping():
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            out = call(batch)
            values = [term.value(out, batch) for term in phase.terms]
            terms = [_weighed(weight, value) for weight, value in zip(weights, values, strict=True)]
            terms = list(world.weighed(terms, [batch.count_on(term.on) for term in phase.terms]))
            loss = torch.stack(terms).sum()
            total = world.mean(loss.detach())
            if checked and not total.isfinite():
                raise FloatingPointError(f"the loss of phase {phase.name!r} is {total.item()}; a smaller lr may help")
            world.fabric.backward(loss)
            world.average_gradients(trained)
            world.fabric.strategy.optimizer_step(optimizer)
            losses.append(total)
    return losses


def _weighed(weight: float | Tensor, value: Tensor) -> Tensor:
    return (weight.to(value.dtype) if isinstance(weight, Tensor) else weight) * value
