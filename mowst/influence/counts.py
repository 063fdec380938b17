"""The expert that counts the classes of labelled neighbours, and what each label does to it: exact, by counting again.

Notation: Y [N, C] one row for each label, zeros where there is none; A_h [N, N] how many ways of h edges lead from a
node's neighbour to it, 0 on the diagonal; M_h = A_h Y the counts around each node; T_h = Y^T M_h + 1 the table of
classes by classes. Without the label of node i, of class c, row c of T_h loses M_h[i], column c loses (A_h^T Y)[i], and
the counts around node v lose A_h[v, i] in class c. So all labels together cost two products with each A_h.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F
from torch import Tensor

from mowst.kernels import Adjacency
from mowst.models import Neighbours


class Counts:
    """A `Neighbours` expert that has learned, and the influence of each training label on it.

    Args:
        expert: it knows the labels.
        graph: an `Adjacency`, or an `edge_index`; where it is another one than that of the labels, the classes'
            frequencies are all that the expert says there.
        x: features [N, F] of the graph.
        train: mask [N] of the nodes that are asked about.
    """

    def __init__(self, expert: Neighbours, graph: Any, x: Tensor, train: Tensor):
        num_nodes = len(x)
        self.train = train.cpu().nonzero().squeeze(-1)
        """Ids of the training nodes, [n]."""
        self.heard, C = expert.heard, expert.out_channels
        labels = torch.full((num_nodes,), -1)
        labels[: len(expert.labels)] = expert.labels.cpu()
        self.y = labels[self.train]
        self.known = (F.one_hot(labels.clamp_min(0), C) * (labels >= 0).unsqueeze(-1)).double()
        self.hops = expert.hops if expert.knows(x) else 0
        self.sizes = self.known.sum(0)
        adjacency = graph if isinstance(graph, Adjacency) else Adjacency.from_edge_index(graph, num_nodes)
        row, column = (part.cpu().numpy() for part in adjacency.rows.entries())
        self.matrix = scipy.sparse.csr_array(
            (adjacency.values().cpu().double().numpy(), (row, column)), adjacency.shape
        )
        self.apart = self.matrix - scipy.sparse.diags_array(self.matrix.diagonal())
        self.back = self.apart.multiply(self.apart.T).sum(axis=1)

    def influence(self, node: int, direction: Tensor) -> Tensor:
        """How far each training label raises a number made of a node's logits, [n], as `train` orders them.

        Args:
            node: the node asked about.
            direction: of its logits, [C].
        """
        without = F.one_hot(self.y.clamp_min(0), len(self.sizes)).double() * (self.y >= 0).unsqueeze(-1)  # [n, C]
        zero = torch.zeros_like(without[:1])
        total = float(self.sizes.sum()) + len(self.sizes)
        said, less = (
            (self.sizes - each + 1).log() - (total - each.sum(-1, keepdim=True)).log() for each in (zero, without)
        )
        for hop in range(self.hops):
            around, outward, ways = self._hop(hop, node)
            table = self.known.T @ around + 1
            tables = table - without.unsqueeze(-1) * around[self.train].unsqueeze(1)
            tables = tables - outward[self.train].unsqueeze(-1) * without.unsqueeze(1)
            said = said + self._heard(around[[node]], table.unsqueeze(0))
            less = less + self._heard(around[[node]] - ways[self.train].unsqueeze(-1) * without, tables)
        return (said - less) @ direction.double()

    def _hop(self, hop: int, node: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return A_h Y [N, C], A_h^T Y [N, C] and A_h[node] [N]."""
        known, start = self.known.numpy(), np.zeros(len(self.known))
        start[node] = 1.0
        around, outward, ways = self.apart @ known, self.apart.T @ known, self.apart.T @ start
        if hop:
            own = self.back[:, None] * known
            around, outward = self.matrix @ around - own, self.apart.T @ (self.matrix.T @ known) - own
            ways = self.apart.T @ (self.matrix.T @ start) - self.back * start
        return torch.from_numpy(around), torch.from_numpy(outward), torch.from_numpy(ways)

    def _heard(self, counts: Tensor, tables: Tensor) -> Tensor:
        """Return the evidence of counts [n, C] by tables [n, C, C], [n, C]."""
        meets = (tables / tables.sum(-1, keepdim=True)).log()
        n = counts.sum(-1, keepdim=True)
        return self.heard(n) * torch.einsum("nc,nkc->nk", counts, meets)
