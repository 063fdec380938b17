"""Getting files: from the data root, or by a download that either completes or leaves nothing behind.

PyG's datasets make their folders before they download, in place. `Sheltered` puts the same classes on top of a
scratch folder for that one step, and moves the files home when all of them have come.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import shutil
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_geometric.data import Dataset

from mowst.data.preparing import prepared, scratch, turn
from mowst.errors import InputError

TIMEOUT = 30.0  # seconds without an answer; PyG and ogb set none
INSTEAD = "or run --dataset digits, which needs no network"


@dataclass(frozen=True)
class IndexFile:
    """A split's node ids in one .npz file, and where they were published."""

    path: str  # under the data root
    sha256: str
    repository: str
    commit: str
    origin: str  # path in that repository
    fetch: bool = True  # false where `path` is a conversion of `origin`, so that no download would match the hash


class _AnswerError(Exception):
    """Carries the answer to `stored` out of a constructor."""


def stored(loader: Any, root: Path, arguments: Mapping[str, Any]) -> bool:
    """Say whether every raw file of a PyG dataset class is under `root`; true for what needs none."""
    if not (isinstance(loader, type) and issubclass(loader, Dataset)) or "root" not in parameters(loader):
        return True

    class Probe(loader):
        def _download(self) -> None:
            raise _AnswerError(not _absent(self))

    try:
        Probe(root=str(root), **arguments)
    except _AnswerError as answer:
        return bool(answer.args[0])
    return True


def parameters(loader: Any) -> tuple[str, ...]:
    """Return the names of what a class or function takes."""
    if not callable(loader):
        raise InputError(f"loader: {loader!r} is no class and no function")
    try:
        return tuple(inspect.signature(loader).parameters)
    except ValueError:  # some built-in types have no signature
        return ()


def sheltered(loader: type[Dataset], name: str, download: bool, *, anew: bool = False) -> type[Dataset]:
    """Return the same dataset class, whose download completes or raises an InputError and leaves nothing behind.

    What it keeps of the files once they are processed is made as `prepared` says.
    """

    class Sheltered(prepared(loader, anew=anew)):  # type: ignore[misc]
        root: str

        def _download(self) -> None:
            if not _absent(self):
                return
            if not download and len(_lent(self)) < len(_absent(self)):
                raise InputError(f"{self._missing()}: put the files there, {INSTEAD}")
            with turn(Path(self.raw_dir).parent):
                _borrow(self)
                if _absent(self):
                    self._fetch()

        def _fetch(self) -> None:
            home, target = self.root, Path(self.raw_dir)
            with scratch(target) as folder, unreachable(self._missing()), redirect_stderr(io.StringIO()):
                self.root = str(folder)
                try:
                    Path(self.raw_dir).mkdir(parents=True)
                    self.download()
                    shutil.copytree(self.raw_dir, target, dirs_exist_ok=True)
                finally:
                    self.root = home

        def _missing(self) -> str:
            absent = _absent(self)
            more = f" and {len(absent) - 1} more" if absent[1:] else ""
            return f"{name}: {absent[0].name}{more} not in {self.raw_dir}"

    Sheltered.__name__ = loader.__name__
    return Sheltered


@contextmanager
def unreachable(missing: str) -> Iterator[None]:
    """Turn whatever a transport raises into one line, and let no connection wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # urllib, fsspec, aiohttp, zipfile: each has its own family
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{missing}, and the download failed ({reason}): put the files there, {INSTEAD}") from error
    finally:
        socket.setdefaulttimeout(before)


def index_file(file: IndexFile, root: Path, download: bool) -> Path:
    """Return where a split's file is, downloaded and checked if need be."""
    path = root / file.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"split: {path} leads out of the data root {root}, by a link; put the file itself there")
    source = f"{file.repository} at {file.commit}, {file.origin}"
    missing = f"split: {path} is missing (from {source}); run with --split random, or put it there"
    if not path.exists():
        if not (download and file.fetch):
            raise InputError(missing)
        url = f"https://raw.githubusercontent.com/{file.repository.removeprefix('github.com/')}/{file.commit}/{file.origin}"
        with scratch(path) as folder, unreachable(missing):
            copy = folder / path.name
            with urllib.request.urlopen(url) as answer, copy.open("wb") as out:
                shutil.copyfileobj(answer, out)
            _check_hash(copy, file, source)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(copy, path)
    _check_hash(path, file, source)
    return path


def _check_hash(path: Path, file: IndexFile, source: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != file.sha256:
        raise InputError(f"split: {path} is not the file of {source} (SHA-256 {found[:12]}…); run with --split random")


def _absent(dataset: Any) -> list[Path]:
    return [path for path in map(Path, dataset.raw_paths) if not path.exists()]


def _lent(dataset: Any) -> list[Path]:
    """Return what a variant in `<dataset>/<variant>/raw` lacks and `<dataset>/raw` has (Planetoid's geom-gcn)."""
    shared = Path(dataset.raw_dir).parent.parent / "raw"
    return [path for path in _absent(dataset) if (shared / path.name).is_file()]


def _borrow(dataset: Any) -> None:
    """Copy such files."""
    for path in _lent(dataset):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path(dataset.raw_dir).parent.parent / "raw" / path.name, path)
