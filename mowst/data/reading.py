"""`read` and `from_tables`: a person's own graph in Python, split and checked."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch_geometric.data import Data

from mowst.data.assembling import Like, graph_of, own_of
from mowst.data.cards import Card
from mowst.data.given import MASKS, class_names_of
from mowst.data.loading import Graph
from mowst.data.own import card_of, graph_of_files, of_fields, tables_given
from mowst.data.validation import check_form
from mowst.errors import InputError, unknown
from mowst.system.typed import check_type_of


def read(
    path: str | Path, *, split: str | None = None, seed: int = 0, like: Data | Like | None = None, **columns: Any
) -> Data:
    """Read a graph of one's own from a file or folder.

    `data.node_names` are the ids of its nodes, `data.class_names` its classes, `mowst.data.summary_of(data)` what was
    found. What is odd is warned of, in a sentence each.

    Args:
        path: nodes.csv and edges.csv (or .tsv, .parquet) in a folder, GraphML, GEXF, GML, node-link JSON, a PyG `Data`
            saved by `torch.save`, an .npz or a folder of them.
        split: masks (of the split column), random or per-class; by default what there is.
        seed: of the split.
        like: a graph that was read so before, or `classifier.like`: columns become features as they did there, classes
            have the same numbers, and there need not be labels; it is split only if it is said how.
        columns: label, id, source, target, features, split_column, weight, nodes_file, edges_file, directed
            (`mowst.data.columns.Columns`).

    Raises:
        InputError: there is no graph, it is damaged, or it cannot be told what is what.
    """
    check_type_of("path", path, str | Path)
    entry = card_of(str(path), of_fields(columns))
    data = graph_of_files(str(path), likeness(like), **columns)
    return finished(data, None if like is not None and split is None else entry, split, seed)


def from_tables(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    *,
    split: str | None = None,
    seed: int = 0,
    like: Data | Like | None = None,
    **columns: Any,
) -> Data:
    """Make a graph of two tables of pandas; everything else as in `read`.

    Args:
        nodes: a row for each node: its id, its label, its features.
        edges: a row for each edge: the ids of its source and its target, and a weight if it has one.
        split, seed, like, columns: as in `read`.

    Raises:
        InputError: something is missing, or is not what it must be; the message says in which row.
    """
    tables = tables_given(nodes, edges, columns)
    entry = replace(card_of(".", tables.columns), name="tables")
    data = graph_of(tables, likeness(like))
    return finished(data, None if like is not None and split is None else entry, split, seed)


def summary_of(data: Data) -> str:
    """Return what was found in a graph that `read` or `from_tables` made, in lines for a person to read.

    Raises:
        InputError: it is no graph.
    """
    check_type_of("data", data, Data)
    own = own_of(data)
    return "" if own is None else "\n".join(own.summary)


def likeness(data: Data | Like | None) -> Like | None:
    """Return what a new graph must share with another one.

    Raises:
        InputError: it is no graph that was read.
    """
    if data is None or isinstance(data, Like):
        return data
    check_type_of("like", data, Data)
    own = own_of(data)
    if own is None:
        raise InputError("like: must be a graph that mowst.data.read or from_tables returned")
    return Like(own.fitted, class_names_of(data))


def finished(data: Data, entry: Card | None, split: str | None, seed: int) -> Data:
    """Split a graph, if it has a card and labels, check it, and say what is odd."""
    check_type_of("split", split, str | None)
    check_type_of("seed", seed, int)
    own = own_of(data)
    assert own is not None
    for line in own.odd:
        warnings.warn(line, stacklevel=3)
    data.node_names = own.names.tolist()
    if entry is None or data.get("y") is None or not bool((data.y >= 0).any()):
        check_form(data)
        return data
    has_masks = any(data.get(mask) is not None for mask in MASKS)
    chosen = split or ("masks" if has_masks else "random")
    if chosen not in entry.splits:
        raise unknown("split", chosen, entry.splits)
    return Graph(data, entry, chosen, Path(), False).of_seed(seed)
