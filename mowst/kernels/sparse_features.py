"""Node features that are mostly zeros (bags of words, one-hot codes) stay sparse through the first linear layer.

On Cora 1.3 % of the entries are not zero, so that nearly all the work of a dense first layer is multiplying by zero.
`prepare_features` decides once per graph; PyG's MLP, GCN and GAT then take what it returns as they are, because their
first act is a linear map of `x`. GraphSAGE's is to average it over the neighbours, `(A X) W`, which stays the pair of
its factors and is computed as `A (X W)`. Every other operation of torch on either sees the dense matrix, made once and
kept; none may write into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mowst.errors import InputError
from mowst.kernels.sparse import PRODUCTS, Rows, SparseMatrix, written_by_torch_alone

DENSEST = 0.1  # Share of entries that are not zero. The sparse product is 3x as fast here, and no faster at 0.4.


class Factor(Tensor):
    """A matrix [N, F] that multiplies a weight on its right in a fast way of its own, and is dense to everyone else."""

    def dense(self) -> Tensor:
        """Return the plain matrix [N, F]."""
        raise NotImplementedError

    def times(self, x: Tensor) -> Tensor:
        """Multiply by a dense matrix [F, H]."""
        raise NotImplementedError

    def take(self, index: Tensor) -> Tensor:
        """Return rows [n], prepared as all of them are."""
        return self.dense().index_select(0, index)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply a linear layer with weight [H, F] and bias [H], under autocast in its precision."""
        if torch.is_autocast_enabled(self.device.type):
            dtype = torch.get_autocast_dtype(self.device.type)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        out = self.times(weight.t())
        return out if bias is None else out + bias

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take over the products with this matrix on the left."""
        if func is F.linear and args and isinstance(args[0], Factor):
            return args[0].linear(*args[1:], **(kwargs or {}))
        if func in PRODUCTS and len(args) > 1 and isinstance(args[0], Factor) and args[1].dim() == 2:
            return args[0].linear(args[1].t())
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Give everything else the dense matrix, and a copy of it to what returns a view, which may be written into."""
        if func is torch.ops.aten.detach.default:
            return args[0]
        into = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
        if any(write and isinstance(value, Factor) for write, value in zip(into, args, strict=False)):
            raise InputError(f"{cls.__name__}: must not be written into by {func}; clone and make it dense first")
        views = any(value.alias_info is not None for value in func._schema.returns)
        args, kwargs = tree_map_only(
            Factor, lambda each: each.dense().clone() if views else each.dense(), (args, kwargs or {})
        )
        return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class SparseFeatures(SparseMatrix, Factor):
    """Features [N, F] kept as a sparse matrix."""

    _dense: Tensor | None = None

    def dense(self) -> Tensor:
        """Return the plain matrix [N, F]: made when first asked for, then kept."""
        if self._dense is None:
            row, column = self.rows.entries()
            value = torch.ones((), dtype=self.dtype, device=self.device) if self.rows.value is None else self.rows.value
            plain = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
            self._dense = plain.index_put_((row, column), value, accumulate=True)
        return self._dense

    def take(self, index: Tensor) -> Tensor:
        """Return rows [n], sparse."""
        return SparseFeatures(self.rows.take(index), self.size(1), self.dtype)

    def after(self, matrix: SparseMatrix) -> Tensor:
        """Return the product of another sparse matrix with these features, not multiplied out."""
        return Passed(matrix, self)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Return the features on another device, where they are plain and dense: nothing was measured there."""
        moved = super().to(*args, **kwargs)
        return self if moved is self else self.dense().to(moved.device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Keep copies sparse."""
        if func is torch.ops.aten.clone.default:
            return SparseFeatures(args[0].rows, args[0].size(1), args[0].dtype)
        return super().__torch_dispatch__(func, types, args, kwargs)


class Passed(Factor):
    """What reaches each node along the edges, A X [N, F], as A and X: multiplied out it may have few zeros left."""

    matrix: SparseMatrix
    features: SparseFeatures

    @staticmethod
    def __new__(cls, matrix: SparseMatrix, features: SparseFeatures) -> Passed:
        """Hold the two factors."""
        shape = (matrix.size(0), features.size(1))
        self: Passed = Tensor._make_wrapper_subclass(cls, shape, dtype=features.dtype, device=features.device)
        self.matrix, self.features = matrix, features
        return self

    def times(self, x: Tensor) -> Tensor:
        """Multiply by a dense matrix [F, H], from right to left."""
        return self.matrix.times(self.features.times(x))

    def dense(self) -> Tensor:
        """Return the plain matrix [N, F], kept as every product of constants is (`SparseMatrix.times`)."""
        return self.matrix.times(self.features.dense())


def prepare_features(x: Tensor) -> Tensor:
    """Return features [N, F] in the form whose first linear layer is fastest; `x` itself where that is dense.

    Of dense ones that others than torch may write into it is a copy, of which products can be kept.
    """
    if isinstance(x, SparseFeatures) or x.dim() != 2 or x.device.type != "cpu" or not x.is_floating_point():
        return x
    if x.layout == torch.strided and int(x.count_nonzero()) > DENSEST * x.numel():
        return x if written_by_torch_alone(x) else x.clone()
    entries = x.to_sparse(layout=torch.sparse_coo).coalesce()
    (row, column), value = entries.indices(), entries.values()
    ones = bool((value == 1).all())
    return SparseFeatures(Rows.from_entries(row, column, None if ones else value, x.shape), x.size(1), x.dtype)


def dense(x: Tensor) -> Tensor:
    """Return features [N, F] as a plain dense tensor, whatever they are."""
    if isinstance(x, Factor):
        return x.dense()
    return x if x.layout == torch.strided else x.to_dense()


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Return rows [n] of features [N, F] as a plain dense tensor [n, F], without making the others dense."""
    return dense(rows_of(x, index))


def take_columns(x: Tensor, first: int, last: int) -> Tensor:
    """Return some columns of features [N, F] as a plain dense tensor, without making the others dense."""
    if not isinstance(x, SparseFeatures):
        return dense(x)[:, first:last].contiguous()
    each = torch.arange(last - first, device=x.device)
    chosen = torch.zeros(x.size(1), last - first, dtype=x.dtype, device=x.device)
    chosen[first + each, each] = 1
    return x.rows.times(chosen)


@contextmanager
def by_column(model: nn.Module, x: Tensor) -> Iterator[None]:
    """Lay out the weights [H, F] of a model as sparse features [N, F] read them, by column, so that none is turned.

    Values and results are the same: it is the strides that change, and those of gradients with them.
    """
    wide = [weight for weight in model.parameters() if weight.dim() == 2 and weight.size(1) == x.size(-1)]
    turned = wide if isinstance(x, SparseFeatures) else []
    for weight in turned:
        weight.data = weight.data.t().contiguous().t()
    try:
        yield
    finally:
        for weight in turned:
            weight.data = weight.data.contiguous()


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """Return rows [n] of features [N, F], prepared if all of them are."""
    if isinstance(x, Factor):
        return x.take(index)
    plain = x.layout in (torch.strided, torch.sparse_coo)
    return (x if plain else x.to_sparse(layout=torch.sparse_coo)).index_select(0, index)
