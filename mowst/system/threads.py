"""How many threads a command takes: what its process may use, or the number of a run that it goes on with or reads.

Results depend on the number in their last digits, so it is never changed by itself. OMP_NUM_THREADS is left alone where
it is set. No library function touches the number of its own process.
"""

from __future__ import annotations

import os
import sys

import torch

from mowst.errors import InputError

MOST = 1024
"""Threads that a record may ask for."""
MOMENT = 0.1
"""Seconds over which it is measured how busy the machine is."""


def take_threads(recorded: int | None = None, workers: int = 1) -> int:
    """Take a command's number of threads, and return it; it holds for each of its workers, too.

    A line says where that number does not fit: the machine is busy, has fewer CPUs, or OMP_NUM_THREADS has another one.

    Args:
        recorded: the number in the record of a run that goes on, or is read.
        workers: processes that share the CPUs.

    Raises:
        InputError: the record has no such number.
    """
    if recorded is not None and (not isinstance(recorded, int) or not 1 <= recorded <= MOST):
        raise InputError(f"threads: must be a whole number from 1 to {MOST}, the run's record has {recorded!r}")
    threads = share(workers) if recorded is None or is_given() else recorded
    torch.set_num_threads(threads)
    if note := misfit(threads, recorded, workers):
        print(f"note: {note}", file=sys.stderr)
    return threads


def share(workers: int) -> int:
    """Return the threads of one process of so many: OMP_NUM_THREADS, or its part of the CPUs that torch uses."""
    return torch.get_num_threads() if is_given() else max(1, min(torch.get_num_threads(), usable_cpus() // workers))


def is_given() -> bool:
    """Tell whether somebody has chosen the number of threads."""
    return bool(os.environ.get("OMP_NUM_THREADS"))


def usable_cpus() -> int:
    """Count the CPUs that this process may use, by its affinity and its control group."""
    import joblib

    return joblib.cpu_count()


def misfit(threads: int, recorded: int | None, workers: int) -> str | None:
    """Say why a number of threads, for each of so many workers, does not fit."""
    if is_given():
        differ = recorded not in (None, threads)
        return (
            f"the run took {recorded} threads, OMP_NUM_THREADS gives {threads}: last digits may differ" * differ or None
        )
    if threads == 1:
        return None
    if threads * workers > (usable := usable_cpus()):
        return f"{threads * workers} threads, as the run took, share {usable} CPUs: it is slow; {ONE}"
    if usable - (free := free_cpus()) > usable / 2:
        busy = f"other processes take {max(0.0, usable - free):.1f} of the {usable} CPUs that this one may use"
        return f"{busy}: {threads} threads wait for one another, which may be many times slower; {ONE}"
    return None


ONE = "OMP_NUM_THREADS=1 takes one thread"


def free_cpus() -> float:
    """Measure for a moment how many of the CPUs in this process's affinity nobody uses."""
    import psutil

    taken = psutil.cpu_percent(interval=MOMENT, percpu=True)
    ours = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(taken))
    places = [place for place in ours if place < len(taken)] or range(len(taken))  # a container may number them anew
    return sum(100 - taken[place] for place in places) / 100
