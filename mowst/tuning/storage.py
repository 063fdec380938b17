"""Where studies are kept: a journal file, a database, or a proxy in front of either."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import get_lock_file
from optuna.storages.journal._storage import JournalOperation
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mowst.errors import InputError

RETRIES = 3
"""How often a trial is tried again; what kills its worker every time (memory, say) is then left alone."""
JOURNAL = b'{"op_code"'
"""What a journal's lines begin with."""
SQLITE = b"SQLite format 3"
"""What such a database begins with."""
try:
    from grpc import RpcError
except ImportError:
    RpcError = StorageInternalError
STORED = (StorageInternalError, SQLAlchemyError, RpcError)
"""What only a storage raises, when it has gone or the disk is full."""
AWAY = (OSError, *STORED)
"""What it raises, and others may raise too."""


@contextmanager
def experimental() -> Iterator[None]:
    """Use what Optuna calls experimental without its notice; also a decorator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@experimental()
def open_storage(place: str) -> BaseStorage:
    """Open a journal file, a database URL, or `grpc://host:port`.

    Args:
        place: the file, URL or address.

    Raises:
        InputError: it cannot be reached, or is something else.
    """
    try:
        if place.startswith("grpc://"):
            host, _, port = place.removeprefix("grpc://").rpartition(":")
            proxy = GrpcStorageProxy(host=host, port=int(port))
            proxy.wait_server_ready(timeout=10)
            return proxy
        if "://" in place:
            url = make_url(place)
            if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
                raise ValueError("it would be in memory only; write sqlite:///PATH")
            return RDBStorage(place)
        path = Path(place).resolve()  # Optuna looks for the lock from the file's own folder
        if path.is_file():
            check_journal(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except Exception as error:  # drivers have no family of errors in common
        reason = reason_of(error)
        raise InputError(
            f"study {place}: cannot be opened ({reason}); give a journal file, a database URL whose driver is "
            "installed, or grpc://host:port"
        ) from None


@contextmanager
def at_hand(place: str, faults: Sequence[Exception] = ()) -> Iterator[None]:
    """Say in a line that a storage failed while it was used; `faults` are a trial's own unless a storage made them.

    Raises:
        InputError: it failed.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        ours = STORED if any(error is fault for fault in faults) else AWAY
        cause = next((each for each in chain(error) if isinstance(each, ours)), None)
        if cause is None:
            raise
        raise InputError(
            f"study {place}: cannot be used any more ({reason_of(cause)}); once that is mended, the same command goes "
            "on where it stands"
        ) from None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those in whose handling it was raised: Optuna stumbles over some of its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Journal(JournalFileBackend):
    """Optuna's journal file, for many short writes and for writers that may be killed.

    The disk is waited for only where a trial begins or ends: nine tenths of the time of a report are that wait. And a
    line that a killed writer left unfinished, which would make the file unreadable, is cut off by the next one.
    """

    def __init__(self, path: Path):
        self.path, self.lock = path, JournalFileOpenLock(str(path), grace_period=10)
        super().__init__(str(path), self.lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write whole lines under the lock."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with stored(), get_lock_file(self.lock), self.path.open("rb+") as stream:
            stream.seek(whole_lines(stream))
            stream.truncate()
            stream.write(lines.encode())
            stream.flush()
            if any("state" in log for log in logs):
                os.fsync(stream.fileno())

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries from a number on."""
        with stored():
            yield from super().read_logs(log_number_from)


@contextmanager
def stored() -> Iterator[None]:
    """Let a file's failure be a storage's: a trial may miss files of its own."""
    try:
        yield
    except (OSError, json.JSONDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StorageInternalError(str(reason)) from error


def check_journal(path: Path) -> None:
    """See whether every line of a file is one of a journal; what a killed writer has left of a last one may be there.

    Raises:
        ValueError: it is none, and which line is not.
    """
    with path.open("rb") as stream:
        begin = stream.read(len(JOURNAL))
        if not JOURNAL.startswith(begin):
            kind = (
                "an SQLite database, which sqlite:///PATH opens"
                if SQLITE.startswith(begin)
                else "no journal of Optuna's"
            )
            raise ValueError(f"it is {kind}")
        stream.seek(0)
        for number, line in enumerate(stream, start=1):
            cut = not line.endswith(b"\n") and (line.startswith(JOURNAL[: len(line)]) or not line.strip(b"\0"))
            if not cut and not is_entry(line):
                raise ValueError(f"line {number} is damaged, and what stands behind it may belong to it")


def is_entry(line: bytes) -> bool:
    """Tell whether a line has the form of a journal's."""
    try:
        found = json.loads(line)
        return isinstance(found, dict) and JournalOperation(found["op_code"]) is not None and "worker_id" in found
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def reason_of(error: BaseException) -> str:
    """Return the first line of what an error says, and which it is where that alone says little."""
    text = str(error).strip()
    plain = isinstance(error, OSError | ValueError | StorageInternalError | SQLAlchemyError | ImportError)
    first = text.splitlines()[0] if text else ""
    return first if plain and first else f"{type(error).__name__} {first}".strip()


def whole_lines(stream: BinaryIO) -> int:
    """Return how many bytes of a file are whole lines."""
    end = stream.seek(0, os.SEEK_END)
    start, tail = end, b""
    while start and b"\n" not in tail:
        start = max(0, start - 4096)
        stream.seek(start)
        tail = stream.read(end - start)
    return start + tail.rfind(b"\n") + 1
