"""Columns that hold a vector for each node become columns of numbers: embedding becomes embedding 0, 1, ..."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from mowst.data.tables import Table

WIDEST = 4096
"""Numbers in a vector: more are no table."""


def spread(table: Table) -> Table:
    """Give each number of a vector a column of its own, where all nodes with one have as many numbers."""
    found = {name: rows for name in table.rows if (rows := vectors(table.rows[name])) is not None}
    wide = {name: {f"{name} {place}": rows[:, place] for place in range(rows.shape[1])} for name, rows in found.items()}
    names = Counter([*table.rows, *(key for made in wide.values() for key in made)])
    wide = {name: made for name, made in wide.items() if max(map(names.__getitem__, made)) == 1}
    if not wide:
        return table
    parts = [pd.DataFrame(wide.get(name, {name: table.rows[name]}), index=table.rows.index) for name in table.rows]
    return table._replace(rows=pd.concat(parts, axis=1))


def vectors(column: pd.Series) -> np.ndarray[Any, Any] | None:
    """Return a column of vectors as numbers [N, length], not-a-number where one is missing; none if it is no such.

    A vector is a list, a tuple, an array or a tensor of real numbers.
    """
    first = column.first_valid_index() if column.dtype == object else None
    if first is None or vector(column[first]) is None:
        return None
    held = [vector(value) for value in column]
    lengths = {len(row) for row in held if row is not None}
    if len(lengths) != 1 or not 0 < (length := next(iter(lengths))) <= WIDEST:
        return None
    missing = np.array([row is None for row in held])
    if column[missing].notna().any():
        return None
    nothing = np.full(length, np.nan)
    try:
        rows = np.array([nothing if row is None else row for row in held])
        return rows.astype(np.float64) if rows.dtype.kind in "iuf" else None
    except (ValueError, TypeError, OverflowError):
        return None


def vector(value: Any) -> Any:
    """Return a value if it is a vector of numbers, none if it is anything else."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return value if value.ndim == 1 and value.dtype.kind in "iuf" else None
    if isinstance(value, list | tuple):
        return (
            value
            if all(isinstance(each, int | float | np.number) and not isinstance(each, bool) for each in value)
            else None
        )
    return None
