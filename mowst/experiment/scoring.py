"""Scores of what one seed has trained; here the test labels are looked at, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import Signals
from mowst.evaluation import (
    Metric,
    Score,
    Spread,
    better_than,
    diagnose,
    expected,
    fusion,
    pooled,
    routable,
    signal,
    surely,
)
from mowst.evaluation.advice import COMPARED
from mowst.experiment.bench import Fitted, metric_of
from mowst.kernels import Adjacency, take_rows
from mowst.models import ROLES, Logits, Mixture, Mowst, Output, Panel, hard
from mowst.training import mixed

How = Callable[[Output, Tensor, Metric], float]
TO_SPREAD = 2**29
"""Nodes x classes above which labels are not spread: a matrix of them is 2 GiB, and some six are there at once."""


class Plain(NamedTuple):
    """How an answer without a model compares with the models, on validation nodes."""

    beats: list[str]
    """Models, and fusions that are none of validation nodes, than which it is better by more than chance."""
    unbeaten: bool
    """Whether none of them is better than it by more than chance."""


class Compared(NamedTuple):
    """What predictors came to."""

    scores: dict[str, dict[str, float]]
    """In percent, by predictor and split; not a number where the metric has no value."""
    plain: dict[str, Plain]
    """By answer without a model (`plain_of`)."""


def scores_of(fitted: Mapping[str, Fitted], data: Data, teacher: Signals | None = None) -> Compared:
    """Score plain answers, each expert alone, the plain fusions of both, and the mixture pooled, routed and sampled."""
    metric = metric_of(data)
    scores = {name: score(each.output, data, metric, pooled) for name, each in fitted.items()}
    nodes = (data.val_mask | data.test_mask).nonzero().squeeze(-1)
    some = Data(y=data.y[nodes], val_mask=data.val_mask[nodes], test_mask=data.test_mask[nodes])
    plain, fused = plain_of(fitted, data, nodes), fusions(fitted, data, nodes)
    scores |= {name: score(out, some, metric, pooled) for name, out in (plain | fused).items()}
    if teacher is not None:
        scores["teacher"] = score(Logits(teacher.logits.to(data.y.device)), data, metric, pooled)
    said = {name: each.output.rows(nodes) for name, each in fitted.items()} | fused
    if (found := mixture_in(fitted)) is not None:
        model, out = found
        by_node = routable(model, out, data.x)
        scores["routed"] = score(hard(by_node, float(model.threshold)), data, metric, pooled)
        scores["sampled"] = score(by_node, data, metric, expected)
        if any(fitted["mixture"].losses.children()):
            said["taught"] = Logits(out.weak[nodes])
            scores["taught"] = score(said["taught"], some, metric, pooled)
    models = {name: out.rows(some.val_mask) for name, out in said.items() if name in fitted or name in COMPARED}
    y, by = some.y[some.val_mask], signal("metric", metric)
    return Compared(scores, {name: against(out.rows(some.val_mask), models, y, by) for name, out in plain.items()})


def plain_of(fitted: Mapping[str, Fitted], data: Data, nodes: Tensor) -> dict[str, Output]:
    """Answer without any expert: the largest class of the training nodes, and, beside several models, spread labels.

    Returns: what it comes to at some nodes [n]. Nothing is spread where that would take too much memory (`TO_SPREAD`).
    """
    *_, last = fitted.values()
    classes = last.output.rows(nodes[:1]).of("").values.size(1)
    shares = torch.bincount(data.y[data.train_mask], minlength=classes).float()
    found: dict[str, Output] = {"largest-class": Logits(shares.log().expand(len(nodes), -1))}
    if len(fitted) > 1 and len(data.y) * classes <= TO_SPREAD:
        found["label-propagation"] = Spread(adjacency_of(data), data.y, data.train_mask).labels(classes).rows(nodes)
    return found


def against(plain: Output, models: Mapping[str, Output], y: Tensor, by: Score) -> Plain:
    """Compare an answer without a model with models, on nodes with labels [n]."""
    if not len(y):
        return Plain([], unbeaten=False)
    own = by(plain, y)
    beats = [name for name, out in models.items() if own > by(out, y) and surely(by, y, plain, out)]
    return Plain(beats, unbeaten=better_than(by, y, plain, list(models.values())) is None)


def mixture_in(fitted: Mapping[str, Fitted], name: str = "mixture") -> tuple[Mowst, Mixture] | None:
    """Return the mixture among the trained models, by name, and its output, if there is one."""
    if name not in fitted:
        return None
    model, out = fitted[name].model, fitted[name].output
    assert isinstance(model, Mowst)
    assert isinstance(out, Mixture)
    return model, out


def fusions(fitted: Mapping[str, Fitted], data: Data, nodes: Tensor) -> dict[str, Output]:
    """Put the experts trained alone together in the plain ways of `mowst.evaluation.fusion`, or correct the weak one.

    Returns: what comes of it at some nodes [n], all of validation among them; as to spreading, as `plain_of`.
    """
    if not {"weak", "strong"} <= fitted.keys():
        return {}
    whole = fitted["weak"].output.of("").values
    weak, strong = (fitted[role].output.rows(nodes).of("").values for role in ROLES)
    found: dict[str, Output] = {"average": fusion.average(weak, strong)}
    if whole.numel() <= TO_SPREAD:
        found["correct-and-smooth"] = Spread(adjacency_of(data), data.y, data.train_mask).corrected(whole).rows(nodes)
    found["stacked-on-val"] = fusion.stacked(weak, strong, data.y[nodes], data.val_mask[nodes].nonzero().squeeze(-1))
    if (mixture := mixture_in(fitted)) is not None and bool((mixture[0].temperature != 1).any()):
        model, out = mixture
        weak, strong = model.calibrated("weak", weak), model.calibrated("strong", strong)
        if any(fitted["mixture"].losses.children()):  # the weak expert was taught, and its temperature is another one's
            weak = out.weak[nodes]
        found |= {"calibrated": fusion.average(weak, strong), "evidence": fusion.evidence(weak, strong)}
    return found


def adjacency_of(data: Data) -> Adjacency:
    """Return the adjacency of a graph, prepared or not."""
    prepared = data.get("adj_t")
    if isinstance(prepared, Adjacency):
        return prepared
    return Adjacency.from_edge_index(data.edge_index, len(data.y), data.get("edge_weight"))


@torch.no_grad()
def routed_output(fitted: Mapping[str, Fitted], data: Data) -> Mixture | None:
    """Return the mixture with the confidence that routes its nodes; none if there is no mixture."""
    return None if (found := mixture_in(fitted)) is None else routable(*found, data.x)


def runs_of(found: tuple[Mowst, Mixture], routed: Mixture, nodes: Tensor) -> dict[str, dict[str, float]]:
    """Count of how many nodes each expert is run for; a member of a panel that is not heard is run for none.

    Args:
        found: a mixture and what it says.
        routed: the same with the confidence that routes nodes.
        nodes: mask [N] of those that are counted.

    Returns: by expert, members of panels by name, the share of the nodes in [0, 1]: `pooled`, and `routed`, where
        the weak expert is run for all of them, to say which are for the strong one.
    """
    model, _ = found
    weak = float((routed.confidence[nodes] >= model.threshold).float().mean())
    counted = dict[str, dict[str, float]]()
    for role, share in {"weak": 1.0, "strong": 1.0 - weak}.items():
        expert = model.of(role)
        members = {role: True}
        if isinstance(expert, Panel):
            members = dict(zip(expert.names, expert.active.tolist(), strict=True))
        counted |= {name: {"pooled": float(heard), "routed": share * heard} for name, heard in members.items()}
    return counted


@torch.no_grad()
def diagnosis_of(fitted: Mapping[str, Fitted], data: Data) -> dict[str, Any] | None:
    """Diagnose a mixture by the confidence that routes its nodes; none if there is no mixture."""
    if (found := mixture_in(fitted)) is None:
        return None
    (model, out), twins, held = found, fitted["mixture"].twins, None
    if twins is not None:
        held = mixed(model.router or model.gate, twins, take_rows(data.x, twins.nodes)).confidence
    by_node = routable(model, out, data.x)
    return diagnose(by_node, data.y, data.train_mask, data.val_mask, held, routes_from=float(model.threshold))


def score(out: Output, data: Data, metric: Metric, how: How) -> dict[str, float]:
    """Score an output on validation and test nodes, in percent."""
    masks = {"val": data.val_mask, "test": data.test_mask}
    return {split: 100 * how(out.rows(mask), data.y[mask], metric) for split, mask in masks.items()}
