"""Labels as people have them become class numbers [N], and the numbers keep their names.

One rule for whatever holds them. Nothing, NaN, NA, NaT and empty text are no label. So is -1, where no number is
smaller. Text and whole numbers are classes; numbers that are not 0 to C - 1 already are counted through in their order,
and remembered as names. A row with a single 1 is that column's class. Real numbers, several labels a node, and a class
for every other node or more are refused: they are no classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mowst.errors import InputError

Place = Callable[[int], str]
LARGEST = 2**62
"""Numbers of this size are names, not counted."""


class Labels(NamedTuple):
    """Classes of nodes, and what they are called."""

    y: Tensor
    """[N] long, -1 where there is no label."""
    names: list[Hashable] | None
    """What class 0, 1, ... is in the data; none where the numbers are its own."""


def labels(
    given: Any,
    classes: int | None = None,
    what: str = "y",
    names: Sequence[Hashable] | None = None,
    place: Place = "node {}".format,
) -> Labels:
    """Return the labels of all nodes.

    Args:
        given: a tensor, an array, a column of pandas or a list, [N] or [N, 1], or one-hot rows [N, C].
        classes: their number, where it is known: then numbers below it stay as they are, whatever is missing.
        what: the field, for messages.
        names: of the classes in their order, by which text is numbered; by default all that occur, in theirs.
        place: says of a node where it is, for messages.

    Raises:
        InputError: they are no classes, or one has none of the names; it says why.
    """
    if isinstance(given, Tensor) and (given.layout != torch.strided or given.is_meta):
        raise InputError(f"{what}: must be a class for each node, [N], dense; to_dense makes it so")
    if isinstance(given, Tensor):
        here = given.detach().cpu()
        values = (here.double() if here.is_floating_point() else here).numpy()
    else:
        values = _array(given, what)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.shape[1] > 1:
        values = _hot(values, what)
    if values.ndim != 1:
        raise InputError(f"{what}: must be a class for each node, [N], is {list(np.shape(values))}")
    if values.dtype.kind not in "iufb":
        plain = [scalar(value, f"{what} of node {node}") for node, value in enumerate(values.tolist())]
        if odd := [value for value in plain if names is not None and value is not None and value not in names]:
            raise InputError(f"{what}: class {odd[0]!r} is not among class_names")
        return named(plain, what, names)
    found = _numbered(_whole(values, what, place), classes, what, place)
    return found._replace(y=found.y.to(given.device)) if isinstance(given, Tensor) else found


def scalar(value: Any, what: str) -> Hashable | None:
    """Return one label as text, a whole number, true or false; none where there is none.

    Raises:
        InputError: it is none of these; `what` says whose it is.
    """
    if isinstance(value, Tensor | np.ndarray | list | tuple):
        row = _array(value, what).reshape(-1)
        return scalar(row.tolist()[0], what) if len(row) == 1 else int(_hot(row[None], what)[0])
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or pd.isna(value) is True or value == "":
        return None
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float) and value == value // 1:
        return int(value)
    raise InputError(f"{what}: is {value!r}; a class is text or a whole number, a real number is something to regress")


def named(values: Sequence[Hashable | None], what: str, names: Sequence[Hashable] | None = None) -> Labels:
    """Number plain labels by name: by the names that are given (-1 for others), else in their order.

    Raises:
        InputError: there are too many classes to be classes.
    """
    return _by_name(values, torch.arange(len(values)), what, names, "node {}".format)


def of_column(
    column: pd.Series, what: str, names: Sequence[Hashable] | None = None, place: Place = "node {}".format
) -> Labels:
    """Return the labels in a column of a table; each different value is looked at once.

    Args:
        column: text or whole numbers, missing where there is none.
        what: the column, for messages.
        names: of the classes in their order, such as those of another graph; a label of another name is none.
        place: says of a row where it is, for messages.

    Raises:
        InputError: they are no classes.
    """
    if names is None and column.dtype.kind in "iuf":
        return labels(column.to_numpy(), what=what, place=place)
    try:
        codes, distinct = pd.factorize(column)
    except TypeError:
        raise InputError(f"{what}: must be a class for each node, holds lists or tables") from None
    plain = list[Hashable]()
    for code, value in enumerate(distinct):
        try:
            plain.append(scalar(value, what))
        except InputError:  # where it is may take a while to find
            scalar(value, f"{what}: {place(int((codes == code).argmax()))}")
    return _by_name([*plain, None], torch.from_numpy(codes), what, names, place)


def _by_name(
    values: Sequence[Hashable | None],
    codes: Tensor,
    what: str,
    names: Sequence[Hashable] | None,
    place: Place,
) -> Labels:
    """Number labels by name; `codes` [N] says for each node which of the values is its own."""
    found = {value for value in values if value is not None}
    if names is None:
        if all(type(value) is int and abs(value) < LARGEST for value in found):
            whole = np.array([-1 if value is None else value for value in values])[codes]
            return _numbered(whole, None, what, place)
        names = sorted(found, key=lambda value: (type(value).__name__, value))
    number = {name: place for place, name in enumerate(names)}
    y = torch.tensor([-1 if value is None else number.get(value, -1) for value in values], dtype=torch.long)[codes]
    _refuse_many(y, what)
    return Labels(y, list(names))


def _array(given: Any, what: str) -> np.ndarray[Any, Any]:
    if given is None or isinstance(given, str | bytes | dict):
        raise InputError(f"{what}: must be a class for each node, [N], is {given!r}")
    try:
        found = np.asarray(given)
        mixed = found.dtype.kind in "US" and isinstance(given, list | tuple)  # numbers among text would become text
        return np.asarray(given, dtype=object) if mixed else found
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: must be a class for each node, [N] ({error})") from None


def _hot(rows: np.ndarray[Any, Any], what: str) -> np.ndarray[Any, Any]:
    """Return the column of the one in each row."""
    if rows.dtype.kind not in "iufb" or not (((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all()):
        raise InputError(
            f"{what}: has {rows.shape[1]} numbers a node that are not one-hot; give one class each, "
            "several labels a node are not supported"
        )
    return rows.argmax(axis=1)


def _whole(values: np.ndarray[Any, Any], what: str, place: Place) -> np.ndarray[Any, Any]:
    """Return numbers as whole ones, -1 for not-a-number."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), -1, values)
        odd = (values != np.floor(values)) | np.isinf(values)
        if odd.any():
            node = int(odd.nonzero()[0][0])
            raise InputError(
                f"{what}: labels must be whole numbers or text, and {place(node)} has {values[node]}; a real number is "
                "something to regress, round it or put it in classes first"
            )
    if values.size and max(abs(int(values.min())), abs(int(values.max()))) >= LARGEST:
        raise InputError(f"{what}: labels must be below 2^62, are {values.min()} to {values.max()}")
    return values.astype(np.int64)


