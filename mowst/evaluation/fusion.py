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
from typing import NamedTuple

import torch
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
    kept = [torch.ones_like(labels, dtype=torch.bool)]
    if int(labels.bincount().min()) >= folds:
        places = labels.cpu()
        for _, held in StratifiedKFold(folds).split(places, places):
            kept.append(torch.ones_like(kept[0]).index_fill(0, torch.from_numpy(held).to(nodes.device), False))
    whole, *parts = regressions(inputs[nodes], labels, torch.stack(kept))
    logits[:, seen] = whole(inputs)
    for some, part in zip(kept[1:], parts, strict=True):
        left = nodes[~some]
        logits[left.unsqueeze(1), seen] = part(inputs[left])
    return Logits(logits.to(weak.dtype))


class Regression(NamedTuple):
    """A logistic regression."""

    mean: Tensor
    """[F], which is taken from what it is asked about."""
    weights: Tensor
    """[C, F]; of two classes one row, that of the second against the first."""
    offsets: Tensor
    """[C], or [1]."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return log-probabilities, [m, F] -> [m, C]."""
        return scores_of(torch.addmm(self.offsets, x - self.mean, self.weights.T), 1).log_softmax(-1)


def regressions(x: Tensor, y: Tensor, kept: Tensor, iterations: int = 1000) -> list[Regression]:
    """Fit a logistic regression on standardised columns to each of several subsets of the same rows.

    Each minimises Σ cross-entropy + |W|²/2 over weights [C, F] and free offsets, by L-BFGS on the device of x. All are
    fitted in one descent, for on a GPU a pass over several costs what a pass over one does; and in directions that are
    scaled alike (those of the columns' second moments), for columns of log-probabilities say nearly the same: it takes
    a third of the passes.

    Args:
        x: [n, F].
        y: classes [n]; each is among the rows of each subset.
        kept: the rows of each subset, [K, n].
    """
    classes, (many, rows) = int(y.max()) + 1, kept.shape
    mean, shares = x.mean(0), kept.to(x.dtype)
    x = x - mean
    deviation = torch.stack([x[some].std(0, correction=0) for some in kept])
    deviation = torch.where(deviation > 0, deviation, 1.0)
    moments, turn = torch.linalg.eigh((x / deviation[0]).T @ (x / deviation[0]))
    turn = turn * (moments.clamp_min(0) / classes + 1).rsqrt() / deviation[0].unsqueeze(1)
    turned, scale = (x @ turn).T.contiguous(), (classes / rows) ** 0.5
    free = torch.zeros(many, 1 if classes == 2 else classes, x.size(1) + 1, dtype=x.dtype, device=x.device)
    free.requires_grad_()
    right = y.expand(many, 1, rows)

    def parts() -> tuple[Tensor, Tensor]:
        return free[..., :-1], free[..., -1:] * scale

    def loss() -> Tensor:
        weights, offsets = parts()
        found = scores_of((weights.flatten(0, 1) @ turned).view(many, -1, rows) + offsets, 1)
        missed = found.logsumexp(1) - found.gather(1, right).squeeze(1)
        pulled = (weights @ turn.T * deviation.unsqueeze(1)).square().sum() / 2
        return ((missed * shares).sum() + pulled) / rows

    descend([free], loss, iterations, change=1e-10, history=10)
    weights, offsets = (each.detach() for each in parts())
    return [Regression(mean, one @ turn.T, offset.squeeze(-1)) for one, offset in zip(weights, offsets, strict=True)]


def scores_of(found: Tensor, dim: int) -> Tensor:
    """Put a zero for the first of two classes before the scores of the second; of more classes they are as they are."""
    return torch.cat([torch.zeros_like(found), found], dim) if found.size(dim) == 1 else found
