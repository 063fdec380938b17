"""Neighbourhoods of a graph that lies elsewhere, of which nothing is here but how many edges lead to each node."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from mowst.kernels.adjacency import Adjacency
from mowst.kernels.drawn import Drawn
from mowst.kernels.sparse import Rows
from mowst.kernels.thinned import Around


class Brought(Adjacency):
    """Nodes that something is asked of, with some of what is around them; edges have no weights, and none is a loop.

    As in `Adjacency.thinned`, an edge stands for those into its node that were left out.
    """

    _edges: Drawn
    _degree: Tensor
    _times: Tensor

    @classmethod
    def of(cls, drawn: Drawn, degree: Tensor, x: Tensor) -> Self:
        """Put together what was brought.

        Args:
            drawn: nodes and edges; nobody asks for the places that these have in the whole graph.
            degree: edges into each of the nodes in the whole graph, [n].
            x: features of the nodes, [n, F].
        """
        n, target = len(drawn.nodes), drawn.target
        times = (degree.to(x.dtype) / torch.bincount(target, minlength=n).clamp(min=1))[target]
        part = cls(Rows.from_entries(target, drawn.source, times, (n, n)), n)
        part._edges, part._degree, part._times = drawn, degree.to(x.dtype), times
        part.around = Around(x, drawn.sizes)
        return part

    def averaging(self) -> Adjacency:
        """Return the matrix whose product is a mean over neighbours; kept."""
        if self._mean is None:
            _, target, source, *_ = self._edges
            share = self._times / self._degree[target]
            self._mean = Adjacency(Rows.from_entries(target, source, share, self.shape), len(self))
        return self._mean

    def gcn(self) -> Adjacency:
        """Return D^-1/2 (A + I) D^-1/2, D that of the whole graph; kept."""
        if self._gcn is None:
            _, target, source, *_ = self._edges
            root, each = (self._degree + 1).pow(-0.5), torch.arange(self._edges.expanded, device=target.device)
            value = torch.cat([root[target] * root[source] * self._times, root[each].square()])
            entries = torch.cat([target, each]), torch.cat([source, each])
            self._gcn = Adjacency(Rows.from_entries(*entries, value, self.shape), len(self))
            self._gcn.around = self.around
        return self._gcn

    def uncut(self) -> Adjacency:
        """Return the same graph, of whose nodes none is asked for before others."""
        assert self.around is not None, "nobody was asked for"
        same = Brought.of(self._edges, self._degree, self.around.x)
        same.around = None
        return same
