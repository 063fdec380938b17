"""Files and folders that are whole or not there: written beside their place, and moved."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from mowst.errors import InputError
from mowst.system.memory import out_of_memory

OF_A_RUN = ".mowst.json"
"""The file by which a folder is known as that of a run."""


class UnwritableError(InputError):
    """A file or folder cannot be written; its cause says why."""


@contextmanager
def in_place(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, and move it there if nothing went wrong.

    Raises:
        InputError: it cannot be written; what was there is there still.
    """
    with said_of(folder), beside(folder) as made:
        new, old = made / "new", made / "old"
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name in a temporary folder beside `path`, and move that file there if nothing went wrong.

    Raises:
        InputError: it cannot be written; what was there is there still.
    """
    with said_of(path), beside(path) as made:
        yield made / path.name
        os.replace(made / path.name, path)


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there; `InputError` where that fails."""
    with whole_file(path) as whole:
        whole.write_text(text, encoding="utf-8")


def write_arrays(path: Path, found: Iterable[tuple[str, np.ndarray[Any, Any]]]) -> None:
    """Write an `.npz` beside its place and move it there; `InputError` where that fails.

    Of arrays that are made when they are asked for, one is there at a time (numpy's `savez` wants all at once). They
    are not compressed: of probabilities that saves a fourteenth of the room, and takes longer than all other writing.
    """
    with whole_file(path) as whole, zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
        for name, array in found:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def try_place(path: Path) -> None:
    """See whether a file could be written, before anything is computed that should go there.

    Raises:
        InputError: it is a folder, or the system refuses its name or its place.
    """
    with said_of(path):
        if path.is_dir():
            raise OSError(None, "it is a folder")
        there = next(folder for folder in path.absolute().parents if folder.exists())
        with beside(there / path.name) as made:
            (made / path.name).touch()


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, on the same disk."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=f".{path.name[:20]}-", dir=path.parent, ignore_cleanup_errors=True)
    except ValueError as error:  # a name with a NUL, or with characters that the system's encoding lacks
        raise OSError(None, str(error)) from None
    with made as folder:
        yield Path(folder)


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Say in one line why a file or folder could not be written: the disk, the place, or the name."""
    try:
        yield
    except UnwritableError as error:  # of a part of it
        raise UnwritableError(refusal(path, error.__cause__ or error)) from error.__cause__
    except (OSError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        raise UnwritableError(refusal(path, error)) from error


def refusal(path: Path, error: BaseException) -> str:
    """Name what cannot be written, and why."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return f"{path}: cannot be written: {reason}"


def take_room(file: int, size: int) -> None:
    """Let an open file have so many bytes on its disk; where the system cannot promise them, it is as long as that.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)
