"""Text that is numbers, or dates, but for a few words: which words stand where nothing is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

SHARE, WORDS = 0.05, 5
"""Share of a column's values up to which words are strays, and how many different ones."""
FIRST = 1000
"""Values by which it is seen whether a column may be numbers or dates at all."""
DATE = r"\d{4}-\d\d"
DAY = 86_400.0


def days(column: pd.Series) -> pd.Series:
    """Return dates as days since 1970, not-a-number where there is none."""
    read = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    seconds = (read - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return seconds / DAY


def strays(column: pd.Series) -> list[str]:
    """Return the few words of a column that is numbers or dates otherwise; none where it is either, or neither."""
    if column.dtype.kind in "iufbcmM" or not len(known := column.dropna().astype(object)):
        return []
    spread = known.iloc[:: 1 + len(known) // FIRST]
    for lost in (no_numbers, no_dates):
        try:
            if lost(spread).mean() > 5 * SHARE:
                continue
            which = lost(known)
            words = known[which].unique().tolist()
        except TypeError:  # lists and tables
            return []
        if not words:
            return []
        few = which.mean() <= SHARE and len(words) <= WORDS
        if few and all(isinstance(word, str) for word in words):
            return words
    return []


def no_numbers(values: pd.Series) -> pd.Series:
    """Tell of each value whether it is no number."""
    return pd.to_numeric(values, errors="coerce").isna()


def no_dates(values: pd.Series) -> pd.Series:
    """Tell of each value whether it is no date like 2024-05-01."""
    return days(values.where(values.astype(str).str.match(DATE))).isna()


def without(column: pd.Series, words: Sequence[str]) -> pd.Series:
    """Return a column without some words, as numbers if nothing else than these is left."""
    if not words:
        return column
    left = column.astype(object).where(~column.isin(words), None)
    try:
        return pd.to_numeric(left).astype(np.float64)
    except (ValueError, TypeError):
        return left
