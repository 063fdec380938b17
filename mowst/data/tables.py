"""Tables of nodes and edges out of files: CSV with any usual separator, TSV, and Parquet.

What is wrong with a file is said with its line. Nothing is read but the file itself.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

from mowst.data.columns import Columns
from mowst.errors import InputError, some
from mowst.system import free_memory

TABLES = (".csv", ".tsv", ".parquet")
SEPARATORS = ",;\t|"
LONGEST_HEADER = 2**20
"""Characters."""


class Table(NamedTuple):
    """Rows as they came, and where each of them stands."""

    rows: pd.DataFrame
    name: str
    place: Callable[[int], str]
    """Says of a row, counted from 0, where it is: "nodes.csv, line 2"."""
    written: Callable[[str], pd.Series] | None = None
    """Returns a column as text, word for word, where some words, such as NA, were read as nothing."""


class Tables(NamedTuple):
    """Nodes and edges as they came, and what is what in them."""

    name: str
    nodes: Table | None
    edges: Table
    columns: Columns
    said: tuple[str, ...] = ()
    """What is odd about the file."""


class Header(NamedTuple):
    """The first line of a text table."""

    names: list[str]
    separator: str
    bare: bool
    """Whether there is none: the first line is numbers already."""


def header_of(path: Path) -> Header:
    """Read the names of a table's columns, and by what they are separated.

    Raises:
        InputError: the first line is empty or no text, or two columns have one name.
    """
    try:
        with opened(path) as file:
            line = file.readline(LONGEST_HEADER)
        separator = "\t" if path.suffix.lower() == ".tsv" else max(SEPARATORS, key=lambda each: len(split(line, each)))
        with opened(path) as file:
            names = [name.strip() for name in next(csv.reader(file, delimiter=separator), [])]
    except (csv.Error, StopIteration) as error:
        raise InputError(f"{path}: the first line does not name columns: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start}); save it so") from None
    if not names or len(line) >= LONGEST_HEADER or "\0" in line:
        raise InputError(f"{path}: the first line does not name columns")
    if all(is_number(name) for name in names):
        return Header([str(place) for place in range(len(names))], separator, True)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: {len(names)} columns, of which several are called {some(twice)!r}")
    return Header(names, separator, False)


def opened(path: Path) -> IO[str]:
    """Open a text file, with or without a byte-order mark."""
    return path.open(encoding="utf-8-sig", newline="")


def split(line: str, separator: str) -> list[str]:
    """Return the fields of a line."""
    return next(csv.reader([line], delimiter=separator), [])


def is_number(word: str) -> bool:
    """Tell whether a word is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_table(path: Path, text: Callable[[list[str]], Mapping[str, Any]]) -> Table:
    """Read a table.

    Args:
        path: of the file.
        text: says of the names of its columns which are kept as text, digit by digit, and as which type.

    Raises:
        InputError: it cannot be read; the message has the line, where there is one.
    """
    if path.suffix.lower() == ".parquet":
        return read_parquet(path)
    header = header_of(path)
    options: dict[str, Any] = {"header": None if header.bare else 0, "names": header.names, "sep": header.separator}
    options |= {"dtype": dict(text(header.names)), "index_col": False, "low_memory": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            rows = pd.read_csv(path, encoding="utf-8-sig", **options)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start}); save it so") from None
    except pd.errors.ParserWarning:
        raise InputError(f"{path}: its rows have more fields than the {len(header.names)} columns it names") from None
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        reason = str(error).replace("Error tokenizing data. C error: ", "")
        raise InputError(f"{path}: cannot be read as a table: {reason}") from None

    def written(name: str) -> pd.Series:
        plain = options | {"dtype": str, "usecols": [name], "keep_default_na": False}
        return pd.read_csv(path, encoding="utf-8-sig", **plain)[name]

    return Table(rows, path.name, lambda row: f"{path.name}, line {line_of(path, header, row)}", written)


def chosen(table: Table, rows: np.ndarray[Any, Any]) -> Table:
    """Return some rows of a table, which stay where they were; `rows` [N] says true or false of each."""
    kept, written = rows.nonzero()[0], table.written
    return Table(
        table.rows[rows].reset_index(drop=True),
        table.name,
        lambda row: table.place(int(kept[row])),
        None if written is None else lambda name: written(name)[rows].reset_index(drop=True),
    )


def line_of(path: Path, header: Header, row: int) -> int:
    """Return the line of the file in which a row ends, from 1; a quoted field may have several."""
    with opened(path) as file:
        reader = csv.reader(file, delimiter=header.separator)
        for _ in zip(range(row + (1 if header.bare else 2)), filled(reader), strict=False):
            pass
        return reader.line_num


def filled(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    """Leave out empty lines, as pandas does."""
    return (line for line in lines if line)


def read_parquet(path: Path) -> Table:
    """Read a Parquet file, whose sizes are looked at first.

    Raises:
        InputError: it cannot be read, would be larger than memory, or pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save it as .csv") from None
    try:
        known = parquet.ParquetFile(path).metadata
        refuse_large(path, sum(known.row_group(each).total_byte_size for each in range(known.num_row_groups)))
        refuse_large(path, 8 * known.num_rows * known.num_columns)
        rows = pd.read_parquet(path).reset_index(drop=True)
    except InputError:
        raise
    except Exception as error:  # of pyarrow: whatever its many readers make of a damaged file
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from None
    rows.columns = [str(name) for name in rows.columns]
    if not rows.columns.is_unique:
        raise InputError(f"{path}: several columns have one name")
    return Table(rows, path.name, lambda row: f"{path.name}, row {row + 1}")


def refuse_large(path: Path, size: int) -> None:
    """Refuse a file that says of itself that it is larger than half of the memory that is free.

    Raises:
        InputError: it does.
    """
    free = free_memory()
    if size > free // 2:
        raise InputError(f"{path}: unpacks to {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB of memory are free")
