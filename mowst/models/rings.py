"""Layers run for those nodes alone that later ones look at.

The last layer of a model matters at the nodes that are asked for, the one before also at their neighbours, and so on. A
graph that knows how far its nodes are from those (`Adjacency.around`) is asked for the edges of one layer after the
other; of any other graph every layer has all.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn.models.basic_gnn import BasicGNN

from mowst.kernels import Adjacency, rows_of
from mowst.models.layers import PAIRED


class Inward(NamedTuple):
    """What a layer is run on."""

    seen: Any
    """[M, F] what the nodes that it reads have so far; for a layer that takes pairs, with what its own nodes have."""
    own: Tensor
    """[N, F] what its own nodes have so far, which come first."""
    graph: Tensor
    """[N, M] edges."""


def inward(conv: Any, x: Tensor, graph: Tensor, left: int) -> Inward:
    """Return what a layer of a model is run on.

    Args:
        conv: the layer.
        x: [M, F] what the nodes have so far.
        graph: an `Adjacency`, or plain edges.
        left: layers that are still to be run, with this one.
    """
    if not isinstance(graph, Adjacency) or graph.around is None:
        return Inward(x, x, graph)
    ring = graph.ring(left - 1, len(x))
    own = x[: len(ring)] if type(x) is Tensor else rows_of(x, torch.arange(len(ring), device=x.device))
    return Inward((x, own) if isinstance(conv, PAIRED) else x, own, ring)


def by_ring(model: BasicGNN, x: Tensor, graph: Adjacency, *, adjacency: bool) -> Tensor:
    """Run one of PyG's models for the nodes that are asked for, [M, F] -> [n, C].

    Args:
        model: its `forward` is PyG's.
        x: features of all nodes.
        graph: what its layers multiply by, with nodes that are asked for.
        adjacency: whether the layers take an `Adjacency`; else plain edges.
    """
    assert graph.around is not None, "nobody was asked for"
    said: list[Tensor] = []
    for layer, (conv, norm) in enumerate(zip(model.convs, model.norms, strict=True)):
        seen, _, ring = inward(conv, x, graph, model.num_layers - layer)
        x = conv(seen, ring.edge_index if isinstance(ring, Adjacency) and not adjacency else ring)
        if layer < model.num_layers - 1 or model.jk_mode is not None:
            x = model.act(x) if model.act is not None and model.act_first else x
            x = norm(x)
            x = model.act(x) if model.act is not None and not model.act_first else x
            x = model.dropout(x)
            said.append(x[: graph.around.sizes[0]])
    x = model.jk(said) if model.jk_mode not in (None, "last") else x
    return x if model.jk_mode is None else model.lin(x)
