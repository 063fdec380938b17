"""What routing scores and what it costs, threshold by threshold."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mowst.evaluation.metrics import Metric, pooled
from mowst.evaluation.reliability import in_order
from mowst.models import Mixture, hard

MOST = 20_000
"""Nodes on which a metric that is no mean over nodes is computed again and again."""


class Tradeoff(NamedTuple):
    """A score by the share of nodes for which the strong expert is asked: those of the least confidence."""

    asked: Tensor
    """[P] that share, from 0 to 1 in equal steps."""
    threshold: Tensor
    """[P] the confidence from which a node is left to the weak expert; infinite: none is."""
    score: Tensor
    """[P] in [0, 1]."""
    nodes: int
    """On which it was computed."""


def tradeoff(out: Mixture, y: Tensor, metric: Metric, points: int = 101) -> Tradeoff:
    """Return the score of routing along the threshold, on nodes with labels [n > 0].

    By a metric that is a mean over nodes it is exact, and nodes with one and the same confidence count by their mean;
    any other metric is computed on a sample of at most 20,000 nodes, drawn with a fixed seed.
    """
    confidence, each = out.confidence.double(), metric.per_node
    asked = torch.linspace(0, 1, points, dtype=torch.float64)
    if each is None and len(y) > MOST:
        drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:MOST].to(y.device)
        out, y, confidence = out.rows(drawn), y[drawn], confidence[drawn]
    counts = (asked * len(y)).round().long()
    ranked = torch.cat([confidence.sort().values.cpu(), torch.tensor([torch.inf], dtype=torch.float64)])
    thresholds = ranked[counts]
    if each is None:
        scores = [pooled(hard(out, float(place)), y, metric) for place in thresholds]
        return Tradeoff(asked, thresholds, torch.tensor(scores, dtype=torch.float64), len(y))
    weak, strong = (each(logits, y).double() for logits in (out.weak, out.strong))
    _, gain = in_order(confidence, strong - weak)
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), gain.cpu().cumsum(0)])
    return Tradeoff(asked, thresholds, (float(weak.sum()) + sums[counts]) / len(y), len(y))
