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

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, GINConv, SAGEConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import scatter

from mowst.errors import InputError
from mowst.kernels.degrees import has_loops, normalized_rows, shares
from mowst.kernels.drawn import Drawn
from mowst.kernels.edges import checked_edges, checked_weight
from mowst.kernels.sparse import PRODUCTS, Rows, SparseMatrix, written_by_torch_alone
from mowst.kernels.thinned import Around, Exact, Thin

Keep = Callable[[str, Callable[[], tuple[Tensor, ...]]], tuple[Tensor, ...]]
"""Returns tensors of a name, made now or before."""

with torch.random.fork_rng(devices=[]):
    # PyG writes a class's `propagate` when its first instance is made: were that one with an aggregation that is no
    # product (a median), no later one would multiply.
    SAGEConv(1, 1), GINConv(nn.Identity()), GCNConv(1, 1)


class Adjacency(SparseMatrix):
    """The prepared adjacency [N, N] of one graph, which PyG's fused message passing takes in place of `edge_index`."""

    _edge_index: tuple[Tensor, int] | None = None
    _gcn: Adjacency | None = None
    _mean: Adjacency | None = None
    _part_of: tuple[Adjacency, Tensor] | None = None
    _drawn: Thin | None = None
    _rows_of: tuple[Adjacency, int, int] | None = None
    _exact: Exact | None = None
    around: Around | None = None
    """Of which nodes something is asked, where the others are there for their sake."""
    _roots: tuple[Tensor, Tensor] | None = None
    _keep: Keep | None = None

    @classmethod
    def from_edge_index(
        cls, edge_index: Tensor, num_nodes: int, edge_weight: Tensor | None = None, *, keep: Keep | None = None
    ) -> Adjacency:
        """Prepare a graph given as source and target of each edge, [2, E], possibly with a weight per edge, [E].

        Weights are finite and not negative: GCN divides by the root of their sums, and an average by the sums. The
        graph stays as it was then, whatever is written into the tensors later.

        Args:
            edge_index, num_nodes, edge_weight: the graph.
            keep: where the adjacency of a graph without weights is kept, `(name, make) -> tensors`; by default in
                memory.

        Raises:
            InputError: an edge names no node, or a tensor is of another shape or kind.
        """
        edge_index = checked_edges(edge_index, num_nodes)
        weight = None if edge_weight is None else checked_weight(edge_weight, edge_index)
        source, target = edge_index
        shape = num_nodes, num_nodes
        if weight is None and keep is not None:
            rows = Rows(*keep("plain", lambda: _pattern(Rows.from_entries(target, source, None, shape))))
        else:
            rows = Rows.from_entries(target, source, weight, shape)
        adjacency = cls(rows, num_nodes)
        adjacency._keep = keep
        kept = edge_index if written_by_torch_alone(edge_index) else edge_index.clone()
        adjacency._edge_index = kept, _version(kept)
        return adjacency

    @property
    def edge_index(self) -> Tensor:
        """Source and target of each edge, [2, E]: what it was made from; once moved, restored or changed, by target."""
        edges, version = self._edge_index or (None, 0)
        if edges is None or _version(edges) != version or not written_by_torch_alone(edges):
            target, source = self.rows.entries()
            edges = torch.stack([source, target])
            self._edge_index = edges, _version(edges)
        return edges

    @property
    def edge_weight(self) -> Tensor | None:
        """Weight of each edge of `edge_index`, [E]; none: all are 1."""
        if self.rows.value is None:
            return None
        source, target = self.edge_index
        order = torch.argsort(target * self.size(1) + source, stable=True)
        return torch.empty_like(self.rows.value).index_copy_(0, order, self.rows.value)

    def within(self, nodes: Tensor) -> Adjacency:
        """Return the edges among some distinct nodes `[n]`, as the adjacency [n, n] of a graph of these.

        Degrees, and with them normalisation and averages, stay those of the whole graph: for a node all of whose
        neighbours are there, a product is what it is on the whole graph.
        """
        part = Adjacency(self.rows.within(nodes), len(nodes))
        part._part_of = self, nodes
        return part

    def between(self, first: int, last: int, width: int | None = None) -> Adjacency:
        """Return the rows from one to before another, as a matrix [last - first, N] for products and averages.

        Args:
            first, last: rows.
            width: how many columns there are, where no entry of these rows lies in a later one.
        """
        part = Adjacency(self.rows.between(first, last), width or self.size(1), self.dtype)
        part._rows_of = self, first, last
        if self._exact is not None and part.size(1) == self.size(1):
            part._exact = self._exact.between(first, last)
        return part

    def ring(self, hops: int, width: int) -> Adjacency:
        """Return the rows of the nodes within so many hops of those asked for (`around`), [n, width]."""
        assert self.around is not None, "nobody was asked for"
        return self.between(0, self.around.sizes[hops], width)

    def uncut(self) -> Adjacency:
        """Return the same graph, of whose nodes none is asked for before others."""
        same = Adjacency(self.rows, self.size(1), self.dtype)
        same._drawn, same._exact = self._drawn, self._exact
        return same

    def thinned(
        self, drawn: Drawn, features: tuple[Tensor, Tensor] | None = None, around: Around | None = None
    ) -> Adjacency:
        """Return some nodes [n] with some of the edges among them, as the adjacency of a graph of these.

        Each edge stands for those into its target that were left out, too: a node with k of its d edges has them
        counted d / k times. So what a node receives is what it would receive on the whole graph on average over the
        draws, normalisation and averages included, and exactly that where none is missing.

        Args:
            drawn: the nodes and edges.
            features: of these nodes, [n, F], and of all, [N, F], from which they are: neither ever changes, so that
                products with them are those of the whole graph, which keeps them.
            around: which of the nodes are asked for, and how far the others are from these.
        """
        thin = Thin.of(self, drawn, features)
        part = Adjacency(thin.itself(), len(drawn.nodes), self.dtype)
        part._drawn, part._exact, part.around = thin, thin.exact(self), around
        return part

    def times(self, x: Tensor) -> Tensor:
        """Multiply by a dense matrix; for the features of a part (`thinned`) the whole graph answers."""
        if self._exact is None or x is not self._exact.features:
            assert self._exact is None or not self._exact.alone, "of some nodes no neighbours were drawn"
            return super().times(x)
        return self._exact.matrix.times(self._exact.of_all).index_select(0, self._exact.nodes)

    def roots(self) -> tuple[Tensor, Tensor]:
        """Return D^-1/2 of the graph with self-loops, [N], and the weights of these, [N]; kept."""
        if self._roots is None:
            row, value = self.rows.row, self.values()
            own = row == self.rows.column
            loops = torch.ones(len(self), dtype=self.dtype, device=self.device)
            loops[row[own].long()] = value[own]
            total = torch.zeros_like(loops).index_add_(0, row[~own], value[~own]) + loops
            self._roots = total.pow(-0.5).nan_to_num(posinf=0.0), loops
        return self._roots

    def gcn(self) -> Adjacency:
        """Return D^-1/2 (A + I) D^-1/2 (Kipf & Welling, 2017, arXiv:1609.02907), kept; self-loops as in PyG."""
        if self._gcn is None and self._part_of is not None:
            whole, nodes = self._part_of
            self._gcn = Adjacency(whole.gcn().rows.within(nodes), len(nodes))
        if self._gcn is None and self._drawn is not None:
            self._gcn = Adjacency(self._drawn.gcn(), len(self))
            self._gcn._exact, self._gcn.around = self._drawn.exact(self._drawn.whole.gcn()), self.around
        if self._gcn is None and self._rows_of is not None:
            matrix, first, last = self._rows_of
            self._gcn = matrix.gcn().between(first, last, self.size(1))
        if self._gcn is None and self.rows.value is None and not has_loops(self.rows):
            self._gcn = Adjacency(Rows(*self._kept("gcn", lambda: normalized_rows(self.rows, self.dtype))), len(self))
        if self._gcn is None:
            target, source = self.rows.entries()
            edges, weight = gcn_norm(torch.stack([source, target]), self.rows.value, len(self), dtype=self.dtype)
            self._gcn = Adjacency(Rows.from_entries(edges[1], edges[0], weight, self.shape), len(self))
        return self._gcn

    def averaging(self) -> Adjacency:
        """Return D^-1 A, D the number of edges into each node: its product is a mean over neighbours; kept.

        With weights D is their sum, and the mean is weighted; it is 0 where that is 0, as it is without neighbours.
        """
        if self._mean is None and self._part_of is not None:
            whole, nodes = self._part_of
            self._mean = Adjacency(whole.averaging().rows.within(nodes), len(nodes))
        if self._mean is None and self._drawn is not None:
            self._mean = Adjacency(self._drawn.mean(), len(self))
            self._mean._exact = self._drawn.exact(self._drawn.whole.averaging())
        if self._mean is None and self._rows_of is not None:
            whole, first, last = self._rows_of
            self._mean = whole.averaging().between(first, last, self.size(1))
        if self._mean is None:
            if self.rows.value is None:
                (share,) = self._kept("mean", lambda: (shares(self.rows, self.dtype),))
            else:
                degree = self.rows.start.diff()
                total = torch.segment_reduce(self.rows.value, "sum", offsets=self.rows.start.long())
                share = self.rows.value * total.reciprocal().nan_to_num(posinf=0.0).repeat_interleave(degree)
            self._mean = Adjacency(Rows(self.rows.start, self.rows.column, share), self.size(1))
        return self._mean

    def _kept(self, name: str, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return tensors that belong to the whole graph, from where they are kept."""
        return make() if self._keep is None else self._keep(f"{name}-{self.dtype}", make)

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


def _pattern(rows: Rows) -> tuple[Tensor, ...]:
    """Return what a matrix of ones is made of."""
    return rows.start, rows.column


_ANSWERS: dict[Any, Callable[..., Any]] = {
    Tensor.layout.__get__: lambda self: torch.sparse_csr,  # type: ignore[attr-defined]
    Tensor.is_sparse_csr.__get__: lambda self: True,  # type: ignore[attr-defined]
    Tensor.crow_indices: lambda self: self.rows.start,
    Tensor.col_indices: lambda self: self.rows.column,
    **dict.fromkeys(PRODUCTS, Adjacency.aggregate),
}


def _version(x: Tensor) -> int:
    """Return a number that another one takes the place of when torch writes into a tensor; inference has none."""
    return -1 if x.is_inference() else x._version


def normalized_edges(edge_index: Tensor, num_nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the GCN-normalised graph as edges [2, E + N] and weights [E + N], self-loops last, as PyG's GCN has it.

    An explanation masks edges one by one, so they stay in the order in which they came.
    """
    graph, weight = edge_index, None
    if isinstance(edge_index, Adjacency):
        if edge_index._part_of is not None:
            return _part_in_edges(edge_index.gcn())
        graph, weight = edge_index.edge_index, edge_index.edge_weight
    return gcn_norm(graph, weight, num_nodes, dtype=dtype)


def _part_in_edges(gcn: Adjacency) -> tuple[Tensor, Tensor]:
    """Return a normalised part of a graph as edges and weights, self-loops last; degrees are those of the whole."""
    (target, source), value = gcn.rows.entries(), gcn.values()
    loops = target == source
    order = torch.cat([(~loops).nonzero(), loops.nonzero()]).squeeze(-1)
    return torch.stack([source, target])[:, order].long(), value[order]


def normalized(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Return the GCN-normalised adjacency [N, N]: kept by an `Adjacency`, computed anew for a plain `edge_index`."""
    if not isinstance(edge_index, Adjacency):
        edge_index = Adjacency.from_edge_index(edge_index, num_nodes)
    return edge_index.gcn()
