"""Labels spread over the edges, by PyG: what an expert, and a mixture of two, has to beat.

| name                | prediction                                                                                     |
|---------------------|------------------------------------------------------------------------------------------------|
| label-propagation   | training labels, spread with restarts (Zhu & Ghahramani, 2002); no features                    |
| correct-and-smooth  | the weak expert's, its errors on training nodes spread, then what it says (arXiv 2010.13993)   |

They see the labels of training nodes alone, and nothing is chosen for a graph: layers and α are those of PyG's example
of Correct & Smooth (50 layers, α = 1 and .8), the rest is what its classes have by default. Labels alone go as many
layers, with α = .9 as in PyG's example of label propagation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import CorrectAndSmooth, LabelPropagation

from mowst.kernels import Adjacency
from mowst.models import Logits

LAYERS = 50
ALPHA, CORRECTING, SMOOTHING = 0.9, 1.0, 0.8
LEAST = 1e-6
"""Share of a class that no label has reached."""


class Spread:
    """A graph as labels are spread over it, by D^-1/2 A D^-1/2, made once.

    Args:
        graph: N nodes.
        y: labels [N], of which those of `train` [n] alone are looked at.
        train: ids, or a mask [N].
    """

    def __init__(self, graph: Adjacency, y: Tensor, train: Tensor):
        edges, weight = gcn_norm(graph.edge_index, graph.edge_weight, len(graph), add_self_loops=False)
        self.graph, self.weight = Adjacency.from_edge_index(edges, len(graph), weight).to(edges.device), weight
        self.nodes = train.nonzero().squeeze(-1) if train.dtype == torch.bool else train
        self.y = y[self.nodes]

    def labels(self, classes: int) -> Logits:
        """Label propagation -> logits [N, C]."""
        known = torch.zeros(len(self.graph), classes, device=self.y.device)
        known[self.nodes] = F.one_hot(self.y, classes).to(known)
        spread = LabelPropagation(LAYERS, ALPHA)  # the weights are in the graph already; given, it makes none
        return as_logits(spread(known, self.graph, edge_weight=self.weight))

    def corrected(self, said: Tensor) -> Logits:
        """Correct & Smooth of an expert's logits [N, C] -> logits [N, C]."""
        spread = CorrectAndSmooth(LAYERS, CORRECTING, LAYERS, SMOOTHING)
        probs = said.detach().float().softmax(-1)
        return as_logits(spread(probs, self.y, self.nodes, self.graph, self.weight))


def as_logits(shares: Tensor) -> Logits:
    """Return shares of the classes [N, C], from 0 and of any sum, as logits."""
    return Logits(shares.clamp_min(LEAST).log())
