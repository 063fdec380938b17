"""What was found in a person's own graph, in lines to read before anything is trained, and what is odd about it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor
from torch_geometric.data import Data

from mowst.data.fitted import Column, Fitted
from mowst.data.joining import Joined, shown_id
from mowst.data.roles import SPLIT, Ends, Roles, found
from mowst.data.tables import Table, Tables
from mowst.data.understanding import CATEGORY, RANKED, Kinds
from mowst.errors import some

MOST, FEW = 8, 12
"""How many columns are named in a line, and classes."""
TELLING = 50
"""A column of more values than that, and than thrice the classes, may say the class without being a copy of it."""


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


def summary(data: Data, made: Made) -> Iterator[str]:
    """Say what was found: sizes, classes, what became of each column, what was left out."""
    nodes, edges = int(data.num_nodes), made.links.edge_index.size(1)
    way = "directed" if made.tables.columns.directed else "undirected"
    count = edges if made.tables.columns.directed else edges // 2
    weighted = f", weighted by {made.ends.weight}" if made.ends.weight else ""
    files = " and ".join(dict.fromkeys(table.name for table in (made.nodes, made.tables.edges)))
    yield f"{made.tables.name}: {nodes:,} nodes, {count:,} {way} edges{weighted} ({files})"
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
    yield f"  graph: {alone:,} nodes without an edge{same}"
    dropped = {
        "self-loops": links.loops,
        "edges that were there already, this way or the other": links.repeats,
    }
    if lines := [f"{number:,} {what}" for what, number in dropped.items() if number]:
        yield f"  left out: {', '.join(lines)}"


def classes_line(y: Tensor, names: Sequence[Hashable]) -> str:
    """Name the classes and how many nodes have each."""
    counts = y[y >= 0].bincount(minlength=len(names))
    order = counts.argsort(descending=True, stable=True).tolist()
    named = some((f"{names[each]} {int(counts[each]):,}" for each in order), FEW)
    return f"  classes: {len(names)} on {int(counts.sum()):,} labelled nodes ({named})"


def column_lines(made: Made, width: int) -> Iterator[str]:
    """Say what became of each column."""
    if made.fitted.steps is not None:
        yield of_structure(made.fitted, width)
    else:
        yield f"  features: {len(made.fitted.columns)} columns become {width}"
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


def odd(data: Data, made: Made, ids: pd.Index) -> Iterator[str]:
    """Say what is strange, or was left out, in a sentence each."""
    if made.again:
        yield f"{made.nodes.name}: {made.again}"
    if made.links.unknown:
        yield f"{made.tables.edges.name}: {made.links.unknown}"
    yield from no_split(made)
    if "y" not in data:
        return
    missing = int((data.y < 0).sum())
    if missing:
        first = ids[int((data.y < 0).nonzero()[0])]
        yield f"{made.roles.label}: {missing:,} of {len(data.y):,} nodes have no label, the first is {shown_id(first)}"
    counts = data.y[data.y >= 0].bincount(minlength=data.num_classes)
    for each in (counts == 1).nonzero().flatten().tolist()[:FEW]:
        name, first = data.class_names[each], ids[int((data.y == each).nonzero()[0])]
        yield f"{made.roles.label}: class {name!r} is seen once, on node {shown_id(first)}: it cannot be learned"
    for name in copies(data, made):
        yield f"{name}: says the class of every labelled node; if it is a copy of it, leave it out by --features"


def no_split(made: Made) -> Iterator[str]:
    """Say that a column that is called split is none, unless it was named as a feature."""
    listed = made.tables.columns.listed
    name = found(SPLIT, (each for each in made.nodes.rows if each not in (listed or ())))
    if name is not None and name not in (made.roles.split, made.roles.label, made.roles.id):
        column = made.nodes.rows[name].dropna()
        used = "is not read" if listed else "is a feature" if name in made.kinds.kept else "is left out"
        first = f" (the first is {shown_id(column.iloc[0])})" if len(column) else ""
        yield f"{name}: its values are not train, val and test{first}; it {used}, and is not the split"


def copies(data: Data, made: Made) -> Iterator[str]:
    """Name the columns whose value determines the class of every labelled node."""
    known = (data.y >= 0).numpy()
    labels = data.y.numpy()[known]
    for name in made.kinds.kept:
        if name not in made.nodes.rows:
            continue
        values = made.nodes.rows[name]
        most = min(TELLING, 3 * data.num_classes)
        if values.head(20 * TELLING).nunique() > most:
            continue
        codes, distinct = pd.factorize(values[known])
        there, classes = codes >= 0, data.num_classes
        few = 2 <= len(distinct) <= most and int(there.sum()) > 2 * len(distinct)
        met: Any = np.bincount(codes[there] * classes + labels[there], minlength=len(distinct) * classes) if few else []
        if few and int((np.reshape(met, (-1, classes)) > 0).sum(axis=1).max()) == 1:
            yield name
