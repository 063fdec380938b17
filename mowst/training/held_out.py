"""A gate fitted where neither expert has seen the answer: the steps of the regime `held-out`.

On its training nodes an over-fitted expert is confident and right; on new nodes it is confident and wrong. A gate
learned there trusts it too much, and the mixture falls behind its parts. So the gate is fitted on held-out training
nodes (the principle of stacking: Wolpert, 1992, doi 10.1016/S0893-6080(05)80023-1).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.evaluation.calibration import like, sharpness, temperature
from mowst.evaluation.metrics import rows
from mowst.kernels.sparse_features import rows_of, take_rows
from mowst.models.mixture import EXPERTS, Mixture, Mowst, hard, weigh
from mowst.training import objectives
from mowst.training.phases import Term
from mowst.training.state import snapshot
from mowst.training.trainer import Trainer

if TYPE_CHECKING:
    from mowst.training.objectives import Loss
    from mowst.training.regimes import Schedule

PULL = 1.0
"""Strength of the pull towards a gate's start: so many nats for a parameter that is off by one."""
ROUTER_PULL = 0.1
"""The same for a router, which has one slope for each dispersion and needs large ones."""
MOST = 10_000
"""So many validation nodes say how far a score is left to chance."""

Folds = list[tuple[Tensor, Tensor]]


class Twins(NamedTuple):
    """What twins of the experts say of the training nodes that they were not fitted on."""

    nodes: Tensor
    """[n] ids of the held-out nodes."""
    logits: dict[str, Tensor]
    """[n, C] calibrated logits there, by expert."""
    sharpness: dict[str, float]
    """Their mean negentropy at nodes outside the training set once calibrated, in [0, 1], by expert."""


def divide(nodes: Tensor, y: Tensor, folds: int) -> Folds:
    """Divide training nodes [n] into folds: (the nodes kept, the nodes held out) of each, as node ids.

    Every fold has the same share of a class, where the class has enough nodes.

    Raises:
        InputError: there is only one node.
    """
    if len(nodes) < 2:
        raise InputError(f"regime held-out: needs at least 2 training nodes, got {len(nodes)}")
    from sklearn.model_selection import KFold, StratifiedKFold

    labels = y[nodes].cpu()
    enough = min(folds, int(labels.bincount().max()))
    splitter = StratifiedKFold(enough, shuffle=True, random_state=0) if enough > 1 else KFold(2)
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
        own = copy.copy(trainer)
        own.score = lambda out, y: trainer.score(out.weak, y)  # type: ignore[union-attr]
        own.restart()
        phase = schedule.phase(name, (part,), Term(objectives.weak_alone), *extra)
    else:
        own = trainer.sub(part)
        phase = schedule.phase(name, ("",), Term(objectives.cross_entropy))
    own.fit(replace(phase, **pace))
    return own


def rehearse(trainer: Trainer, schedule: Schedule, folds: Folds, extra: Sequence[Term] = ()) -> Twins:
    """Train a twin of each expert without each of the folds held out, and calibrate it there.

    It is trained for as many epochs as the expert's best weights were (`trainer.lengths`), without validation. With
    extra terms, the weak twin may learn from the strong twin, which has not seen the labels of the fold either.
    """
    labels, outside = trainer.batch.y, ~trainer.batch.train_mask
    logits: dict[str, list[Tensor]] = {part: [] for part in EXPERTS}
    sharp: dict[str, list[float]] = {part: [] for part in EXPERTS}
    for kept, held in folds:
        twins, terms = trainer.twin("", kept), copy.deepcopy(extra)
        for part in reversed(EXPERTS):
            epochs = max(1, trainer.lengths.get(part, schedule.epochs))
            pace = {"epochs": epochs, "eval_every": epochs, "last": True}
            fit_expert(twins, schedule, f"rehearse {part}", part, terms, **pace)
            said = twins.sub(part).output().float()  # type: ignore[union-attr]
            said = said / temperature(said[held], labels[held])
            logits[part].append(said[held])
            sharp[part].append(sharpness(said[outside]))
    nodes = torch.cat([held for _, held in folds])
    return Twins(
        nodes, {part: torch.cat(logits[part]) for part in EXPERTS}, {part: fmean(sharp[part]) for part in EXPERTS}
    )


@torch.no_grad()
def calibrate(model: Mowst, trainer: Trainer, twins: Twins) -> None:
    """Give each expert of the mixture the temperature at which it is as sharp as its twins outside the training set."""
    model.temperature.fill_(1.0)
    out = trainer.output()
    for place, part in enumerate(EXPERTS):
        model.temperature[place] = like(getattr(out, part)[~trainer.batch.train_mask], twins.sharpness[part])


