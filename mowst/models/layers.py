"""Graph convolutions as the experts use them: PyG's, with what differs said at each."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, GINConv, MessagePassing, SAGEConv
from torch_geometric.nn.models import MLP

from mowst.kernels import AttentionConv

PAIRED = (SAGEConv, GINConv, GATConv, GATv2Conv, AttentionConv)
"""Convolutions that take the features of sources and targets as a pair."""


class NarrowGCNConv(GCNConv):
    """PyG's GCN layer on a normalised adjacency, (A X) W where X is the narrower side, else A (X W).

    The results are the same. In a first layer A X is the product of two constants, which an `Adjacency` keeps. While a
    layer is being explained (`torch_geometric.explain`) its messages are PyG's, X W.
    """

    propagate = MessagePassing.propagate  # PyG compiles it; left to GCNConv's compiled one it could not explain

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any):
        for name in kwargs.keys() & {"add_self_loops", "improved", "cached"}:
            raise ValueError(f"{name}: the model normalises, with self-loops; torch_geometric.nn.models.GCN takes it")
        super().__init__(in_channels, out_channels, **{**kwargs, "normalize": False})
        self.passes_first = in_channels < out_channels

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """[N, F], and [N, N], or normalised edges [2, E] with their weights [E] -> [N, H]."""
        if self.explain or not self.passes_first:
            return super().forward(x, edge_index, edge_weight)
        passed = self.propagate(edge_index, x=x, edge_weight=edge_weight)
        return F.linear(passed, self.lin.weight, self.bias)


def gin_conv(in_channels: int, out_channels: int) -> GINConv:
    """GIN layer with the two-layer MLP that PyG's GIN uses."""
    return GINConv(MLP([in_channels, out_channels, out_channels], norm="batch_norm"))


def gat_conv(
    in_channels: int, out_channels: int, heads: int = 1, *, concat: bool = True, **options: Any
) -> AttentionConv:
    """GAT layer of this width in all, which is divided among the heads unless they are averaged."""
    if concat and out_channels % heads:
        raise ValueError(f"heads: {heads} do not divide hidden_channels {out_channels}")
    return AttentionConv(in_channels, out_channels // heads if concat else out_channels, heads, concat, **options)
