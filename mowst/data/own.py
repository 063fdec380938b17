"""A person's own graph: files or tables in, a `Data` out, its nodes and classes by name.

data = read("people", label="field")                  # nodes.csv and edges.csv, GraphML, JSON, .pt, .npz
data = from_tables(nodes, edges, label="field")       # two DataFrames of pandas
new = read("others", label="field", like=data)        # through the same transformation of columns
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from torch_geometric.data import Data

from mowst.data.arrays import ARRAYS, TENSORS, read_arrays, read_tensors
from mowst.data.assembling import Like, graph_of, numbered
from mowst.data.cards import Card, Split, names
from mowst.data.columns import Columns
from mowst.data.gathering import EDGES, NODES, found_in, shown_in, single, tables_in
from mowst.data.networkfiles import NETWORKS, read_network, tables_of
from mowst.data.roles import SOURCE, TARGET, found, id_of
from mowst.data.tables import TABLES, Table, Tables
from mowst.errors import InputError, unknown
from mowst.system import OF_A_RUN
from mowst.system.typed import check_type_of

FILES = (*TABLES, *NETWORKS, *ARRAYS, *TENSORS)
"""Endings of the files that are read."""
LOADER = "mowst.data.own:graph_of_files"

ANY = "a graph of your own (docs/own-data.md), the name or file of a card (--list), or package.module:function"
"""What a dataset may be."""


def is_own(name: str) -> bool:
    """Tell whether a dataset's name is a file or folder of a person's own, and neither a card nor code.

    A folder called like a card is one's own only if there is a graph in it: it may be what a run on that card has left.
    """
    path = Path(name)
    if ":" in name or path.suffix.lower() in FILES:
        return ":" not in name
    if not path.is_dir() or path.suffix in (".yaml", ".yml"):
        return False
    if name.lower() not in map(str.lower, names()):
        return True
    return not (path / OF_A_RUN).exists() and any(file.suffix.lower() in FILES for file in shown_in(path))


def card_of(path: str, columns: Columns) -> Card:
    """Describe a person's own graph as a card, by which it can be opened again; nothing is read."""
    place = Path(path).absolute()
    if not place.exists():
        raise InputError(f"dataset: there is no file or folder {path}; give {ANY}")
    given = {entry.name: getattr(columns, entry.name) for entry in fields(Columns)}
    changed = {name: value for name, value in given.items() if value != getattr(Columns(), name)}
    splits = {"masks": Split("masks"), "random": Split("random"), "per-class": Split("per-class")}
    arguments = {"path": str(place), **changed}
    return Card(place.stem, LOADER, "accuracy", splits, "", "", undirected=False, simple=False, arguments=arguments)


def card_text(entry: Card) -> str:
    """Return the YAML of a card of one's own graph."""
    held = {key: value for key, value in asdict(entry).items() if key in ("loader", "arguments", "metric")}
    splits = {name: {"kind": split.kind} for name, split in entry.splits.items()}
    rest = {"undirected": False, "simple": False, "licence": "", "homepage": ""}
    return yaml.safe_dump({**held, "splits": splits, **rest}, sort_keys=False, allow_unicode=True)


def graph_of_files(path: str, like: Like | None = None, **columns: Any) -> Data:
    """Read a graph from a file or folder; `columns` are the fields of `mowst.data.columns.Columns`.

    Raises:
        InputError: there is no graph, it is damaged, or it cannot be told what is what.
    """
    place, what = Path(path), of_fields(columns)
    if not place.is_file() and not place.is_dir():
        raise InputError(f"dataset: there is no file or folder {path}; give {ANY}")
    if place.is_dir():
        tables = any((found_in(place, NODES), found_in(place, EDGES), what.nodes_file, what.edges_file))
        if not tables and any(place.glob("*.npz")):
            return numbered(read_arrays(place), place.name, like, directed=what.directed)
        place = place if tables else single(place)
    suffix = place.suffix.lower()
    if place.is_dir() or suffix in TABLES:
        return graph_of(tables_in(place, what), like)
    if suffix in NETWORKS:
        return graph_of(tables_of(read_network(place, directed=what.directed), place, what), like)
    if suffix in (*ARRAYS, *TENSORS):
        data = read_arrays(place) if suffix in ARRAYS else read_tensors(place)
        return numbered(data, place.name, like, directed=what.directed)
    raise InputError(f"dataset: {path} is of no kind that is read: a folder, or a file that ends in {', '.join(FILES)}")


def of_fields(columns: dict[str, Any]) -> Columns:
    """Return what is what by the names of its fields.

    Raises:
        InputError: there is no field of a name, or its value is of another type.
    """
    known = [entry.name for entry in fields(Columns)]
    for name in columns:
        if name not in known:
            raise unknown("columns", name, known)
    return Columns(**columns)


def tables_given(nodes: pd.DataFrame, edges: pd.DataFrame, columns: dict[str, Any]) -> Tables:
    """Return tables of pandas in the form that files have.

    Raises:
        InputError: one is no table, or has several columns of one name.
    """
    what, made = of_fields(columns), list[Table]()
    for name, given in (("nodes", nodes), ("edges", edges)):
        check_type_of(name, given, pd.DataFrame)
        plain = given.reset_index([level for level in given.index.names if level in wanted(name, given, what)])
        plain = plain.reset_index(drop=True)
        plain.columns = [str(column) for column in plain.columns]
        if not plain.columns.is_unique:
            raise InputError(f"{name}: several columns have one name")
        made.append(Table(plain, name, f"{name}, row {{}}".format))
    return Tables("tables", made[0], made[1], what)


def wanted(name: str, given: pd.DataFrame, what: Columns) -> list[Hashable]:
    """Return the levels of a table's index that hold ids: those with such a name, if no column has it.

    A named index of nodes holds their ids, whatever it is called, if no column is called like ids.
    """
    columns = list(map(str, given.columns))
    roles: set[str | None]
    levels = {str(level): level for level in given.index.names if level is not None and str(level) not in columns}
    named = [*columns, *levels]
    if name == "nodes":
        roles = {id_of(what, [*levels, *columns], name)} if levels else set()
    else:
        roles = {what.source or found(SOURCE, named), what.target or found(TARGET, named)}
    return [level for called, level in levels.items() if called in roles]
