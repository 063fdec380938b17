"""Where studies are kept: a journal file, a database, or a proxy in front of either."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from mowst.errors import InputError

RETRIES = 3
"""How often a trial is tried again; what kills its worker every time (memory, say) is then left alone."""
JOURNAL = b'{"op_code"'
"""What a journal begins with."""
try:
    from grpc import RpcError
except ImportError:
    RpcError = OSError
AWAY = (OSError, StorageInternalError, SQLAlchemyError, RpcError)
"""What a storage raises that has gone."""


@contextmanager
def experimental() -> Iterator[None]:
    """Use what Optuna calls experimental without its notice; also a decorator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def has_heartbeats(place: str) -> bool:
    """Tell whether Optuna itself finds out there which trials have lost their workers."""
    return "://" in place and not place.startswith("grpc://")


@experimental()
def open_storage(place: str, silence: float) -> BaseStorage:
    """Open a journal file, a database URL, or `grpc://host:port`.

    Args:
        place: the file, URL or address.
        silence: seconds without a heartbeat after which a database counts a trial as dead.

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
            retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
            beat = max(1, round(silence / 6))
            return RDBStorage(
                place, heartbeat_interval=beat, grace_period=round(silence), heartbeat_stale_trial_callback=retry
            )
        path = Path(place).resolve()  # Optuna looks for the lock from the file's own folder
        if path.is_file() and not JOURNAL.startswith(start(path)):
            raise ValueError("it is no journal of Optuna's")
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(Journal(path))
    except Exception as error:  # drivers have no family of errors in common
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"study {place}: cannot be opened ({reason}); give a journal file, a database URL whose driver is "
            "installed, or grpc://host:port"
        ) from None


@contextmanager
def at_hand(place: str, faults: Sequence[Exception] = ()) -> Iterator[None]:
    """Say in a line that a storage went away while it was used; `faults` are known to come from elsewhere."""
    try:
        yield
    except Exception as error:
        cause = next((each for each in chain(error) if isinstance(each, AWAY)), None)
        if cause is None or any(error is fault for fault in faults):
            raise
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise InputError(
            f"study {place}: went away ({reason}); when it is there again, the same command goes on where it stands"
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
        self.lock.acquire()
        try:
            with self.path.open("rb+") as stream:
                stream.seek(whole_lines(stream))
                stream.truncate()
                stream.write(lines.encode())
                stream.flush()
                if any("state" in log for log in logs):
                    os.fsync(stream.fileno())
        finally:
            self.lock.release()


def start(path: Path) -> bytes:
    """Return the first bytes of a file, as many as tell a journal."""
    with path.open("rb") as stream:
        return stream.read(len(JOURNAL))


def whole_lines(stream: BinaryIO) -> int:
    """Return how many bytes of a file are whole lines."""
    end = stream.seek(0, os.SEEK_END)
    start, tail = end, b""
    while start and b"\n" not in tail:
        start = max(0, start - 4096)
        stream.seek(start)
        tail = stream.read(end - start)
    return start + tail.rfind(b"\n") + 1
