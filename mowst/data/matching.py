"""Tables of edges whose ends are text: looked up among the ids of nodes as bytes, not as objects of Python.

pandas reads a column as bytes of one width several times as fast as text, and eight bytes at a time are a number. Where
an end is no id of a node, such as one that is missing, the table is read again as text, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mowst.data.tables import Table, read_table

POWERS = 10 ** np.arange(1, 19, dtype=np.int64)
WORD, WIDEST = 8, 64
"""Bytes of a number, and of the longest id that is looked up so."""
MIXER = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, by which every bit of a word changes those above it."""


def as_numbers(text: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return ids, bytes of one width, as whole numbers, if all of them are written as these are; 007 is not."""
    try:
        numbers = text.astype(np.int64)
    except (ValueError, OverflowError):
        return None
    digits = 1 + np.searchsorted(POWERS, np.abs(numbers), side="right") + (numbers < 0)
    written = np.char.str_len(text)  # whatever else int() takes is longer
    return numbers if bool((digits == written).all()) else None


def read_edges(path: Path, ends: Callable[[list[str]], Sequence[str]], ids: pd.Series) -> Table:
    """Read a table of edges between nodes whose ids are text.

    Args:
        path: of the file.
        ends: says of the names of its columns which are source and target.
        ids: of the nodes.

    Raises:
        InputError: it cannot be read; the message has the line, where there is one.
    """
    known = pd.Index(ids.dropna().unique())
    names = list[str]()

    def typed(dtype: Any) -> Callable[[list[str]], dict[str, Any]]:
        def text(columns: list[str]) -> dict[str, Any]:
            names[:] = ends(columns)
            return dict.fromkeys(names, dtype)

        return text

    written = [str(each).encode() for each in known.tolist()]
    width = WORD * (max(map(len, written), default=0) // WORD + 1)  # a longer end is cut, and still longer than any id
    if width > WIDEST:
        return read_table(path, typed(str))
    table = read_table(path, typed(f"S{width}"))
    found = {name: places(np.array(written, f"S{width}"), table.rows[name].to_numpy(f"S{width}")) for name in names}
    if any(place is None for place in found.values()):
        return read_table(path, typed(str))
    return table._replace(
        rows=table.rows.assign(**{name: pd.Categorical.from_codes(place, known) for name, place in found.items()})
    )


def places(known: np.ndarray[Any, Any], asked: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Return where each word is among distinct known ones, bytes of one width; none where one is not among them."""
    first, second = words(known), words(asked)
    index = pd.Index(mixed(first))
    if not index.is_unique:
        return None
    place = index.get_indexer(pd.Index(mixed(second)))
    if len(place) and (int(place.min()) < 0 or not bool((first[place] == second).all())):
        return None
    return np.asarray(place)


def words(text: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return bytes of one width as numbers, [N, width / 8]."""
    return np.ascontiguousarray(text).view(np.uint64).reshape(len(text), text.itemsize // WORD)


def mixed(each: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return one number for the numbers in each row, which differs where they differ but by a rare chance, [N]."""
    found = np.zeros(len(each), np.uint64)
    for word in each.T:
        found = (found ^ word) * MIXER
        found ^= found >> np.uint64(29)
    return found
