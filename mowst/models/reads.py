"""What a module reads of a graph, and in which form it can take it.

It is found out once, when a model is put together, and kept beside the module. A module of one's own says it by an
attribute `reads`; of PyG's models it follows from their layers; of anything else nothing is known, so that it is run on
the whole graph, with plain edges and dense features.

    class Backbone(nn.Module):
        reads = Reads(hops=2, adjacency=True)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch_geometric.nn import (
    BatchNorm,
    GATConv,
    GATv2Conv,
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
from mowst.kernels import Adjacency, AttentionConv, Averaged, Tabled, dense
from mowst.models.blocks import by_block, in_blocks
from mowst.models.layers import NarrowGCNConv
from mowst.models.options import shown

PAIRED = (SAGEConv, GINConv, GATConv, GATv2Conv, AttentionConv)
"""Convolutions that take the features of sources and targets as a pair."""
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
        weights = adjacency and any(map(weighs, module.convs))
        by_layer = hops is not None
        by_block = by_layer and adjacency and all(map(goes_by_rows, module.convs))
        return Reads(hops, adjacency, sparse=True, by_layer=by_layer, by_block=by_block, weights=weights)
    return Reads(sparse=isinstance(module, MLP))


def reach(model: BasicGNN) -> int | None:
    """Return how many hops one of PyG's models reaches, or none where that is not known for certain."""
    plain = type(model).forward is BasicGNN.forward and type(model).inference_per_layer is BasicGNN.inference_per_layer
    if not plain or model.jk_mode not in (None, "last"):
        return None
    return int(model.num_layers) if keeps_to_its_hops(model) else None


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


def suited(reads: Reads, graph: Tensor) -> Tensor:
    """Return the graph in the form that a module can take: an `Adjacency` where it multiplies, else plain edges."""
    return graph.edge_index if isinstance(graph, Adjacency) and not reads.adjacency else graph


def suited_features(reads: Reads, x: Tensor) -> Tensor:
    """Return the features as a module can take them: plain and dense where nothing is known of it."""
    x = x.features if isinstance(x, Averaged) and not reads.averages else x
    x = x.features if isinstance(x, Tabled) and not reads.table else x
    return x if reads.sparse else dense(x)


def run_module(module: nn.Module, reads: Reads, x: Tensor, graph: Tensor, **options: Any) -> Any:
    """Call a module with the features and the graph in the fastest form that it can take.

    Without gradients one whose layers allow it is run on a large graph block by block (`mowst.models.blocks`).
    """
    x, graph = suited_features(reads, x), suited(reads, graph)
    if reads.by_block and not options and isinstance(graph, Adjacency) and in_blocks(module, x):
        return by_block(module, x, graph.gcn() if reads.normalised else graph)
    return module(x, graph, **options)
