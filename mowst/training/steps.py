"""The steps of one epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from mowst.models import Output
from mowst.training.batches import Batch
from mowst.training.phases import Phase
from mowst.training.progress import Progress
from mowst.training.world import World


def take_steps(
    phase: Phase, here: Progress, batches: Iterable[Batch], call: Callable[[Batch], Output], world: World
) -> float:
    """Take a step on each batch, or on the shares that all processes have of it, and return their mean loss.

    Args:
        phase: what is trained.
        here: where it stands.
        batches: of the epoch.
        call: runs the model on a batch.
        world: the processes that take the steps together.

    Raises:
        FloatingPointError: the loss is not a number.
    """
    losses, optimizer = [], here.optimizer
    assert optimizer is not None
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with world.stepping():
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            out = call(batch)
            terms = [term.weight_at(here.epoch - 1) * term.value(out, batch) for term in phase.terms]
            terms = list(world.weighed(terms, [batch.count_on(term.on) for term in phase.terms]))
            loss = torch.stack(terms).sum()
            total = world.mean(loss.detach())
            if not total.isfinite():
                raise FloatingPointError(f"the loss of phase {phase.name!r} is {total.item()}; a smaller lr may help")
            world.fabric.backward(loss)
            world.average_gradients(trained)
            world.fabric.strategy.optimizer_step(optimizer)
            losses.append(float(total))
    return sum(losses) / len(losses)
