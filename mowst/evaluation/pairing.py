"""Whether one model beats another over seeds: both were trained and tested on the same splits, so differences count."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Paired(NamedTuple):
    """The differences between two models, seed by seed."""

    mean: float
    """Of the differences."""
    deviation: float
    """Sample deviation of the differences; NaN for a single seed."""
    p: float
    """Of the paired t-test, two-sided; NaN where there is nothing to test: one seed, or differences all alike."""


def paired(ones: Sequence[float], others: Sequence[float]) -> Paired:
    """Compare the scores of two models over the same seeds."""
    differences = [one - other for one, other in zip(ones, others, strict=True)]
    mean = statistics.fmean(differences)
    if len(differences) < 2 or math.isnan(mean):
        return Paired(mean, math.nan, math.nan)
    deviation = statistics.stdev(differences)
    if deviation <= 1e-9 * max(map(abs, (*ones, *others, 1.0))):
        return Paired(mean, 0.0, math.nan)
    from scipy.stats import ttest_rel  # here, as it takes a moment that a command's --help need not wait

    return Paired(mean, deviation, float(ttest_rel(ones, others).pvalue))
