"""Features that may be larger than memory, looked at some rows at a time: what of them is uneven."""

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


def are_bags(x: Tensor, spread: float = 0.1) -> bool:
    """Tell whether features [N, F] are bags of many and of few words, which are alike once every row sums to one.

    No number is below 0, most of them are 0, and the sums of rows that are not all 0 have a standard deviation of more
    than a share of their mean.

    Args:
        x: dense or sparse.
        spread: that share.
    """
    if x.layout == torch.strided:
        parts = torch.split(x, rows_at_once(x))
        least = min((float(part.min()) for part in parts if part.numel()), default=0.0)
        filled, sums = sum(int(part.count_nonzero()) for part in parts), torch.cat([part.sum(1) for part in parts])
    else:
        entries = x.to_sparse(layout=torch.sparse_coo).coalesce()
        value = entries.values()
        least, filled = float(value.min()) if len(value) else 0.0, int(value.count_nonzero())
        sums = torch.zeros(len(x), dtype=value.dtype).index_add_(0, entries.indices()[0], value)
    sums = sums[sums != 0].double()
    return least >= 0 and 2 * filled < x.numel() and len(sums) > 1 and bool(sums.std() > spread * sums.mean())
