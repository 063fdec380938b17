"""Some nodes of a graph with some of its edges: what each of these stands for, and what needs none of them.

An edge stands for those into its node that were left out, too. A product with the features, which never change, is
looked up instead in that of the whole graph, where nothing is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mowst.kernels.sampling import Drawn
from mowst.kernels.sparse import Rows

if TYPE_CHECKING:
    from mowst.kernels.adjacency import Adjacency


class Exact(NamedTuple):
    """Whose products stand for those of some nodes' features."""

    matrix: Adjacency
    """Of the whole graph."""
    features: Tensor
    """[n, F] of the nodes."""
    of_all: Tensor
    """[N, F] that they are rows of."""
    nodes: Tensor
    """[n] ids."""


class Thin(NamedTuple):
    """Of what the adjacency of some nodes is made (`Adjacency.thinned`)."""

    whole: Adjacency
    drawn: Drawn
    times: Tensor
    """For how many edges each one stands, [e]."""
    features: tuple[Tensor, Tensor] | None
    """Of the nodes, [n, F], and of all, [N, F]."""

    def exact(self, matrix: Adjacency) -> Exact | None:
        """Let a matrix of the whole graph answer for the features, if they are given."""
        return None if self.features is None else Exact(matrix, *self.features, self.drawn.nodes)

    def mean(self) -> Rows:
        """Return the entries whose product is a mean over neighbours."""
        nodes, target, source, entry = self.drawn
        if self.whole.rows.value is None:
            value = self.times / self.whole.rows.start.diff()[nodes][target]
        else:
            value = self.times * self.whole.averaging().values()[entry]
        return Rows.from_entries(target, source, value, (len(nodes), len(nodes)))

    def gcn(self) -> Rows:
        """Return the entries of the GCN-normalised adjacency; self-loops are all there."""
        nodes, target, source, entry = self.drawn
        root, loops = (each[nodes] for each in self.whole.roots())
        value = root[target] * self.whole.values()[entry] * root[source] * self.times
        others, each = target != source, torch.arange(len(nodes), device=nodes.device)
        return Rows.from_entries(
            torch.cat([target[others], each]),
            torch.cat([source[others], each]),
            torch.cat([value[others], root * loops * root]),
            (len(nodes), len(nodes)),
        )
