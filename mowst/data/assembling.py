"""Tables of nodes and edges become a graph: `x, edge_index, y`, and masks where a column says them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.data.blanks import trimmed
from mowst.data.columns import Columns
from mowst.data.fitted import Fitted
from mowst.data.given import MASKS, asked, taken
from mowst.data.joining import ids_in, index_of, joined, shown_id, simplified
from mowst.data.labels import Labels, labels, of_column
from mowst.data.oddities import left_out, odd
from mowst.data.roles import Roles, ends_of, guessed_id, id_of, roles_of
from mowst.data.structure import steps_for, structure
from mowst.data.summary import Made, in_arrays, summary
from mowst.data.tables import Table, Tables
from mowst.data.understanding import Kinds, kinds_of
from mowst.data.vectors import spread
from mowst.errors import InputError, some
from mowst.kernels import Raw

PARTS = {
    **dict.fromkeys(("train", "training"), "train_mask"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val_mask"),
    **dict.fromkeys(("test", "testing"), "test_mask"),
}
"""What a split column may say."""


class Own(NamedTuple):
    """What is known of a person's own graph beside its tensors."""

    names: pd.Index
    """Ids of the nodes in their order."""
    fitted: Fitted | None = None
    """How columns became features; none where they came as numbers."""
    summary: tuple[str, ...] = ()
    """What was found, in lines for a person to read."""
    odd: tuple[str, ...] = ()
    """What is strange, or was left out, in a sentence each."""
    table: pd.DataFrame | None = None
    """The features of the nodes as they came: for what takes missing values and categories by itself."""


class Like(NamedTuple):
    """The graph that a model was trained on, as far as another one must be like it."""

    fitted: Fitted | None
    class_names: list[Hashable] | None


def own_of(data: Data) -> Own | None:
    """Return what is known of a graph beside its tensors, if it came from somebody's files or tables."""
    held = vars(data).get("own")
    return held if isinstance(held, Own) else None


def place_own(data: Data, own: Own | None) -> None:
    """Write on a graph what is known of it beside its tensors; not as an attribute, which PyG would look into."""
    vars(data)["own"] = own


def raw_of(data: Data) -> Raw | None:
    """Return the columns that a graph's features were made of, as they came; none where it has other features."""
    own = own_of(data)
    if own is None or own.table is None or own.fitted is None or own.fitted.steps is not None:
        return None
    if (len(own.table), len(own.fitted.names)) != tuple(data.x.shape):
        return None
    return own.fitted.raw(Table(own.table, data.get("name", "nodes"), "node {}".format))


def graph_of(tables: Tables, like: Like | None = None) -> Data:
    """Make a graph of tables; where it must be `like` another, it may have no labels.

    Raises:
        InputError: something is missing, or is not what it must be; the message says where.
    """
    columns, edges = tables.columns, tables.edges
    ends = ends_of(columns, list(edges.rows.columns), edges.name)
    if tables.nodes is None:
        ids, again, blanks = ids_in(edges, ends), "", dict[str, str]()
        nodes, roles = Table(pd.DataFrame(index=range(len(ids))), edges.name, str), Roles(None, None, None, [])
    else:
        own = id_of(columns, list(tables.nodes.rows.columns), tables.nodes.name)
        ids, nodes, again = index_of(spread(tables.nodes), own, guessed_id(columns, own))
        nodes, blanks = trimmed(nodes, own)
        what = columns if like is None else columns.within(list(nodes.rows.columns))
        roles = roles_of(what, nodes.rows, own, nodes.name)
    if not len(ids):
        raise InputError(f"{nodes.name}: has no rows, and so the graph no nodes")
    if not len(edges.rows):
        raise InputError(f"{edges.name}: has no rows, and so the graph no edges")
    if roles.label is None and like is None:
        there = f"there are {some(roles.features, 12)}" if roles.features else "there is none beside the ids"
        raise InputError(f"{nodes.name}: which column is the class? --label names it; {there}")
    links = joined(ids, edges, ends, directed=columns.directed)
    data = Data(edge_index=links.edge_index, num_nodes=len(ids))
    if links.edge_weight is not None:
        data.edge_weight = links.edge_weight
    if roles.label is not None:
        place = placed(nodes, ids)
        label_all(data, of_column(nodes.rows[roles.label], roles.label, like and like.class_names, place))
    if roles.split is not None:
        roles = split_all(data, nodes, roles, columns, new=like is not None)
    fitted, data.x, kinds = features_of(nodes, roles, links.edge_index, like)
    made = Made(tables, nodes, roles, ends, links, fitted, kinds, again, blanks)
    shown = nodes.rows[[name for name in roles.features if name in kinds.kept]]
    place_own(data, Own(ids, fitted, tuple(summary(data, made)), tuple(odd(data, made, ids)), shown))
    return data


