"""What surrounds a node: how many neighbours it has, and how many of them are of its class."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 10_000_000
"""Edges that are looked at in one go."""


def degrees(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Count the edges that lead to each node from another one, [2, E] -> [N]."""
    source, target = edge_index
    return torch.bincount(target[source != target], minlength=num_nodes)


def local_homophily(edge_index: Tensor, y: Tensor) -> Tensor:
    """Share of a node's labelled neighbours that have its label, [2, E], [N] (-1: no label) -> [N] in [0, 1].

    A node is no neighbour of its own. NaN where it has no label, or no neighbour with one (Pei et al., 2020, arXiv
    2002.05287, section 3).
    """
    alike, labelled = (torch.zeros(len(y), dtype=torch.float64, device=y.device) for _ in range(2))
    for start in range(0, edge_index.size(1), CHUNK):
        source, target = edge_index[:, start : start + CHUNK]
        known = ((y[source] >= 0) & (source != target)).double()
        labelled.index_add_(0, target, known)
        alike.index_add_(0, target, known * (y[source] == y[target]))
    return torch.where(y >= 0, alike / labelled, torch.nan)
