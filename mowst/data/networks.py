"""A networkx graph with named nodes and text labels becomes a `Data`, and predictions find their way back."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.data import given
from mowst.data.labels import Labels, named, scalar
from mowst.data.splits import SPLITS, check_options
from mowst.data.splits import label as label_graph
from mowst.data.validation import check, check_form
from mowst.errors import InputError, many, unknown
from mowst.system.typed import check_type_of


def from_networkx(
    G: nx.Graph,
    label: str,
    features: Sequence[str] = (),
    *,
    weight: str | None = "weight",
    class_names: Sequence[Hashable] | None = None,
    split: str = "random",
    seed: int = 0,
    **options: Any,
) -> Data:
    """Turn a graph into a checked `Data`; directions, repeated edges and self-loops go, nodes keep their order.

    `data.node_names` and `data.class_names` are lists: prediction c of row i says class_names[c] of node_names[i].

    Args:
        G: of any kind.
        label: a node attribute that holds the class, as text or a whole number (`mowst.data.labels`). A graph on which
            no node has it can be predicted, not trained on.
        features: node attributes that hold a number or a vector of numbers each.
        weight: an edge attribute that becomes `edge_weight [E]` if an edge has it, 1 where it is not; of repeated edges
            the weights add up, of two directions they average. None: edges have no weight.
        class_names: the classes in their order, such as those of the graph that a classifier was fitted on; by default
            all that occur, in theirs. A node of another class counts as unlabelled.
        split: "random" or "per-class"; it takes the `options`, such as train=0.5.
        seed: of the split.

    Raises:
        InputError: an attribute is missing or is no number, or the labels are no classes.
    """
    if not isinstance(G, nx.Graph):
        raise InputError(f"G: must be a networkx graph, is a {type(G).__name__}")
    check_type_of("split", split, str)
    if split not in ("random", "per-class"):
        raise unknown("split", split, ("random", "per-class"))
    check_options(f"split {split}", SPLITS[split], options)
    if not isinstance(features, list | tuple) or not features:
        raise InputError(
            "features: name at least one numeric node attribute in a list, such as ['age']; of a graph without any, "
            "mowst.data.read makes features of its structure: nx.write_graphml(G, 'g.graphml'), then read it"
        )
    for what, name in (("label", label), ("weight", weight), *(("features", name) for name in features)):
        if not isinstance(name, Hashable):
            raise InputError(f"{what}: must be the name of an attribute, is {name!r}")
    class_names = None if class_names is None else given.named_list("class_names", class_names)
    nodes = list(G.nodes)
    if not nodes:
        raise InputError("networkx: the graph has no nodes")
    x = given.features(torch.cat([_column(G, nodes, name) for name in features], dim=1))
    found = _labels(G, nodes, label, class_names)
    names = found.names if found.names is not None else list(range(int(found.y.max()) + 1))
    edge_index, edge_weight = _edges(G, nodes, weight)
    data = Data(x=x, edge_index=edge_index, y=found.y, num_nodes=len(nodes))
    data.node_names, data.class_names, data.num_classes = nodes, names, len(names)
    if edge_weight is not None:
        data.edge_weight = edge_weight
    label_graph(data, name=G.name or "networkx", metric="accuracy", split=split)
    try:
        data.train_mask, data.val_mask, data.test_mask = SPLITS[split](data, seed, **options)
    except TypeError as error:
        raise InputError(f"split {split}: {error}") from error
    check_form(data)
    if not bool((found.y >= 0).any()):
        warnings.warn(f"label: no node has the attribute {label!r}: there is nothing to train on", stacklevel=2)
        return data
    check(data)
    return data


def _labels(G: nx.Graph, nodes: list[Hashable], label: str, class_names: Sequence[Hashable] | None) -> Labels:
    """Return the labels of all nodes, saying how many are left out for what they are."""
    plain = [scalar(G.nodes[node].get(label), f"label: attribute {label!r} of node {node!r}") for node in nodes]
    known = () if class_names is None else class_names
    around = [value for value in plain if isinstance(value, str) and value != value.strip() and value not in known]
    if around:
        said = f"the first is {around[0]!r}, read as {around[0].strip()!r}"
        warnings.warn(f"label: blanks are left out around {many(len(around), 'label', 'labels')}; {said}", stacklevel=3)
        trimmed = {value: value.strip() or None for value in around}
        plain = [trimmed.get(value, value) if isinstance(value, str) else value for value in plain]
    found = named(plain, "label", class_names)
    if left := [value for value, y in zip(plain, found.y.tolist(), strict=True) if value is not None and y < 0]:
        why = "-1 stands for no label" if class_names is None else "no class of that name is among class_names"
        some = ", ".join(sorted({str(value) for value in left})[:5])
        warnings.warn(
            f"label: {many(len(left), f'node of {some} counts', f'nodes of {some} count')} as unlabelled: {why}",
            stacklevel=3,
        )
    return found


def _edges(G: nx.Graph, nodes: list[Hashable], weight: str | None) -> tuple[Tensor, Tensor | None]:
    """Return the edges [2, E] in both directions, and their weights [E] if there are any."""
    row = {node: index for index, node in enumerate(nodes)}
    pairs = [(row[source], row[target]) for source, target in G.edges()]
    edge_index = torch.tensor(pairs, dtype=torch.long).view(-1, 2).t().contiguous()
    edge_weight = None
    if weight is not None and any(weight in held for *_, held in G.edges(data=True)):
        held = [value for *_, value in G.edges(data=weight, default=1.0)]
        held = [value.item() if isinstance(value, Tensor | np.generic) else value for value in held]
        if odd := [value for value in held if isinstance(value, bool) or not isinstance(value, int | float)]:
            raise InputError(
                f"weight: attribute {weight!r} of an edge is {odd[0]!r}, not a number; weight=None leaves it"
            )
        edge_weight = given.weights(held, edge_index)
    edge_index, edge_weight = remove_self_loops(edge_index, edge_weight)
    edge_index, edge_weight = coalesce(edge_index, edge_weight, num_nodes=len(nodes))
    return to_undirected(edge_index, edge_weight, num_nodes=len(nodes), reduce="mean")


def _column(G: nx.Graph, nodes: list[Hashable], name: str) -> Tensor:
    """Return one attribute of all nodes, [N, 1] or, of vectors, [N, length]."""
    rows: list[np.ndarray[Any, Any]] = []
    for node in nodes:
        if G.nodes[node].get(name) is None:
            raise InputError(f"features: node {node!r} has no attribute {name!r}")
        value = G.nodes[node][name]
        value = value.detach().cpu() if isinstance(value, Tensor) else value
        try:
            row = np.empty(0) if np.iscomplexobj(value) else np.atleast_1d(np.asarray(value, dtype=np.float64))
        except (TypeError, ValueError):
            row = np.empty(0)
        if isinstance(value, str) or row.ndim != 1 or not row.size:
            raise InputError(f"features: attribute {name!r} of node {node!r} is {value!r}, not a number or a vector")
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"features: attribute {name!r} of node {node!r} has length {len(row)}, others have {len(rows[0])}"
            )
        rows.append(row)
    return torch.tensor(np.stack(rows))
