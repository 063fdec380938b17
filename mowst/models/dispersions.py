"""Dispersions: how peaked a prediction is, one number a node.

Notation: p probabilities over C classes.

A dispersion (Zeng et al., 2024, arXiv 2311.05185, definition 3.1) is continuous, quasi-convex and 0 exactly at the
uniform distribution; ours are scaled to 1 at one-hot. `margin` is offered beside them but is none: it is 0 at
(.5, .5, 0) too.

| name       | D(p)                              |
|------------|-----------------------------------|
| variance   | Var(p) C² / (C - 1)               |
| negentropy | 1 - H(p) / log C                  |
| max        | (max p - 1/C) / (1 - 1/C)         |
| margin     | largest p minus second largest p  |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mowst.names import Names

Dispersion = Callable[[Tensor], Tensor]


def variance(probs: Tensor) -> Tensor:
    """Variance over the classes relative to that of one-hot, [N, C] -> [N] in [0, 1].

    The mean of probabilities is known to be 1/C; torch's own variance takes more than twice as long.
    """
    C = probs.size(-1)
    return ((probs - 1 / C).square().mean(dim=-1) * (C * C / (C - 1))).clamp(0, 1)


def negentropy(probs: Tensor) -> Tensor:
    """One minus the entropy relative to log C, [N, C] -> [N] in [0, 1].

    The logarithm is clamped: the slope of the entropy is infinite where softmax saturates, and 0 · inf is NaN.
    """
    entropy = -(probs * probs.clamp_min(torch.finfo(probs.dtype).tiny).log()).sum(dim=-1)
    return (1 - entropy / math.log(probs.size(-1))).clamp(0, 1)


def maximum(probs: Tensor) -> Tensor:
    """Largest probability, shifted and scaled so that uniform gives 0 and one-hot 1, [N, C] -> [N] in [0, 1]."""
    C = probs.size(-1)
    return ((probs.amax(dim=-1) - 1 / C) * (C / (C - 1))).clamp(0, 1)


def margin(probs: Tensor) -> Tensor:
    """Largest minus second largest probability, [N, C] -> [N] in [0, 1]. A signal, not a dispersion."""
    top = probs.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


DISPERSIONS: Names[Dispersion] = Names(
    "dispersions", {"variance": variance, "negentropy": negentropy, "max": maximum, "margin": margin}
)
