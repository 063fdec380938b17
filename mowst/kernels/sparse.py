"""Constant sparse matrices that multiply dense ones, fast forward and backward.

`Rows` is one by rows (CSR) and multiplies in one direction; a `SparseMatrix` is a tensor that keeps both, so that the
gradient of its product is as fast as the product.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from mowst.errors import InputError
from mowst.kernels.choosing import Product, milliseconds, own_product, pays, worth_trying
from mowst.kernels.compress import compressed
from mowst.kernels.turning import transpose

Shape = tuple[int, int] | torch.Size
PRODUCTS = (torch.sparse.mm, torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__)
"""What torch calls a product of two matrices."""
LONG = 256
"""Entries of a row beyond which a kernel that has one program a row takes it apart from the others."""


_PRIVATE: MutableMapping[Tensor, bool] = WeakTensorKeyDictionary()


def private(x: Tensor) -> Tensor:
    """Say that nobody but torch writes into a tensor, as of one that was just read from a file; return it.

    So it need not be copied to be safe.
    """
    _PRIVATE[x] = True
    return x


def written_by_torch_alone(x: Tensor) -> bool:
    """Tell whether the version of a tensor says of every change of its numbers that there was one.

    It does not where others see its memory: numpy (`torch.from_numpy`, and `x.numpy()` as well), a file, another
    process; unless its owner knows better (`private`). Nothing tells of a tensor that was handed on by DLPack
    (`np.from_dlpack`), or written into by `x.data`.
    """
    if x in _PRIVATE:
        return True
    storage = x.untyped_storage()
    return storage.resizable() and (storage.device.type != "cpu" or not storage.is_shared())


class Rows:
    """A sparse matrix by rows (CSR); `value` is None where every entry is 1.

    Args:
        start: where each row begins in `column`, and where the last one ends, [N + 1].
        column: the column of each entry, [E].
        value: the entries, [E].
    """

    def __init__(self, start: Tensor, column: Tensor, value: Tensor | None = None):
        self.start, self.column, self.value = start, column, value
        self._operands: dict[torch.dtype, Tensor | None] = {}
        self.own: dict[tuple[Any, ...], Callable[..., Tensor] | None] = {}

    @classmethod
    def from_entries(cls, row: Tensor, column: Tensor, value: Tensor | None, shape: Shape) -> Rows:
        """Sort the entries (row, column) of a matrix of this shape by row, then by column; duplicates stay apart."""
        held = compressed(row, column, shape, order=value is not None)
        turned = value if value is None or held.order is None else value[held.order]
        return cls(held.start, held.column, turned)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return the row and the column of each entry, [E] and [E]."""
        row = torch.arange(len(self.start) - 1, device=self.start.device).repeat_interleave(self.start.diff())
        return row, self.column.long()

    @cached_property
    def row(self) -> Tensor:
        """The row of each entry, [E], as narrow as `column`; made when first asked for."""
        return self._narrow()

    @cached_property
    def long(self) -> Tensor:
        """The rows with more than `LONG` entries, [n]; made when first asked for."""
        return (self.start.diff() > LONG).nonzero().squeeze(-1)

    def _narrow(self) -> Tensor:
        each = torch.arange(len(self.start) - 1, device=self.start.device, dtype=self.column.dtype)
        return each.repeat_interleave(self.start.diff(), output_size=len(self.column))

    def transposed(self, width: int) -> Rows:
        """Return the `width` columns as rows, sharing what is the same: all of it for a symmetric matrix."""
        if self.value is None and self.column.device.type == "cpu":
            start, column = transpose(self.start, self.column, width)
            return self if column is self.column else Rows(start, column)
        other = Rows.from_entries(self.column, self._narrow(), self.value, (width, len(self.start) - 1))
        if torch.equal(other.start, self.start) and torch.equal(other.column, self.column):
            same = self.value is None or other.value is None or torch.equal(other.value, self.value)
            return self if same else Rows(self.start, self.column, other.value)
        return other

    def take(self, index: Tensor) -> Rows:
        """Return some rows [n], in that order; on a CPU `index_select` is four times as fast as brackets."""
        first = self.start[index]
        start = F.pad((self.start[index + 1] - first).cumsum(0), (1, 0)).to(first.dtype)
        entry = (first - start[:-1]).repeat_interleave(start.diff(), output_size=int(start[-1]))
        entry += torch.arange(len(entry), device=index.device, dtype=entry.dtype)
        value = None if self.value is None else self.value.index_select(0, entry)
        return Rows(start, self.column.index_select(0, entry), value)

    def between(self, first: int, last: int) -> Rows:
        """Return the rows from one to before another; entries are not copied."""
        start, end = int(self.start[first]), int(self.start[last])
        value = None if self.value is None else self.value[start:end]
        return Rows(self.start[first : last + 1] - self.start[first], self.column[start:end], value)

    def within(self, nodes: Tensor) -> Rows:
        """Return the rows of some distinct nodes [n] of a square matrix, and of these their columns alone."""
        place = torch.full((len(self.start) - 1,), -1, dtype=torch.long, device=nodes.device)
        place[nodes] = torch.arange(len(nodes), device=nodes.device)
        taken = self.take(nodes)
        row, column = taken.entries()
        column = place[column]
        kept = column >= 0
        value = None if taken.value is None else taken.value[kept]
        return Rows.from_entries(row[kept], column[kept], value, (len(nodes), len(nodes)))

    @staticmethod
    def stacked(parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts, one below the other."""
        count, column = (torch.cat(list(each)) for each in ((p.start.diff() for p in parts), (p.column for p in parts)))
        values = [part.value for part in parts if part.value is not None]
        return Rows(F.pad(count.cumsum(0), (1, 0)).to(column.dtype), column, torch.cat(values) if values else None)

    def times(self, x: Tensor) -> Tensor:
        """Multiply by `x`, in its precision: each row of the result is a weighted bag of rows of `x`.

        On a CUDA device our own product is taken where it was found to pay (`mowst.kernels.choosing`).
        """
        kind = x.dtype, x.size(1)
        if kind not in self.own and worth_trying(x):
            self.own[kind] = self._paying(x)
        if (own := self.own.get(kind)) is not None:
            return own(self.start, self.column, self.value, x)
        return self._by_torch(x)

    def _paying(self, x: Tensor) -> Product | None:
        """Return our own product if it pays for a dense matrix like this one."""
        own = own_product()
        if own is None:
            return None
        found = pays(lambda: own(self.start, self.column, self.value, x), lambda: self._by_torch(x), milliseconds)
        return own if found else None

    def _by_torch(self, x: Tensor) -> Tensor:
        if x.dtype not in self._operands:
            self._operands[x.dtype] = self._operand(x)
        operand = self._operands[x.dtype]
        if operand is not None and operand.layout == torch.sparse_csr:
            with torch.autocast(x.device.type, enabled=False):  # which would choose another precision
                return operand @ x
        options: Any = {"mode": "sum", "per_sample_weights": operand, "include_last_offset": True}
        return F.embedding_bag(self.column, x.contiguous(), self.start, **options)

    def _operand(self, x: Tensor) -> Tensor | None:
        """Return what `times` needs in the precision of `x`: the entries on a CPU, a CSR tensor elsewhere."""
        value = None if self.value is None else self.value.to(x.dtype)
        if x.device.type == "cpu":
            return value
        value = torch.ones_like(self.column, dtype=x.dtype) if value is None else value
        shape = len(self.start) - 1, len(x)
        return torch.sparse_csr_tensor(self.start, self.column, value, shape, check_invariants=False)

    def to(self, device: torch.device) -> Rows:
        """Return the same matrix on another device."""
        value = None if self.value is None else self.value.to(device)
        return Rows(self.start.to(device), self.column.to(device), value)


class _Product(torch.autograd.Function):
    """Sparse times dense, whose gradient is the transpose times dense."""

    @staticmethod
    def forward(ctx: Any, matrix: SparseMatrix, x: Tensor) -> Tensor:
        ctx.matrix = matrix
        return matrix.rows.times(x.detach())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, ctx.matrix.columns.times(gradient)


_product: Callable[..., Tensor] = _Product.apply


class SparseMatrix(Tensor):
    """A constant sparse matrix [N, M] that multiplies dense ones, fast forward and backward.

    It never changes, so copies of it are itself. On a CPU it multiplies by torch's embedding bag; on another device by
    torch's CSR product, which is what PyG recommends there.
    """

    rows: Rows
    _columns: Rows | None
    _turn: Tensor | None = None
    _known: MutableMapping[Tensor, Any]

    @staticmethod
    def __new__(cls, rows: Rows, width: int, dtype: torch.dtype | None = None) -> Self:
        """Wrap the rows of a matrix with `width` columns; entries that are all 1 have this dtype, or the default."""
        dtype = dtype or torch.get_default_dtype() if rows.value is None else rows.value.dtype
        shape = (len(rows.start) - 1, width)
        self: Self = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=rows.start.device)
        self.rows, self._columns, self._known = rows, None, WeakTensorKeyDictionary()
        return self

    @property
    def columns(self) -> Rows:
        """The transpose by rows, made when the first gradient asks for it; `rows` itself if symmetric."""
        if self._columns is None:
            self._columns = self.rows.transposed(self.size(1))
        return self._columns

    @property
    def turn(self) -> Tensor:
        """The place among the entries of `rows` of each entry of `columns`, [E]; made when first asked for."""
        if self._turn is None:
            row, column = self.rows.entries()
            self._turn = torch.argsort(column * self.size(0) + row, stable=True)
        return self._turn

    def times(self, x: Tensor) -> Tensor:
        """Multiply by a dense matrix [M, H]; the gradient with respect to it is as fast.

        A matrix without gradient that comes a second time unchanged, as a graph's features do, is a constant: its
        product is kept for as long as it lives itself, or until somebody writes into either. Of one that others than
        torch may write into none is kept (`written_by_torch_alone`, which says what it cannot notice).
        """
        if isinstance(x, SparseMatrix):
            return x.after(self)
        if x.layout != torch.strided:
            return _product(self, x.to_dense())
        if x.requires_grad or x.is_inference() or torch.is_inference_mode_enabled() or not written_by_torch_alone(x):
            return _product(self, x)
        version, product, written = self._known.get(x, (None, None, None))
        unchanged = product is not None and (version, written) == (x._version, product._version)
        if unchanged and written_by_torch_alone(product):
            return product
        product = _product(self, x)
        self._known[x] = (x._version, product if version == x._version else None, product._version)
        return product

    def after(self, matrix: SparseMatrix) -> Tensor:
        """Return the product of another sparse matrix with this one."""
        raise InputError(f"{self} can only multiply a dense matrix, not be multiplied by {matrix}")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the matrix on another device; a dtype is ignored, as products follow the dense side."""
        device = self.rows.start[:0].to(*args, **kwargs).device
        return self if device == self.device else type(self)(self.rows.to(device), self.size(1), self.dtype)

    def cpu(self, *args: Any) -> Self:
        """Return the matrix on the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = "cuda", *args: Any) -> Self:
        """Return the matrix on a CUDA device."""
        return self.to(device)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        rows = self.rows
        return _restored, (type(self), rows.start, rows.column, rows.value, self.size(1), self.dtype)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({self.size(0)} x {self.size(1)}, {len(self.rows.column)} entries)"


def _restored(
    kind: type[SparseMatrix],
    start: Tensor,
    column: Tensor,
    value: Tensor | None,
    width: int,
    dtype: torch.dtype | None = None,
) -> SparseMatrix:
    return kind(Rows(start, column, value), width, dtype)
