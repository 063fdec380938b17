"""A gate fitted where neither expert has seen the answer: the steps of the regime `held-out`.

On its training nodes an over-fitted expert is confident and right; on new nodes it is confident and wrong. A gate
learned there trusts it too much, and the mixture falls behind its parts. So the gate is fitted on held-out training
nodes (the principle of stacking: Wolpert, 1992, doi 10.1016/S0893-6080(05)80023-1).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.evaluation import better_than, like, sharpness, temperature
from mowst.kernels import dense, rows_of
from mowst.models import ROLES, Known, Mixture, Mowst, Output, Weighable, asks_of, hard, parts_of, weigh
from mowst.training import objectives
from mowst.training.batches import Batch, signals_on
from mowst.training.objectives import Loss
from mowst.training.panels import Said, minimise, settle_panel
from mowst.training.phases import Term
from mowst.training.progress import snapshot
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer

PULL = 1.0
"""Strength of the pull towards a gate's start: so many nats for a parameter that is off by one."""
ROUTER_PULL = 0.1
"""The same for a router, which has one slope for each dispersion and needs large ones."""

Folds = list[tuple[Tensor, Tensor]]


class Twins(NamedTuple):
    """What twins of the experts say of the training nodes that they were not fitted on."""

    nodes: Tensor
    """[n] ids of the held-out nodes."""
    logits: dict[str, Tensor]
    """[n, C] calibrated logits there, by expert."""
    sharpness: dict[str, float]
    """Their mean negentropy at nodes outside the training set once calibrated, in [0, 1], by expert."""


