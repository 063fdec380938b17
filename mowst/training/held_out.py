"""A gate fitted where neither expert has seen the answer: the steps of the regime `held-out`.

On its training nodes an over-fitted expert is confident and right; on new nodes it is confident and wrong. A gate
learned there trusts it too much, and the mixture falls behind its parts. So the gate is fitted on held-out training
nodes (the principle of stacking: Wolpert, 1992, doi 10.1016/S0893-6080(05)80023-1), and on validation nodes, which are
the only others that have a label.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.evaluation import better_than, certainty, like, routable, temperature
from mowst.kernels import dense
from mowst.models import ROLES, SILENT, Known, Mixture, Mowst, Panel, Weighable, asks_of, hard, weigh
from mowst.training import objectives
from mowst.training.batches import Batch, signals_on
from mowst.training.objectives import Loss
from mowst.training.panels import minimise, panels_of, select, settle_panel
from mowst.training.phases import Term
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer

PULL = 1.0
"""Strength of the pull towards a gate's start: so many nats for a parameter that is off by one."""
ROUTER_PULL = 0.1
"""The same for a router, which has one slope for each dispersion and needs large ones."""

STIFF = 10.0
"""How many times as strongly a gate's slopes are pulled (`mowst.models.Asks`)."""

Folds = list[tuple[Tensor, Tensor]]


class Twins(NamedTuple):
    """What twins of the experts say of the training nodes that they were not fitted on."""

    nodes: Tensor
    """[n] ids of the held-out nodes."""
    logits: dict[str, Tensor]
    """[n, C] calibrated logits there, by expert."""
    sharpness: dict[str, float]
    """Their mean negentropy at nodes outside the training set once calibrated, in [0, 1], by expert."""


class Seen(NamedTuple):
    """What calibrated experts, or their twins, say of nodes whose labels they were not fitted on."""

    nodes: Tensor
    """[n] ids: held-out training nodes, then validation nodes."""
    y: Tensor
    """[n] their labels."""
    logits: dict[str, Tensor]
    """[n, C] by expert."""


def divide(nodes: Tensor, y: Tensor, folds: int, seed: int = 0) -> Folds:
    """Divide training nodes [n] into folds: (the nodes kept, the nodes held out) of each, as node ids.

    Every fold has the same share of a class, where the class has enough nodes; the seed says which. The only node of a
    class is kept in all of them, as long as another node is held out.

    Raises:
        InputError: there is only one node.
    """
    if len(nodes) < 2:
        raise InputError(f"regime held-out: needs at least 2 training nodes, got {len(nodes)}")
    from sklearn.model_selection import KFold, StratifiedKFold

    labels = y[nodes].cpu()
    enough = min(folds, int(labels.bincount().max()))
    splitter = StratifiedKFold(enough, shuffle=True, random_state=seed) if enough > 1 else KFold(2)
    with warnings.catch_warnings():
        for known in ("The least populated class", "The number of unique classes"):  # what few labels are like
            warnings.filterwarnings("ignore", message=known, category=UserWarning)
        parts = list(splitter.split(labels, labels))
    ids, only = nodes.cpu(), (labels.bincount()[labels] == 1).numpy()
    if enough > 1:
        parts = [
            (np.union1d(kept, held[only[held]]), held[~only[held]]) for kept, held in parts if not only[held].all()
        ]
    return [(ids[kept].to(nodes.device), ids[held].to(nodes.device)) for kept, held in parts]


def fit_expert(
    trainer: Trainer, schedule: Schedule, name: str, part: str, extra: Sequence[Term] = (), **pace: Any
) -> Trainer:
    """Train one expert of a mixture alone, judged alone, and return its trainer.

    Where there are extra terms, the weak expert is trained beside the strong one, which is frozen and may teach it.
    """
    schedule = schedule.of(part)
    if part == "weak" and extra:
        own = trainer.judged_by(lambda out, y: trainer.score.value(out.of("weak"), y))
        loss = schedule.weighted(objectives.weak_alone, own.whole)
        phase = schedule.phase(name, (part,), Term(loss), *extra)
    else:
        own = trainer.sub(part)
        phase = schedule.phase(name, ("",), Term(schedule.weighted(objectives.cross_entropy, own.whole)))
    own.fit(replace(phase, **pace))
    return own


def rehearse(
    trainer: Trainer,
    schedule: Schedule,
    folds: Folds,
    lengths: Mapping[str, int],
    extra: Sequence[Term] = (),
    parts: Sequence[str] = ROLES,
) -> Twins:
    """Train a twin of each expert without each of the folds held out, and calibrate it there.

    It is trained for as many epochs as the expert's best weights were (`lengths`), without validation. With extra
    terms, the weak twin may learn from the strong twin, which has not seen the labels of the fold either.
    """
    labels, outside = trainer.whole.y, (~trainer.whole.train_mask).nonzero().squeeze(-1)
    said_held: dict[str, list[Tensor]] = {part: [] for part in parts}
    sure_outside: dict[str, list[Tensor]] = {part: [] for part in parts}
    for kept, held in folds:
        twins, terms = trainer.twin("", kept), copy.deepcopy(extra)
        for part in reversed(parts):
            pace = to_the_end(lengths.get(part, schedule.epochs))
            fit_expert(twins, schedule, f"rehearse {part}", part, terms, **pace)
            said = twins.sub(part).output().of("").values
            ours = widened(said[held])
            cooled = temperature(ours, labels[held])
            said_held[part].append(ours / cooled)
            sure_outside[part].append(certainty(said, outside, cooled))
    nodes = torch.cat([held for _, held in folds])
    sharp = {part: float(torch.cat(sure_outside[part]).mean()) for part in parts}
    return Twins(nodes, {part: torch.cat(said_held[part]) for part in parts}, sharp)


