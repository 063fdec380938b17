"""GraphML, GEXF, GML and node-link JSON, as networkx reads them, and their nodes and edges as tables.

Of XML, a document type is refused before anything is parsed: by it a file names others, or grows without end.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

import networkx as nx
import pandas as pd

from mowst.data.columns import Columns
from mowst.data.tables import Table, Tables
from mowst.errors import InputError, many

NETWORKS = (".graphml", ".gexf", ".gml", ".json")
DEEPEST = 100
"""Elements within one another in an XML file."""
MOST_CELLS = 50_000_000
"""Nodes times attributes: more are no table."""


class Network(NamedTuple):
    """A graph out of a file."""

    graph: nx.Graph
    ids: Collection[Hashable]
    """Of the nodes that the file lists; an edge may name others, of which networkx makes nodes."""


def read_network(path: Path, *, directed: bool) -> Network:
    """Read a graph as networkx does; `directed` says whether it is, where the file does not.

    Raises:
        InputError: the file is not what its name says, or damaged, or lists a node twice.
    """
    try:
        kind = path.suffix.lower()
        ids = ids_in_xml(path) if kind in (".graphml", ".gexf") else None
        with path.open("rb") as file:
            found = _json(path, file, directed=directed) if kind == ".json" else _parse(path, kind, file, ids)
        if not isinstance(found.graph, nx.Graph):
            raise InputError(f"{path}: holds no graph")
    except (InputError, OSError):
        raise
    except Exception as error:  # of networkx: whatever its readers make of a damaged file
        raise InputError(f"{path}: cannot be read as {kind[1:]}: {type(error).__name__}: {error}") from None
    return found


def _parse(path: Path, kind: str, file: Any, ids: Collection[Hashable] | None) -> Network:
    if ids is not None:
        return Network(nx.read_graphml(file) if kind == ".graphml" else nx.read_gexf(file), ids)
    graph = nx.read_gml(file, label="label" if b"label" in path.read_bytes() else "id")
    return Network(graph, graph.nodes)


def _json(path: Path, file: Any, *, directed: bool) -> Network:
    held = json.load(file)
    if not isinstance(held, dict) or not isinstance(held.get("nodes"), list):
        raise InputError(f"{path}: is no node-link JSON: an object with nodes, and links or edges")
    edges = "edges" if "edges" in held else "links"
    if not isinstance(held.get(edges), list):
        raise InputError(f"{path}: is no node-link JSON: has no list of links or edges")
    # networkx keeps, of links that come again with one key, the last alone
    links = [{name: value for name, value in each.items() if name != "key"} for each in held[edges]]
    graph = nx.node_link_graph(held | {"multigraph": True, edges: links}, directed, edges=edges)
    return Network(graph, ids_in_json(path, held["nodes"]))


def ids_in_json(path: Path, nodes: list[dict[str, Any]]) -> set[Hashable]:
    """Return the ids of nodes in node-link JSON: what each is called, or else its place.

    Raises:
        InputError: one comes again; networkx would make one node of both.
    """
    first = dict[Hashable, int]()
    for place, node in enumerate(nodes):
        own = hashable(node.get("id", place))
        if own in first:
            raise InputError(f"{path}: nodes {first[own]} and {place}, from 0, have the same id, {own!r}")
        first[own] = place
    return set(first)


def hashable(given: Any) -> Any:
    """Return what a list of JSON becomes as a node of networkx: a tuple."""
    return tuple(map(hashable, given)) if isinstance(given, list) else given


def ids_in_xml(path: Path) -> set[str]:
    """Look an XML file through and return the ids of its nodes; refuse a document type, and what is nested too deep.

    Raises:
        InputError: it has either, or a node twice, or several graphs, or is no XML.
    """
    depth, graphs, first = 0, 0, dict[str, int]()

    def doctype(*_: Any) -> None:
        raise InputError(f"{path}: has a document type (<!DOCTYPE ...>), which may name other files; take it out")

    def start(tag: str, given: dict[str, str]) -> None:
        nonlocal depth, graphs
        depth += 1
        kind, line = tag.rpartition(":")[2], parser.CurrentLineNumber
        if depth > DEEPEST:
            raise InputError(f"{path}: its elements are nested more than {DEEPEST} deep")
        graphs += kind == "graph" and depth == 2
        if graphs > 1:
            raise InputError(f"{path}, line {line}: a second graph begins; a file holds one")
        if kind == "node" and (own := given.get("id")) is not None:
            if own in first:
                raise InputError(f"{path}, line {line}: node {own!r} was there already (line {first[own]})")
            first[own] = line

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
    return set(first)


def tables_of(network: Network, path: Path, columns: Columns) -> Tables:
    """Return nodes and edges as tables, and what is what in them.

    Raises:
        InputError: the nodes have too many attributes to be a table, or the edges lack a direction that is asked for.
    """
    name = path.name
    if columns.directed and not network.graph.is_directed():
        raise InputError(f"{name}: says that its edges have no direction; leave out --directed true")
    graph, names = network.graph, [node for node in network.graph if node in network.ids]
    held = [dict(graph.nodes[node]) for node in names]
    keys = dict.fromkeys(key for values in held for key in values)
    if len(keys) * len(held) > MOST_CELLS:
        raise InputError(f"{name}: its {len(held)} nodes have {len(keys)} different attributes, which is no table")
    nodes = pd.DataFrame({str(key): pd.Series([values.get(key) for values in held]).infer_objects() for key in keys})
    own = "id" if "id" not in nodes else next(key for key in map("id {}".format, range(2, 9999)) if key not in nodes)
    nodes.insert(0, own, pd.Series(names, dtype=object, index=range(len(names))))
    ends = list(graph.edges(data=columns.weight)) if columns.weight else [(*pair[:2], None) for pair in graph.edges()]
    edges = pd.DataFrame(ends, columns=["source", "target", columns.weight or "weight"])
    weight, said = columns.weight, list[str]()
    if weight is None or edges[weight].isna().all():
        edges = edges[["source", "target"]]
    elif without := int(edges[weight].isna().sum()):
        edges[weight] = edges[weight].where(edges[weight].notna(), 1.0)
        of = f"of {len(edges):,} edges"
        said.append(f"{weight}: {many(without, f'{of} has none', f'{of} have none')}, which is read as 1")
    if graph.is_directed() and not columns.directed:
        said.append(
            f"{name}: says that its edges lead one way, and is read without direction; --directed true keeps it"
        )
    found = {key: getattr(columns, key) for key in ("label", "features", "split_column", "weight")}
    what = Columns(id=own, source="source", target="target", directed=columns.directed, **found)
    return Tables(
        path.stem,
        Table(nodes, name, lambda row: f"{name}, node {names[row]!r}"),
        Table(edges, name, lambda row: f"{name}, edge {ends[row][0]!r} to {ends[row][1]!r}"),
        what,
        tuple(said),
    )
