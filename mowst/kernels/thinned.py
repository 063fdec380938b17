"""Some nodes of a graph with some of its edges: what each of these stands for, and what needs none of them.

An edge stands for those into its node that were left out, too. A product with the features, which never change, is
looked up instead in that of the whole graph, where nothing is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mowst.kernels.compress import Compressed, compressed
from mowst.kernels.drawn import Drawn
from mowst.kernels.sparse import Rows

if TYPE_CHECKING:
    from mowst.kernels.adjacency import Adjacency


class Around(NamedTuple):
    """Nodes of which something is asked, and what is around them."""

    x: Tensor
    """[M, F] features: theirs, which come first, then ring after ring those of the others."""
    sizes: tuple[int, ...]
    """How many are within 0, 1, ... hops."""


class Exact(NamedTuple):
    """Whose products stand for those of some nodes' features."""

    matrix: Adjacency
    """Of the whole graph."""
    features: Tensor
    """[n, F] of the nodes."""
    of_all: Tensor
    """[N, F] that they are rows of."""
    nodes: Tensor
    """[n] ids of the nodes whose products these are."""
    expanded: int
    """How many of the nodes have had their neighbours drawn."""
    alone: bool = False
    """Whether there is no other product of them: not all have."""

    def between(self, first: int, last: int) -> Exact:
        """Let products of some of the nodes stand."""
        return self._replace(nodes=self.nodes[first:last], alone=last > self.expanded)


class Thin(NamedTuple):
    """Of what the adjacency of some nodes is made (`Adjacency.thinned`)."""

    whole: Adjacency
    drawn: Drawn
    times: Tensor
    """For how many edges each one stands, [e]."""
    held: Compressed
    """Where each edge is in the matrix."""
    features: tuple[Tensor, Tensor] | None
    """Of the nodes, [n, F], and of all, [N, F]."""

    @classmethod
    def of(cls, whole: Adjacency, drawn: Drawn, features: tuple[Tensor, Tensor] | None) -> Thin:
        """Find out for how many edges each one stands."""
        n, target = len(drawn.nodes), drawn.target
        if drawn.times is None:
            had = whole.rows.start.diff()[drawn.nodes].to(whole.dtype)
            times = (had / torch.bincount(target, minlength=n).clamp(min=1))[target]
        else:
            times = drawn.times.to(whole.dtype)
        return cls(whole, drawn, times, compressed(target, drawn.source, (n, n)), features)

    def exact(self, matrix: Adjacency) -> Exact | None:
        """Let a matrix of the whole graph answer for the features, if they are given."""
        if self.features is None:
            return None
        return Exact(matrix, *self.features, self.drawn.nodes, self.drawn.expanded)

    def _rows(self, value: Tensor | None) -> Rows:
        """Return the edges with these entries, [e]; none: ones."""
        order = self.held.order
        return Rows(self.held.start, self.held.column, value if order is None or value is None else value[order])

    def itself(self) -> Rows:
        """Return the entries whose product is a sum over neighbours."""
        if self.whole.rows.value is not None:
            return self._rows(self.whole.rows.value[self.drawn.entry] * self.times)
        return self._rows(self.times if bool((self.times != 1).any()) else None)

    def mean(self) -> Rows:
        """Return the entries whose product is a mean over neighbours."""
        nodes, target, _, entry, *_ = self.drawn
        if self.whole.rows.value is None:
            return self._rows(self.times / self.whole.rows.start.diff()[nodes][target])
        return self._rows(self.times * self.whole.averaging().values()[entry])

    def gcn(self) -> Rows:
        """Return the entries of the GCN-normalised adjacency; self-loops are all there, of the nodes with edges."""
        nodes, target, source, entry, *_ = self.drawn
        root, loops = (each[nodes] for each in self.whole.roots())
        value = root[target] * self.whole.values()[entry] * root[source] * self.times
        others, each = target != source, torch.arange(self.drawn.expanded, device=nodes.device)
        return Rows.from_entries(
            torch.cat([target[others], each]),
            torch.cat([source[others], each]),
            torch.cat([value[others], (root * loops * root)[: len(each)]]),
            (len(nodes), len(nodes)),
        )
