"""Columns of a table become features: what each is is looked up, scikit-learn's transformers are fitted to it.

| kind     | of                                            | becomes                                               |
|----------|-----------------------------------------------|-------------------------------------------------------|
| number   | numbers, true and false, dates (in days)      | imputed by the median, standardised                   |
| ranked   | numbers that are very skewed                  | imputed by the median, quantiles of a normal variable |
| category | text of which most values come again          | one-hot, rare and unknown values together             |
| left out | other text, constant and empty columns, lists | nothing, and its name is said                         |

Where a number is missing somewhere, a column of its own says where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mowst.data.joining import shown_id
from mowst.data.numerals import DATE, FIRST, days, strays, without
from mowst.data.tables import Table
from mowst.errors import InputError

NUMBER, RANKED, CATEGORY = "number", "ranked", "category"
SKEWED, MANY = 3.0, 20
"""Skewness from which a column of more than so many different numbers is ranked."""
MOST_VALUES, OFTEN = 64, 10
"""Columns that a category becomes at most; how often a value must come, in a large table, not to be rare."""
QUANTILES = 200
LARGEST = 1e150
"""Numbers beyond it have no square."""
NESTED, COMPLEX = "lists or tables", "complex numbers"
"""Why a column is left out that somebody may miss."""


class Kinds(NamedTuple):
    """What each column is."""

    kept: dict[str, str]
    """Kind of each feature, in order."""
    dates: dict[str, np.ndarray[Any, Any]]
    """Those of them that are dates, in days [N]."""
    left: dict[str, str]
    """Why others are left out."""
    absent: dict[str, list[str]]
    """The few words in a column of numbers or dates that are read as missing."""


def frequent(rows: int) -> int:
    """Return how often a value must come, in a table of so many rows, not to be rare."""
    return max(2, min(OFTEN, rows // 100))


def kinds_of(table: Table, features: Sequence[str]) -> Kinds:
    """Look up what the columns of a table are.

    Raises:
        InputError: a number is too large.
    """
    kinds = Kinds({}, {}, {}, {})
    for name in features:
        if words := strays(table.rows[name]):
            kinds.absent[name] = words
        column = without(table.rows[name], words)
        why = unusable(name, column)
        numbers = None if why else as_dates(column)
        if numbers is not None:
            kinds.dates[name] = numbers
        elif why is None:
            numbers = as_numbers(column, name, table.place)
        if why is None and numbers is not None:
            plain = numbers[~np.isnan(numbers)]
            skewed = abs(float(pd.Series(plain).skew())) > SKEWED and len(np.unique(plain)) > MANY
            kinds.kept[name] = RANKED if skewed else NUMBER
        elif why is None and (why := free_text(column)) is None:
            kinds.kept[name] = CATEGORY
        if why is not None:
            kinds.left[name] = why
    return kinds


def unusable(name: str, column: pd.Series) -> str | None:
    """Say why a column cannot be a feature, whatever it holds."""
    if not name:
        return "has no name"
    known = column.dropna()
    if known.dtype.kind == "c" or (known.dtype == object and any(isinstance(each, complex) for each in known)):
        return COMPLEX
    if known.dtype.kind in "iuf" and len(known) and known.min() != known.max():
        return None
    try:
        distinct = known.unique()
    except TypeError:
        return NESTED
    if len(distinct) == 0:
        return "empty"
    if len(distinct) == 1:
        return f"always {str(distinct[0])[:30]}" + " where it is not missing" * bool(column.isna().any())
    nested = distinct.dtype == object and any(isinstance(value, list | tuple | dict | set) for value in distinct)
    return NESTED if nested else None


def as_dates(column: pd.Series) -> np.ndarray[Any, Any] | None:
    """Return a column of dates in days [N]: of that type, or text like 2024-05-01 or 2024-05-01T12:30:00Z throughout.

    None: it holds something else.
    """
    if not pd.api.types.is_datetime64_any_dtype(column):
        if pd.api.types.is_numeric_dtype(column):
            return None
        if not column.head(FIRST).dropna().head(50).astype(str).str.match(DATE).all():
            return None
    found = days(column)
    known = found.notna() | column.isna()
    return found.to_numpy(dtype=np.float64) if known.all() else None


def as_numbers(column: pd.Series, name: str, place: Any, *, date: bool = False) -> np.ndarray[Any, Any] | None:
    """Return a column as numbers [N], not-a-number where one is missing; none where it holds something else.

    Raises:
        InputError: one is too large; the message says where.
    """
    if date:
        return days(column).to_numpy(dtype=np.float64)
    numeric = pd.api.types.is_numeric_dtype(column)
    if not numeric and any(isinstance(value, str) for value in column.dropna()):
        return None
    try:
        numbers = pd.to_numeric(column, errors="raise")
        if numbers.dtype.kind == "c":
            return None
        found = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError, OverflowError):
        return None
    wrong = (np.abs(found) > LARGEST).nonzero()[0]
    if len(wrong):
        row = int(wrong[0])
        right = f"a feature must be from -{LARGEST:g} to {LARGEST:g}, or empty where it is not known"
        raise InputError(f"{place(row)}: {name} is {column.iloc[row]}; {right}")
    return found


def as_text(column: pd.Series) -> pd.Series:
    """Return a column as text, "" where there is none."""
    if isinstance(column.dtype, pd.StringDtype):
        return column.fillna("").astype(object)
    return column.astype(object).where(column.notna(), "").map(str)


def free_text(column: pd.Series) -> str | None:
    """Say that a column of text is no category: less than half of its values come again often enough."""
    known = column.dropna()
    counts = (known if isinstance(known.dtype, pd.StringDtype) else known.map(str)).value_counts()
    often = int(counts[counts >= frequent(len(column))].sum())
    return None if 2 * often >= int(counts.sum()) else f"text, {len(counts):,} different values"


def as_columns(
    table: Table, kinds: Mapping[str, str], dates: Sequence[str], absent: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """Return the features of a table as the transformers take them: numbers, and text; `absent` words are missing.

    Raises:
        InputError: a column is missing, or of another kind in this table.
    """
    made: dict[str, Any] = {}
    for name, kind in kinds.items():
        if name not in table.rows:
            raise InputError(f"{table.name}: has no column {name!r}, which the features are made of")
        column = table.rows[name]
        if kind == CATEGORY:
            made[name] = as_text(column).to_numpy()
            continue
        column = without(column, (absent or {}).get(name, ()))
        found = as_numbers(column, name, table.place, date=name in dates)
        lost = [] if found is None else (np.isnan(found) & column.notna().to_numpy()).nonzero()[0]
        if found is None or len(lost):
            row = int(lost[0]) if len(lost) else first_text(column)
            right = "a date like 2024-05-01" if name in dates else "a number"
            raise InputError(f"{table.place(row)}: {name} must be {right}, is {shown_id(column.iloc[row])}")
        made[name] = found
    return pd.DataFrame(made, index=range(len(table.rows)))


def first_text(column: pd.Series) -> int:
    """Return the first row that does not hold a number."""
    lost = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    return int(lost.to_numpy().nonzero()[0][0]) if lost.any() else 0


def transformer(kinds: Mapping[str, str], table: pd.DataFrame) -> Any:
    """Return scikit-learn's `ColumnTransformer` for columns of these kinds, not fitted yet."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

    rows = len(table)
    of = {kind: [name for name, held in kinds.items() if held == kind] for kind in (NUMBER, RANKED, CATEGORY)}
    numeric = [name for name in (*of[NUMBER], *of[RANKED]) if table[name].isna().any()]
    ranks = QuantileTransformer(
        n_quantiles=min(QUANTILES, rows), output_distribution="normal", subsample=100_000, random_state=0
    )
    hot = OneHotEncoder(
        min_frequency=frequent(rows),
        max_categories=MOST_VALUES,
        handle_unknown="infrequent_if_exist",
        sparse_output=False,
    )
    steps = [
        (NUMBER, make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), of[NUMBER]),
        (RANKED, make_pipeline(SimpleImputer(strategy="median"), ranks), of[RANKED]),
        ("missing", MissingIndicator(features="all"), numeric),
        (CATEGORY, hot, of[CATEGORY]),
    ]
    return ColumnTransformer([step for step in steps if step[2]])
