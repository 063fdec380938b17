"""Numbers with a decimal comma in text files whose columns something else separates: 1,5 is 1.5, 1.234,5 is 1234.5.

A column is read so if it is numbers then, but for a few words (`mowst.data.numerals`), and if none of them has a point
alone. Where every comma may stand between thousands, as in 1,234, another column must tell that it does not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NamedTuple

import pandas as pd

from mowst.data.numerals import SHARE, no_numbers
from mowst.data.tables import Table
from mowst.errors import some

COMMA = r"[+-]?(?:\d+|\d{1,3}(?:\.\d{3})+),\d+(?:[eE][+-]?\d+)?"
POINT = r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?"
THOUSANDS = r"[+-]?[1-9]\d{0,2},\d{3}"


class Read(NamedTuple):
    """A column as it is with decimal commas."""

    numbers: pd.Series
    first: str
    """Value that has a comma, as it is written."""
    sure: bool
    """Whether no other reading of its commas is possible."""


def with_decimals(table: Table, kept: Collection[str]) -> tuple[Table, Sequence[str]]:
    """Read decimal commas in all columns but those that are `kept` as they are, and say so."""
    read = {name: of_commas(table.rows[name]) for name in table.rows if name not in kept}
    found = {name: column for name, column in read.items() if column is not None}
    if not found:
        return table, ()
    names = some(found)
    if not any(column.sure for column in found.values()):
        first = next(iter(found.values())).first
        ways = f"{first.replace(',', '')} or {first.replace(',', '.')}"
        return table, (
            f"{table.name}: {names}: {first!r} may be {ways}, and is read as text; write numbers without commas",
        )
    first = next(column.first for column in found.values() if column.sure)
    said = (
        f"{table.name}: {names}: a comma is read as the decimal point, {first} as {pointed(pd.Series([first])).iloc[0]}"
    )
    return table._replace(rows=table.rows.assign(**{name: column.numbers for name, column in found.items()})), (said,)


def of_commas(column: pd.Series) -> Read | None:
    """Return a column as it is with decimal commas; none where it has none, or is no numbers then."""
    if column.dtype.kind in "iufbcmM":
        return None
    known = column.dropna().astype(str)
    comma = known.str.fullmatch(COMMA).astype(bool)
    if not comma.any() or known.str.fullmatch(POINT).any():
        return None
    read = known.where(~comma, pointed(known))
    if no_numbers(read).mean() > SHARE:
        return None
    text = column.astype(object)
    text[read.index] = read
    with suppress(ValueError, TypeError):  # a few words are left
        text = pd.to_numeric(text)
    return Read(text, known[comma].iloc[0], not known[comma].str.fullmatch(THOUSANDS).all())


def pointed(text: pd.Series) -> pd.Series:
    """Return numbers with a decimal comma as those with a point."""
    return text.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
