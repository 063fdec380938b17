"""Edges as they come from outside, [2, E], and their weights, [E]: refused where they are none."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from mowst.errors import InputError


def checked_edges(edge_index: Any, num_nodes: Any) -> Tensor:
    """Return source and target of each edge, [2, E], of a graph with so many nodes.

    Raises:
        InputError: it is something else, or an edge names no node.
    """
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, Integral) or not 0 <= int(num_nodes) < 2**31:
        raise InputError(f"num_nodes: must be a whole number below 2^31, is {' '.join(repr(num_nodes).split())[:60]}")
    right = "must be a tensor of whole numbers (torch.long) of shape [2, E]"
    if not isinstance(edge_index, Tensor):
        raise InputError(f"edge_index: {right}, or an Adjacency, is {type(edge_index).__name__}")
    if edge_index.layout != torch.strided:
        raise InputError(f"edge_index: {right}, is {edge_index.layout}; torch_geometric.utils.to_edge_index has edges")
    if edge_index.dtype != torch.long or edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise InputError(f"edge_index: {right}, is {edge_index.dtype} of shape {list(edge_index.shape)}")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < int(num_nodes):
        span = f"{int(edge_index.min())} to {int(edge_index.max())}"
        raise InputError(f"edge_index names nodes {span}, but the graph has nodes 0 to {int(num_nodes) - 1}")
    return edge_index


def checked_weight(edge_weight: Any, edge_index: Tensor) -> Tensor:
    """Return the weight of each edge, [E], as floats of at least the default precision.

    Raises:
        InputError: it is something else, or a weight is negative or not finite.
    """
    right = f"must be a tensor of {edge_index.size(1)} numbers, one an edge"
    if not isinstance(edge_weight, Tensor):
        raise InputError(f"edge_weight: {right}, is {type(edge_weight).__name__}")
    if edge_weight.layout != torch.strided or edge_weight.is_complex() or edge_weight.shape != edge_index.shape[1:]:
        raise InputError(f"edge_weight: {right}, is {edge_weight.dtype} of shape {list(edge_weight.shape)}")
    if edge_weight.device != edge_index.device:
        raise InputError(f"edge_weight: is on {edge_weight.device}, edge_index on {edge_index.device}")
    weight = edge_weight.detach()
    weight = weight.to(torch.promote_types(weight.dtype, torch.get_default_dtype()))
    wrong = (~weight.isfinite() | (weight < 0)).nonzero()
    if len(wrong):
        edge = int(wrong[0])
        raise InputError(f"edge_weight: is {float(weight[edge])} at edge {edge}; weights are finite and not negative")
    return weight
