"""What a module reads of a graph, and in which form it can take it.

It is found out once, when a model is put together, and kept beside the module. A module of one's own says it by an
attribute `reads`; of PyG's models it follows from their layers; of anything else nothing is known, so that it is run on
the whole graph, with plain edges and dense features.

    class Backbone(nn.Module):
        reads = Reads(hops=2, adjacency=True)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch_geometric.nn import (
    BatchNorm,
    GCNConv,
    GINConv,
    LayerNorm,
    Linear,
    MessagePassing,
    SAGEConv,
)
from torch_geometric.nn.aggr import Aggregation
from torch_geometric.nn.models import MLP, JumpingKnowledge
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.utils._trim_to_layer import TrimToLayer

from mowst.errors import InputError
from mowst.kernels import Adjacency, AttentionConv, Averaged, Tabled, dense, unit_rows
from mowst.models.blocks import by_block, in_blocks
from mowst.models.layers import PAIRED, NarrowGCNConv
from mowst.models.options import shown
from mowst.models.rings import by_ring

NODE_WISE = (
    *(nn.Linear, Linear, nn.LayerNorm, nn.Dropout, nn.Identity, nn.ModuleList, nn.Sequential, MLP),
    *(nn.ReLU, nn.ELU, nn.GELU, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.Tanh, nn.Sigmoid),
    *(Aggregation, JumpingKnowledge, TrimToLayer),
)
"""Layers that look at one node at a time in evaluation mode."""


@dataclass(frozen=True)
class Reads:
    """What a module `(x, edge_index) -> logits [N, C]` reads in evaluation mode."""

    hops: int | None = None
    """From how many edges away; 0: it looks at no edge; none: not known, it is run on the whole graph."""
    adjacency: bool = False
    """It takes a prepared `Adjacency` in place of `edge_index`, and uses it for products."""
    sparse: bool = False
    """It takes sparse features: its first act is a linear map of them, or an average over neighbours."""
    normalised: bool = False
    """What its layers multiply by is the GCN-normalised adjacency."""
    by_layer: bool = False
    """Its layers can be run one at a time: it has `convs`, `num_layers`, `hidden_channels` and `inference_per_layer`
    as PyG's models have them."""
    by_block: bool = False
    """And each of them for some rows of the graph's matrix, from a pair: what all nodes, and these, have so far."""
    weights: bool = False
    """Weights of edges change what it says: it multiplies by the weighted graph. What takes plain edges sees none."""
    table: bool = False
    """It takes features with the columns they were made of (`Tabled`): missing values and categories as they are."""
    averages: bool = False
    """It takes features that bring their averages along (`Averaged`); of edges an expert then reads nothing else."""
    unit_rows: bool = False
    """It is shown features of which every row is divided by the sum of its absolute values (`kernels.unit_rows`)."""
    by_ring: bool = False
    """On a graph that knows which nodes are asked for (`Adjacency.around`) it runs each layer for those that count
    (`mowst.models.inward`), and says what it says of the former, [n, C]."""
    looked_up: bool = False
    """And its first act on dense features is their product with the graph, which is looked up for the whole graph."""
    hands_on: bool = False
    """It hands features and graph on to modules inside it (`run_module`), and looks at no edge itself."""

    @property
    def spares_a_hop(self) -> bool:
        """Whether of dense features it never looks at those of the last hop."""
        return self.looked_up and (self.by_ring or self.hands_on)


@runtime_checkable
class Reading(Protocol):
    """A module that says what it reads."""

    reads: Reads


def reads_of(module: nn.Module) -> Reads:
    """Return what a module reads: what it says itself, else what is known of PyG's models.

    Raises:
        InputError: what it says is no `Reads`.
    """
    if isinstance(module, Reading):
        if not isinstance(module.reads, Reads):
            said, name = shown(module.reads), type(module).__name__
            raise InputError(f"{name}: its `reads` must be a mowst.models.Reads, is {said}")
        return module.reads
    if isinstance(module, BasicGNN):
        hops, adjacency = reach(module), all(map(only_multiplies, module.convs))
        by_layer = hops is not None and module.jk_mode in (None, "last")
        return Reads(
            hops,
            adjacency,
            sparse=True,
            by_layer=by_layer,
            by_block=by_layer and adjacency and all(map(goes_by_rows, module.convs)),
            weights=adjacency and any(map(weighs, module.convs)),
            by_ring=hops is not None,
            looked_up=hops is not None and adjacency and multiplies_first(module.convs[0]),
        )
    return Reads(sparse=isinstance(module, MLP))


def handing_on(hops: int | None, inside: Iterable[Reads], *, alone: bool) -> Reads:
    """Return what a module reads that runs others.

    Args:
        hops: from how many edges away one of them reads anything.
        inside: what these read.
        alone: whether it looks at no edge itself (`Reads.hands_on`).
    """
    inside = list(inside)
    return Reads(
        hops,
        adjacency=True,
        sparse=True,
        weights=any(each.weights for each in inside),
        table=True,
        averages=True,
        looked_up=all(each.spares_a_hop or each.hops == 0 for each in inside),
        hands_on=alone,
    )


def reach(model: BasicGNN) -> int | None:
    """Return how many hops one of PyG's models reaches, or none where that is not known for certain."""
    plain = type(model).forward is BasicGNN.forward and type(model).inference_per_layer is BasicGNN.inference_per_layer
    return int(model.num_layers) if plain and keeps_to_its_hops(model) else None


