"""A few nodes with what is around them, chosen to show who answers where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.evaluation import degrees

LARGEST = 24
"""Neighbours that are drawn of a node."""


def drawn_around(data: Data, nodes: Tensor, asked: Tensor, said: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return up to four nodes with their neighbours and the edges among them, drawn with a fixed seed.

    Args:
        data: the graph with labels.
        nodes: ids [n] to choose among.
        asked: [N] whether a node is sent to the strong expert.
        said: the class [N] that the `weak` and the `strong` expert give.
    """
    degree = degrees(data.edge_index, len(asked))[nodes]
    weak, strong = (said[role][nodes] == data.y[nodes] for role in ("weak", "strong"))
    sent = asked[nodes]
    wanted = {
        "the strong expert is asked, and right where the weak one is wrong": sent & strong & ~weak,
        "the weak expert answers, and is right": ~sent & weak,
        "the strong expert is asked, and wrong where the weak one is right": sent & ~strong & weak,
        "the weak expert answers, and is wrong where the strong one is right": ~sent & ~weak & strong,
    }
    generator, found = torch.Generator().manual_seed(0), []
    for words, mask in wanted.items():
        places = (mask & (degree > 0)).nonzero().squeeze(-1)
        small = places[degree[places] <= LARGEST]
        places = small if len(small) else places
        if len(places):
            node = int(nodes[places[torch.randint(len(places), (1,), generator=generator)]])
            found.append({"words": words, **around(data, node, asked, said, generator)})
    return found


def around(
    data: Data, node: int, asked: Tensor, said: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Any]:
    """Return a node, its neighbours (some of them, if there are many), and the edges among all these."""
    source, target = data.edge_index
    neighbours = torch.unique(torch.cat([source[target == node], target[source == node]]))
    neighbours = neighbours[neighbours != node]
    some = neighbours[torch.randperm(len(neighbours), generator=generator)[:LARGEST]].sort().values
    ids = torch.cat([torch.tensor([node]), some])
    inside = torch.zeros(len(asked), dtype=torch.bool)
    inside[ids] = True
    among = data.edge_index[:, inside[source] & inside[target]]
    among = torch.unique(among.sort(dim=0).values, dim=1)
    place = {each: number for number, each in enumerate(ids.tolist())}
    edges = [[place[one], place[other]] for one, other in among.t().tolist() if one != other]
    columns = zip(
        ids.tolist(),
        data.y[ids].tolist(),
        asked[ids].tolist(),
        *(said[role][ids].tolist() for role in said),
        strict=True,
    )
    names = ("node", "class", "routed", *said)
    drawn = [dict(zip(names, each, strict=True)) for each in columns]
    return {"nodes": drawn, "neighbours": len(neighbours), "edges": edges}
