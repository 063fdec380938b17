"""Who is heard: the weights of several experts, chosen and fitted where their predictions are known to be honest.

`select` is ensemble selection (Caruana et al., ICML 2004, doi 10.1145/1015330.1015432) with a logarithmic pool: experts
are taken one after another, each time the one that makes the labels likeliest, with repetition. `shortlist` does so on
validation nodes before any twin is trained; `settle_panel` gives a panel its weights, and lets them differ from node to
node as far as the nodes at hand can tell.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mowst.evaluation import descend
from mowst.models import ROLES, SILENT, Panel, parts_of
from mowst.training.trainer import Trainer

ROUNDS = 20
"""So many experts are taken, with repetition: weights are twentieths."""
PULL, PULL_SLOPE = 10.0, 50.0
"""Nats for a bias of a panel, and for a slope, that is off its start by one: its start was chosen on the same nodes."""


def select(said: Mapping[str, Tensor], y: Tensor, rounds: int = ROUNDS) -> dict[str, float]:
    """Weigh experts by ensemble selection, so that labels [n] are likely under softmax(Σ_k w_k log p_k).

    Begins with none; in each round the expert is taken that makes them likeliest; the best of all rounds stays. The
    first of several that are equally good is taken.

    Args:
        said: logits [n, C] by expert.
        y: labels [n], at least one.

    Returns: the weight of each expert, at least 0, their sum 1.
    """
    logs = torch.stack([logits.float().log_softmax(-1) for logits in said.values()])
    y = y.to(logs.device)
    counts, total = torch.zeros(len(said)), torch.zeros_like(logs[0])
    best, chosen = torch.inf, counts
    for taken in range(1, rounds + 1):
        losses = torch.stack([F.nll_loss(((total + each) / taken).log_softmax(-1), y) for each in logs])
        place = int(losses.argmin())
        counts, total = counts.clone(), total + logs[place]
        counts[place] += 1
        if float(losses[place]) < best:
            best, chosen = float(losses[place]), counts
    return dict(zip(said, (chosen / chosen.sum()).tolist(), strict=True))


def panels_of(model: nn.Module, parts: Sequence[str]) -> list[tuple[str, Panel, list[str]]]:
    """Return the panels among the experts of a mixture: role, panel, and those of some parts that are its members."""
    experts = [(role, model.get_submodule(role)) for role in ROLES]
    return [
        (role, expert, [part for part in parts if part.startswith(f"{role}.")])
        for role, expert in experts
        if isinstance(expert, Panel)
    ]


def shortlist(trainer: Trainer) -> tuple[str, ...]:
    """Return the parts of the trainer's mixture that are worth a twin, and let its panels hear no others.

    An expert that is no member of a panel always is; of a panel those that `select` takes on validation nodes, where
    the experts of both roles stand for choice, and at least the likeliest of each panel.
    """
    parts = parts_of(trainer.model, ROLES)
    if parts == tuple(ROLES):
        return parts
    said = {part: trainer.sub(part).output().of("").values[trainer.val] for part in parts}
    weights = select(said, trainer.val_y)
    for _, panel, members in panels_of(trainer.model, parts):
        if not any(weights[part] for part in members):
            weights |= select({part: said[part] for part in members}, trainer.val_y, rounds=1)
        panel.active.copy_(torch.tensor([weights[part] > 0 for part in members]))
    return tuple(part for part in parts if part in ROLES or weights[part])


def settle_panel(panel: Panel, said: Mapping[str, Tensor], weights: Mapping[str, float], y: Tensor) -> Tensor:
    """Give a panel the weights of its members that are heard, fit how they differ from node to node, and pool.

    Args:
        panel: its temperatures are in place.
        said: calibrated logits [n, C] of the members that `panel.active` names, in their order.
        weights: of these, from `select`; where all are nothing the members are alike. One whose weight is nothing is
            not run any more.
        y: labels [n].

    Returns: [n, C] what the panel says of these nodes.
    """
    total = sum(weights[part] for part in said)
    shares = {part: weights[part] / total if total else 1 / len(said) for part in said}
    places = dict(zip(said, panel.active.nonzero().flatten().tolist(), strict=True))
    heard = {places[part]: said[part] for part in said if shares[part]}
    start = {places[part]: share for part, share in shares.items()}
    panel.active.copy_(torch.tensor([place in heard for place in range(len(panel.names))]))
    panel.lean(*(max(start.get(place, 0.0), SILENT) for place in range(len(panel.names))))
    logits = [each.cpu() for each in heard.values()]

    def loss(fitted: nn.Module) -> Tensor:
        assert isinstance(fitted, Panel)
        return F.nll_loss(fitted.pool(logits, list(heard)), y.cpu(), reduction="sum")

    minimise(panel, loss, {"": PULL, "slope": PULL_SLOPE}, len(y))
    with torch.no_grad():
        return panel.pool(list(heard.values()), list(heard))


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

    def total() -> Tensor:
        pulled = sum(
            pull * sum(((free[name] - start[name]) ** 2).sum() for name in names) for pull, names in groups.items()
        )
        return (loss(fitted) + pulled) / count

    descend(free.values(), total)
    module.load_state_dict(fitted.state_dict())
