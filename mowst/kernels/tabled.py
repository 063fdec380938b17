"""Node features that have the columns they were made of beside them, for experts that take these as they came.

Most models see numbers: medians where one is missing, a column for each category. Trees see more in the table itself.
So `Tabled` goes where features go, and is the features to everyone who does not ask for more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mowst.kernels.sparse_features import Factor, dense, rows_of


class Raw(NamedTuple):
    """The columns of a table, the categories first."""

    values: Tensor
    """[N, R] float64, on the CPU: numbers, categories by their number from 0; not a number where one is missing."""
    categories: int
    """How many of the columns are categories."""

    def rows(self, index: Tensor) -> Raw:
        """Return the columns of some nodes [n]."""
        return Raw(self.values[index.to(self.values.device)], self.categories)


class Tabled(Factor):
    """Features [N, F] with the columns of the table that they were made of."""

    features: Tensor
    raw: Raw

    @staticmethod
    def __new__(cls, features: Tensor, raw: Raw) -> Tabled:
        """Put the table beside the features, dense or prepared."""
        self: Tabled = Tensor._make_wrapper_subclass(cls, features.shape, dtype=features.dtype, device=features.device)
        self.features, self.raw = features, raw
        return self

    def dense(self) -> Tensor:
        """Return the features alone, dense."""
        return dense(self.features)

    def times(self, x: Tensor) -> Tensor:
        """Multiply the features by a dense matrix [F, H]."""
        return self.features @ x

    def take(self, index: Tensor) -> Tensor:
        """Return rows [n], with their table."""
        return Tabled(rows_of(self.features, index), self.raw.rows(index))

    def beside(self, features: Tensor) -> Tabled:
        """Return other features [N, F] of the same nodes, with the same table."""
        return Tabled(features, self.raw)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Return it with the features on another device; the table stays on the CPU."""
        return Tabled(self.features.to(*args, **kwargs), self.raw)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Keep the table beside copies."""
        if func is torch.ops.aten.clone.default:
            return Tabled(args[0].features.clone(), args[0].raw)
        return super().__torch_dispatch__(func, types, args, kwargs)
