"""An expert that asks which classes the neighbours have, and has nothing to train.

A node's labelled neighbours are evidence of its class: in a network of friends as in one of buyers and sellers, once it
is known which classes meet. `Neighbours` counts them on the training nodes (naive Bayes with counts smoothed by one,
scikit-learn's `MultinomialNB`), one table of classes by classes for each hop.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from mowst.kernels import Adjacency
from mowst.models.learners import Judged, Learned
from mowst.models.options import whole
from mowst.models.reads import Reads

HEARD = 10.0
"""Neighbours from which on more of them say no more: what they say is not independent."""


class Neighbours(Learned):
    """The classes of labelled nodes around a node as evidence of its own; its own label is never among them.

    The log-likelihoods of n neighbours are averaged and counted √n times, up to √10; `damped=False` counts n times.
    On another graph, on which it knows no labels, it says how frequent each class is: one with another number of nodes,
    or other features at any of them.

    Args:
        in_channels, out_channels: features, which are not looked at, and classes C.
        hops: 1 or 2, how many edges away it asks.
        damped: whether many neighbours say less than their number.
    """

    labels: Tensor
    marks: Tensor
    meets: Tensor
    frequent: Tensor
    sizes: ClassVar[dict[str, torch.dtype]] = {
        "labels": torch.int64,  # [N] classes of the nodes it was told, -1 elsewhere
        "marks": torch.float32,  # [N] a sum over each node's features, by which it knows its graph again
        "meets": torch.float32,  # [hops, C, C] log-probability of a neighbour's class, by a node's own
        "frequent": torch.float32,  # [C] log-probability of a class
    }

    def __init__(self, in_channels: int, out_channels: int, *, hops: int = 2, damped: bool = True):
        super().__init__()
        self.in_channels, self.out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.hops, self.damped = whole("hops", hops, most=2), damped
        self.reads = Reads(None, adjacency=True, sparse=True, weights=True)  # all nodes: it knows them by their places

    @torch.no_grad()
    def learn(self, x: Tensor, graph: Tensor, y: Tensor, judged: Judged | None, rounds: int) -> int:
        """Count which classes meet; there is one round."""
        known = y >= 0
        self.hold(labels=torch.where(known, y, -1), marks=marks_of(x))
        own = F.one_hot(y[known], self.out_channels).to(torch.get_default_dtype())
        tables = [own.t() @ counts[known] + 1 for counts in self._around(graph)]  # smoothed by one
        self.hold(
            meets=torch.stack([(table / table.sum(1, keepdim=True)).log() for table in tables]),
            frequent=((own.sum(0) + 1) / (len(own) + self.out_channels)).log(),
        )
        return 1

    @torch.no_grad()
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, F], [2, E] -> [N, C]; zeros before anything was learned."""
        if not len(self.labels):
            return torch.zeros(len(x), self.out_channels, device=x.device)
        said = self.frequent.to(torch.get_default_dtype()).expand(len(x), -1)
        if self.knows(x):
            for counts, meets in zip(self._around(edge_index), self.meets, strict=True):
                n = counts.sum(1, keepdim=True)
                said = said + self.heard(n) * (counts @ meets.to(counts.dtype).t())
        return said

    def knows(self, x: Tensor) -> bool:
        """Tell whether features [N, F] are those of the graph whose labels it was told."""
        return len(x) == len(self.labels) and torch.allclose(marks_of(x), self.marks, rtol=1e-3, atol=1e-4)

    def pairs(self, graph: Tensor) -> list[float]:
        """Return how many pairs of labelled nodes each table was counted on, one number a hop."""
        return [float(counts[self.labels >= 0].sum()) for counts in self._around(graph)]

    def heard(self, n: Tensor) -> Tensor | float:
        """Return how far each of n neighbours counts, [N, 1] -> [N, 1]: together √n times, up to √10."""
        return n.clamp(max=HEARD).sqrt() / n.clamp_min(1e-12) if self.damped else 1.0

    def _around(self, graph: Tensor) -> list[Tensor]:
        """Return how many nodes of each class are one and two steps away, [N, C], the node itself left out."""
        N = len(self.labels)
        adjacency = graph if isinstance(graph, Adjacency) else Adjacency.from_edge_index(graph, N)
        own = F.one_hot(self.labels.clamp_min(0), self.out_channels).to(torch.get_default_dtype())
        own = own * (self.labels >= 0).unsqueeze(1)
        loops, returns = (found.to(own).unsqueeze(1) for found in to_itself(adjacency))
        found = [adjacency.times(own) - loops * own]
        if self.hops == 2:
            found.append(adjacency.times(found[0]) - returns * own)
        return [counts.clamp_min(0) for counts in found]


def marks_of(x: Tensor) -> Tensor:
    """Return a sum over each node's features, each column weighted otherwise, [N, F] -> [N] in float32."""
    weight = torch.arange(1.0, x.size(1) + 1, device=x.device).cos().unsqueeze(0)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x, weight.to(x.dtype)).squeeze(1).float()


def to_itself(adjacency: Adjacency) -> tuple[Tensor, Tensor]:
    """Return the weight of the ways from each node to itself, of one edge, and of two over another, [N] and [N]."""
    row, column = (part.cpu().numpy() for part in adjacency.rows.entries())
    matrix = scipy.sparse.csr_array((adjacency.values().cpu().double().numpy(), (row, column)), shape=adjacency.shape)
    loops = matrix.diagonal()
    back = matrix.multiply(matrix.T).sum(axis=1) - loops**2
    return torch.from_numpy(loops), torch.from_numpy(np.asarray(back).reshape(-1))
