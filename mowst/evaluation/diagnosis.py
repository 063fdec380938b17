"""What a run can tell about its own mixture, on training and validation nodes; no test label is looked at.

The gap: an expert that is confident where it was fitted and not elsewhere misleads a gate that was fitted there too.
The bins: how often each expert is right where the weak one is so confident, and what the strong one would bring.
The threshold: the confidence from which sending a node to the weak expert costs no validation accuracy.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mowst.evaluation.metrics import hit
from mowst.evaluation.routing import threshold
from mowst.models import Mixture

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def diagnose(
    out: Mixture, y: Tensor, train: Tensor, val: Tensor, held: Tensor | None = None, *, routes_from: float = 0.5
) -> dict[str, Any]:
    """Diagnose one seed.

    Args:
        out: the mixture's output with the confidence that routes nodes.
        y: labels [N]; only those of validation nodes are looked at.
        train, val: masks [N].
        held: confidence [n] of twins at training nodes that they were not fitted on, if there are any.
        routes_from: the confidence from which nodes are sent to the weak expert.
    """
    confidence = {"train": mean(out.confidence[train]), "val": mean(out.confidence[val])}
    if held is not None:
        confidence["held_out"] = mean(held)
    best = threshold(out.confidence[val], *hits(out, y, val))
    return {
        "confidence": confidence,
        "bins": bins(out.confidence[val], *hits(out, y, val)),
        "threshold": best,
        "served": 0.0 if best is None else mean(out.confidence[val] >= best),
        "routed": mean(out.confidence[val] >= routes_from),
    }


def hits(out: Mixture, y: Tensor, nodes: Tensor) -> list[Tensor]:
    """Return which of some nodes the weak and the strong expert have right, [n] and [n], 0 or 1."""
    return [hit(logits[nodes], y[nodes]) for logits in (out.weak, out.strong)]


def mean(values: Tensor) -> float:
    """Mean of a tensor that may be empty: NaN then."""
    return float(values.float().mean())


def bins(confidence: Tensor, weak: Tensor, strong: Tensor) -> list[dict[str, float]]:
    """Count by confidence [n]: nodes, and how many of them each expert has right ([n], 0 or 1)."""
    inner = torch.tensor(EDGES[1:-1], dtype=torch.float32, device=confidence.device)
    place = torch.bucketize(confidence.float(), inner, right=True)
    found = []
    for index, (low, high) in enumerate(itertools.pairwise(EDGES)):
        inside = place == index
        counts = {"nodes": int(inside.sum()), "weak": int(weak[inside].sum()), "strong": int(strong[inside].sum())}
        found.append({"low": low, "high": high, **counts})
    return found


def together(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put several seeds' diagnoses together: counts are added, the rest are means."""
    added = [
        {**group[0], **{key: sum(each[key] for each in group) for key in ("nodes", "weak", "strong")}}
        for group in zip(*(each["bins"] for each in found), strict=True)
    ]
    confidence = {key: statistics.fmean(each["confidence"][key] for each in found) for key in found[0]["confidence"]}
    thresholds = [each["threshold"] for each in found if each["threshold"] is not None]
    return {
        "confidence": confidence,
        "bins": added,
        "threshold": statistics.fmean(thresholds) if thresholds else None,
        **{share: statistics.fmean(each[share] for each in found) for share in ("served", "routed")},
    }