def _numbered(values: np.ndarray[Any, Any], classes: int | None, what: str, place: Place) -> Labels:
    """Return whole numbers as classes 0 to C - 1."""
    y = torch.from_numpy(np.ascontiguousarray(values))
    found = torch.unique(y).tolist()
    if classes is not None and all(-1 <= value < classes for value in found):
        return Labels(y, None)
    lowest = found[0] if found else 0
    if lowest < -1 and found[-1] - lowest + 1 != len(found):
        node = int((y == lowest).nonzero()[0])
        raise InputError(f"{what}: label {lowest} of {place(node)} is below 0; give -1 where there is no label")
    kept = torch.tensor(found if lowest < -1 else [value for value in found if value >= 0], dtype=torch.long)
    y = torch.where(torch.isin(y, kept), torch.searchsorted(kept, y), -1)
    _refuse_many(y, what)
    return Labels(y, None if kept.tolist() == list(range(len(kept))) else kept.tolist())


def _refuse_many(y: Tensor, what: str) -> None:
    """Refuse what has a class for every other node, or more."""
    known = y[y >= 0]
    classes = len(torch.unique(known))
    if classes > max(2, len(known) // 2):
        raise InputError(
            f"{what}: {classes} classes for {len(known)} labelled nodes; that is an id or a number to regress, no class"
        )
