"""What scikit-learn's transformers learned of the columns of a graph, as numbers and text in a file, and their use.

A run keeps it as JSON, so that another graph goes through the same transformation and nothing has to be unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Self, get_type_hints

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri
from torch import Tensor

from mowst.data.tables import Table
from mowst.data.understanding import CATEGORY, NUMBER, RANKED, Kinds, as_columns, transformer
from mowst.errors import InputError, unknown
from mowst.kernels import Raw
from mowst.system.typed import check_type_of

CLOSEST = 1e-7
"""How near to 0 and 1 a quantile is looked at, as scikit-learn's."""


@dataclass(frozen=True)
class Column:
    """What is known of one column of a table."""

    name: str
    kind: str
    """number, ranked or category."""
    date: bool = False
    missing: bool = False
    """Whether a feature says where it is missing."""
    fill: float = 0.0
    """The median."""
    mean: float = 0.0
    scale: float = 1.0
    quantiles: list[float] = field(default_factory=list)
    """Of a ranked column, at equal distances from 0 to 1."""
    values: list[str] = field(default_factory=list)
    """Of a category, one feature each."""
    rare: bool = False
    """Whether a feature stands for all other values."""
    absent: list[str] = field(default_factory=list)
    """Of numbers and dates, the words that are read as missing."""

    def __post_init__(self) -> None:
        hints = get_type_hints(Column)
        for entry in dataclasses.fields(self):
            check_type_of(f"column {entry.name}", getattr(self, entry.name), hints[entry.name])
        if self.kind not in (NUMBER, RANKED, CATEGORY):
            raise unknown(f"column {self.name}: kind", self.kind, (NUMBER, RANKED, CATEGORY))
        if not all(map(math.isfinite, (self.fill, self.mean, self.scale, *self.quantiles))) or not self.scale:
            raise InputError(f"column {self.name}: its numbers must be finite, and scale not 0")
        if self.kind == RANKED and (not self.quantiles or sorted(self.quantiles) != self.quantiles):
            raise InputError(f"column {self.name}: quantiles must be numbers in order")

    def features(self, values: pd.Series) -> np.ndarray[Any, Any]:
        """Return what a column becomes, [N, k], without the feature that says where it is missing."""
        if self.kind == CATEGORY:
            place = pd.Index(self.values, dtype=object).get_indexer(values.astype(object))
            width = len(self.values) + self.rare
            place = np.where(place < 0, len(self.values) if self.rare else -1, place)
            return (place[:, None] == np.arange(width)).astype(np.float32)
        numbers = values.to_numpy(dtype=np.float64)
        numbers = np.where(np.isnan(numbers), self.fill, numbers)
        if self.kind == NUMBER:
            return ((numbers - self.mean) / self.scale).astype(np.float32)[:, None]
        return self._ranked(numbers).astype(np.float32)[:, None]

    def codes(self, values: pd.Series) -> np.ndarray[Any, Any]:
        """Return the number of each value of a category, [N] float64; not a number where there is none, or no such."""
        text = values.astype(object)
        place = pd.Index(self.values, dtype=object).get_indexer(text).astype(np.float64)
        place[place < 0] = len(self.values) if self.rare else np.nan
        place[(text == "").to_numpy()] = np.nan
        return place

    def _ranked(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return the normal quantile of each number's rank, the middle one where several are equal."""
        quantiles = np.array(self.quantiles)
        ranks = np.linspace(0, 1, len(quantiles))
        upper, lower = np.interp(numbers, quantiles, ranks), np.interp(-numbers, -quantiles[::-1], -ranks[::-1])
        share = (upper - lower) / 2
        share = np.where(numbers + CLOSEST > quantiles[-1], 1.0, share)
        share = np.where(numbers - CLOSEST < quantiles[0], 0.0, share)
        ends = ndtri(CLOSEST - np.spacing(1)), ndtri(1 - (CLOSEST - np.spacing(1)))
        return np.clip(ndtri(share), *ends)


@dataclass(frozen=True)
class Fitted:
    """The columns of a table, in the order of their features."""

    columns: list[Column]
    steps: int | None = None
    """Where the columns are of the structure (`mowst.data.structure`): how many steps its walks take."""

    @classmethod
    def of(cls, table: Table, kinds: Kinds, steps: int | None = None) -> Self:
        """Fit scikit-learn's transformers to the columns of a table, and keep what they learned."""
        return cls.made(table, kinds, steps)[0]

    @classmethod
    def made(cls, table: Table, kinds: Kinds, steps: int | None = None) -> tuple[Self, Tensor]:
        """Fit scikit-learn's transformers to the columns of a table; return what they learned, and the features."""
        plain = as_columns(table._replace(rows=table.rows.assign(**kinds.dates)), kinds.kept, [], kinds.absent)
        missing = {name: kind != CATEGORY and bool(plain[name].isna().any()) for name, kind in kinds.kept.items()}
        coded, values = plain.copy(deep=False), dict[str, Any]()
        for name in (name for name, kind in kinds.kept.items() if kind == CATEGORY):
            coded[name], values[name] = pd.factorize(plain[name], sort=True)  # numbers are looked through much faster
        learned = dict[str, dict[str, Any]]()
        with np.errstate(all="ignore"):
            for kind, part, names in transformer(kinds.kept, coded).transformers:
                for name in names if kind != "missing" else ():
                    learned[name] = learned_by(kind, part.fit(coded[[name]].to_numpy()), values.get(name))
        columns = [
            Column(name, kind, name in kinds.dates, missing[name], absent=kinds.absent.get(name, []), **learned[name])
            for kind in (NUMBER, RANKED, CATEGORY)
            for name in (name for name, held in kinds.kept.items() if held == kind)
        ]
        fitted = cls(columns, steps)
        return fitted, fitted._of_plain(plain)

    def features(self, table: Table) -> Tensor:
        """Return the features of the nodes in a table, [N, F] float32, in the order of `names`.

        Raises:
            InputError: a column is missing, or of another kind.
        """
        return self._of_plain(self._as_columns(table))

    def _as_columns(self, table: Table) -> pd.DataFrame:
        kinds = {column.name: column.kind for column in self.columns}
        dates = [column.name for column in self.columns if column.date]
        return as_columns(table, kinds, dates, {column.name: column.absent for column in self.columns})

    def _of_plain(self, plain: pd.DataFrame) -> Tensor:
        numbers, hot = list[Any](), list[Any]()
        with np.errstate(all="ignore"):
            for column in self.columns:
                (hot if column.kind == CATEGORY else numbers).append(column.features(plain[column.name]))
        where = [plain[each.name].isna().to_numpy(np.float32)[:, None] for each in self.columns if each.missing]
        parts = [*numbers, *where, *hot]
        return torch.from_numpy(np.concatenate(parts, axis=1)) if parts else torch.empty(len(plain), 0)

    @property
    def names(self) -> list[str]:
        """What each feature is called."""
        return [name for name, _ in self._made()]

    @property
    def sources(self) -> list[str]:
        """The column of the table that each feature was made of."""
        return [source for _, source in self._made()]

    @property
    def raw_names(self) -> list[str]:
        """The columns of the table as `raw` returns them, the categories first."""
        return [each.name for each in sorted(self.columns, key=lambda each: each.kind != CATEGORY)]

    def _made(self) -> list[tuple[str, str]]:
        """Return the name of each feature, and the column that it was made of."""
        hot = [each for each in self.columns if each.kind == CATEGORY]
        return [
            *((each.name, each.name) for each in self.columns if each.kind != CATEGORY),
            *((f"{each.name} is missing", each.name) for each in self.columns if each.missing),
            *(
                (f"{each.name} = {value}", each.name)
                for each in hot
                for value in [*each.values, *["(other)"] * each.rare]
            ),
        ]

    def raw(self, table: Table) -> Raw | None:
        """Return the columns of a table as they are, categories first; none where features say all of it already.

        Raises:
            InputError: a column is missing, or of another kind.
        """
        if not any(column.missing or column.kind == CATEGORY for column in self.columns):
            return None
        plain = self._as_columns(table)
        hot = [column for column in self.columns if column.kind == CATEGORY]
        numbers = [plain[column.name].to_numpy(np.float64) for column in self.columns if column.kind != CATEGORY]
        values = np.stack([*(column.codes(plain[column.name]) for column in hot), *numbers], axis=1)
        return Raw(torch.from_numpy(values), len(hot))

    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def read(cls, held: Any, what: str) -> Self:
        """Take it from JSON that was read.

        Raises:
            InputError: it is something else; `what` says what it was to be.
        """
        try:
            check_type_of("columns", held["columns"], list[dict[str, Any]])
            check_type_of("steps", held["steps"], int | None)
            return cls([Column(**each) for each in held["columns"]], held["steps"])
        except (TypeError, KeyError, InputError) as error:
            raise InputError(f"{what}: not what a run keeps of its graph's columns, or damaged: {error}") from None


def learned_by(kind: str, part: Any, values: Any) -> dict[str, Any]:
    """Return what a transformer learned of a column of a kind, as the fields of `Column`.

    A category went in as numbers; `values` says which text each of them is.
    """
    if kind == CATEGORY:
        rare = part.infrequent_categories_[0]
        rare = set() if rare is None else set(rare)
        kept = [str(values[code]) for code in part.categories_[0] if code not in rare]
        return {"values": kept, "rare": bool(rare)}
    imputer, last = part[0], part[1]
    found = {"fill": float(imputer.statistics_[0])}
    if kind == NUMBER:
        return found | {"mean": float(last.mean_[0]), "scale": float(last.scale_[0])}
    return found | {"quantiles": last.quantiles_[:, 0].tolist()}