def settle(trainer: Trainer, twins: Twins, objective: Loss) -> None:
    """Calibrate the trained experts of a mixture, then fit its gate and router on the twins.

    The fit stays unless another one of the gate's `settings` validates better by more than chance (`surely`); of those
    the best is taken. Likewise nodes are routed by the router unless one expert alone is better. What validates better
    is for the trainer's score to say.
    """
    model: Mowst = trainer.model  # type: ignore[assignment]
    calibrate(model, trainer, twins)
    if model.router is not None:
        fit_gate(model.router, twins, trainer, objectives.joint, ROUTER_PULL)
    states, tried = settings(model.gate), copy.deepcopy(model.gate)
    fit_gate(model.gate, twins, trainer, objective)
    out: Mixture = rows(trainer.output(), trainer.val)  # type: ignore[assignment]
    x = rows_of(trainer.batch.x, trainer.val)

    def behind(gate: nn.Module) -> Mixture:
        with torch.no_grad():
            return Mixture(out.weak, out.strong, *weigh(gate.eval(), out.weak, x, out.strong))

    others = []
    for state in states:
        tried.load_state_dict(state)
        others.append(behind(tried))
    if (place := better_than(out, others, trainer)) is not None:
        model.gate.load_state_dict(states[place])
    if model.router is not None:
        routed = behind(model.router)
        for_one = (math.inf, 0.0)  # as a threshold: no node to the weak expert, all of them
        place = better_than(hard(routed), [hard(routed, threshold) for threshold in for_one], trainer)
        model.threshold.fill_(0.5 if place is None else for_one[place])
    trainer.consider()


def better_than(usual: Mixture, others: Sequence[Mixture], trainer: Trainer) -> int | None:
    """Return which other output validates best, of those that are better than the usual one by more than chance."""
    scores = [trainer.score(other, trainer.val_y) for other in others]
    usual_score = trainer.score(usual, trainer.val_y)
    for place in sorted(range(len(others)), key=lambda place: -scores[place]):
        if scores[place] > usual_score and surely(trainer, others[place], usual):
            return place
    return None


def settings(gate: Any) -> list[dict[str, Tensor]]:
    """Return the states of a gate that are worth a try: as it is, and what it calls `plain`, if it can `weigh`."""
    tried = copy.deepcopy(gate)
    states = [snapshot(tried)]
    for weights in tried.plain if callable(getattr(tried, "weigh", None)) else ():
        tried.weigh(*weights)
        states.append(snapshot(tried))
    return states


def surely(trainer: Trainer, one: Mixture, other: Mixture, draws: int = 100) -> bool:
    """Tell whether `one` validates better than `other` by more than a standard error of the difference.

    For a score that is a mean over nodes (its attribute `mean_of`, see `mowst.evaluation.metrics.signal`) the error is a formula.
    Any other one is drawn anew (the bootstrap; Efron, 1979), with the same nodes for both; of a large validation set a
    draw has `MOST` nodes, and the error shrinks with the root of their share.
    """
    y, mean_of = trainer.val_y, getattr(trainer.score, "mean_of", lambda out, y: None)
    if (values := mean_of(one, y)) is not None:
        gains = values - mean_of(other, y)
        return float(gains.mean()) > float(gains.std(correction=0)) / len(y) ** 0.5
    size, generator = min(len(y), MOST), torch.Generator().manual_seed(0)

    def gain(index: Tensor) -> float:
        return trainer.score(rows(one, index), y[index]) - trainer.score(rows(other, index), y[index])

    drawn = torch.tensor([gain(torch.randint(len(y), (size,), generator=generator).to(y.device)) for _ in range(draws)])
    drawn = drawn[~drawn.isnan()]  # an AUC has no value where a draw has no node of a class
    share = size / len(y)
    return len(drawn) > 1 and gain(torch.arange(len(y), device=y.device)) > float(drawn.std()) * share**0.5


def mixed(gate: nn.Module, twins: Twins, x: Tensor) -> Mixture:
    """Put a gate between the twins, at the held-out nodes [n]; x: their features [n, F]."""
    weak, strong = (twins.logits[part] for part in EXPERTS)
    return Mixture(weak, strong, *weigh(gate, weak, x, strong))


def fit_gate(gate: nn.Module, twins: Twins, trainer: Trainer, objective: Loss, pull: float = PULL) -> None:
    """Fit a gate on what the twins say of the held-out nodes, by L-BFGS on the CPU.

    Minimises the sum of the objective + pull · |θ - θ₀|², with θ₀ the parameters that the gate comes with.
    """
    fitted = copy.deepcopy(gate).cpu().eval()
    free = [parameter for parameter in fitted.parameters() if parameter.requires_grad]
    if not free:
        return
    start = [parameter.detach().clone() for parameter in free]
    x = take_rows(trainer.batch.x, twins.nodes).cpu()
    batch = Data(x=x, y=trainer.batch.y[twins.nodes].cpu())
    seen = twins._replace(logits={part: said.cpu() for part, said in twins.logits.items()})
    optimizer = torch.optim.LBFGS(free, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        pulled = sum(((now - then) ** 2).sum() for now, then in zip(free, start, strict=True))
        loss: Tensor = (objective(mixed(fitted, seen, x), batch).sum() + pull * pulled) / len(twins.nodes)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    gate.load_state_dict(fitted.state_dict())
