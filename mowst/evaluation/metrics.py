"""What is reported and what training stops by: values with a `score`, higher is better.

A `Metric` scores probabilities `(probs [n, C], y [n], weight [n] | None) -> float` in [0, 1]; a `Signal` scores an
output by a metric, `(output, y [n], metric) -> float`. Either may be the mean of one number per node, and then says so:
what is a mean needs no sorting, and its standard error is a formula.

`expected` turns any metric into its value under the paper's random routing (weak with probability c), in closed form:
the two experts' predictions are one sample of 2n rows, weighted c and 1 - c. For accuracy that is the mean of
c [weak right] + (1 - c) [strong right].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mowst.models import Mixture, Output, probabilities
from mowst.names import Names, callable_only

Number = float | Tensor
"""A number, or a tensor [] that has it, on its device: who asks for one need not wait for it."""
Scores = Callable[[Output, Tensor], Number]
"""`(output, y [n]) -> number` on some nodes, higher is better."""


@dataclass(frozen=True)
class Metric:
    """A score of predictions."""

    score: Callable[..., Number]
    """`(probs [n, C], y [n], weight [n] | None) -> number` in [0, 1]."""
    per_node: Callable[[Tensor, Tensor], Tensor] | None = None
    """`(scores [n, C], y [n]) -> [n]`, of which the score is the mean, from logits as from probabilities; none: it is
    no mean."""

    def __call__(self, probs: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
        """Score predictions."""
        return float(self.value(probs, y, weight))

    def value(self, probs: Tensor, y: Tensor, weight: Tensor | None = None) -> Number:
        """Score predictions without waiting for the number, where the score does not."""
        return self.score(probs, y) if weight is None else self.score(probs, y, weight)

    @classmethod
    def of(cls, found: Any) -> Metric:
        """Take a function of one's own as a metric of which nothing else is known."""
        return found if isinstance(found, cls) else cls(callable_only(found))


@dataclass(frozen=True)
class Signal:
    """A score of outputs by a metric."""

    score: Callable[[Output, Tensor, Metric], Number]
    """`(output, y [n], metric) -> number`."""
    per_node: Callable[[Output, Tensor, Metric], Tensor | None] = lambda out, y, metric: None
    """`(output, y [n], metric) -> [n]`, of which the score is the mean; none: it is no mean."""

    @classmethod
    def of(cls, found: Any) -> Signal:
        """Take a function of one's own as a signal of which nothing else is known."""
        return found if isinstance(found, cls) else cls(callable_only(found))


@dataclass(frozen=True)
class Score:
    """What validation nodes are scored by: a signal with its metric."""

    signal: Signal
    metric: Metric

    def __call__(self, out: Output, y: Tensor) -> float:
        """Score an output on nodes with labels [n]."""
        return float(self.value(out, y))

    def value(self, out: Output, y: Tensor) -> Number:
        """Score an output without waiting for the number, where the score does not."""
        return self.signal.score(out, y, self.metric)

    def per_node(self, out: Output, y: Tensor) -> Tensor | None:
        """Return the numbers [n] that the score is the mean of; none if it is no mean."""
        return self.signal.per_node(out, y, self.metric)

    @classmethod
    def of(cls, found: Scores) -> Score:
        """Take a function `(output, y) -> float` of one's own as a score of which nothing else is known."""
        if isinstance(found, cls):
            return found
        return cls(Signal(lambda out, y, metric: found(out, y)), accuracy)


def hit(scores: Tensor, y: Tensor) -> Tensor:
    """Return [n]: 1 where the largest of a row of probabilities or logits, [n, C], is the label, else 0."""
    return (scores.argmax(dim=-1) == y).float()


def share_right(probs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Share of rows whose largest entry is the label, in [0, 1]."""
    right = hit(probs, y)
    return right.mean() if weight is None else (weight * right).sum() / weight.sum()


def area_under_roc(probs: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Area under the ROC curve of class 1; with more classes the mean of each against the rest; NaN without a class.

    The chance that a row of the class has a larger score than one of another class, equal ones counted half: by
    sorting, on the device of the scores, which is not waited for.
    """
    weights = torch.ones_like(y, dtype=torch.float64) if weight is None else weight.double()
    classes = [1] if probs.size(-1) == 2 else range(probs.size(-1))
    areas = torch.stack([_ranked_above(probs[:, each], y == each, weights) for each in classes])
    return areas.mean().masked_fill(probs.isnan().any(), torch.nan)


def _ranked_above(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Return the weight of pairs of a positive and a lower negative, half of equal ones, by that of all pairs.

    It is not a number where one of the two is missing.
    """
    ranked, order = scores.sort()
    of_class = weights * positive
    before = torch.cat([weights.new_zeros(1), (weights - of_class)[order].cumsum(0)])
    asked = scores.contiguous()
    below, to_here = (before[torch.searchsorted(ranked, asked, side=side)] for side in ("left", "right"))
    return (of_class * (below + to_here)).sum() / 2 / (of_class.sum() * before[-1])


accuracy = Metric(share_right, hit)
rocauc = Metric(area_under_roc)
METRICS: Names[Metric] = Names("metric", {"accuracy": accuracy, "rocauc": rocauc}, adapt=Metric.of)


def pooled(out: Output, y: Tensor, metric: Metric) -> float:
    """Metric of the pooled prediction."""
    return float(_pooled(out, y, metric))


def expected(out: Output, y: Tensor, metric: Metric) -> float:
    """Metric under random routing, weak with probability c, exactly."""
    return float(_expected(out, y, metric))


def likelihood(out: Output, y: Tensor, metric: Metric) -> float:
    """Mean log-probability of the labels under the pooled prediction, in nats (at most 0)."""
    return float(_likelihood(out, y, metric))


def _pooled(out: Output, y: Tensor, metric: Metric) -> Number:
    return metric.value(out.probs(), y)


def _expected(out: Output, y: Tensor, metric: Metric) -> Number:
    if not isinstance(out, Mixture):
        return metric.value(out.probs(), y)
    if (values := _expected_values(out, y, metric)) is not None:
        return values.mean()
    both = torch.cat([probabilities(out.weak), probabilities(out.strong)])
    return metric.value(both, torch.cat([y, y]), torch.cat([out.confidence, 1 - out.confidence]))


def _likelihood(out: Output, y: Tensor, metric: Metric) -> Number:
    return _likelihood_values(out, y, metric).mean()


def _pooled_values(out: Output, y: Tensor, metric: Metric) -> Tensor | None:
    return None if metric.per_node is None else metric.per_node(out.scores(), y)


def _expected_values(out: Output, y: Tensor, metric: Metric) -> Tensor | None:
    each = metric.per_node
    if each is None or not isinstance(out, Mixture):
        return _pooled_values(out, y, metric)
    strong = each(out.strong, y)
    return strong.lerp(each(out.weak, y), out.confidence.to(strong.dtype))


def _likelihood_values(out: Output, y: Tensor, metric: Metric) -> Tensor:
    return out.log_probs().gather(-1, y.unsqueeze(-1)).squeeze(-1)


SIGNALS: Names[Signal] = Names(
    "signal",
    {
        "metric": Signal(_pooled, _pooled_values),
        "expected": Signal(_expected, _expected_values),
        "loss": Signal(_likelihood, _likelihood_values),
    },
    adapt=Signal.of,
)


def signal(name: str, metric: Metric) -> Score:
    """Return the early-stopping signal of that name with this metric in it."""
    return Score(SIGNALS.lookup(name), metric)
