"""What is odd about a person's own graph, or was left out of it, in a sentence each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from torch_geometric.data import Data

from mowst.data.given import unread
from mowst.data.joining import shown_id
from mowst.data.labels import scalar
from mowst.data.roles import SPLIT, found, guessed_id
from mowst.data.summary import FEW, Made
from mowst.data.understanding import CATEGORY, COMPLEX, NESTED
from mowst.errors import many, some

TELLING = 50
"""A column of more values than that, and than thrice the classes, may say the class without being a copy of it."""


def odd(data: Data, made: Made, ids: pd.Index) -> Iterator[str]:
    """Say what is strange, or was left out, in a sentence each."""
    yield from made.tables.said
    if made.roles.id and (guessed := guessed_id(made.tables.columns, made.roles.id)):
        yield f"{made.nodes.name}: {guessed}"
    if made.again:
        yield f"{made.nodes.name}: {made.again}"
    if made.links.unknown:
        yield f"{made.tables.edges.name}: {made.links.unknown}"
    yield from weightless(data, str(made.ends.weight), "--weight null reads none")
    words = (made.roles.label, *(name for name, kind in made.kinds.kept.items() if kind == CATEGORY))
    yield from (made.blanks[name] for name in words if name in made.blanks)
    yield from no_split(made)
    yield from read_as_missing(made)
    for name, why in made.kinds.left.items():
        if why in (NESTED, COMPLEX):
            yield f"{name}: is left out, it holds {why}; a feature is a number, a word, or as many numbers a node"
    if "y" not in data:
        return
    yield from unlabelled(data, made, ids)
    counts = data.y[data.y >= 0].bincount(minlength=data.num_classes)
    for each in (counts == 1).nonzero().flatten().tolist()[:FEW]:
        name, first = data.class_names[each], ids[int((data.y == each).nonzero()[0])]
        yield f"{made.roles.label}: class {name!r} is seen once, on node {shown_id(first)}: it cannot be learned"
    for name in copies(data, made):
        yield f"{name}: says the class of every labelled node; if it is a copy of it, leave it out by --features"


def weightless(data: Data, name: str, way: str) -> Iterator[str]:
    """Say that every edge weighs 0."""
    if (weight := data.get("edge_weight")) is not None and len(weight) and not bool(weight.any()):
        yield f"{name}: is 0 on all edges, which then join nothing for experts that use it; {way}"


def unlabelled(data: Data, made: Made, ids: pd.Index) -> Iterator[str]:
    """Say how many nodes have no label, and which words, or -1, stand where theirs would be."""
    lost = (data.y < 0).numpy()
    if not lost.any():
        return
    name = str(made.roles.label)
    column = made.nodes.rows[name]
    empty = lost & column.isna().to_numpy()
    words = made.nodes.written(name)[empty] if made.nodes.written and empty.any() else column[empty].dropna()
    none, other = Counter[Any](word for word in words if word), Counter[Any]()
    for value, count in column[lost & ~empty].value_counts(sort=False).items():
        if (word := scalar(value, name)) is not None:
            (none if word == -1 else other)[word] += int(count)
    said = [f"{many(count, 'says', 'say')} {word!r}, which is read as no label" for word, count in none.most_common()]
    said += [
        f"{many(count, 'says', 'say')} {word!r}, which is no class of the graph like it"
        for word, count in other.most_common()
    ]
    rest = f"; {some(said)}" * bool(said) + "; where it is a class, give it another word" * bool(none)
    first = shown_id(ids[int(lost.argmax())])
    yield f"{name}: {without_label(int(lost.sum()), len(lost))}, the first is {first}{rest}"


def without_label(number: int, nodes: int) -> str:
    """Say how many nodes have no label."""
    return many(number, f"of {nodes:,} nodes has no label", f"of {nodes:,} nodes have no label")


def no_split(made: Made) -> Iterator[str]:
    """Say that a column that is called split is none, unless it was named as a feature."""
    listed = made.tables.columns.listed
    name = found(SPLIT, (each for each in made.nodes.rows if each not in (listed or ())))
    if name is not None and name not in (made.roles.split, made.roles.label, made.roles.id):
        column = made.nodes.rows[name].dropna()
        used = "is not read" if listed else "is a feature" if name in made.kinds.kept else "is left out"
        first = f" (its first value is {shown_id(column.iloc[0])})" if len(column) else ""
        yield f"{name}: does not say train, val or test throughout{first}; it {used}, and is not the split"


def read_as_missing(made: Made) -> Iterator[str]:
    """Say which words in columns of numbers and dates are read as missing."""
    for each in made.fitted.columns:
        column = made.nodes.rows[each.name] if each.absent else pd.Series()
        if len(rows := np.flatnonzero(column.isin(each.absent))):
            kind, words = "date" if each.date else "number", some(map(repr, column.iloc[rows].unique()))
            of = f"of {int(column.count()):,} values"
            said = many(len(rows), f"{of} is no {kind} and is", f"{of} are no {kind}s and are")
            yield f"{each.name}: {said} read as missing: {words}, the first in {made.nodes.place(int(rows[0]))}"


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


def left_out(loaded: Data, data: Data) -> Iterator[str]:
    """Say what of somebody's graph is not used."""
    if "y" in data and (without := int((data.y < 0).sum())):
        whole = isinstance(loaded.y, Tensor | np.ndarray) and "int" in str(loaded.y.dtype)
        hint = "; where -1 is a class of its own, number classes from 0" * (whole and bool((loaded.y == -1).any()))
        yield f"y: {without_label(without, len(data.y))}{hint}"
    yield from weightless(data, "edge_weight", "without it each edge weighs 1")
    for key in unread(loaded):
        yield f"{key}: what edges have is not read; edge_weight [E], one number from 0 each, is"
