"""What PyG keeps of a graph once it is processed: made by one process at a time, whole or not there.

PyG writes it in place, where another process, or the next run after a full disk, finds half of it. `prepared` puts the
same dataset classes on top of a scratch folder for that step, and moves the files home when all of them are written.
Where the data root cannot be written, home is the user's cache folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path
from torch_geometric.data import Dataset

from mowst.errors import InputError

LOCK = ".mowst.lock"


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Have a folder, made if need be, to oneself; others wait. What was made for nothing is taken away again."""
    while True:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        with suppress(FileNotFoundError):  # somebody else has just taken the empty folder away
            lock.acquire()
            break
    try:
        yield
    finally:
        if missing and [path.name for path in folder.iterdir()] == [LOCK]:
            (folder / LOCK).unlink()
        lock.release()
        for place in missing:
            with suppress(OSError):  # it is not empty: all is well
                place.rmdir()


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """Give a folder beside `target` (in its nearest parent that exists), gone afterwards."""
    parent = next(place for place in target.absolute().parents if place.is_dir())
    try:
        folder = tempfile.TemporaryDirectory(dir=parent, prefix=".mowst-")
    except OSError as error:
        raise InputError(
            f"cannot write to {parent}: {error.strerror}; name a writable folder by --data-root"
        ) from error
    with folder as path:
        yield Path(path)


def writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder, or, where it is not there yet, in its nearest parent that is."""
    place = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True


def cached(home: Path, raw: list[Path]) -> Path:
    """Return the folder of the user's cache for what is made of these raw files, as they are now."""
    digest = hashlib.sha256(str(home.absolute()).encode())
    for path in raw:
        if path.exists():
            digest.update(f"{path.stat().st_size} {path.stat().st_mtime_ns}".encode())
    return user_cache_path("mowst") / "processed" / digest.hexdigest()[:24]


def prepared(loader: type[Dataset], *, anew: bool = False) -> type[Dataset]:
    """Return the same dataset class, whose processed files are made by one process at a time and are whole.

    Args:
        loader: a dataset class of PyG's manner.
        anew: whether they are made though they are there.
    """

    class Prepared(loader):
        _place: str | None = None
        fresh = False
        """Whether an instance has made them in this process."""

        @property
        def processed_dir(self) -> str:
            return self._place or super().processed_dir

        def _process(self) -> None:
            home = Path(super().processed_dir)
            cache = cached(home, [Path(path) for path in self.raw_paths])
            if not anew and any(_whole(self, place) for place in (home, cache)):
                return
            place = home if writable(home) else cache
            if place.exists() and not place.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
            with turn(place.parent):
                if not anew and _whole(self, place):
                    return
                with scratch(place) as folder:
                    self._place, self.force_reload = str(folder / place.name), True
                    super()._process()
                    last = [Path(path).name for path in self.processed_paths]
                    self._place = str(place)
                    place.mkdir(parents=True, exist_ok=True)
                    made = sorted((folder / place.name).iterdir(), key=lambda file: file.name in last)
                    for file in made:
                        os.replace(file, place / file.name)
                type(self).fresh = True

    Prepared.__name__ = loader.__name__
    return Prepared


def _whole(dataset: Any, place: Path) -> bool:
    """Tell whether a dataset's processed files are in a place, and let it look for them there if so."""
    before, dataset._place = dataset._place, str(place)
    if all(os.path.exists(path) for path in dataset.processed_paths):
        return True
    dataset._place = before
    return False
