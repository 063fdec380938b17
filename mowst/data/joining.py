"""Ids of nodes and the ends of edges, as people have them, become node numbers and a tidy `edge_index`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from pandas.api.types import is_float_dtype, is_integer_dtype, is_numeric_dtype
from torch import Tensor
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.data.roles import Ends
from mowst.data.tables import Table, chosen
from mowst.errors import InputError, many


class Joined(NamedTuple):
    """The edges of a graph, and what of them was left out."""

    edge_index: Tensor
    """[2, E]"""
    edge_weight: Tensor | None
    loops: int
    repeats: int
    """Edges that were there already, in this direction or, where that does not count, in the other."""
    unknown: str
    """Says which edges name no node; "": none."""


def shown_id(value: Any) -> str:
    """Write the id of a node for a message."""
    return repr(value.item() if isinstance(value, np.generic) else value)


def refuse_missing(column: pd.Series, place: Any, what: str, way: str = "") -> None:
    """Refuse ids of which one is not there.

    Raises:
        InputError: one is not; the message says where, and in which `way` they were found.
    """
    if (missing := column.isna().to_numpy()).any():
        raise InputError(f"{place(int(missing.nonzero()[0][0]))}: the {what} is missing{way}")


def index_of(table: Table, name: str, guessed: str) -> tuple[pd.Index, Table, str]:
    """Return the ids of nodes, their table, and a sentence on rows that are left out for coming again, word for word.

    Raises:
        InputError: an id is missing, or comes again with other values; `guessed` says how it was found.
    """
    rows, column, way = table.rows, table.rows[name], f" ({guessed})" * bool(guessed)
    refuse_missing(column, table.place, "id", way)
    ids = pd.Index(column)
    if ids.is_unique:
        return ids, table, ""
    again = np.asarray(ids.duplicated())
    first = dict(zip(ids[::-1], range(len(ids) - 1, -1, -1), strict=True))
    for row in again.nonzero()[0].tolist():
        before = first[ids[row]]
        if not rows.iloc[row].equals(rows.iloc[before]):
            there = f"was there already ({table.place(before)}), otherwise"
            raise InputError(f"{table.place(row)}: id {ids[row]} {there}{way}")
    row = int(again.nonzero()[0][0])
    left = many(int(again.sum()), "row comes again and is left out", "rows come again and are left out")
    said = f"{left}, the first is id {ids[row]} ({table.place(row)})"
    return ids[~again], chosen(table, ~again), said


def ids_in(edges: Table, ends: Ends) -> pd.Index:
    """Return all ids that edges name, in their order."""
    parts = [edges.rows[name] for name in ends[:2]]
    for part, what in zip(parts, ("source", "target"), strict=True):
        refuse_missing(part, edges.place, what)
    if parts[0].dtype != parts[1].dtype:
        parts = [part.map(str) for part in parts]
    return pd.Index(pd.concat(parts, ignore_index=True).unique())


def numbers_of(ids: pd.Index, column: pd.Series) -> np.ndarray[Any, Any]:
    """Return the number of the node that each id is, -1 where it is none."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return numbers_of(ids, pd.Series(column.cat.categories))[column.cat.codes.to_numpy()]
    if is_float_dtype(column.dtype) and is_integer_dtype(ids.dtype) and bool((column % 1 == 0).all()):
        column = column.astype(np.int64)
    if is_numeric_dtype(ids.dtype) != is_numeric_dtype(column.dtype) and not (ids.dtype == column.dtype == object):
        ids, column = ids.map(str), column.map(str)
    if ids.dtype == column.dtype == np.int64 and np.array_equal(ids, np.arange(len(ids))):
        numbers = column.to_numpy()
        return np.where((numbers >= 0) & (numbers < len(ids)), numbers, -1)
    return np.asarray(ids.get_indexer(pd.Index(column)))


def joined(ids: pd.Index, edges: Table, ends: Ends, *, directed: bool) -> Joined:
    """Return the edges between known nodes.

    Raises:
        InputError: an end is missing, a weight is no number from 0, or no edge at all names two nodes.
    """
    columns = [edges.rows[name] for name in ends[:2]]
    for column, what in zip(columns, ("source", "target"), strict=True):
        refuse_missing(column, edges.place, what)
    weight = None if ends.weight is None else weights_in(edges, ends.weight)
    places = np.stack([numbers_of(ids, column) for column in columns])
    lost, said = np.asarray((places < 0).any(axis=0)), ""
    if lost.any():
        row = int(np.flatnonzero(lost)[0])
        name = shown_id(columns[int(places[0, row] >= 0)].iloc[row])
        if lost.all():
            raise InputError(
                f"{edges.name}: none of its {len(lost):,} edges joins two of the {len(ids):,} nodes; the first is "
                f"of {name}, the nodes are {shown_id(ids[0])} and so on; --id, --source and --target say what is what"
            )
        left = many(int(lost.sum()), "edge names no node and is left out", "edges name no node and are left out")
        said = f"{left}, the first is {name} ({edges.place(row)})"
        places, weight = places[:, ~lost], None if weight is None else weight[~lost]
    edge_weight = None if weight is None else torch.from_numpy(weight).float()
    return simplified(torch.from_numpy(places), edge_weight, len(ids), directed=directed)._replace(unknown=said)


def weights_in(edges: Table, name: str) -> np.ndarray[Any, Any]:
    """Return the weights of edges [E].

    Raises:
        InputError: one is missing, or no number from 0; the message says where.
    """
    column = edges.rows[name]
    read = pd.to_numeric(column, errors="coerce")
    real = pd.Series(np.nan, read.index) if read.dtype.kind == "c" else read
    numbers: np.ndarray[Any, Any] = real.to_numpy(np.float64, True, np.nan)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{edges.place(row)}: {name} is {column.iloc[row]}; a weight must be a number from 0")
    return numbers


def simplified(edge_index: Tensor, weight: Tensor | None, nodes: int, *, directed: bool) -> Joined:
    """Take self-loops, repeats and, if it is not directed, directions away: repeats add up, directions average."""
    loops = int((edge_index[0] == edge_index[1]).sum())
    if loops:
        edge_index, weight = remove_self_loops(edge_index, weight)
    before = edge_index.size(1)
    if weight is None:
        edge_index = distinct(edge_index, nodes, directed=directed)
    else:
        edge_index, weight = coalesce(edge_index, weight, num_nodes=nodes)
        if not directed:
            edge_index, weight = to_undirected(edge_index, weight, num_nodes=nodes, reduce="mean")
    kept = edge_index.size(1) if directed else edge_index.size(1) // 2
    return Joined(edge_index, weight, loops, before - kept, "")


def distinct(edge_index: Tensor, nodes: int, *, directed: bool) -> Tensor:
    """Return each edge once, in order, as PyG's `coalesce` and `to_undirected` do; numpy sorts ten times as fast."""
    source, target = edge_index.numpy()
    bits = int(nodes).bit_length()
    keys = source << bits | target
    keys = np.sort(keys if directed else np.concatenate([keys, target << bits | source]))
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])] if len(keys) else keys
    return torch.from_numpy(np.stack([keys >> bits, keys & ((1 << bits) - 1)]))
