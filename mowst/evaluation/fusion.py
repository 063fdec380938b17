"""The plain ways to put two trained experts together: what a gate has to beat.

| name             | prediction                                              | fitted on                              |
|------------------|---------------------------------------------------------|----------------------------------------|
| average          | (p + q) / 2                                             | nothing                                |
| calibrated       | the same, of logits divided by temperatures             | held-out training nodes (temperatures) |
| evidence         | softmax(log p + log q), of logits divided likewise      | held-out training nodes (temperatures) |
| stacked-on-val   | logistic regression on scaled [log p, log q] (Wolpert)  | **validation nodes**                   |

`evidence` is Bayes' rule for two independent observations under a uniform prior.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mowst.evaluation.descent import descend
from mowst.models import Logits, Mixture, log_probs


def average(weak: Tensor, strong: Tensor) -> Mixture:
    """Mix two experts' logits [N, C] with equal shares."""
    return Mixture(weak, strong, torch.full_like(weak[:, 0], 0.5))


def evidence(weak: Tensor, strong: Tensor) -> Mixture:
    """Add two experts' log-probabilities, from logits [N, C]."""
    return average(weak, strong)._replace(scale=torch.full_like(weak[:, 0], 2.0))


def stacked(weak: Tensor, strong: Tensor, y: Tensor, nodes: Tensor, *, folds: int = 5) -> Logits:
    """Logistic regression from both experts' log-probabilities to the label, fitted on `nodes` [n], -> logits [N, C].

    The rows of `nodes` themselves are predicted by regressions that did not see them, where every class that is there
    has enough of them; a class without a node there has a log-probability of log 1e-6, as good as excluded.
    """
    from sklearn.model_selection import StratifiedKFold

    inputs = torch.cat([log_probs(weak), log_probs(strong)], dim=-1).double()
    seen, labels = torch.unique(y[nodes], return_inverse=True)
    logits = torch.full_like(weak, math.log(1e-6), dtype=torch.float64)
    if len(seen) < 2:
        logits[:, seen] = 0.0
        return Logits(logits.to(weak.dtype))
    own = inputs[nodes]
    logits[:, seen] = regression(own, labels, inputs)
    if int(labels.bincount().min()) >= folds:
        places = labels.cpu()
        for others, held in StratifiedKFold(folds).split(places, places):
            kept = torch.from_numpy(others).to(nodes.device)
            left = torch.from_numpy(held).to(nodes.device)
            logits[nodes[left].unsqueeze(1), seen] = regression(own[kept], labels[kept], own[left])
    return Logits(logits.to(weak.dtype))


def regression(x: Tensor, y: Tensor, asked: Tensor, iterations: int = 1000) -> Tensor:
    """Fit a logistic regression on standardised columns, and return log-probabilities, [n, F], [n], [m, F] -> [m, C].

    Minimises Σ cross-entropy + |W|²/2 over weights [C, F] and free offsets by L-BFGS on the device of x; with two
    classes there is one row of weights, that of the second class against the first. Every class is in y.
    """
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    x, asked = ((each - mean) / deviation for each in (x, asked))
    classes = int(y.max()) + 1
    rows = 1 if classes == 2 else classes
    weights = torch.zeros(rows, x.size(1), dtype=x.dtype, device=x.device, requires_grad=True)
    offsets = torch.zeros(rows, dtype=x.dtype, device=x.device, requires_grad=True)

    def scores(of: Tensor) -> Tensor:
        found = torch.addmm(offsets, of, weights.T)
        return torch.cat([torch.zeros_like(found), found], dim=1) if rows == 1 else found

    def loss() -> Tensor:
        return (F.cross_entropy(scores(x), y, reduction="sum") + weights.square().sum() / 2) / len(y)

    descend([weights, offsets], loss, iterations, change=1e-10)
    with torch.no_grad():
        return scores(asked).log_softmax(-1)
