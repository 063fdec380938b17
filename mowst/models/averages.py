"""Features averaged over the neighbourhood: what trees and an MLP see of a graph without a layer that passes messages.

A node's own features X, the mean P X of its neighbours', the mean P² X of theirs, and so on, with P = D^-1 A (weighted
where edges have weights). They need no training, so that they are made once per graph: an `Adjacency` keeps them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mowst.kernels import Adjacency, dense


def averages(x: Tensor, graph: Tensor, hops: int) -> list[Tensor]:
    """Return features [N, F] averaged over 1 to `hops` edges, one after the other: dense, [N, F] each.

    Args:
        x: features of all nodes, whatever their form.
        graph: an `Adjacency`, or an `edge_index` [2, E], of which one is made.
        hops: from 0, where there is none.
    """
    if not hops:
        return []
    adjacency = graph if isinstance(graph, Adjacency) else Adjacency.from_edge_index(graph, len(x))
    mean, found = adjacency.averaging(), [dense(x)]
    with torch.autocast(found[0].device.type, enabled=False):
        for _ in range(hops):
            found.append(mean.times(found[-1]))
    return found[1:]