def keeps_to_its_hops(model: nn.Module) -> bool:
    """Tell whether no part of a model in evaluation mode looks further than one edge away."""
    return all(_keeps_to_its_hop(part) for part in model.modules() if part is not model)


def _keeps_to_its_hop(part: nn.Module) -> bool:
    if isinstance(part, (nn.BatchNorm1d, BatchNorm, LayerNorm)):
        return is_node_wise(part)
    if type(part) in (*PAIRED, GCNConv, NarrowGCNConv):
        normalizes = isinstance(part, GCNConv) and part.normalize
        return part.flow == "source_to_target" and not normalizes
    return isinstance(part, NODE_WISE)


def is_node_wise(norm: nn.Module) -> bool:
    """Tell whether a norm in evaluation mode looks at one node at a time."""
    if isinstance(norm, LayerNorm):
        return norm.mode == "node"
    batch_norm = norm.module if isinstance(norm, BatchNorm) else norm
    return isinstance(norm, nn.Identity) or (isinstance(batch_norm, _NormBase) and batch_norm.track_running_stats)


def only_multiplies(conv: nn.Module) -> bool:
    """Tell whether a convolution uses the graph for products and nothing else: it says so, or is one of PyG's that do.

    One that adds self-loops or normalises by itself would rebuild the adjacency in every call.
    """
    if isinstance(conv, AttentionConv):
        return True
    if isinstance(conv, Reading):
        return conv.reads.adjacency
    own = vars(conv)
    rebuilds = own.get("normalize", False) and "add_self_loops" in own
    return isinstance(conv, MessagePassing) and conv.fuse and conv.flow == "source_to_target" and not rebuilds


def goes_by_rows(conv: nn.Module) -> bool:
    """Tell whether some rows of a convolution are as many of a product with what went in, then a matter of each."""
    return type(conv) in (SAGEConv, GINConv, NarrowGCNConv)


def multiplies_first(conv: nn.Module) -> bool:
    """Tell whether the first act of a convolution is a product of the graph with what goes in: a sum or an average."""
    if isinstance(conv, NarrowGCNConv):
        return conv.passes_first
    sums = isinstance(conv, MessagePassing) and conv.aggr in ("sum", "add", "mean")
    return sums and (type(conv) is GINConv or (type(conv) is SAGEConv and not conv.project))


def weighs(conv: nn.Module) -> bool:
    """Tell whether a convolution that multiplies by the graph (`only_multiplies`) does so by the weights of edges.

    Attention puts its own in their place.
    """
    return conv.reads.weights if isinstance(conv, Reading) else not isinstance(conv, AttentionConv)


def by_rows(module: nn.Module) -> nn.Module:
    """Let a module that looks at averages alone (`Reads.averages`) find them with the features, and look at no edge."""
    if isinstance(module, Reading) and module.reads.averages and module.reads.hops is not None:
        module.reads = replace(module.reads, hops=0)
    return module


def shown_unit_rows(module: nn.Module) -> nn.Module:
    """Let a module be shown features with unit rows (`Reads.unit_rows`), whoever runs it by `run_module`."""
    vars(module)["reads"] = replace(reads_of(module), unit_rows=True, looked_up=False)  # products of plain features
    return module


def suited(reads: Reads, graph: Tensor) -> Tensor:
    """Return the graph in the form that a module can take: an `Adjacency` where it multiplies, else plain edges."""
    return graph.edge_index if isinstance(graph, Adjacency) and not reads.adjacency else graph


def suited_features(reads: Reads, x: Tensor) -> Tensor:
    """Return the features as a module takes them: plain and dense where nothing is known of it."""
    x = x.features if isinstance(x, Averaged) and not reads.averages else x
    x = x.features if isinstance(x, Tabled) and not reads.table else x
    x = unit_rows(x) if reads.unit_rows else x
    return x if reads.sparse else dense(x)


def run_module(module: nn.Module, reads: Reads, x: Tensor, graph: Tensor, **options: Any) -> Any:
    """Call a module with the features and the graph in the fastest form that it can take.

    Without gradients one whose layers allow it is run on a large graph block by block (`mowst.models.blocks`). On a
    graph that knows which nodes are asked for, which `x` are the features of, it says what it says of these.
    """
    if isinstance(graph, Adjacency) and graph.around is not None and not reads.hands_on:
        return _of_asked(module, reads, x, graph, options)
    x, graph = suited_features(reads, x), suited(reads, graph)
    if reads.by_block and not options and isinstance(graph, Adjacency) and in_blocks(module, x):
        return by_block(module, x, graph.gcn() if reads.normalised else graph)
    return module(x, graph, **options)


def _of_asked(module: nn.Module, reads: Reads, x: Tensor, graph: Adjacency, options: dict[str, Any]) -> Any:
    """Return what a module says of the nodes that are asked for, whose features are [n, F]."""
    assert graph.around is not None, "nobody was asked for"
    if reads.hops == 0:
        return module(suited_features(reads, x), torch.empty(2, 0, dtype=torch.long, device=x.device), **options)
    seen = suited_features(reads, graph.around.x)
    if reads.by_ring and isinstance(module, BasicGNN):
        matrix = graph.gcn() if reads.normalised else graph
        return by_ring(module, seen, matrix, adjacency=reads.adjacency)
    if reads.by_ring:
        return module(seen, graph, **options)
    said = module(seen, suited(reads, graph.uncut()), **options)
    return said[: len(x)] if isinstance(said, Tensor) else said.rows(torch.arange(len(x), device=x.device))
