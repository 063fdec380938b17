"""Self-loops, repeats and directions taken away from edges, without doubling what needs no change.

What there is to change is looked at first: an order, a repeat, an edge without its opposite. Most large graphs come
ordered and in both directions, and stay the tensor that they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.kernels import compressed, in_order, is_symmetric, starts

SOME = 2**20
"""Edges that are looked at together."""
MANY = 2**20
"""Edges from which another device than the CPU is worth the way there."""


Edges = tuple[Tensor, Tensor | None]


def on_device(
    device: torch.device, change: Callable[[Tensor, Tensor | None], Edges], edge_index: Tensor, weight: Tensor | None
) -> Edges:
    """Change many edges on a device, where a GPU takes a moment and a CPU minutes; they come back to where they were.

    A device without room for them leaves it to the CPU.
    """
    if device.type == "cpu" or edge_index.size(1) < MANY:
        return change(edge_index, weight)
    try:
        there = edge_index.to(device), None if weight is None else weight.to(device)
        found, value = change(*there)
        if found is there[0]:
            return edge_index, weight
        return found.to(edge_index.device), None if value is None else value.to(edge_index.device)
    except torch.OutOfMemoryError:
        return change(edge_index, weight)


def simplified(edge_index: Tensor, weight: Tensor | None, nodes: int, *, simple: bool, undirected: bool) -> Edges:
    """Return edges [2, E] and their weights [E], as they are where that is right already.

    Args:
        edge_index: source and target of each edge, all of them nodes.
        weight: of each edge; repeats add up, directions average.
        nodes: how many there are.
        simple: whether self-loops and repeats are taken away.
        undirected: whether every edge gets its opposite; repeats are one edge then.
    """
    if not (simple or undirected):
        return edge_index, weight
    if simple and any(bool((some[0] == some[1]).any()) for some in torch.split(edge_index, SOME, dim=1)):
        edge_index, weight = remove_self_loops(edge_index, weight)
    if in_order(*edge_index, strictly=True) and (not undirected or symmetric(edge_index, weight, nodes)):
        return edge_index, weight
    if weight is None:
        return _patterned(edge_index, nodes, undirected), None
    if simple:
        edge_index, weight = coalesce(edge_index, weight, num_nodes=nodes)
    if undirected:
        edge_index, weight = to_undirected(edge_index, weight, num_nodes=nodes, reduce="mean")
    return edge_index, weight


def symmetric(edge_index: Tensor, weight: Tensor | None, nodes: int) -> bool:
    """Tell whether edges that are in order are there in both directions, with the same weight."""
    source, target = edge_index
    if weight is None and edge_index.device.type == "cpu":
        return is_symmetric(starts(source, nodes), target)
    turned = compressed(target, source, (nodes, nodes), order=weight is not None)
    here = compressed(source, target, (nodes, nodes))
    if not (torch.equal(turned.start, here.start) and torch.equal(turned.column, here.column)):
        return False
    return weight is None or turned.order is None or torch.equal(weight[turned.order], weight)


def distinct(edge_index: Tensor, nodes: int) -> int:
    """Count the edges that differ and are no self-loops."""
    found, _ = simplified(edge_index, None, nodes, simple=True, undirected=False)
    return found.size(1)


def _patterned(edge_index: Tensor, nodes: int, undirected: bool) -> Tensor:
    """Return each edge once, in order; if asked for in both directions."""
    if edge_index.device.type != "cpu":
        kept = coalesce(edge_index, num_nodes=nodes)
        return to_undirected(kept, num_nodes=nodes) if undirected else kept
    from scipy.sparse import coo_array

    ends: Any = [end.to(torch.int32).numpy() for end in edge_index]
    found = coo_array((np.ones(edge_index.size(1), bool), tuple(ends)), shape=(nodes, nodes)).tocsr()
    del ends
    if undirected:
        found = found + found.T.tocsr()
    found.sort_indices()
    kept = torch.empty(2, found.nnz, dtype=torch.long)
    each = torch.from_numpy(np.diff(found.indptr)).long()
    kept[0] = torch.arange(nodes).repeat_interleave(each, output_size=found.nnz)
    kept[1] = torch.from_numpy(found.indices)
    return kept
