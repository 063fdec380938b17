"""Files and folders that are whole or not there: written beside their place, and moved."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def in_place(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, and move it there if nothing went wrong."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        whole = Path(made) / folder.name
        whole.mkdir()
        yield whole
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(whole, folder)


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there."""
    with whole_file(path) as beside:
        beside.write_text(text)


def write_arrays(path: Path, **found: np.ndarray) -> None:
    """Write a compressed `.npz` beside its place and move it there."""
    with whole_file(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **found)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path`, and move that file there if nothing went wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
