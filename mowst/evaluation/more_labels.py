"""What more labels would bring: a line through errors at fewer labels, drawn on.

The error at n labels is taken to be a + b / √n, the rate at which the estimates of a fixed model settle; b is fitted by
least squares, and twice the labels bring b (1 / √n - 1 / √(2 n)). The interval is that of b under the line. It knows
nothing of a bend beyond the labels at hand, and trainings on parts of the same labels are not independent, so it is
rather too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mowst.errors import InputError

SURE = 0.95
"""Of an interval."""


class Doubling(NamedTuple):
    """What twice the labels would take off an error."""

    gain: float
    """In the error's unit; below 0: the error rose with the labels."""
    low: float
    high: float
    """Ends of a 95 % interval."""


def doubling(labels: Sequence[int], errors: Sequence[float]) -> Doubling:
    """Extrapolate errors from trainings with so many labels each to twice the most of them.

    Raises:
        InputError: there are fewer than three trainings, or all had as many labels.
    """
    from scipy.stats import linregress, t

    if len(labels) < 3 or len(set(labels)) < 2:
        raise InputError(f"more labels: needs three trainings and two numbers of labels, got {list(labels)}")
    line = linregress([n**-0.5 for n in labels], errors)
    ahead = max(labels) ** -0.5 * (1 - math.sqrt(0.5))
    spread = float(t.ppf((1 + SURE) / 2, len(labels) - 2)) * float(line.stderr)
    return Doubling(*(float(ahead * slope) for slope in (line.slope, line.slope - spread, line.slope + spread)))


def excess_risk(numbers: int, observations: float) -> float:
    """Return what a table of counts costs a prediction for being fitted on few observations, in nats: p / 2n.

    The first term of the expected KL divergence between the best table of p free numbers and the one that n
    independent observations give (Sheena, 2021, arXiv 2105.08947). Infinite without an observation.
    """
    return numbers / (2 * observations) if observations else math.inf
