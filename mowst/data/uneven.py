"""Features that may be larger than memory, looked at some rows at a time: columns that drown the others are said."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

AT_ONCE = 2**22
"""Numbers that are looked at together."""
UNEVEN = 100.0
"""How many times as wide as the middle one a column may be before it is said."""


def say_uneven(x: Tensor) -> None:
    """Say where a column of features is far wider than the others: what is learned of the others then drowns in it."""
    if x.layout != torch.strided or x.size(0) < 2:
        return
    parts = torch.split(x, rows_at_once(x))
    mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(x)
    wide = (torch.stack([(part - mean).square().sum(0) for part in parts]).sum(0) / (len(x) - 1)).sqrt()
    filled = torch.stack([part.count_nonzero(0) for part in parts]).sum(0)
    told = wide[(filled > len(x) // 2) & (wide > 0)]  # columns of counts and codes are wide here and there
    if len(told) > 1 and float(told.max()) > UNEVEN * float(told.median()):
        column = int((wide == told.max()).nonzero()[0])
        ratio = float(told.max() / told.median())
        warnings.warn(
            f"x: column {column} varies {ratio:,.0f} times as much as the middle one, and the others drown in it; "
            "standardize brings all columns to mean 0 and deviation 1",
            stacklevel=2,
        )


def rows_at_once(x: Tensor) -> int:
    """Return how many rows of features [N, F] to look at together, so that a look takes little beside them."""
    return max(1, AT_ONCE // max(1, x.size(1)))
