"""What a GNN says of some nodes, from their neighbourhood alone.

A model of L layers reads at most the nodes within L hops. `frontier` finds them ring by ring and cuts their rows out of
the whole graph's matrix, so that degrees and normalisation stay those of the whole graph. Layer by layer fewer nodes
are left, as in PyG's `inference_per_layer`, which runs them.

A module can be cut if it says that its layers can be run one by one and how far it reaches, or that it looks at no edge
(`mowst.models.reads`). Everything else runs on the whole graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import mul
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINConv

from mowst.kernels import Adjacency, Rows, SparseFeatures, dense, rows_of
from mowst.models import PAIRED, NarrowGCNConv, Reads, run_module, suited, suited_features


class Touched(NamedTuple):
    """What a module read, beside what it reads when it runs on the whole graph."""

    nodes: int
    """Nodes whose features were read."""
    edges: int
    """Entries of the adjacency that were read; with GCN's normalisation self-loops are among them."""
    of_nodes: int
    of_edges: int

    def __str__(self) -> str:
        pairs = (self.nodes, self.of_nodes, "nodes"), (self.edges, self.of_edges, "edges")
        return ", ".join(f"{part:,} of {whole:,} {what}" for part, whole, what in pairs)


class Frontier(NamedTuple):
    """Some nodes and what is within reach of them."""

    nodes: Tensor
    """[M] ids: those asked for, then ring after ring."""
    sizes: tuple[int, ...]
    """How many of them are within 0, 1, ... L hops."""
    rows: Rows
    """The matrix's rows of all but the last ring; columns are places in `nodes`."""

    def matrix(self, hops: int) -> Adjacency:
        """Return the rows of the nodes within `hops`, whose columns are the nodes within one hop more."""
        n, width = self.sizes[hops], self.sizes[hops + 1]
        last = int(self.rows.start[n])
        value = None if self.rows.value is None else self.rows.value[:last]
        return Adjacency(Rows(self.rows.start[: n + 1], self.rows.column[:last], value), width)


Limit = Callable[[list[int], list[int]], bool]
"""Whether to give up, given nodes within 0, 1, ... hops and entries in the rows of each, as far as they are known."""


def frontier(matrix: Rows, nodes: Tensor, hops: int, too_dear: Limit = lambda nodes, entries: False) -> Frontier | None:
    """Find what is within some hops of distinct nodes `[n]`; none as soon as that is too dear."""
    num_nodes = len(matrix.start) - 1
    parts: list[Rows] = []
    rings, sizes, read = [nodes], [len(nodes)], [0]
    for hop in range(hops):
        read.append(read[-1] + int((matrix.start[rings[-1] + 1] - matrix.start[rings[-1]]).sum()))
        if too_dear(sizes, read[1:]):
            return None
        if hop == 0:
            place = torch.full((num_nodes,), -1, dtype=matrix.column.dtype, device=nodes.device)
            place[nodes] = torch.arange(len(nodes), dtype=place.dtype, device=nodes.device)
        parts.append(matrix.take(rings[-1]))
        near = torch.bincount(parts[-1].column, minlength=num_nodes)
        rings.append(((near > 0) & (place < 0)).nonzero().squeeze(-1))
        sizes.append(sizes[-1] + len(rings[-1]))
        place[rings[-1]] = torch.arange(*sizes[-2:], dtype=place.dtype, device=nodes.device)
    rows = Rows.stacked(parts)
    column = place.index_select(0, rows.column)
    return Frontier(torch.cat(rings), tuple(sizes), Rows(rows.start, column, rows.value))


