"""Message passing as a sparse product that is fast in both directions.

PyG's convolutions take an `edge_index` [2, E] and gather and scatter along it, or a sparse adjacency in its place and
multiply by it. On a CPU the product is the faster by a factor of several, but torch's CSR tensor multiplies well in one
direction only: its gradient goes through the transpose, converted anew on every call. An `Adjacency` keeps both
directions, and looks enough like a CSR tensor for PyG's fused message passing to take it unchanged.

Rows are targets and columns sources: entry (i, j) is the edge j -> i, which is what PyG calls `adj_t`.

    adjacency = Adjacency.from_edge_index(data.edge_index, data.num_nodes)
    GraphSAGE(...)(x, adjacency)               # mean product
    GCN(..., normalize=False)(x, normalized(adjacency, x.size(0)))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric.nn import GCNConv, GINConv, SAGEConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.utils import scatter

from mowst.errors import InputError

Shape = tuple[int, int] | torch.Size

with torch.random.fork_rng(devices=[]):
    # PyG writes a class's `propagate` when its first instance is made: were that one with an aggregation that is no
    # product (a median), no later one would multiply.
    SAGEConv(1, 1), GINConv(nn.Identity()), GCNConv(1, 1)


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

    @classmethod
    def from_entries(cls, row: Tensor, column: Tensor, value: Tensor | None, shape: Shape) -> Rows:
        """Sort the entries (row, column) of a matrix of this shape by row, then by column; duplicates stay apart."""
        order = torch.argsort(row * shape[1] + column, stable=True)
        start = F.pad(torch.bincount(row, minlength=shape[0]).cumsum(0), (1, 0))
        narrow = torch.int32 if max(*shape, len(row)) < 2**31 else torch.int64
        return cls(start.to(narrow), column[order].to(narrow), None if value is None else value[order])

    @cached_property
    def row(self) -> Tensor:
        """The row of each entry, [E], as narrow as `column`; made when first asked for."""
        rows = torch.arange(len(self.start) - 1, device=self.start.device, dtype=self.column.dtype)
        return rows.repeat_interleave(self.start.diff(), output_size=len(self.column))

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return the row and the column of each entry, [E] and [E]."""
        row = torch.arange(len(self.start) - 1, device=self.start.device).repeat_interleave(self.start.diff())
        return row, self.column.long()

    def transposed(self, width: int) -> Rows:
        """Return the `width` columns as rows, sharing what is the same: all of it for a symmetric matrix."""
        row, column = self.entries()
        other = Rows.from_entries(column, row, self.value, (width, len(self.start) - 1))
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

    @staticmethod
    def stacked(parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts, one below the other."""
        count, column = (torch.cat(list(each)) for each in ((p.start.diff() for p in parts), (p.column for p in parts)))
        values = [part.value for part in parts if part.value is not None]
        return Rows(F.pad(count.cumsum(0), (1, 0)).to(column.dtype), column, torch.cat(values) if values else None)

    def times(self, x: Tensor) -> Tensor:
        """Multiply by `x`, in its precision: each row of the result is a weighted bag of rows of `x`."""
        if x.dtype not in self._operands:
            self._operands[x.dtype] = self._operand(x)
        operand = self._operands[x.dtype]
        if operand is not None and operand.layout == torch.sparse_csr:
            return operand @ x
        options: Any = {"mode": "sum", "per_sample_weights": operand, "include_last_offset": True}
        return F.embedding_bag(self.column, x.contiguous(), self.start, **options)

    def _operand(self, x: Tensor) -> Tensor | None:
        """Return what `times` needs in the precision of `x`: the entries on a CPU, a CSR tensor elsewhere."""
        value = None if self.value is None else self.value.to(x.dtype)
        if x.device.type == "cpu":
            return value
        value = torch.ones_like(self.column, dtype=x.dtype) if value is None else value
        return torch.sparse_csr_tensor(self.start, self.column, value, (len(self.start) - 1, len(x)))

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


class SparseMatrix(Tensor):
    """A constant sparse matrix [N, M] that multiplies dense ones, fast forward and backward.

    It never changes, so copies of it are itself. On a CPU it multiplies by torch's embedding bag; on another device by
    torch's CSR product, which is what PyG recommends there and has not been measured by us.
    """

    rows: Rows
    _columns: Rows | None
    _turn: Tensor | None = None
    _known: WeakTensorKeyDictionary

    @staticmethod
    def __new__(cls, rows: Rows, width: int) -> Self:
        """Wrap the rows of a matrix with `width` columns."""
        dtype = torch.get_default_dtype() if rows.value is None else rows.value.dtype
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
        product is kept for as long as it lives itself, or until somebody writes into either.
        """
        if isinstance(x, SparseMatrix):
            return x.after(self)
        if x.requires_grad or x.is_inference() or torch.is_inference_mode_enabled():
            return _Product.apply(self, x)  # type: ignore[no-untyped-call]
        version, product, written = self._known.get(x, (None, None, None))  # type: ignore[no-untyped-call]
        if product is not None and (version, written) == (x._version, product._version):
            return product
        product = _Product.apply(self, x)  # type: ignore[no-untyped-call]
        self._known[x] = (x._version, product if version == x._version else None, product._version)
        return product

    def after(self, matrix: SparseMatrix) -> Tensor:
        """Return the product of another sparse matrix with this one."""
        raise InputError(f"{self} can only multiply a dense matrix, not be multiplied by {matrix}")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the matrix on another device; a dtype is ignored, as products follow the dense side."""
        device = self.rows.start[:0].to(*args, **kwargs).device
        return self if device == self.device else type(self)(self.rows.to(device), self.size(1))

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
        return _restored, (type(self), rows.start, rows.column, rows.value, self.size(1))

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}({self.size(0)} x {self.size(1)}, {len(self.rows.column)} entries)"


def _restored(
    kind: type[SparseMatrix], start: Tensor, column: Tensor, value: Tensor | None, width: int
) -> SparseMatrix:
    return kind(Rows(start, column, value), width)


class Adjacency(SparseMatrix):
    """The prepared adjacency [N, N] of one graph, which PyG's fused message passing takes in place of `edge_index`."""

    _edge_index: Tensor | None = None
    _gcn: Adjacency | None = None
    _mean: Adjacency | None = None

    @classmethod
    def from_edge_index(cls, edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None = None) -> Adjacency:
        """Prepare a graph given as source and target of each edge, [2, E], possibly with a weight per edge, [E]."""
        if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < num_nodes:
            span = f"{int(edge_index.min())} to {int(edge_index.max())}"
            raise InputError(f"edge_index names nodes {span}, but the graph has nodes 0 to {num_nodes - 1}")
        source, target = edge_index
        adjacency = cls(Rows.from_entries(target, source, edge_weight, (num_nodes, num_nodes)), num_nodes)
        adjacency._edge_index = edge_index
        return adjacency

    @property
    def edge_index(self) -> Tensor:
        """Source and target of each edge, [2, E]: what it was made from, or, once moved or restored, by target."""
        if self._edge_index is None:
            target, source = self.rows.entries()
            self._edge_index = torch.stack([source, target])
        return self._edge_index

    def gcn(self) -> Adjacency:
        """Return D^-1/2 (A + I) D^-1/2 (Kipf & Welling, 2017, arXiv:1609.02907), kept; self-loops as in PyG."""
        if self._gcn is None:
            target, source = self.rows.entries()
            edges, weight = gcn_norm(torch.stack([source, target]), self.rows.value, len(self), dtype=self.dtype)
            self._gcn = Adjacency(Rows.from_entries(edges[1], edges[0], weight, self.shape), len(self))
        return self._gcn

    def averaging(self) -> Adjacency:
        """Return D^-1 A, D the number of edges into each node: its product is a mean over neighbours; kept."""
        if self._mean is None:
            degree = self.rows.start.diff()
            share = degree.to(self.dtype).reciprocal().repeat_interleave(degree)
            value = share if self.rows.value is None else share * self.rows.value
            self._mean = Adjacency(Rows(self.rows.start, self.rows.column, value), self.size(1))
        return self._mean

    def aggregate(self, x: Tensor, reduce: str = "sum") -> Tensor:
        """Reduce the rows of `x` [N, F] over the edges into each node, [N, F]; fast for `sum` and `mean`."""
        if reduce in ("sum", "mean"):
            return (self if reduce == "sum" else self.averaging()).times(x)
        target, source = self.rows.entries()
        message = x[source] if self.rows.value is None else x[source] * self.rows.value.to(x.dtype)[:, None]
        return scatter(message, target, dim=0, dim_size=len(self), reduce=reduce)

    def values(self) -> Tensor:
        """Return the entries by row, [E]: ones for a graph without weights."""
        one = torch.ones((), dtype=self.dtype, device=self.device)
        return one.expand(len(self.rows.column)) if self.rows.value is None else self.rows.value

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer what PyG asks of a CSR tensor: its layout, its entries and its products."""
        if func in _ANSWERS and isinstance(args[0], Adjacency):
            return _ANSWERS[func](*args, **(kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Refuse what is no product; a detached or cloned adjacency is itself."""
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return args[0]
        raise InputError(f"an Adjacency can only be multiplied; use its edge_index for {func}")


PRODUCTS = (torch.sparse.mm, torch.mm, torch.matmul, Tensor.mm, Tensor.matmul, Tensor.__matmul__)
_ANSWERS: dict[Any, Callable[..., Any]] = {
    Tensor.layout.__get__: lambda self: torch.sparse_csr,  # type: ignore[attr-defined]
    Tensor.is_sparse_csr.__get__: lambda self: True,  # type: ignore[attr-defined]
    Tensor.crow_indices: lambda self: self.rows.start,
    Tensor.col_indices: lambda self: self.rows.column,
    **dict.fromkeys(PRODUCTS, Adjacency.aggregate),
}


def normalized(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Return the GCN-normalised adjacency [N, N]: kept by an `Adjacency`, computed anew for a plain `edge_index`."""
    if not isinstance(edge_index, Adjacency):
        edge_index = Adjacency.from_edge_index(edge_index, num_nodes)
    return edge_index.gcn()


def only_multiplies(conv: nn.Module) -> bool:
    """Whether a convolution uses the graph for products and nothing else: it says so, or is one of PyG's that do.

    One that adds self-loops or normalises by itself would rebuild the adjacency in every call.
    """
    if getattr(conv, "takes_adjacency", False):
        return True
    rebuilds = getattr(conv, "normalize", False) and hasattr(conv, "add_self_loops")
    return bool(getattr(conv, "fuse", False)) and conv.flow == "source_to_target" and not rebuilds


def suited(module: nn.Module, edge_index: Tensor) -> Tensor:
    """Return the graph in the form that `module` can take: an `Adjacency` where it multiplies, else the plain edges.

    A module multiplies if it says so (`takes_adjacency = True`), or if it is one of PyG's models all of whose
    convolutions have a fused path. A plain `edge_index` passes through.
    """
    if not isinstance(edge_index, Adjacency) or getattr(module, "takes_adjacency", False):
        return edge_index
    multiplies = isinstance(module, BasicGNN) and all(map(only_multiplies, module.convs))
    return edge_index if multiplies else edge_index.edge_index
