"""Which nodes are given to the weak expert: the confidence by which, and the threshold from which."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mowst.evaluation.metrics import Metric, hit, pooled
from mowst.kernels import rows_of
from mowst.models import Mixture, Mowst, hard, piecewise


@torch.no_grad()
def routable(model: Mowst, out: Mixture, x: Tensor) -> Mixture:
    """Return the output with the confidence by which nodes are routed: the router's, where the mixture has one.

    Args:
        model: the mixture.
        out: what it says of some nodes.
        x: their features, [N, F].
    """
    if model.router is None:
        return out
    ids = torch.arange(len(out.weak), device=out.weak.device)

    def confidence(rows: slice) -> Tensor:
        routed = model.routed(out.weak[rows], x if rows == slice(0, len(ids)) else rows_of(x, ids[rows]))
        assert routed is not None
        return routed.confidence

    return out._replace(confidence=piecewise(confidence, len(ids)), scale=None)


def best_threshold(out: Mixture, y: Tensor, metric: Metric) -> float:
    """Return the threshold with which routing scores best on nodes with labels [n]; infinite: none to the weak expert.

    By a metric that is a mean over nodes the best of all (`threshold`), by another one the best of the percentiles;
    where that one has no value, by accuracy. It is for a mixture without a router (one half of the confidence of any
    other gate means nothing), and for one whose experts have changed since its router was fitted.
    """
    each = metric.per_node
    if each is None:
        steps = torch.linspace(0, 0.99, 100, dtype=torch.float32, device=out.confidence.device)
        places = [*torch.unique(out.confidence.float().quantile(steps)).tolist(), math.inf]
        scores = [pooled(hard(out, place), y, metric) for place in places]
        if not any(map(math.isnan, scores)):
            return float(places[scores.index(max(scores))])
        each = hit
    best = threshold(out.confidence, each(out.weak, y), each(out.strong, y))
    return math.inf if best is None else best


def threshold(confidence: Tensor, weak: Tensor, strong: Tensor) -> float | None:
    """Confidence from which the weak expert serves best: where the benefit of the strong one crosses zero.

    Of all thresholds with at least one node in a hundred above them, the one at which sending those nodes to the weak
    expert has the most nodes [n] right; of equals the lowest, which calls the strong expert least. None: nowhere
    does the weak expert have as many right as the strong one.
    """
    order = confidence.argsort(descending=True, stable=True)
    ranked, gain = confidence[order], (weak - strong)[order].cumsum(0)
    able = torch.arange(1, len(ranked) + 1, device=ranked.device) >= len(ranked) / 100
    able[:-1] &= ranked[1:] != ranked[:-1]  # nodes of one confidence go one way
    gain, ranked = gain[able], ranked[able]
    if not len(gain) or gain.max() < 0:
        return None
    return float(ranked[int((gain == gain.max()).nonzero()[-1])])
