"""Features of a graph that has none of its own: degrees and walks that return, by PyG's transforms."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE, LocalDegreeProfile
from torch_geometric.utils import degree

from mowst.data.tables import Table
from mowst.errors import InputError

MOST_STEPS, MOST_PAIRS = 8, 30_000_000
"""Steps of a walk, and pairs of nodes that walks of that many steps may join."""
DEGREES = ("degree", "least degree of a neighbour", "greatest", "mean", "deviation")


def pairs(edge_index: Tensor, nodes: int, steps: int) -> float:
    """Return an upper bound of how many pairs of nodes a walk of so many steps joins."""
    reached = torch.ones(nodes, dtype=torch.double)
    for _ in range(steps):
        reached = torch.zeros_like(reached).index_add_(0, edge_index[0], reached[edge_index[1]])
    return min(float(reached.sum()), float(nodes) ** 2)


def steps_for(edge_index: Tensor, nodes: int) -> int:
    """Return how many steps walks may take on a graph without filling memory: from 2 to 8, or none."""
    return next((steps for steps in range(MOST_STEPS, 1, -1) if pairs(edge_index, nodes, steps) <= MOST_PAIRS), 0)


def structure(edge_index: Tensor, nodes: int, steps: int, name: str) -> Table:
    """Return for every node its degree, those of its neighbours, and how often walks of 2 to `steps` steps return.

    Raises:
        InputError: walks of so many steps, which a run was trained with, would not fit into memory.
    """
    if steps and pairs(edge_index, nodes, steps) > 10 * MOST_PAIRS:
        raise InputError(f"{name}: is too dense for walks of {steps} steps, which the run's features are made of")
    data = Data(edge_index=edge_index, num_nodes=nodes)
    data = LocalDegreeProfile()(data)
    found = dict(zip(DEGREES, data.x.nan_to_num(0.0, 0.0, 0.0).t(), strict=True))
    alone = degree(edge_index[0], nodes) == 0
    if steps:
        walks = AddRandomWalkPE(steps, attr_name="walks")(data).walks
        found |= {f"return in {step + 1} steps": walks[:, step] for step in range(1, steps)}
    rows = pd.DataFrame({key: values.masked_fill(alone, 0.0).double().numpy() for key, values in found.items()})
    return Table(rows, name, lambda row: f"{name}, node {row}")
