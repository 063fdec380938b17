"""GraphML, GEXF, GML and node-link JSON, as networkx reads them, and their nodes and edges as tables.

Of XML, a document type is refused before anything is parsed: by it a file names others, or grows without end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx
import pandas as pd

from mowst.data.columns import Columns
from mowst.data.tables import Table
from mowst.errors import InputError

NETWORKS = (".graphml", ".gexf", ".gml", ".json")
DEEPEST = 100
"""Elements within one another in an XML file."""
MOST_CELLS, WIDEST = 50_000_000, 4096
"""Nodes times attributes, and numbers in a vector: more are no table."""


def read_network(path: Path) -> nx.Graph:
    """Read a graph as networkx does.

    Raises:
        InputError: the file is not what its name says, or damaged.
    """
    try:
        kind = path.suffix.lower()
        if kind in (".graphml", ".gexf"):
            refuse_doctype(path)
        with path.open("rb") as file:
            graph = _parse(path, kind, file)
        if not isinstance(graph, nx.Graph):
            raise InputError(f"{path}: holds no graph")
    except (InputError, OSError):
        raise
    except Exception as error:  # of networkx: whatever its readers make of a damaged file
        raise InputError(f"{path}: cannot be read as {kind[1:]}: {type(error).__name__}: {error}") from None
    return graph


def _parse(path: Path, kind: str, file: Any) -> nx.Graph:
    if kind == ".graphml":
        return nx.read_graphml(file)
    if kind == ".gexf":
        return nx.read_gexf(file)
    if kind == ".gml":
        return nx.read_gml(file, label="label" if b"label" in path.read_bytes() else "id")
    held = json.load(file)
    if not isinstance(held, dict) or not isinstance(held.get("nodes"), list):
        raise InputError(f"{path}: is no node-link JSON: an object with nodes, and links or edges")
    edges = "edges" if "edges" in held else "links"
    if not isinstance(held.get(edges), list):
        raise InputError(f"{path}: is no node-link JSON: has no list of links or edges")
    return nx.node_link_graph(held, edges=edges)


def refuse_doctype(path: Path) -> None:
    """Look an XML file through, and refuse a document type, and what is nested too deep.

    Raises:
        InputError: it has either, or is no XML.
    """
    depth = 0

    def doctype(*_: Any) -> None:
        raise InputError(f"{path}: has a document type (<!DOCTYPE ...>), which may name other files; take it out")

    def start(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise InputError(f"{path}: its elements are nested more than {DEEPEST} deep")

    def end(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler, parser.StartElementHandler, parser.EndElementHandler = doctype, start, end
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no sound XML: {error}") from None


def tables_of(graph: nx.Graph, name: str, columns: Columns) -> tuple[Table, Table, Columns]:
    """Return nodes and edges as tables, and what is what in them.

    Raises:
        InputError: the nodes have too many attributes to be a table.
    """
    held = [dict(values) for _, values in graph.nodes(data=True)]
    keys = dict.fromkeys(key for values in held for key in values)
    if len(keys) * len(held) > MOST_CELLS:
        raise InputError(f"{name}: its {len(held)} nodes have {len(keys)} different attributes, which is no table")
    nodes = pd.DataFrame({str(key): pd.Series([values.get(key) for values in held]).infer_objects() for key in keys})
    own = "id" if "id" not in nodes else next(key for key in map("id {}".format, range(2, 9999)) if key not in nodes)
    nodes = spread(nodes)
    nodes.insert(0, own, pd.Series(list(graph.nodes), dtype=object, index=range(len(graph))))
    ends = list(graph.edges(data=columns.weight)) if columns.weight else [(*pair[:2], None) for pair in graph.edges()]
    edges = pd.DataFrame(ends, columns=["source", "target", columns.weight or "weight"])
    weight = columns.weight
    if weight is None or edges[weight].isna().all():
        edges = edges[["source", "target"]]
    else:
        edges[weight] = edges[weight].where(edges[weight].notna(), 1.0)
    found = {name: getattr(columns, name) for name in ("label", "features", "split_column", "weight")}
    what = Columns(id=own, source="source", target="target", directed=columns.directed, **found)
    names, pairs = list(graph.nodes), ends
    return (
        Table(nodes, name, lambda row: f"{name}, node {names[row]!r}"),
        Table(edges, name, lambda row: f"{name}, edge {pairs[row][0]!r} to {pairs[row][1]!r}"),
        what,
    )


def spread(nodes: pd.DataFrame) -> pd.DataFrame:
    """Give each number of a vector that every node has a column of its own: embedding becomes embedding 0, 1, ..."""
    wide = dict[str, pd.Series | pd.DataFrame]()
    for key in nodes:
        column = nodes[key]
        lengths = {len(value) if isinstance(value, list | tuple) else None for value in column}
        length = next(iter(lengths)) if len(lengths) == 1 else None
        if length and length <= WIDEST and all(is_plain(value) for row in column for value in row):
            wide |= {
                f"{key} {place}": pd.Series([row[place] for row in column], dtype=float) for place in range(length)
            }
        else:
            wide[key] = column
    return pd.DataFrame(wide, index=nodes.index)


def is_plain(value: Any) -> bool:
    """Tell whether a value is a number, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool)
