"""A networkx graph with named nodes and text labels becomes a `Data`, and predictions find their way back."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.data.splits import SPLITS
from mowst.data.splits import label as label_graph
from mowst.data.validation import check
from mowst.errors import InputError, unknown

if TYPE_CHECKING:
    import networkx as nx


def from_networkx(
    G: nx.Graph, label: str, features: Sequence[str], *, split: str = "random", seed: int = 0, **options: Any
) -> Data:
    """Turn a graph into a checked `Data`; directions, repeated edges and self-loops go, nodes keep their order.

    `label` names a node attribute (missing, None, NaN or "": unlabelled, y = -1), `features` node attributes that hold
    a number or a vector of numbers each. `split` is "random" or "per-class" and takes `options`, such as `train=0.5`.
    `data.node_names` and `data.class_names` are lists: prediction c of row i says class_names[c] of node_names[i].
    """
    if split not in ("random", "per-class"):
        raise unknown("split", split, ("random", "per-class"))
    if not features:
        raise InputError("features: name at least one numeric node attribute (degree will do: set it on the nodes)")
    nodes = list(G.nodes)
    if not nodes:
        raise InputError("networkx: the graph has no nodes")
    x = torch.cat([_column(G, nodes, name) for name in features], dim=1)
    known = [None if _missing(value) else value for value in (G.nodes[node].get(label) for node in nodes)]
    class_names = sorted({value for value in known if value is not None}, key=lambda value: (str(type(value)), value))
    if not class_names:
        raise InputError(f"label: no node has the attribute {label!r}")
    number = {value: index for index, value in enumerate(class_names)}
    y = torch.tensor([-1 if value is None else number[value] for value in known])
    data = Data(x=x, edge_index=_edges(G, nodes), y=y, num_nodes=len(nodes))
    data.node_names, data.class_names, data.num_classes = nodes, class_names, len(class_names)
    label_graph(data, name=G.name or "networkx", metric="accuracy", split=split)
    try:
        data.train_mask, data.val_mask, data.test_mask = SPLITS[split](data, seed, **options)
    except TypeError as error:
        raise InputError(f"split {split}: {error}") from error
    check(data)
    return data


def _edges(G: nx.Graph, nodes: list[Hashable]) -> Tensor:
    row = {node: index for index, node in enumerate(nodes)}
    pairs = [(row[source], row[target]) for source, target in G.edges()]
    edge_index = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t().contiguous()
    edge_index = coalesce(remove_self_loops(edge_index)[0], num_nodes=len(nodes))
    return to_undirected(edge_index, num_nodes=len(nodes))


def _column(G: nx.Graph, nodes: list[Hashable], name: str) -> Tensor:
    """Return one attribute of all nodes, [N, 1] or, of vectors, [N, length]."""
    rows: list[np.ndarray[Any, Any]] = []
    for node in nodes:
        if G.nodes[node].get(name) is None:
            raise InputError(f"features: node {node!r} has no attribute {name!r}")
        value = G.nodes[node][name]
        try:
            row = np.atleast_1d(np.asarray(value, dtype=np.float32))
        except (TypeError, ValueError):
            row = np.empty(0, dtype=np.float32)
        if isinstance(value, str) or row.ndim != 1 or not row.size:
            raise InputError(f"features: attribute {name!r} of node {node!r} is {value!r}, not a number or a vector")
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"features: attribute {name!r} of node {node!r} has length {len(row)}, others have {len(rows[0])}"
            )
        rows.append(row)
    return torch.tensor(np.stack(rows))


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
