"""Processes that train one model together, each with a device: started here on one machine, or by torchrun on several.

Either way the environment numbers them as torchrun does. The first of them speaks and writes; the others are silent.
Started here, they meet by a file and talk over the loopback interface. The one that started them is none of them: it
passes on what the first tells, and ends all where one of them ends.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mowst.errors import InputError
from mowst.system.group import Group
from mowst.system.main import Stopped
from mowst.system.process import Settings
from mowst.system.workers import EndedError, in_processes

Tell = Callable[[Any], None]
Work = Callable[[Group, Tell | None], Any]

WAITS = timedelta(days=1)
"""The first process may work alone for so long; of one that has ended, the others learn from their connections."""
MOMENT = 5.0
"""Seconds for which a process that hears no more of another one leaves it to others to say why."""
LOOPBACK = ("lo", "lo0")


class LostError(InputError):
    """Another process of those that train together has ended, or cannot be reached any more."""


@contextmanager
def heard() -> Iterator[None]:
    """Say in a line that another process does not answer; torch has no error of its own for that.

    Raises:
        LostError: so it is.
    """
    try:
        yield
    except RuntimeError as error:
        said = " ".join(str(error).split())[:200]
        raise LostError(f"devices: another of the processes has ended, or cannot be reached ({said})") from None


@contextmanager
def joined(group: Group, meeting: Path | None = None) -> Iterator[None]:
    """Be connected with the other processes of a group, inside.

    Args:
        group: this process's place.
        meeting: file by which they meet; none: as the environment says.

    Raises:
        LostError: one of them does not come.
    """
    where = None if meeting is None else meeting.absolute().as_uri()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with heard():
        dist.init_process_group(backend, where, WAITS, group.size, group.rank)
    try:
        yield
    finally:
        dist.destroy_process_group()


def in_ranks(count: int, work: Work, *, settings: Settings | None = None, told: Tell | None = None) -> Any:
    """Let so many new processes of this machine work together, and return what the first of them returns.

    Args:
        count: of processes.
        work: picklable; takes the process's `Group`, and, in the first, what tells this process something.
        settings: process-wide settings of each.
        told: called here with what the first process tells; what it raises ends them all.

    Raises:
        InputError: a process was killed; the others are ended.
        Exception: what one of them raised.
    """
    with tempfile.TemporaryDirectory(prefix="mowst-") as folder:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        one = partial(_as_rank, work, (count, Path(folder) / "meeting", seen))
        try:
            return in_processes(count, one, range(count), settings=settings, told=told or (lambda line: None))[0]
        except EndedError:
            raise InputError(
                f"devices: one of {count} processes was killed, perhaps for want of memory; the others were ended, and "
                "what was saved is kept"
            ) from None


def _as_rank(work: Work, given: tuple[int, Path, str | None], rank: int, tell: Tell) -> Any:
    """Be one of so many processes of this machine; `given` are their number, where they meet, the GPUs to be seen."""
    count, meeting, seen = given
    if seen is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # of which a worker would have one alone
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    os.environ |= {name: str(value) for name, value in place.items()} | {"TORCHELASTIC_RUN_ID": "mowst"}
    for _, name in socket.if_nameindex():
        if name in LOOPBACK:
            os.environ["GLOO_SOCKET_IFNAME"] = name
    if rank:
        silence()
    group = Group(rank, count, count)
    with joined(group, meeting):
        try:
            return work(group, None if rank else tell)
        except LostError:
            time.sleep(MOMENT)
            raise


def lead(group: Group, work: Work, *, settings: Settings | None = None, told: Tell | None = None) -> Any:
    """Work together with the other processes that torchrun has started, which `follow`, and return what this one has.

    Raises:
        Exception: what this one raised.
    """
    with joined(group):
        with heard():
            dist.broadcast_object_list([(work, settings)])
        return work(group, told)


def follow(group: Group) -> int:
    """Do in silence what the first of torchrun's processes asks for, and return the exit code."""
    if {"-h", "--help", "--list"} & set(sys.argv):
        return 0
    spoken, box = os.dup(2), list[Any]([None])
    silence()
    try:
        with joined(group):
            with heard():
                dist.broadcast_object_list(box)
            work, settings = box[0]
            with (settings or Settings()).applied():
                work(group, None)
    except LostError:
        return 2
    except Stopped as error:
        return 128 + error.number
    except Exception:
        time.sleep(MOMENT)  # where the first has the same to say, all are ended by then
        os.dup2(spoken, 2)
        raise
    return 0


def silence() -> None:
    """Say nothing any more, neither on standard output nor on standard error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