def placed(nodes: Table, ids: pd.Index) -> Callable[[int], str]:
    """Return what says of a row where it is, and which node."""
    return lambda row: f"{nodes.place(row)} (node {shown_id(ids[row])})"


def label_all(data: Data, found: Labels) -> None:
    """Write labels on a graph, and what its classes are called."""
    classes = int(found.y.max()) + 1 if len(found.y) else 0
    data.y, data.class_names = found.y, list(range(classes)) if found.names is None else found.names
    data.num_classes = len(data.class_names)


def split_all(data: Data, nodes: Table, roles: Roles, columns: Columns, *, new: bool) -> Roles:
    """Write on a graph the masks that a column says.

    A column that nobody asked for, and that says nothing of the kind, is a feature; on a new graph, which needs no
    split, so is one that says other things beside.

    Raises:
        InputError: the column was asked for or says train, val or test somewhere, and something else elsewhere.
    """
    name = str(roles.split)
    column = nodes.rows[name]
    said = column.map(lambda value: PARTS.get(str(value).strip().lower()), na_action="ignore")
    wrong = (said.isna() & column.notna()).to_numpy().nonzero()[0]
    if len(wrong) and columns.split_column is None and (new or bool(said.isna().all())):
        return roles._replace(split=None, features=[*roles.features, *[name] * (columns.listed is None)])
    if len(wrong):
        row, way = int(wrong[0]), "" if columns.split_column else "; if it is a feature, --features names it"
        raise InputError(f"{nodes.place(row)}: {name} must be train, val or test, is {shown_id(column.iloc[row])}{way}")
    labelled = data.y >= 0 if "y" in data else torch.zeros(len(column), dtype=torch.bool)
    for mask in MASKS:
        if (said == mask).any():
            data[mask] = torch.tensor((said == mask).to_numpy(dtype=bool)) & labelled
    return roles


def features_of(nodes: Table, roles: Roles, edge_index: Tensor, like: Like | None) -> tuple[Fitted, Tensor, Kinds]:
    """Return how features are made of columns, the features [N, F], and what the columns are.

    Raises:
        InputError: a column is missing or of another kind than on the graph that this one must be like.
    """
    if like is not None and like.fitted is not None:
        fitted = like.fitted
        if fitted.steps is not None:
            return fitted, of_structure(nodes, edge_index, fitted)[1], Kinds({}, {}, {}, {})
        return (
            fitted,
            fitted.features(nodes),
            Kinds({column.name: column.kind for column in fitted.columns}, {}, {}, {}),
        )
    kinds = kinds_of(nodes, roles.features)
    if kinds.kept:
        return *Fitted.made(nodes, kinds), kinds
    return *of_structure(nodes, edge_index, None), kinds


def of_structure(nodes: Table, edge_index: Tensor, fitted: Fitted | None) -> tuple[Fitted, Tensor]:
    """Make features of the structure of a graph, as those of another one, or fitted to this one."""
    count = len(nodes.rows)
    steps = steps_for(edge_index, count) if fitted is None else fitted.steps or 0
    table = structure(edge_index, count, steps, nodes.name)
    fitted = fitted or Fitted.of(table, kinds_of(table, list(table.rows.columns)), steps)
    return fitted, fitted.features(table)


def as_numbered(y: Any, like: Like) -> Labels:
    """Return labels in the numbers of another graph, whose classes have names or are numbers from 0 themselves."""
    found = labels(y)
    values: list[Any] = [*(found.names or range(int(found.y.max()) + 1)), None]
    names = like.class_names or list(range(max(values[:-1], default=-1) + 1))
    return of_column(pd.Series([values[each] for each in found.y.tolist()], dtype=object), "y", names)


def numbered(data: Data, name: str, like: Like | None, *, directed: bool) -> Data:
    """Make a graph of arrays in the same manner: its nodes are called by their numbers.

    Raises:
        InputError: something is in no form that is known, or an edge names no node.
    """
    graph = taken(data, name) if like is None else asked(data, name)
    if like is not None and data.get("y") is not None:
        label_all(graph, as_numbered(data.y, like))
    count = int(graph.num_nodes or len(graph.y))
    index, weight = graph.edge_index, graph.get("edge_weight")
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise InputError(
            f"{name}: edges name nodes {int(index.min())} to {int(index.max())}, the nodes are 0 to {count - 1}"
        )
    links = simplified(index, weight, count, directed=directed)
    graph.edge_index, graph.num_nodes = links.edge_index, count
    if links.edge_weight is not None:
        graph.edge_weight = links.edge_weight
    fitted = None
    if graph.x is None:
        nodes = Table(pd.DataFrame(index=range(count)), name, "node {}".format)
        fitted, graph.x = of_structure(nodes, links.edge_index, like and like.fitted)
    said = tuple(in_arrays(graph, name, links, fitted))
    place_own(graph, Own(pd.RangeIndex(count), fitted, said, tuple(left_out(data, graph))))
    return graph
