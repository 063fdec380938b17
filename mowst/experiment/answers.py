"""Files of predictions: where they may go, and which of those that are there may give way to new ones."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from mowst.data import card
from mowst.data.gathering import files_of
from mowst.data.own import LOADER, is_own, of_fields
from mowst.errors import InputError
from mowst.experiment.config import Config
from mowst.experiment.folder import marked
from mowst.system import try_place, whole_file

TABLES, ARRAYS = (".csv", ".parquet"), (".npz",)
"""Endings of files of predictions by name, and of arrays."""
ALWAYS = {"id", "predicted", "probability", "expert"}
COLUMNS = ("id", "predicted", "probability", "confidence", "expert", "calibrated", "set", "unsure")
OF_CLASS = "probability of "
"""What a table of predictions has in its header: some of these columns, in this order, then one for each class."""
NAMES = ["nodes", "probabilities", "prediction"]
"""Names of the arrays."""


def check_save(flag: str, path: Path, folder: Path, *endings: str) -> None:
    """See that predictions can be written to a file, and that no run's own files lie there.

    Raises:
        InputError: they cannot, or would be part of a run, which may be replaced or read as a whole.
    """
    if path.suffix not in endings:
        raise InputError(f"{flag} {path}: must end with {' or '.join(endings)}")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(f"{flag} {path}: writing Parquet needs pyarrow: pip install pyarrow, or give a .csv")
    try_place(path)
    there = path.resolve()
    inside = [folder.resolve(), *(place / name for place in there.parents for name in marked(place).files)]
    if any(there.is_relative_to(own) for own in inside):
        raise InputError(f"{flag} {path}: is among the files of a run; give a place outside of it")


def check_free(flag: str, path: Path, inputs: list[Path | str], *, overwrite: bool) -> None:
    """See that what lies where predictions should go may give way to them.

    Args:
        flag: by which the place was given.
        path: the place.
        inputs: files that are read in the same call, which never may.
        overwrite: whether a file may that is none of predictions.

    Raises:
        InputError: it may not.
    """
    if not path.exists():
        return
    if any(os.path.exists(each) and path.samefile(each) for each in inputs):
        raise InputError(f"{flag} {path}: is read in this very call; give another file")
    if not overwrite and not is_predictions(path):
        raise InputError(
            f"{flag} {path}: is there already, and is no file of predictions; give another file, or --overwrite"
        )


def is_predictions(path: Path) -> bool:
    """Tell whether a file has the columns, or the arrays, that `mowst predict` writes, and no others."""
    with suppress(OSError, ValueError, EOFError, zipfile.BadZipFile, csv.Error):
        if path.suffix in ARRAYS:
            with np.load(path, allow_pickle=False) as arrays:
                return not isinstance(arrays, np.ndarray) and sorted(arrays.files) == sorted(NAMES)
        names = columns_of(path)
        fixed = [name for name in names if not name.startswith(OF_CLASS)]
        return set(fixed) >= ALWAYS and names[: len(fixed)] == [name for name in COLUMNS if name in fixed]
    return False


def columns_of(path: Path) -> list[str]:
    """Read what the columns of a table are called."""
    if path.suffix == ".parquet":
        from pyarrow.parquet import read_schema

        return list(read_schema(path).names)
    with path.open(encoding="utf-8", newline="") as lines:
        return next(csv.reader(lines), [])


def read_files(config: Config, graph: str | None, files: dict[str, str]) -> Iterator[Path]:
    """Yield the files of the graph that a run was trained on, and of another one that it is asked of.

    Args:
        config: of the run.
        graph: a file or folder, or the name of a card; none: there is no other graph.
        files: `nodes_file` and `edges_file` of the other graph, where they are called otherwise.
    """
    for name, columns in ((config.dataset, config.columns), (graph, of_fields(files))):
        if name is not None and is_own(name):
            yield from files_of(Path(name), columns)
        elif name is not None and name.endswith((".yaml", ".yml")) and Path(name).exists():
            if (entry := card(name)).loader != LOADER:
                continue
            told = {key: entry.arguments[key] for key in ("nodes_file", "edges_file") if key in entry.arguments}
            yield from files_of(Path(entry.arguments["path"]), of_fields(told | (files if name == graph else {})))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write predictions by name as .csv or .parquet."""
    with whole_file(path) as whole:
        if whole.suffix == ".csv":
            table.to_csv(whole, index=False, float_format="%.6g")
        else:
            table.to_parquet(whole, index=False)
