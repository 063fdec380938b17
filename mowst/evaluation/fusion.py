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
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mowst.evaluation.calibration import finite
from mowst.evaluation.descent import Graded, descend
from mowst.models import Logits, Mixture, log_probs

REACH = 2e4
"""How far below 0 a log-probability may be, as that of a class that an expert masks by -inf."""


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

    Raises:
        FloatingPointError: what an expert says is no number.
    """
    from sklearn.model_selection import StratifiedKFold

    inputs = finite(torch.cat([log_probs(weak), log_probs(strong)], dim=-1).clamp_min(-REACH))
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
    """[C, F]."""
    offsets: Tensor
    """[C]."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return log-probabilities, [m, F] -> [m, C]."""
        return torch.addmm(self.offsets, x - self.mean, self.weights.T).log_softmax(-1)


def regressions(x: Tensor, y: Tensor, kept: Tensor, iterations: int = 1000) -> list[Regression]:
    """Fit a logistic regression on standardised columns to each of several subsets of the same rows.

    Each minimises Σ cross-entropy + |W|²/2 over weights [C, F] and free offsets, by L-BFGS on the device of x; of two
    classes W is the difference of their weights. All are fitted in one descent, for on a GPU a pass over several costs
    what a pass over one does, and in directions that are scaled alike (those of the columns' second moments), for
    columns of log-probabilities say nearly the same.

    Args:
        x: [n, F].
        y: classes [n]; each is among the rows of each subset.
        kept: the rows of each subset, [K, n].
    """
    classes, (many, rows) = int(y.max()) + 1, kept.shape
    mean, shares = x.mean(0), kept.to(x.dtype).unsqueeze(1)
    x = x - mean
    deviation = torch.stack([x[some].std(0, correction=0) for some in kept])
    deviation = torch.where(deviation > 0, deviation, 1.0)
    moments, turn = torch.linalg.eigh((x / deviation[0]).T @ (x / deviation[0]))
    turn = turn * (moments.clamp_min(0) / classes + 1).rsqrt() / deviation[0].unsqueeze(1)
    turned, scale, pull = (x @ turn).T.contiguous(), (classes / rows) ** 0.5, 2.0 if classes == 2 else 1.0
    free = torch.zeros(many, classes, x.size(1) + 1, dtype=x.dtype, device=x.device, requires_grad=True)
    room, right = x.new_empty(many, classes, rows), y.expand(many, 1, rows)

    def loss() -> Tensor:
        weights = free[..., :-1]
        missed, *_ = _missed(weights, free[..., -1:] * scale, turned, right, shares, room)
        return (missed + pull * (weights @ turn.T * deviation.unsqueeze(1)).square().sum() / 2) / rows

    descend([free], loss, iterations, change=1e-10, history=10)
    found = free.detach()
    return [Regression(mean, one[:, :-1] @ turn.T, one[:, -1] * scale) for one in found]


class _Missed(Graded):
    """Cross-entropy of weights [K, C, F] and offsets [K, C, 1], summed over rows by their shares [K, 1, n].

    Its gradient is there with its value, and all of it in the same room, [K, C, n]: what is allocated in every pass
    costs more than it is filled.
    """

    @staticmethod
    def forward(
        weights: Tensor, offsets: Tensor, turned: Tensor, right: Tensor, shares: Tensor, room: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        torch.mm(weights.flatten(0, 1), turned, out=room.flatten(0, 1))
        room += offsets
        room -= room.amax(1, keepdim=True)
        said = room.gather(1, right)
        total = room.exp_().sum(1, keepdim=True)
        missed = ((total.log() - said) * shares).sum()
        room.mul_(shares / total).scatter_add_(1, right, -shares)
        return missed, (room.flatten(0, 1) @ turned.T).view_as(weights), room.sum(2, keepdim=True)


_missed: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Missed.apply
