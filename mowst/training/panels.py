"""A panel of experts fitted on held-out nodes: who is heard, and how far, at which node."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mowst.evaluation import better_than, like, sharpness
from mowst.models import SILENT, Logits, Panel
from mowst.training.trainer import Trainer

PULL, PULL_SLOPE = 1.0, 10.0
"""Nats for a bias, and for a slope, that is off its start by one: a handful of held-out nodes says little of slopes."""
UNHEARD = 0.01
"""A member whose weight is nowhere above this is not run any more."""


class Said(NamedTuple):
    """What twins of an expert say, calibrated."""

    held: Tensor
    """[n, C] logits of the nodes that they were not fitted on."""
    outside: Tensor
    """[m, C] logits of nodes outside the training set."""


def minimise(module: nn.Module, loss: Callable[[nn.Module], Tensor], pulls: dict[str, float], count: int) -> None:
    """Fit what is free in a module, by L-BFGS on the CPU, on so many nodes.

    Minimises the loss + Σ pull · |θ - θ₀|², with θ₀ the parameters that it comes with.

    Args:
        module: it is changed.
        loss: of the module, summed over the nodes.
        pulls: of parameters by name; "" stands for all others.
        count: of nodes, by which the sum is divided.
    """
    fitted = copy.deepcopy(module).cpu().eval()
    free = {name: parameter for name, parameter in fitted.named_parameters() if parameter.requires_grad}
    if not free:
        return
    start = {name: parameter.detach().clone() for name, parameter in free.items()}
    groups: dict[float, list[str]] = {}
    for name in free:
        groups.setdefault(pulls.get(name, pulls[""]), []).append(name)
    optimizer = torch.optim.LBFGS(free.values(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        pulled = sum(
            pull * sum(((free[name] - start[name]) ** 2).sum() for name in names) for pull, names in groups.items()
        )
        total = (loss(fitted) + pulled) / count
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    module.load_state_dict(fitted.state_dict())


def settle_panel(trainer: Trainer, twins: Sequence[Said], y: Tensor) -> Said:
    """Calibrate the trained members of the trainer's panel, fit its weights, and return what the panel of twins says.

    1. A member gets the temperature at which it is as sharp as its twin outside the training set.
    2. The weights are fitted on the held-out nodes, from a start that gives one half to the member that validates best,
       and shares the other among all.
    3. They stay unless that member alone validates better by more than a standard error.
    4. Members that are hardly heard anywhere are not run any more.

    Args:
        trainer: of the panel.
        twins: what the twins of its members say, in their order.
        y: labels [n] of the held-out nodes.
    """
    panel, places = trainer.model, range(len(twins))
    assert isinstance(panel, Panel)
    said = [trainer.sub(f"members.{place}").output().of("").values for place in places]
    outside = ~trainer.whole.train_mask
    for place in places:
        panel.temperature[place] = like(said[place][outside], sharpness(twins[place].outside))
    said = [logits / panel.temperature[place] for place, logits in enumerate(said)]
    val = [logits[trainer.val] for logits in said]
    scores = [trainer.score(Logits(logits), trainer.val_y) for logits in val]
    best = scores.index(max(scores))
    fitted, single = copy.deepcopy(panel), copy.deepcopy(panel)
    fitted.lean(*(0.5 * (place == best) + 0.5 / len(places) for place in places))
    single.lean(*(SILENT + (1 - SILENT) * (place == best) for place in places))
    held = [each.held.cpu() for each in twins]
    minimise(fitted, lambda it: nll(it, held, y.cpu()), {"": PULL, "slope": PULL_SLOPE}, len(y))
    usual, other = (Logits(pooled(each, val)) for each in (fitted, single))
    chosen = fitted if better_than(trainer.score, trainer.val_y, usual, [other]) is None else single
    panel.load_state_dict(chosen.state_dict())
    panel.active.copy_((weighed(panel, val) > UNHEARD).any(1))
    return Said(pooled(panel, [each.held for each in twins]), pooled(panel, [each.outside for each in twins]))


def nll(panel: nn.Module, said: Sequence[Tensor], y: Tensor) -> Tensor:
    """Return the negative log-likelihood of labels [n] under a panel, in nats."""
    assert isinstance(panel, Panel)
    return F.nll_loss(panel.pool(said, range(len(said))), y, reduction="sum")


@torch.no_grad()
def pooled(panel: Panel, said: Sequence[Tensor]) -> Tensor:
    """Return what a panel makes of the logits [n, C] of all its members, those that are heard."""
    places = panel.active.nonzero().flatten().tolist()
    return panel.pool([said[place] for place in places], places)


@torch.no_grad()
def weighed(panel: Panel, said: Sequence[Tensor]) -> Tensor:
    """Return the weight of each member at each node, [K, n]."""
    logs = torch.stack([logits.float().log_softmax(-1) for logits in said])
    return panel.weights(logs, range(len(said)))
