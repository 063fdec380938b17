"""Temperatures: how sharp an expert's prediction may be before its dispersion is measured.

An expert's logits z become z / T. `temperature` fits T where the expert has not been fitted (Guo et al., 2017, arXiv
1706.04599): the one number that maximises the likelihood of the labels. An expert that was fitted on every label at
hand has no such nodes left; `like` gives it the temperature that makes it as sharp, on nodes whose labels nobody needs
to know, as a calibrated twin of it that was fitted on fewer labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from mowst.models import negentropy, piecewise, probabilities

BOUNDS = math.log(0.02), math.log(50.0)
"""Of log T."""


def temperature(logits: Tensor, y: Tensor) -> float:
    """T > 0 at which the cross-entropy of logits / T is least, [n, C], [n] -> T.

    A prior as strong as one node keeps it at 1 where there is nothing to learn from.
    """
    logits = finite(logits)
    y = y.to(logits.device)

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_t), y, reduction="sum")) + log_t**2 / 2

    return math.exp(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x)


def like(logits: Tensor, goal: float, nodes: Tensor | None = None) -> float:
    """T > 0 at which logits / T have this mean negentropy, that of a calibrated twin, [N, C] -> T.

    `nodes` are the ids [n] of those that count; none: all do.
    """

    def excess(log_t: float) -> float:
        return float(certainty(logits, nodes, math.exp(log_t), exact=True).mean()) - goal

    return math.exp(root(excess, *BOUNDS))


def finite(logits: Tensor) -> Tensor:
    """Return logits in float64, where they are.

    Raises:
        FloatingPointError: some are no numbers, or infinite: what was trained has diverged.
    """
    found = logits.detach().double()
    if not bool(found.isfinite().all()):
        raise FloatingPointError("what an expert says is no finite number; a smaller lr may help")
    return found


def sharpness(logits: Tensor) -> float:
    """Mean negentropy of a prediction, [n, C] -> [0, 1]."""
    return float(certainty(logits).mean())


def certainty(logits: Tensor, nodes: Tensor | None = None, divisor: float = 1.0, *, exact: bool = False) -> Tensor:
    """Negentropy of each node's prediction, in at least float32, [N, C] -> [n].

    Args:
        logits: of all nodes, which may be many.
        nodes: ids [n]; none: all, in order.
        divisor: of the logits.
        exact: whether to compute in float64.

    Raises:
        FloatingPointError: some are no numbers, or infinite.
    """

    def of(rows: slice) -> Tensor:
        some = logits[rows if nodes is None else nodes[rows]]
        wide = finite(some)
        some = wide if exact else some.to(torch.promote_types(some.dtype, torch.float32))
        return negentropy(probabilities(some / divisor))

    return piecewise(of, len(logits if nodes is None else nodes))


def root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a non-increasing function is zero, or the end that comes closest."""
    if falling(low) <= 0:
        return low
    return high if falling(high) >= 0 else float(brentq(falling, low, high, xtol=1e-6))
