"""Memory that is too small, in a line: what was asked for, what there is, and what takes less."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LESS = (
    "--batch, such as parts(10), by smaller hidden_channels and num_layers of weak and strong, by fewer --workers, by "
    "--no-keep_memory, and by a smaller graph"
)
"""What takes less memory, where nobody knows better."""
UNITS = {unit: 1024**power for power, unit in enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}


def out_of_memory(error: BaseException) -> bool:
    """Tell too little memory, for which torch has a class of its own on accelerators only."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )


class NeededError(MemoryError):
    """An allocation failed, and it is known what it was for (`what`) and what takes less (`less`)."""

    def __init__(self, error: BaseException, what: str, less: str):
        super().__init__(str(error))
        self.what, self.less = what, less


@contextmanager
def needing(what: str, less: str) -> Iterator[None]:
    """Let an allocation that fails inside say what it was for, and what would take less.

    Raises:
        NeededError: one has failed.
    """
    try:
        yield
    except Exception as error:
        if out_of_memory(error) and not isinstance(error, NeededError):
            raise NeededError(error, what, less) from error
        raise


def too_large(error: BaseException) -> str:
    """Say that memory was too small, and what would need less."""
    asked, left = (size_in(pattern, str(error)) for pattern in (r"allocate", r"of which"))  # the latter of a GPU
    needed = "" if asked is None else f"{asked / 2**30:,.2f} GiB more were asked for, and "
    there = f"{(free_memory() if left is None else left) / 2**30:,.2f} GiB are free"
    what, less = (f" to {error.what}", error.less) if isinstance(error, NeededError) else ("", LESS)
    return f"memory was too small{what}: {needed}{there}; less is taken by {less}"


def size_in(before: str, text: str) -> float | None:
    """Return the bytes that a text names after some words; none if it names none there."""
    found = re.search(before + r" ([\d.]+) ?(\w+)", text)
    return None if found is None or found[2] not in UNITS else float(found[1]) * UNITS[found[2]]


def free_memory() -> int:
    """Return the bytes that this process may still take: what is free, within the limits that it was given."""
    import psutil

    free, process = min(int(psutil.virtual_memory().available), free_in_group()), psutil.Process()
    try:
        import resource
    except ImportError:  # no limits there
        return free
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return free if limit == resource.RLIM_INFINITY else max(0, min(free, limit - int(process.memory_info().vms)))


GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Where Linux says what a control group, such as a container, may take and takes, and what of it are files that it can
give back at once: of the second version of them, and of the first."""


def free_in_group() -> int:
    """Return the bytes that this process's control group may still take; where none bounds it, more than there are."""
    for folder, most, taken, files in GROUPS:
        with suppress(OSError, ValueError, KeyError):  # no such group, or "max"
            limit, used = (int((Path(folder) / name).read_text()) for name in (most, taken))
            stat = dict(line.split() for line in (Path(folder) / "memory.stat").read_text().splitlines())
            return max(0, limit - used + int(stat[files]))
    return sys.maxsize


def process_memory() -> int:
    """Return the bytes of memory that this process has."""
    import psutil

    return int(psutil.Process().memory_info().rss)
