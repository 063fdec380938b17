"""Several processes of one machine that share a job, each with its share of the cores and, as far as they go, a GPU.

A process is started afresh (spawned), so that what is true of the one that starts it says nothing of it; it ends with
that one, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait as wait_for
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from mowst.errors import InputError
from mowst.system.main import speak_plainly
from mowst.system.process import Settings, hush_libraries

Item = TypeVar("Item")
Result = TypeVar("Result")

HEARD_EVERY = 0.1
"""Seconds between two looks at what processes tell."""


def in_processes(
    count: int,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    settings: Settings | None = None,
    told: Callable[[Any], None] | None = None,
) -> list[Result]:
    """Map a function over items in so many processes, and return its results in the order of the items.

    Where something is raised, here or there, the processes are ended at once.

    Args:
        count: of processes, or of items where these are fewer.
        function, items: must be picklable; with `told`, the function takes a second argument, `tell`.
        settings: process-wide settings of each.
        told: called here with whatever a function `tell`s; what it raises ends the job.

    Raises:
        InputError: a process was killed.
        Exception: what the function raised.
    """
    items = list(items)
    count, context = min(count, len(items)), multiprocessing.get_context("spawn")
    lines: Any = context.SimpleQueue()
    others = set(multiprocessing.active_children())
    given = (count, gpus(), context.Value("i", 0), settings, lines)
    with ProcessPoolExecutor(count, context, initializer=begin, initargs=given) as pool:
        try:
            futures = [pool.submit(partial(call, function) if told else function, item) for item in items]
            listen(futures, set(multiprocessing.active_children()) - others, lines, told)
            return [future.result() for future in futures]
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                raise InputError(f"workers: one of {count} was killed, perhaps for want of memory; try fewer") from None
            raise


def listen(
    futures: Sequence[Future[Any]], processes: Iterable[BaseProcess], lines: Any, told: Callable[[Any], None] | None
) -> None:
    """Pass on what is told until all futures have their results, or one an error, which is raised.

    That a process was killed is seen here: the pool itself may have looked for its processes before the last was there.
    """
    waiting = True
    while waiting:
        done, undone = wait(futures, timeout=HEARD_EVERY, return_when=FIRST_EXCEPTION)
        while told and not lines.empty():
            told(lines.get())
        for future in done:
            future.result()
        waiting = bool(undone)
        if waiting and any(process.exitcode for process in processes):
            raise BrokenProcessPool


_lines: Any = None
_settings = ExitStack()  # For as long as a process lives.


def call(function: Callable[..., Result], item: Any) -> Result:
    """Call a function in a process that can tell the one that started it."""
    return function(item, _lines.put)


def begin(count: int, gpu_names: Sequence[str], started: Any, settings: Settings | None, lines: Any) -> None:
    """Become one process of so many; `started` counts them."""
    global _lines
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it is interrupted too, and ends it
    with started.get_lock():
        place, started.value = started.value, started.value + 1
    take_share(count, place, gpu_names)
    speak_plainly()
    hush_libraries()
    _lines = lines
    if settings is not None:
        _settings.enter_context(settings.applied())


def gpus() -> list[str]:
    """Return the names by which CUDA knows the devices that this process sees."""
    count, named = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(place) for place in range(count)] if named is None else named.split(",")[:count]


def take_share(count: int, place: int, gpu_names: Sequence[str]) -> None:
    """Take, as one process of so many, its share of the cores, and of several GPUs one, by turns.

    It must not have looked for a GPU before.
    """
    if len(gpu_names) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_names[place % len(gpu_names)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores // count)))


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, killed or not."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
