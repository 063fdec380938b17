"""How far probabilities can be believed, on nodes with labels: likelihood, Brier score, calibration error.

Notation: p [n, C] probabilities, y [n] labels, s = max p the confidence, h = [argmax p = y] whether it is right. A
prediction is calibrated when of the nodes with confidence s a share s is right. The calibration error compares both
in bins of equally many nodes; nodes of one confidence share a bin, so the order of the nodes means nothing:

    ece     = sum_b w_b |mean_b(h) - mean_b(s)|,                    w_b the share of nodes in bin b
    square  = sum_b w_b [(mean_b(h - s))^2 - var_b(h - s) / n_b],   var_b with n_b - 1 below

`ece` is above zero by chance alone. `square` is an unbiased estimate of the squared error of the bins (Kumar et al.,
2019, arXiv 1909.10155, section 5), so it may be negative, and means of it over runs make sense; the debiased error is
its root, or 0. All of it is computed in float64, from log-probabilities, and is finite for logits of any finite size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mowst.models import Output, as_output

BINS = 15


class Belief(NamedTuple):
    """How far probabilities can be believed on some nodes."""

    nodes: int
    accuracy: float
    """Share of nodes that are right, in [0, 1]."""
    confidence: float
    """Mean of the largest probability, in [0, 1]."""
    nll: float
    """Mean negative log-probability of the label, in nats."""
    brier: float
    """Mean of the squared distance of the probabilities from the label's, in [0, 2]."""
    ece: float
    """Expected calibration error of the largest probability, in [0, 1]."""
    square: float
    """Unbiased estimate of the squared calibration error; may be negative."""
    ece_debiased: float
    """Root of it, 0 where it is negative."""


def belief(out: Output | Tensor, y: Tensor, bins: int = BINS) -> Belief:
    """Measure how far an output, or plain logits [n, C], can be believed on nodes with labels [n].

    Of no nodes every figure is not a number.
    """
    log_p, y = as_output(out).log_probs().detach().cpu().double(), y.cpu()
    if not len(y):
        return Belief(0, *[math.nan] * 7)
    p = log_p.exp()
    confidence, guess = p.max(dim=-1)
    right = (guess == y).double()
    error, square = calibration_error(confidence, right, bins), squared_error(confidence, right, bins)
    return Belief(
        nodes=len(y),
        accuracy=float(right.mean()),
        confidence=float(confidence.mean()),
        nll=float(nll(log_p, y)),
        brier=float(brier(p, y)),
        ece=error,
        square=square,
        ece_debiased=math.sqrt(max(0.0, square)),
    )


def nll(log_p: Tensor, y: Tensor) -> Tensor:
    """Mean negative log-probability of labels [n] under log-probabilities [n, C], in nats."""
    return -log_p.gather(-1, y.unsqueeze(-1)).mean()


def brier(p: Tensor, y: Tensor) -> Tensor:
    """Mean squared distance of probabilities [n, C] from labels [n], in [0, 2] (Brier, 1950)."""
    return ((p - torch.nn.functional.one_hot(y, p.size(-1))) ** 2).sum(dim=-1).mean()


def calibration_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Expected calibration error of confidences [n] of predictions that are right or not, [n], 0 or 1."""
    counts, totals = _binned(confidence, bins, right.double() - confidence.double())
    return float(totals[0].abs().sum() / counts.sum())


def squared_error(confidence: Tensor, right: Tensor, bins: int = BINS) -> float:
    """Unbiased estimate of the squared calibration error; bins of a single node, which have no variance, count 0."""
    gap = right.double() - confidence.double()
    counts, (total, squares) = _binned(confidence, bins, gap, gap**2)
    of_several = counts.clamp_min(2)
    mean = total / counts.clamp_min(1)
    variance = (squares - counts * mean**2) / (of_several - 1)
    found = torch.where(counts > 1, mean**2 - variance / of_several, torch.zeros_like(mean))
    return float((counts / counts.sum() * found).sum())


def _binned(confidence: Tensor, bins: int, *values: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Count nodes [bins] in bins of equal mass by confidence, and add up values [n] of them."""
    ranked = confidence.double().sort().values
    edges = ranked[[len(ranked) * place // bins for place in range(1, bins)]]
    place = torch.bucketize(confidence.double(), edges, right=True)
    nothing = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    totals = [nothing.index_add(0, place, value) for value in values]
    return nothing.index_add(0, place, torch.ones_like(ranked)), totals


def beliefs(out: Output | Tensor, y: Tensor, groups: Mapping[str, Tensor]) -> dict[str, Belief]:
    """Measure the same in groups of nodes, masks [n] by name."""
    said = as_output(out)
    return {name: belief(said.rows(mask), y[mask]) for name, mask in groups.items()}


def thirds(values: Tensor) -> dict[str, Tensor]:
    """Part nodes by a number each, [n], into masks [n] of the low, middle and high third.

    Equal numbers stay together, so that a third may have more or fewer nodes, or none. What is not a number is in none.
    """
    known = ~values.isnan()
    ranked = values[known].sort().values
    if not len(ranked):
        return dict.fromkeys(("low", "middle", "high"), known)
    first, second = (ranked[len(ranked) * place // 3] for place in (1, 2))
    low, high = values < first, values >= second
    return {"low": low, "middle": known & ~low & ~high, "high": high}


def averaged(found: Sequence[Any]) -> Any:
    """Average several seeds' nested tables number by number; what one of them lacks is left out, as are lists.

    A number that is missing (not a number, or none) does not count; where all are, the mean is not a number.
    """
    first = found[0]
    if isinstance(first, Mapping):
        kept = [key for key in first if all(key in each for each in found) and not isinstance(first[key], list | tuple)]
        return {key: averaged([each[key] for each in found]) for key in kept}
    if not isinstance(first, int | float | None):
        return first
    numbers = [each for each in found if each is not None and not math.isnan(each)]
    return sum(numbers) / len(numbers) if numbers else math.nan
