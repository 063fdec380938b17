"""Scores of what one seed has trained; here the test labels are looked at, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import Signals
from mowst.evaluation import Metric, Spread, diagnose, expected, fusion, pooled, routable
from mowst.experiment.bench import Fitted, metric_of
from mowst.kernels import Adjacency, take_rows
from mowst.models import ROLES, Logits, Mixture, Mowst, Output, Panel, hard
from mowst.training import mixed

How = Callable[[Output, Tensor, Metric], float]
TO_SPREAD = 2**29
"""Nodes x classes above which labels are not spread: a matrix of them is 2 GiB, and some six are there at once."""


def scores_of(fitted: Mapping[str, Fitted], data: Data, teacher: Signals | None = None) -> dict[str, dict[str, float]]:
    """Score each expert alone, the plain fusions of both, and the mixture pooled, routed and sampled.

    Returns: percent, by predictor and split; not a number where the metric has no value.
    """
    metric = metric_of(data)
    scores = {name: score(each.output, data, metric, pooled) for name, each in fitted.items()}
    nodes = (data.val_mask | data.test_mask).nonzero().squeeze(-1)
    some = Data(y=data.y[nodes], val_mask=data.val_mask[nodes], test_mask=data.test_mask[nodes])
    scores |= {name: score(out, some, metric, pooled) for name, out in fusions(fitted, data, nodes).items()}
    if teacher is not None:
        scores["teacher"] = score(Logits(teacher.logits.to(data.y.device)), data, metric, pooled)
    if (found := mixture_in(fitted)) is not None:
        model, out = found
        by_node = routable(model, out, data.x)
        scores["routed"] = score(hard(by_node, float(model.threshold)), data, metric, pooled)
        scores["sampled"] = score(by_node, data, metric, expected)
        if any(fitted["mixture"].losses.children()):
            scores["taught"] = score(out.of("weak"), data, metric, pooled)
    return scores


def mixture_in(fitted: Mapping[str, Fitted], name: str = "mixture") -> tuple[Mowst, Mixture] | None:
    """Return the mixture among the trained models, by name, and its output, if there is one."""
    if name not in fitted:
        return None
    model, out = fitted[name].model, fitted[name].output
    assert isinstance(model, Mowst)
    assert isinstance(out, Mixture)
    return model, out


def fusions(fitted: Mapping[str, Fitted], data: Data, nodes: Tensor) -> dict[str, Output]:
    """Put the experts trained alone together in the plain ways of `mowst.evaluation.fusion`, and spread labels.

    Returns: what comes of it at some nodes [n], all of validation among them. Nothing is spread where that would take
        too much memory (`TO_SPREAD`).
    """
    if not {"weak", "strong"} <= fitted.keys():
        return {}
    whole = fitted["weak"].output.of("").values
    weak, strong = (fitted[role].output.rows(nodes).of("").values for role in ROLES)
    found: dict[str, Output] = {"average": fusion.average(weak, strong)}
    if whole.numel() <= TO_SPREAD:
        spread = Spread(adjacency_of(data), data.y, data.train_mask)
        found["label-propagation"] = spread.labels(whole.size(1)).rows(nodes)
        found["correct-and-smooth"] = spread.corrected(whole).rows(nodes)
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