class Costs:
    """What a module's layers cost on so many nodes and entries, in nanoseconds of one core of a CPU.

    The prices were measured with `benchmarks/speed.py` on one machine; none of a GPU was.

    Args:
        module: one whose layers can be run one by one.
        x: features of all nodes, [N, F].
        entries: E, of the whole graph's matrix.
    """

    PRODUCT, DENSE, ELEMENT = 0.06, 0.025, 1.0
    """A multiplication in a sparse product, in a dense one, and a step from one to the next, per number."""
    READ, GATHER, START = 6.0, 0.4, 300_000.0
    """Finding an entry, copying a feature, and beginning a layer: what a full forward does not pay."""
    MARGIN = 0.7
    """A cut must be as much cheaper as this to be worth the risk that the prices are others on this machine."""

    def __init__(self, module: Any, x: Tensor, entries: int):
        first: Any = module.convs[0]
        sparse = isinstance(x, SparseFeatures)
        narrow = isinstance(first, NarrowGCNConv) and first.passes_first and not sparse
        kept = narrow or isinstance(first, GINConv if sparse else PAIRED)  # A X
        self.num_nodes, width = x.shape
        self.features: float = width
        if isinstance(x, SparseFeatures) and not kept:
            self.features = len(x.rows.column) / max(self.num_nodes, 1)
        weights = [sum(weight.numel() for weight in conv.parameters()) for conv in module.convs]
        weights[0] = int(weights[0] * self.features / width)
        self.layers, hidden, self.entries = len(weights), module.hidden_channels, entries
        self.per_node = [self.DENSE * weight + self.ELEMENT * hidden for weight in weights]
        self.per_entry = [self.PRODUCT * (hidden if layer or not kept else width) for layer in range(self.layers)]
        self.full = sum(self.per_node) * self.num_nodes + sum(self.per_entry[kept:]) * entries

    def too_dear(self, nodes: list[int], entries: list[int]) -> bool:
        """Whether cutting out costs more than it saves; rings not seen yet are guessed as those of a random graph."""
        nodes, entries = list(nodes), list(entries)
        while len(nodes) <= self.layers:
            fresh = (self.num_nodes - nodes[-1]) * -math.expm1(-entries[-1] / self.num_nodes) / 2
            nodes.append(nodes[-1] + int(fresh))
            entries.append(min(self.entries, entries[-1] + int(fresh * self.entries / self.num_nodes)))
        extra = self.START * (self.layers + 1) + self.READ * entries[self.layers - 1]
        extra += self.GATHER * self.features * nodes[-1]
        forward = sum(map(mul, self.per_node, nodes[:0:-1])) + sum(map(mul, self.per_entry, entries[-2::-1]))
        threads = torch.get_num_threads()
        return extra + forward / threads > self.MARGIN * self.full / threads


def run_layer(module: Any, reads: Reads, layer: int, x: Tensor, matrix: Adjacency) -> Tensor:
    """Run one layer for the rows of a matrix, whose columns are the rows of `x`; the former come first in `x`."""
    n = len(matrix)
    if isinstance(module.convs[layer], PAIRED):
        own = rows_of(x, torch.arange(n, device=x.device)) if isinstance(x, SparseFeatures) else x[:n]
        return module.inference_per_layer(layer, (x, own), suited(reads, matrix), n)
    return module.inference_per_layer(layer, x, suited(reads, matrix), n)


def matrix_of(reads: Reads, adjacency: Adjacency) -> Adjacency:
    """Return the matrix that a module's layers multiply by: normalised if it says so."""
    return adjacency.gcn() if reads.normalised else adjacency


@torch.no_grad()
def at_nodes(module: nn.Module, reads: Reads, x: Tensor, graph: Tensor, nodes: Tensor | None) -> tuple[Tensor, Touched]:
    """Run a module in evaluation mode for distinct nodes `[n]`: logits [n, C], and what was touched for them.

    The whole graph is run where the neighbourhood is most of it, or where the module cannot be cut.

    Args:
        module: `(x, edge_index) -> logits [N, C]`.
        reads: what it reads.
        x: features of all nodes, [N, F].
        graph: an `Adjacency`, or a plain `edge_index` [2, E], of which one is made for a module that can be cut.
        nodes: distinct ids, [n]; none: all nodes in order.
    """
    if nodes is not None and reads.hops == 0:
        return run_module(module, reads, rows_of(x, nodes), graph), Touched(len(nodes), 0, len(x), 0)
    if nodes is not None and reads.by_layer and not isinstance(graph, Adjacency):
        graph = Adjacency.from_edge_index(graph, len(x))
    whole = untouched(reads, x, graph)
    if nodes is not None and reads.by_layer and reads.hops is not None and isinstance(graph, Adjacency):
        rows = matrix_of(reads, graph).rows
        cut = frontier(rows, nodes, reads.hops, Costs(module, x, whole.of_edges).too_dear)
        if cut is not None:
            found = run_frontier(module, reads, x, cut)
            return found, whole._replace(nodes=len(cut.nodes), edges=len(cut.rows.column))
    logits = run_module(module, reads, x, graph)
    full = whole._replace(nodes=whole.of_nodes, edges=whole.of_edges)
    return logits if nodes is None else logits.index_select(0, nodes), full


def untouched(reads: Reads, x: Tensor, graph: Tensor) -> Touched:
    """Return what a module touches that is not run."""
    edges = len(matrix_of(reads, graph).rows.column) if isinstance(graph, Adjacency) else graph.size(1)
    return Touched(0, 0, len(x), 0 if reads.hops == 0 else edges)


def run_frontier(module: Any, reads: Reads, x: Tensor, cut: Frontier) -> Tensor:
    """Run all layers of a module on a frontier: logits of the nodes it was made for, [n, C]."""
    h = suited_features(reads, x)
    h = rows_of(dense(h) if isinstance(module.convs[0], GINConv) else h, cut.nodes)
    for layer in range(module.num_layers):
        h = run_layer(module, reads, layer, h, cut.matrix(module.num_layers - 1 - layer))
    return h
