"""Whether a prediction is as sure as it is right: calibration by bins, and the risk of answering only where it is sure.

Nodes of one and the same confidence are interchangeable: each counts as right by their common share, so that nothing
here depends on the order of the nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Reliability(NamedTuple):
    """How sure and how right a prediction is, in bins of equally many nodes, from the least sure to the surest."""

    confidence: Tensor
    """[B] mean of the largest probability."""
    accuracy: Tensor
    """[B] share of nodes that are right, in [0, 1]."""
    nodes: Tensor
    """[B] number of nodes."""
    error: float
    """Expected calibration error in [0, 1]: mean of |accuracy - confidence| over nodes; NaN without nodes."""


class RiskCoverage(NamedTuple):
    """What share of answers is wrong where only the surest nodes are answered."""

    coverage: Tensor
    """[n] share of nodes that are answered, in (0, 1], ascending."""
    risk: Tensor
    """[n] share of these that are wrong, in [0, 1]."""
    area: float
    """Mean risk over all coverages, in [0, 1], lower is better (AURC); NaN without nodes."""


def reliability(probs: Tensor, y: Tensor, bins: int = 15) -> Reliability:
    """Compare the largest probability with how often it is right, [n, C], [n].

    Bins hold equally many nodes (Nguyen and O'Connor, 2015, arXiv 1508.05154), fewer than asked for where there are
    fewer nodes; the error is that of Guo et al., 2017, arXiv 1706.04599, equation 3.
    """
    confidence, said = probs.double().max(dim=-1)
    sure, right = in_order(confidence, (said == y).double())
    parts = [part for part in torch.arange(len(y), device=y.device).tensor_split(max(1, bins)) if len(part)]
    means = [(sure[part].mean(), right[part].mean()) for part in parts]
    nodes = torch.tensor([len(part) for part in parts])
    confidences, accuracies = (torch.tensor([pair[place] for pair in means], dtype=torch.float64) for place in (0, 1))
    gap = ((accuracies - confidences).abs() * nodes).sum() / nodes.sum()
    return Reliability(confidences, accuracies, nodes, float(gap))


def risk_coverage(confidence: Tensor, correct: Tensor) -> RiskCoverage:
    """Return the share of wrong answers among the surest nodes, for every number of them, from [n] and [n] (0 or 1).

    Geifman and El-Yaniv, 2017, arXiv 1705.08500; the area is that of Geifman et al., 2019, arXiv 1805.08206.
    """
    _, right = in_order(confidence.double(), correct.double())
    counts = torch.arange(1, len(right) + 1, device=right.device)
    risk = 1 - right.flip(0).cumsum(0) / counts
    return RiskCoverage(counts / max(1, len(right)), risk, float(risk.mean()))


def in_order(values: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """Sort values [n] and put beside each the mean of the gains [n] of all nodes that share it."""
    level, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    means = torch.zeros_like(level, dtype=gains.dtype).index_add_(0, place, gains) / counts
    return level.repeat_interleave(counts), means.repeat_interleave(counts)
