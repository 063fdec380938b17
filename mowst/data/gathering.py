"""Where in a folder a person's graph is, and its tables as they came."""

from __future__ import annotations

from pathlib import Path

from mowst.data.arrays import TENSORS
from mowst.data.columns import Columns
from mowst.data.decimals import with_decimals
from mowst.data.matching import WIDEST, as_numbers, read_edges
from mowst.data.networkfiles import NETWORKS
from mowst.data.roles import ends_of, id_of
from mowst.data.tables import TABLES, Table, Tables, header_of, read_table
from mowst.errors import InputError, some
from mowst.system import OF_A_RUN

NODES, EDGES = ("nodes", "node", "vertices"), ("edges", "edge", "links", "edgelist")
"""What tables are called, the likeliest first."""


def shown_in(folder: Path) -> list[Path]:
    """Return what is in a folder, in order, without what is hidden."""
    return sorted(file for file in folder.iterdir() if not file.name.startswith("."))


def single(folder: Path) -> Path:
    """Return the one file of a folder that is a graph by itself.

    Raises:
        InputError: there are none, or several; it is the folder of a run.
    """
    if (folder / OF_A_RUN).exists():
        raise InputError(f"dataset: {folder} is the folder of a run, and no graph")
    files = [file for file in shown_in(folder) if file.suffix.lower() in (*NETWORKS, *TENSORS)]
    if len(files) != 1:
        there = some([file.name for file in shown_in(folder)]) or "nothing"
        raise InputError(
            f"dataset: {folder} needs nodes.csv and edges.csv (or .tsv, .parquet), or one graph file; "
            f"it holds {there}; --nodes-file and --edges-file name files that are called otherwise"
        )
    return files[0]


def found_in(folder: Path, names: tuple[str, ...]) -> Path | None:
    """Return the table in a folder that has one of some names, the likeliest first."""
    paths = (folder / f"{name}{suffix}" for name in names for suffix in TABLES)
    return next((path for path in paths if path.is_file()), None)


def tables_in(place: Path, columns: Columns) -> Tables:
    """Read the tables of a folder; or of a file of edges, with nodes.csv or the like beside it if there is one.

    Raises:
        InputError: a file is not there, or cannot be read.
    """
    nodes_path, edges_path = paths_in(place, columns)
    nodes, own = (None, "") if nodes_path is None else nodes_in(nodes_path, columns)
    whole = place.is_dir() or edges_path.stem in EDGES
    name = edges_path.resolve().parent.name if whole else edges_path.stem

    def ends(names: list[str]) -> tuple[str, str]:
        return ends_of(columns, names, edges_path.name)[:2]

    if nodes is None or nodes.rows[own].dtype.kind in "iu" or edges_path.suffix.lower() == ".parquet":
        edges = read_table(edges_path, lambda _: {})
    else:
        edges = read_edges(edges_path, ends, nodes.rows[own])
    said = list[str]()
    if nodes is not None and nodes_path is not None and has_decimals(nodes_path):
        nodes, found = with_decimals(nodes, (own,))
        said += found
    if has_decimals(edges_path):
        edges, found = with_decimals(edges, ends(list(edges.rows)))
        said += found
    return Tables(name, nodes, edges, columns, tuple(said))


def has_decimals(path: Path) -> bool:
    """Tell whether a comma in a table may be part of a number, for it separates no columns."""
    return path.suffix.lower() != ".parquet" and header_of(path).separator != ","


def nodes_in(path: Path, columns: Columns) -> tuple[Table, str]:
    """Read a table of nodes, and say in which column their ids are."""
    if path.suffix.lower() == ".parquet":
        table = read_table(path, lambda _: {})
        return table, id_of(columns, list(table.rows.columns), table.name)
    own = id_of(columns, header_of(path).names, path.name)
    table = read_table(path, lambda _: {own: f"S{WIDEST}"})
    numbers = as_numbers(table.rows[own].to_numpy(f"S{WIDEST}"))
    if numbers is None:
        table = read_table(path, lambda _: {own: str})
    else:
        table.rows[own] = numbers
    return table, own


def files_of(place: Path, columns: Columns) -> list[Path]:
    """Return the files that a graph is read from: the tables of a folder, or what else it shows."""
    folder = place if place.is_dir() else place.parent
    named = [folder / name for name in (columns.nodes_file, columns.edges_file) if name]
    tables = [*named, *(path for names in (NODES, EDGES) if (path := found_in(folder, names)))]
    others = shown_in(place) if place.is_dir() and not tables else []
    return [place, *tables, *(file for file in others if file.suffix.lower() not in TABLES)]


def paths_in(place: Path, columns: Columns) -> tuple[Path | None, Path]:
    """Return the files of nodes, if there is one, and of edges.

    Raises:
        InputError: one that was named is not there, or there are no edges.
    """
    folder = place if place.is_dir() else place.parent
    paths = []
    for name, usual in ((columns.nodes_file, NODES), (columns.edges_file, EDGES)):
        path = found_in(folder, usual) if name is None else folder / name
        if name is not None and not (path and path.is_file()):
            raise InputError(f"dataset: there is no file {path}")
        paths.append(path)
    nodes, edges = paths
    if place.is_file() and place not in paths:  # edges that are called something else
        edges, nodes = place, nodes if columns.nodes_file else None
    if edges is None:
        raise InputError(f"dataset: {folder} has no edges.csv, .tsv or .parquet; --edges-file names one")
    return nodes, edges