def refit(trainer: Trainer, schedule: Schedule, lengths: Mapping[str, int]) -> None:
    """Train experts of the trainer's mixture anew, on training and validation labels, for so many epochs (`lengths`).

    Gate, panels, temperatures and routing stay: they were fitted where no expert had seen the labels. No labelled node
    is left to judge the result by.
    """
    nodes = torch.cat([trainer.whole.train_mask.nonzero().squeeze(-1), trainer.val]).sort().values
    again = trainer.twin("", nodes)
    for part, epochs in lengths.items():
        fit_expert(again, schedule, f"refit {part}", part, **to_the_end(epochs))
        trainer.sub(part).model.load_state_dict(again.sub(part).model.state_dict())


def to_the_end(epochs: int) -> dict[str, Any]:
    """Return the pace of a training without validation, for so many epochs, at least one."""
    epochs = max(1, epochs)
    return {"epochs": epochs, "eval_every": epochs, "last": True}


@torch.no_grad()
def calibrate(model: Mowst, trainer: Trainer, twins: Twins) -> dict[str, Tensor]:
    """Give each expert the temperature at which it is as sharp as its twins outside the training set.

    Returns: its calibrated logits of the validation nodes, [n, C], by part.
    """
    outside = (~trainer.whole.train_mask).nonzero().squeeze(-1)
    model.temperature.fill_(1.0)
    said = {}
    for part, goal in twins.sharpness.items():
        logits, (role, _, place) = trainer.sub(part).output().of("").values, part.partition(".members.")
        cooled = like(logits, goal, outside)
        expert = model.of(role)
        if isinstance(expert, Panel):
            expert.temperature[int(place)] = cooled
        else:
            model.temperature[ROLES.index(role)] = cooled
        said[part] = widened(logits[trainer.val]) / cooled
    return said


def widened(logits: Tensor) -> Tensor:
    """Return logits in at least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def settle(model: Mowst, trainer: Trainer, twins: Twins, objective: Loss) -> Twins:
    """Calibrate the trained experts of the trainer's mixture, then fit its panels, its gate and its router.

    They are fitted on what the twins say of the held-out training nodes, and the experts of the validation nodes: an
    expert has seen the labels of neither. `select` weighs all experts there, which is where panels and gate start.
    Nodes are routed by the router unless one expert alone validates better by more than chance (`better_than`).

    Returns: the same of the twins, with what panels of them say.
    """
    said = calibrate(model, trainer, twins)
    seen = Seen(
        torch.cat([twins.nodes, trainer.val]),
        torch.cat([trainer.whole.y[twins.nodes], trainer.val_y]),
        {part: torch.cat([twins.logits[part], said[part]]) for part in said},
    )
    weights = select(seen.logits, seen.y)
    for role, panel, members in panels_of(model, list(said)):
        seen.logits[role] = settle_panel(panel, {part: seen.logits[part] for part in members}, weights, seen.y)
        trainer.world.alike(panel)
        weights[role] = sum(weights[part] for part in members)
    if isinstance(model.gate, Weighable):
        model.gate.weigh(*(max(weights[role], SILENT) for role in ROLES))
    trainer.world.by_first(partial(fit_gate, model.gate, seen, trainer.whole, objective), model.gate)
    if model.router is not None:
        fit_router = partial(fit_gate, model.router, seen, trainer.whole, objectives.joint, ROUTER_PULL)
        trainer.world.by_first(fit_router, model.router)
        out = trainer.output()
        assert isinstance(out, Mixture)
        routed = routable(model, out, trainer.whole.x).rows(trainer.val)
        for_one = (math.inf, 0.0)  # as a threshold: no node to the weak expert, all of them
        others = [hard(routed, threshold) for threshold in for_one]
        place = better_than(trainer.score, trainer.val_y, hard(routed), others)
        model.threshold.fill_(0.5 if place is None else for_one[place])
    trainer.consider()
    return twins._replace(logits={role: seen.logits[role][: len(twins.nodes)] for role in ROLES})


def mixed(gate: nn.Module, seen: Twins | Seen, x: Tensor) -> Mixture:
    """Put a gate between what experts say of some nodes [n]; x: their features [n, F]."""
    weak, strong = (seen.logits[part] for part in ROLES)
    return Mixture(weak, strong, *weigh(gate, asks_of(gate), weak, x, strong))


def held_batch(whole: Batch, nodes: Tensor, y: Tensor | None = None) -> Batch:
    """Return some nodes [n] alone, on the CPU, with labels [n] if they are given: what a gate is fitted on."""
    alone = whole.alone(nodes)
    data: Data = alone.data.to("cpu")
    data.x = dense(alone.x).cpu()
    data.y = data.y if y is None else y.cpu()
    teacher = None if alone.teacher is None else signals_on(alone.teacher, data.y.device)
    return replace(alone, data=data, nodes=nodes.cpu(), known=Known(), teacher=teacher)


def fit_gate(gate: nn.Module, seen: Seen, whole: Batch, objective: Loss, pull: float = PULL) -> None:
    """Fit a gate on what experts say of nodes whose labels they have not seen, by L-BFGS on the CPU.

    Minimises the sum of the objective + Σ pull · |θ - θ₀|², with θ₀ the parameters that the gate comes with; what it
    calls `stiff` is pulled `STIFF` times as strongly.
    """
    batch = held_batch(whole, seen.nodes, seen.y)
    seen = seen._replace(logits={part: said.cpu() for part, said in seen.logits.items()})
    pulls = {"": pull} | dict.fromkeys(asks_of(gate).stiff, STIFF * pull)

    def loss(fitted: nn.Module) -> Tensor:
        return objective(mixed(fitted, seen, batch.x), batch).sum()

    minimise(gate, loss, pulls, len(seen.nodes))
