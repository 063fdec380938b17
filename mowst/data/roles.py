"""What is what among the columns of nodes and edges: said by name, or found by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from mowst.data.columns import Columns
from mowst.errors import InputError, some, unknown

ID = ("id", "node_id", "nodeid", "node", "name", "key")
SOURCE = ("source", "src", "from", "source_id", "node1", "id1", "u", "head", "start")
TARGET = ("target", "dst", "to", "target_id", "node2", "id2", "v", "tail", "end")
LABEL = ("label", "class", "y", "labels", "category", "target")
SPLIT = ("split",)
"""Names by which a column is found, in any case, the likeliest first."""


class Ends(NamedTuple):
    """What is what among the columns of edges."""

    source: str
    target: str
    weight: str | None


class Roles(NamedTuple):
    """What is what among the columns of nodes."""

    id: str | None
    label: str | None
    split: str | None
    features: list[str]


def ends_of(columns: Columns, names: Sequence[str], what: str) -> Ends:
    """Find the ends and the weight among the columns of edges.

    Raises:
        InputError: there are fewer than two columns, or one that was named is not there.
    """
    if len(names) < 2:
        raise InputError(f"{what}: edges need two columns, a source and a target; it has {some(names) or 'none'}")
    source = given(columns.source, names, f"{what}: source") or found(SOURCE, names)
    target = given(columns.target, names, f"{what}: target") or found(TARGET, names)
    left = [name for name in names if name not in (source, target)]
    source = source or left.pop(0)
    target = target or left[0]
    if source == target:
        raise InputError(f"{what}: source and target are the same column, {source!r}; name another")
    default = columns.weight == Columns.weight
    weight = found((Columns.weight or "",), left) if default else given(columns.weight, names, f"{what}: weight")
    return Ends(source, target, weight)


def id_of(columns: Columns, names: Sequence[str], what: str) -> str:
    """Find the ids among the columns of nodes.

    Raises:
        InputError: the column that was named is not there, or there is none.
    """
    if not names:
        raise InputError(f"{what}: has no columns")
    return given(columns.id, names, f"{what}: id") or found(ID, names) or names[0]


def guessed_id(columns: Columns, own: str) -> str:
    """Say that ids are taken from the first column for want of one with such a name; "": they are not."""
    if columns.id is not None or found(ID, (own,)) is not None:
        return ""
    return f"no column is called id, so the first, {own!r}, is taken for the ids; --id names another"


def roles_of(columns: Columns, table: pd.DataFrame, own: str | None, what: str) -> Roles:
    """Find label, split and features among the columns of nodes, whose ids are in column `own`, if they are in one.

    A column that is called like a label but is another for almost every node is a name, not a class; one that is called
    split is a feature if it is named as one.

    Raises:
        InputError: a column that was named is not there, or is named twice.
    """
    names = [name for name in table.columns if name != own]
    label = given(columns.label, names, f"{what}: label") or found(LABEL, (n for n in names if repeats(table[n])))
    listed = columns.listed
    free = [name for name in names if name != label and name not in (listed or ())]
    split = given(columns.split_column, names, f"{what}: split_column") or found(SPLIT, free)
    taken = [name for name in (own, label, split) if name is not None]
    for name in listed or ():
        given(name, names, f"{what}: features")
        if name in taken or (listed or []).count(name) > 1:
            raise InputError(f"{what}: features: {name!r} is named twice, or is the id, the label or the split")
    return Roles(own, label, split, [name for name in names if name not in taken] if listed is None else listed)


def repeats(column: pd.Series) -> bool:
    """Tell whether the values of a column come again, as those of a class do."""
    try:
        return int(column.nunique()) <= max(2, int(column.count()) // 2)
    except TypeError:  # lists and tables cannot be counted
        return False


def given(name: str | None, names: Sequence[str], what: str) -> str | None:
    """Return a column that was named.

    Raises:
        InputError: there is none of that name.
    """
    if name is not None and name not in names:
        raise unknown(what, name, names)
    return name


def found(among: Iterable[str], names: Iterable[str]) -> str | None:
    """Return the first column that has one of some names, in any case."""
    lower = {str(name).lower(): name for name in reversed(list(names))}
    return next((lower[name] for name in among if name in lower), None)
