"""What is reported: a metric `(probs [n, C], y [n], weight [n] | None) -> float` in [0, 1], higher is better.

`expected` turns any such metric into its value under the paper's random routing (weak with probability c), in closed
form: the two experts' predictions are one sample of 2n rows, weighted c and 1 - c. For accuracy that is the mean of
c [weak right] + (1 - c) [strong right].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mowst.models.gates import probabilities
from mowst.models.mixture import Mixture, log_pool, log_probs
from mowst.names import Names

Metric = Callable[..., float]


def hit(scores: Tensor, y: Tensor) -> Tensor:
    """Return [n]: 1 where the largest of a row of probabilities or logits, [n, C], is the label, else 0."""
    return (scores.argmax(dim=-1) == y).float()


def accuracy(probs: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
    """Share of rows whose largest entry is the label, in [0, 1]."""
    right = hit(probs, y)
    return float(right.mean() if weight is None else (weight * right).sum() / weight.sum())


accuracy.mean_of = hit  # type: ignore[attr-defined]


def rocauc(probs: Tensor, y: Tensor, weight: Tensor | None = None) -> float:
    """Area under the ROC curve of class 1; with more classes the mean of each against the rest; NaN without a class."""
    if len(torch.unique(y)) < probs.size(-1):
        return float("nan")
    from sklearn.metrics import roc_auc_score  # here, as it takes a second that a command's --help need not wait

    scores = probs[:, 1] if probs.size(-1) == 2 else probs
    sample_weight = None if weight is None else weight.cpu().numpy()
    return float(roc_auc_score(y.cpu().numpy(), scores.cpu().numpy(), sample_weight=sample_weight, multi_class="ovr"))


METRICS = Names("metric", {"accuracy": accuracy, "rocauc": rocauc})

Output = Mixture | Tensor
"""What a model gives: a mixture, or the logits `[N, C]` of an expert on its own."""


def predicted(out: Output) -> Tensor:
    """Probabilities of the pooled prediction, [N, C]."""
    return log_pool(out).exp() if isinstance(out, Mixture) else probabilities(out)


def rows(out: Output, index: Tensor) -> Output:
    """Return the output for the nodes in `index` only."""
    if isinstance(out, Mixture):
        return Mixture(*(None if part is None else part[index] for part in out))  # type: ignore[arg-type]
    return out[index]


def pooled(out: Output, y: Tensor, metric: Metric) -> float:
    """Metric of the pooled prediction."""
    return metric(predicted(out), y)


def expected(out: Output, y: Tensor, metric: Metric) -> float:
    """Metric under random routing, weak with probability c, exactly.

    A metric that is the mean of one value per row, of logits as of probabilities, may name it (`mean_of`): there is
    nothing to sort or to copy then.
    """
    if not isinstance(out, Mixture):
        return metric(probabilities(out), y)
    if (values := _expected_values(out, y, metric)) is not None:
        return float(values.mean())
    both = torch.cat([probabilities(out.weak), probabilities(out.strong)])
    return metric(both, torch.cat([y, y]), torch.cat([out.confidence, 1 - out.confidence]))


def likelihood(out: Output, y: Tensor, metric: Metric) -> float:
    """Mean log-probability of the labels under the pooled prediction, in nats (at most 0)."""
    return float(_likelihood_values(out, y, metric).mean())


def _pooled_values(out: Output, y: Tensor, metric: Metric) -> Tensor | None:
    each = getattr(metric, "mean_of", None)
    if each is None:
        return None
    return each(log_pool(out) if isinstance(out, Mixture) else out, y)


def _expected_values(out: Output, y: Tensor, metric: Metric) -> Tensor | None:
    each = getattr(metric, "mean_of", None)
    if each is None:
        return None
    if not isinstance(out, Mixture):
        return each(out, y)
    return each(out.strong, y).lerp(each(out.weak, y), out.confidence.float())


def _likelihood_values(out: Output, y: Tensor, metric: Metric) -> Tensor:
    logs = log_pool(out) if isinstance(out, Mixture) else log_probs(out)
    return logs.gather(-1, y.unsqueeze(-1)).squeeze(-1)


pooled.mean_of = _pooled_values  # type: ignore[attr-defined]
expected.mean_of = _expected_values  # type: ignore[attr-defined]
likelihood.mean_of = _likelihood_values  # type: ignore[attr-defined]

SIGNALS = Names("signal", {"metric": pooled, "expected": expected, "loss": likelihood})


def signal(name: str, metric: Metric) -> Callable[[Output, Tensor], float]:
    """Return the early-stopping signal of that name, `(output, y) -> float`, with this metric in it.

    Its attribute `mean_of`, `(output, y) -> [n]`, gives the values that it is the mean of; none where it is no mean. A
    signal of one's own may have it too, as `(output, y, metric) -> [n]`.
    """
    chosen: Any = SIGNALS.lookup(name)
    score: Any = partial(chosen, metric=metric)
    score.mean_of = partial(getattr(chosen, "mean_of", lambda out, y, metric: None), metric=metric)
    return score
