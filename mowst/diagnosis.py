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

from mowst.mixture import Mixture

EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def diagnose(out: Mixture, y: Tensor, train: Tensor, val: Tensor, held: Tensor | None = None) -> dict[str, Any]:
    """Diagnose one seed.

    Args:
        out: the mixture's output with the confidence that routes nodes.
        y: labels [N]; only those of validation nodes are looked at.
        train, val: masks [N].
        held: confidence [n] of twins at training nodes that they were not fitted on, if there are any.
    """
    confidence = {"train": mean(out.confidence[train]), "val": mean(out.confidence[val])}
    if held is not None:
        confidence["held_out"] = mean(held)
    right = [(logits[val].argmax(dim=-1) == y[val]).float() for logits in (out.weak, out.strong)]
    return {
        "confidence": confidence,
        "bins": bins(out.confidence[val], *right),
        "threshold": threshold(out.confidence[val], *right),
    }


def mean(values: Tensor) -> float:
    """Mean of a tensor that may be empty: NaN then."""
    return float(values.float().mean())


def bins(confidence: Tensor, weak: Tensor, strong: Tensor) -> list[dict[str, float]]:
    """Count by confidence [n]: nodes, and how many of them each expert has right ([n], 0 or 1)."""
    place = torch.bucketize(confidence.float(), torch.tensor(EDGES[1:-1], device=confidence.device), right=True)
    found = []
    for index, (low, high) in enumerate(itertools.pairwise(EDGES)):
        inside = place == index
        counts = {"nodes": int(inside.sum()), "weak": int(weak[inside].sum()), "strong": int(strong[inside].sum())}
        found.append({"low": low, "high": high, **counts})
    return found


def threshold(confidence: Tensor, weak: Tensor, strong: Tensor) -> float:
    """Confidence from which the weak expert serves best: where the benefit of the strong one crosses zero.

    Of all thresholds, the one at which sending the nodes above it to the weak expert has the most nodes [n] right; of
    equals the lowest, which calls the strong expert least. More than 1: the weak expert serves nowhere.
    """
    order = confidence.argsort(descending=True, stable=True)
    ranked, gain = confidence[order], (weak - strong)[order].cumsum(0)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]  # nodes of one confidence go one way
    gain, ranked = gain[last], ranked[last]
    if not len(gain) or gain.max() < 0:
        return 1.01
    return float(ranked[int((gain == gain.max()).nonzero()[-1])])


def together(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put several seeds' diagnoses together: counts are added, the rest are means."""
    added = [
        {**group[0], **{key: sum(each[key] for each in group) for key in ("nodes", "weak", "strong")}}
        for group in zip(*(each["bins"] for each in found), strict=True)
    ]
    confidence = {key: statistics.fmean(each["confidence"][key] for each in found) for key in found[0]["confidence"]}
    return {
        "confidence": confidence,
        "bins": added,
        "threshold": statistics.fmean(each["threshold"] for each in found),
    }


def sentences(result: dict[str, Any]) -> list[str]:
    """Say in words what a `result.json` means for its user."""
    said, confidence = [], result["diagnosis"]["confidence"]
    elsewhere = confidence.get("held_out", confidence["val"])
    said.append(
        f"Confidence in the weak expert: {confidence['train']:.2f} on its training nodes, {elsewhere:.2f} on nodes "
        f"{'held out from them' if 'held_out' in confidence else 'of the validation split'}."
    )
    scores = {name: scores["val"][0] for name, scores in result["scores"].items()}
    if not {"weak", "strong"} <= scores.keys():
        return said
    better = "strong" if scores["strong"] >= scores["weak"] else "weak"
    gain = scores["mixture"] - scores[better]
    if gain > 0:
        said.append(f"On validation nodes the mixture is {gain:.2f} points above the better expert, the {better} one.")
    else:
        said.append(
            f"On validation nodes the mixture is not better than the {better} expert alone "
            f"({scores['mixture']:.2f} against {scores[better]:.2f}): use that one, it costs less."
        )
    return said
