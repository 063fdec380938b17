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

COMPARED = {
    "weak": "the weak expert",
    "strong": "the strong expert",
    "average": "the plain average of both experts",
    "calibrated": "the average of both experts, calibrated",
    "evidence": "the sum of both experts' log-probabilities",
    "taught": "the weak expert, distilled",
    "mixture": "the mixture",
}
"""What a user may choose among: none of it is fitted on validation nodes."""
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


def sentences(result: dict[str, Any]) -> list[str]:
    """Say in words what a `result.json` means for its user."""
    said, confidence = [], result["diagnosis"]["confidence"]
    elsewhere = confidence.get("held_out", confidence["val"])
    said.append(
        f"Confidence that routes nodes to the weak expert: {confidence['train']:.2f} on training nodes, "
        f"{elsewhere:.2f} {'where they were held out' if 'held_out' in confidence else 'on validation nodes'}. "
        f"Routing sends {100 * result['diagnosis']['routed']:.0f} % of the validation nodes there."
    )
    alone = [name for name in result["parameters"] if name != "mixture"]  # by role, or by name on a panel
    scores = {name: found["val"][0] for name, found in result["scores"].items() if name in (*alone, *COMPARED)}
    if len(alone) < 2:
        return said
    mixture, best = scores.pop("mixture"), max(scores, key=lambda name: scores[name])
    if mixture >= scores[best] and best not in alone:
        said.append(f"On validation nodes the mixture is the best ({mixture:.2f}).")
    elif mixture > scores[best]:
        said.append(f"On validation nodes the mixture is {mixture - scores[best]:.2f} points above the {best} expert.")
    else:
        use = f"the {best} expert alone" if best in alone else COMPARED[best]
        hint = ": use that one, it costs less" if best in alone else ""
        said.append(
            f"On validation nodes the mixture ({mixture:.2f}) is not better than {use} ({scores[best]:.2f}){hint}."
        )
    nodes = sum(each["nodes"] for each in result["diagnosis"]["bins"]) / len(result["seeds"])
    error = (mixture * (100 - mixture) / nodes) ** 0.5 if nodes else 0.0
    if result["metric"] == "accuracy" and error >= 0.05:
        said.append(f"{nodes:,.0f} nodes cannot tell differences of much less than {error:.1f} points from chance.")
    return said
