"""Blanks before and after a word: `math ` and `math` are one class, and one value of a feature."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mowst.data.tables import Table
from mowst.errors import many


class Trimmed(NamedTuple):
    """A table without blanks around its words."""

    table: Table
    said: dict[str, str]
    """What was left out in each column that had some."""


def trimmed(table: Table, own: str) -> Trimmed:
    """Take blanks away from both ends of text, but for the ids in column `own`; nothing but blanks is nothing."""
    made, said = dict[str, pd.Series](), dict[str, str]()
    for name in table.rows:
        column = table.rows[name]
        if name != own and (changed := blanks_in(column)):
            made[name] = column.astype(object).map(lambda value, to=changed: of(value, to))
            rows = np.flatnonzero(column.isin(list(changed)))
            first = column.iloc[rows[0]]
            said[name] = (
                f"{name}: blanks are left out around {many(len(rows), 'value', 'values')}; the first is {first!r}, "
                f"read as {changed[first] or 'nothing'!r} ({table.place(int(rows[0]))})"
            )
    return Trimmed(table._replace(rows=table.rows.assign(**made)), said)


def blanks_in(column: pd.Series) -> dict[str, str | None]:
    """Return the different words in a column that have blanks around them, and what they are without."""
    if column.dtype.kind in "iufbcmM":
        return {}
    try:
        words = column.dropna().unique()
    except TypeError:  # lists and tables
        return {}
    return {word: word.strip() or None for word in words if isinstance(word, str) and word != word.strip()}


def of(value: Any, changed: dict[str, str | None]) -> Any:
    """Return what a value is without blanks."""
    return changed.get(value, value) if isinstance(value, str) else value
