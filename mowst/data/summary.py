"""What was found in a person's own graph, in lines to read before anything is trained."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch_geometric.data import Data

from mowst.data.fitted import Column, Fitted
from mowst.data.joining import Joined
from mowst.data.roles import Ends, Roles
from mowst.data.tables import Table, Tables
from mowst.data.understanding import CATEGORY, RANKED, Kinds
from mowst.errors import many, some

MOST, FEW = 8, 12
"""How many columns are named in a line, and classes."""


class Made(NamedTuple):
    """What a graph was made of."""

    tables: Tables
    nodes: Table
    roles: Roles
    ends: Ends
    links: Joined
    fitted: Fitted
    kinds: Kinds
    again: str
    """Says which rows of nodes came again."""
    blanks: dict[str, str]
    """Says of columns of text in what they had blanks."""


def summary(data: Data, made: Made) -> Iterator[str]:
    """Say what was found: sizes, classes, what became of each column, what was left out."""
    nodes, edges = int(data.num_nodes), made.links.edge_index.size(1)
    way = "directed" if made.tables.columns.directed else "undirected"
    count = edges if made.tables.columns.directed else edges // 2
    weighted = f", weighted by {made.ends.weight}" if made.ends.weight else ""
    files = " and ".join(dict.fromkeys(table.name for table in (made.nodes, made.tables.edges)))
    joined = many(count, f"{way} edge", f"{way} edges")
    yield f"{made.tables.name}: {nodes:,} nodes, {joined}{weighted} ({files})"
    read = {"id": made.roles.id, "source": made.ends.source, "target": made.ends.target, "label": made.roles.label}
    read["split"] = made.roles.split
    yield "  read as: " + ", ".join(f"{role} {name!r}" for role, name in read.items() if name is not None)
    if "y" in data:
        yield classes_line(data.y, data.class_names)
    yield from column_lines(made, data.x.size(1))
    yield from graph_lines(data, made.links)


def in_arrays(data: Data, name: str, links: Joined, fitted: Fitted | None) -> Iterator[str]:
    """Say what was found in a graph that came in arrays."""
    yield f"{name}: {int(data.num_nodes):,} nodes, {links.edge_index.size(1):,} edges, counted in both directions"
    if "y" in data:
        names = data.get("class_names") or list(range(data.num_classes))
        yield classes_line(data.y, names)
    yield f"  features: {data.x.size(1)}, as they came" if fitted is None else of_structure(fitted, data.x.size(1))
    yield from graph_lines(data, links)


def of_structure(fitted: Fitted, width: int) -> str:
    """Say that the features are made of the graph."""
    steps = f", and how often walks of up to {fitted.steps} steps return" if fitted.steps else ""
    return (
        f"  features: the nodes have none; {width} are made of the graph: degrees of a node and its neighbours{steps}"
    )


def graph_lines(data: Data, links: Joined) -> Iterator[str]:
    """Say how a graph hangs together, and which edges were left out."""
    ends, same = links.edge_index, ""
    if "y" in data and ends.size(1):
        y = data.y.numpy()
        source, target = y.astype(np.min_scalar_type(-1 - int(y.max())))[ends.numpy()]
        alike = source == target
        if int(y.min()) < 0:
            alike = alike[(source >= 0) & (target >= 0)]
        share = float(alike.mean()) if len(alike) else None
        same = "" if share is None else f", {share:.0%} of the edges join nodes of one class"
    met = np.zeros(int(data.num_nodes), dtype=bool)
    for end in ends.numpy():
        met[end] = True
    alone = int((~met).sum())
    yield f"  graph: {many(alone, 'node', 'nodes')} without an edge{same}"
    already = "there already, this way or the other"
    dropped = {
        many(links.loops, "self-loop", "self-loops"): links.loops,
        many(links.repeats, f"edge that was {already}", f"edges that were {already}"): links.repeats,
    }
    if lines := [what for what, number in dropped.items() if number]:
        yield f"  left out: {', '.join(lines)}"


def classes_line(y: Tensor, names: Sequence[Hashable]) -> str:
    """Name the classes and how many nodes have each."""
    counts = y[y >= 0].bincount(minlength=len(names))
    order = counts.argsort(descending=True, stable=True).tolist()
    named = some((f"{names[each]} {int(counts[each]):,}" for each in order), FEW)
    return f"  classes: {len(names)} on {many(int(counts.sum()), 'labelled node', 'labelled nodes')} ({named})"


def column_lines(made: Made, width: int) -> Iterator[str]:
    """Say what became of each column."""
    if made.fitted.steps is not None:
        yield of_structure(made.fitted, width)
    else:
        yield f"  features: {many(len(made.fitted.columns), 'column becomes', 'columns become')} {width}"
        titles = {
            "numbers": [each for each in made.fitted.columns if each.kind not in (RANKED, CATEGORY) and not each.date],
            "very skewed numbers, by their rank": [each for each in made.fitted.columns if each.kind == RANKED],
            "dates": [each for each in made.fitted.columns if each.date],
            "categories": [each for each in made.fitted.columns if each.kind == CATEGORY],
        }
        for title, held in titles.items():
            if held:
                yield f"    {title}: {some((described(each) for each in held), MOST)}"
    for name, why in made.kinds.left.items():
        yield f"    left out: {name or 'a column without a name'} ({why})"


def described(column: Column) -> str:
    """Name a column, with the number of its categories, and whether values are missing."""
    values = f" ({len(column.values)}{' and rare ones together' * column.rare})" if column.kind == CATEGORY else ""
    return f"{column.name}{values}{' (some missing)' * column.missing}"
