"""What a report draws of one seed, as plain numbers: small enough to keep, so that the graph is not needed again.

Everything is of test nodes (of validation nodes where there are none), whose labels are looked at after training.
`routed` below means that a node is sent to the strong expert when each node is given to one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.evaluation import degrees, local_homophily, risk_coverage, tradeoff
from mowst.evaluation.reliability import reliability
from mowst.experiment.bench import metric_of
from mowst.experiment.neighbourhoods import drawn_around
from mowst.experiment.scoring import mixture_in
from mowst.experiment.seed import SeedRun
from mowst.models import ROLES, Logits, Mixture, Output, piecewise

Figures = dict[str, Any]
BINS, POINTS, MISTAKES = 15, 100, 15
"""Bins of confidence, points of a curve, and mistakes that are listed."""


@torch.no_grad()
def figures_of(run: SeedRun) -> Figures:
    """Return everything that a report draws of a seed, rounded to six digits."""
    data = run.data
    on = "test" if bool(data.test_mask.any()) else "val"
    nodes = data[f"{on}_mask"].nonzero().squeeze(-1)
    outputs = {name: out.cpu() for name, out in spoken(run).items()}
    judged = "mixture" if "mixture" in outputs else list(outputs)[-1]
    probs = {name: out.rows(nodes).probs() for name, out in outputs.items()}
    y, said = data.y[nodes], {name: each.argmax(dim=-1) for name, each in probs.items()}
    right = {name: (each == y).double() for name, each in said.items()}
    found: Figures = {
        "on": on,
        "judged": judged,
        "models": list(outputs),
        "classes": [str(name) for name in data.get("class_names") or range(int(data.num_classes))],
        "counts": counts(data),
        "calibration": {name: calibration(each, y) for name, each in probs.items()},
        "risk": {name: risk(each, y) for name, each in probs.items()},
        "confusion": confusion(y, said[judged], int(data.num_classes)),
    }
    routed = None if run.routed is None else run.routed.cpu()
    asked = None
    if routed is not None and (mixture := mixture_in(run.fitted)) is not None:
        threshold = float(mixture[0].threshold)
        asked = ~(routed.confidence >= threshold)
        found["routing"] = routing(routed, data, nodes, threshold)
        found["around"] = drawn_around(data, nodes, asked, {name: classes_said(outputs[name]) for name in ROLES})
    found["mistakes"] = mistakes(probs, y, nodes, judged, asked)
    sent = torch.zeros(len(nodes)) if asked is None else asked[nodes].double()
    values = {"nodes": torch.ones(len(nodes)), "routed": sent, **right}
    found["degree"] = by_degree(degrees(data.edge_index, int(data.num_nodes or 0))[nodes], values)
    found["homophily"] = by_homophily(local_homophily(data.edge_index, data.y)[nodes], values)
    return plain(found)


def classes_said(out: Output) -> Tensor:
    """Return the likeliest class of every node, [N]."""
    return piecewise(lambda rows: out.rows(rows).probs().argmax(-1), len(out[0]))


def spoken(run: SeedRun) -> Mapping[str, Output]:
    """Return what is compared: the mixture and both experts as it has them, or the models that were trained."""
    found = {name: each.output for name, each in run.fitted.items()}
    mixture = found.get("mixture")
    if not isinstance(mixture, Mixture):
        return found
    return {**{role: Logits(mixture.of(role).values) for role in ROLES}, "mixture": mixture}


def counts(data: Data) -> dict[str, int]:
    """Count nodes and edges; an edge that is there in both directions counts twice."""
    masks = {name: int(data[f"{name}_mask"].sum()) for name in ("train", "val", "test")}
    return {"nodes": int(data.num_nodes or 0), "edges": int(data.edge_index.size(1)), **masks}


def calibration(probs: Tensor, y: Tensor) -> Figures:
    """Return how sure and how right a prediction is, in bins of equally many nodes."""
    found = reliability(probs, y, BINS)
    return {name: each.tolist() if isinstance(each, Tensor) else each for name, each in found._asdict().items()}


def risk(probs: Tensor, y: Tensor) -> Figures:
    """Return the share of wrong answers where only the surest 1 %, 2 %, ... of the nodes are answered."""
    confidence, said = probs.max(dim=-1)
    found = risk_coverage(confidence, said == y)
    places = (torch.arange(1, POINTS + 1) * len(y) / POINTS).ceil().long() - 1
    return {"risk": found.risk[places].tolist() if len(y) else [], "area": found.area}


def confusion(y: Tensor, said: Tensor, classes: int) -> list[list[int]]:
    """Count nodes by their class (rows) and by what was predicted (columns), [C, C]."""
    found = torch.bincount(y * classes + said, minlength=classes**2).view(classes, classes).tolist()
    return [[int(count) for count in row] for row in found]


def routing(out: Mixture, data: Data, nodes: Tensor, threshold: float) -> Figures:
    """Return both experts' hits along the weak one's confidence, and what routing scores along the threshold."""
    metric, curves = metric_of(data), dict[str, Figures]()
    for name, index in {"val": data.val_mask.nonzero().squeeze(-1), "here": nodes}.items():
        if len(index):
            found = tradeoff(out.rows(index), data.y[index], metric, POINTS + 1 if metric.per_node else 21)
            lists = {"score": (100 * found.score).tolist(), "threshold": found.threshold.tolist()}
            curves[name] = {**lists, "nodes": found.nodes}
    here, y = out.rows(nodes), data.y[nodes]
    order = here.confidence.argsort(stable=True)
    parts = [part for part in order.tensor_split(BINS) if len(part)]
    columns = {"confidence": here.confidence, **{role: here.of(role).values.argmax(-1) == y for role in ROLES}}
    bins = {name: [float(each[part].double().mean()) for part in parts] for name, each in columns.items()}
    bins["nodes"] = [float(len(part)) for part in parts]
    asked = float((~(here.confidence >= threshold)).double().mean())
    return {"threshold": threshold, "asked": asked, "bins": bins, "curves": curves}


def mistakes(
    probs: Mapping[str, Tensor], y: Tensor, nodes: Tensor, judged: str, asked: Tensor | None
) -> list[dict[str, Any]]:
    """Return the nodes at which what is judged was surest and wrong, the surest first."""
    sure, said = probs[judged].max(dim=-1)
    wrong = (said != y).nonzero().squeeze(-1)
    found = []
    for place in wrong[sure[wrong].argsort(descending=True, stable=True)[:MISTAKES]].tolist():
        node = int(nodes[place])
        each = {"node": node, "class": int(y[place]), "said": int(said[place]), "sure": float(sure[place])}
        each |= {} if asked is None else {"routed": bool(asked[node])}
        found.append(each | {"each": {name: int(other[place].argmax()) for name, other in probs.items()}})
    return found


def by_degree(degree: Tensor, values: Mapping[str, Tensor]) -> list[Figures]:
    """Add up values [n] by degree [n]: 0, 1, 2 to 3, 4 to 7, and so on."""
    place = torch.where(degree > 0, degree.clamp_min(1).double().log2().floor() + 1, 0).long()
    low = [0, *(2**k for k in range(int(place.max()) if len(place) else 0))]
    there = torch.unique(place).tolist()
    return [{"low": low[k], "high": max(0, 2 * low[k] - 1), **added(values, place == k)} for k in there]


def by_homophily(homophily: Tensor, values: Mapping[str, Tensor]) -> list[Figures]:
    """Add up values [n] by local homophily [n] in ten bins; nodes without one are left out."""
    place = (10 * homophily.nan_to_num(-1)).floor().clamp(-1, 9).long()
    there = [k for k in torch.unique(place).tolist() if k >= 0]
    return [{"low": k / 10, "high": (k + 1) / 10, **added(values, place == k)} for k in there]


def added(values: Mapping[str, Tensor], inside: Tensor) -> dict[str, float]:
    """Add up values [n] over some nodes, a mask [n]."""
    return {name: float(each[inside].sum()) for name, each in values.items()}


def plain(found: Any) -> Any:
    """Round numbers to six digits, and write what is no finite number as none."""
    if isinstance(found, Mapping):
        return {key: plain(each) for key, each in found.items()}
    if isinstance(found, list):
        return [plain(each) for each in found]
    if isinstance(found, float):
        return float(f"{found:.6g}") if math.isfinite(found) else None
    return found