def divide(nodes: Tensor, y: Tensor, folds: int, seed: int = 0) -> Folds:
    """Divide training nodes [n] into folds: (the nodes kept, the nodes held out) of each, as node ids.

    Every fold has the same share of a class, where the class has enough nodes; the seed says which.

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
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        parts = list(splitter.split(labels, labels))
    ids = nodes.cpu()
    return [(ids[kept].to(nodes.device), ids[held].to(nodes.device)) for kept, held in parts]


def fit_expert(
    trainer: Trainer, schedule: Schedule, name: str, part: str, extra: Sequence[Term] = (), **pace: Any
) -> Trainer:
    """Train one expert of a mixture alone, judged alone, and return its trainer.

    Where there are extra terms, the weak expert is trained beside the strong one, which is frozen and may teach it.
    """
    if part == "weak" and extra:
        own = trainer.judged_by(lambda out, y: trainer.score(out.of("weak"), y))
        phase = schedule.phase(name, (part,), Term(objectives.weak_alone), *extra)
    else:
        own = trainer.sub(part)
        phase = schedule.phase(name, ("",), Term(objectives.cross_entropy))
    own.fit(replace(phase, **pace))
    return own


def rehearse(
    trainer: Trainer, schedule: Schedule, folds: Folds, lengths: Mapping[str, int], extra: Sequence[Term] = ()
) -> Twins:
    """Train a twin of each expert without each of the folds held out, and calibrate it there.

    It is trained for as many epochs as the expert's best weights were (`lengths`), without validation. With extra
    terms, the weak twin may learn from the strong twin, which has not seen the labels of the fold either. A panel has a
    twin of each member, and is fitted on what they say.
    """
    labels, outside = trainer.whole.y, ~trainer.whole.train_mask
    parts = parts_of(trainer.model, ROLES)
    said_held: dict[str, list[Tensor]] = {part: [] for part in parts}
    said_outside: dict[str, list[Tensor]] = {part: [] for part in parts}
    for kept, held in folds:
        twins, terms = trainer.twin("", kept), copy.deepcopy(extra)
        for part in reversed(parts):
            epochs = max(1, lengths.get(part, schedule.epochs))
            pace = {"epochs": epochs, "eval_every": epochs, "last": True}
            fit_expert(twins, schedule, f"rehearse {part}", part, terms, **pace)
            said = twins.sub(part).output().of("").values
            said = said.to(torch.promote_types(said.dtype, torch.float32))
            said = said / temperature(said[held], labels[held])
            said_held[part].append(said[held])
            said_outside[part].append(said[outside])
    nodes = torch.cat([held for _, held in folds])
    whole = {part: Said(torch.cat(said_held[part]), torch.cat(said_outside[part])) for part in parts}
    for role in set(ROLES) - set(parts):
        members = [whole[part] for part in parts if part.startswith(f"{role}.")]
        whole[role] = settle_panel(trainer.sub(role), members, labels[nodes])
    sharp = {role: sharpness(whole[role].outside) for role in ROLES}
    return Twins(nodes, {role: whole[role].held for role in ROLES}, sharp)


@torch.no_grad()
def calibrate(model: Mowst, trainer: Trainer, twins: Twins) -> None:
    """Give each expert of the mixture the temperature at which it is as sharp as its twins outside the training set."""
    model.temperature.fill_(1.0)
    out = trainer.output()
    for place, part in enumerate(ROLES):
        logits = out.of(part).values[~trainer.whole.train_mask]
        model.temperature[place] = like(logits, twins.sharpness[part])


def settle(model: Mowst, trainer: Trainer, twins: Twins, objective: Loss) -> None:
    """Calibrate the trained experts of the trainer's mixture, then fit its gate and router on the twins.

    The fit stays unless another one of the gate's `settings` validates better by more than chance (`better_than`); of
    those the best is taken. Likewise nodes are routed by the router unless one expert alone is better. What validates
    better is for the trainer's score to say.
    """
    calibrate(model, trainer, twins)
    if model.router is not None:
        fit_gate(model.router, twins, trainer.whole, objectives.joint, ROUTER_PULL)
    states, tried = settings(model.gate), copy.deepcopy(model.gate)
    fit_gate(model.gate, twins, trainer.whole, objective)
    out, x = trainer.output().rows(trainer.val), rows_of(trainer.whole.x, trainer.val)

    def behind(gate: nn.Module) -> Mixture:
        with torch.no_grad():
            weak, strong = (out.of(role).values for role in ROLES)
            return Mixture(weak, strong, *weigh(gate.eval(), asks_of(gate), weak, x, strong))

    def better(usual: Output, others: Sequence[Output]) -> int | None:
        return better_than(trainer.score, trainer.val_y, usual, others)

    others = []
    for state in states:
        tried.load_state_dict(state)
        others.append(behind(tried))
    if (place := better(out, others)) is not None:
        model.gate.load_state_dict(states[place])
    if model.router is not None:
        routed = behind(model.router)
        for_one = (math.inf, 0.0)  # as a threshold: no node to the weak expert, all of them
        place = better(hard(routed), [hard(routed, threshold) for threshold in for_one])
        model.threshold.fill_(0.5 if place is None else for_one[place])
    trainer.consider()


def settings(gate: nn.Module) -> list[dict[str, Tensor]]:
    """Return the states of a gate that are worth a try: as it is, and what it calls `plain`, if it can `weigh`."""
    tried: Any = copy.deepcopy(gate)
    states = [snapshot(tried)]
    for weights in tried.plain if isinstance(tried, Weighable) else ():
        tried.weigh(*weights)
        states.append(snapshot(tried))
    return states


def mixed(gate: nn.Module, twins: Twins, x: Tensor) -> Mixture:
    """Put a gate between the twins, at the held-out nodes [n]; x: their features [n, F]."""
    weak, strong = (twins.logits[part] for part in ROLES)
    return Mixture(weak, strong, *weigh(gate, asks_of(gate), weak, x, strong))


def held_batch(whole: Batch, nodes: Tensor) -> Batch:
    """Return held-out nodes [n] alone, on the CPU: what a gate is fitted on."""
    alone = whole.alone(nodes)
    data: Data = alone.data.to("cpu")
    data.x = dense(alone.x).cpu()
    teacher = None if alone.teacher is None else signals_on(alone.teacher, data.y.device)
    return replace(alone, data=data, nodes=nodes.cpu(), known=Known(), teacher=teacher)


def fit_gate(gate: nn.Module, twins: Twins, whole: Batch, objective: Loss, pull: float = PULL) -> None:
    """Fit a gate on what the twins say of the held-out nodes, by L-BFGS on the CPU.

    Minimises the sum of the objective + pull · |θ - θ₀|², with θ₀ the parameters that the gate comes with.
    """
    batch = held_batch(whole, twins.nodes)
    seen = twins._replace(logits={part: said.cpu() for part, said in twins.logits.items()})

    def loss(fitted: nn.Module) -> Tensor:
        return objective(mixed(fitted, seen, batch.x), batch).sum()

    minimise(gate, loss, {"": pull}, len(twins.nodes))
