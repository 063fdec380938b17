"""Several processes of one machine that share a job, each with its share of the cores and, as far as they go, a GPU.

A process is started afresh (spawned), so that what is true of the one that starts it says nothing of it; it ends with
that one, however that ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any, TypeVar

import torch

from mowst.process import Settings

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    count: int,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    settings: Settings | None = None,
    told: Callable[[Any], None] | None = None,
) -> list[Result]:
    """Map a function over items in so many processes, and return its results in the order of the items.

    Args:
        count: of processes.
        function, items: must be picklable; with `told`, the function takes a second argument, `tell`.
        settings: process-wide settings of each.
        told: called here with whatever a function `tell`s.

    Raises:
        Exception: what the function raised for the first item for which it did.
    """
    context = multiprocessing.get_context("spawn")
    lines: Any = SimpleQueue() if told is None else context.Queue()
    listener = threading.Thread(target=listen, args=(lines, told), daemon=True)
    given = (count, gpus(), context.Value("i", 0), settings, None if told is None else lines)
    listener.start()
    try:
        with ProcessPoolExecutor(count, context, initializer=begin, initargs=given) as pool:
            return list(pool.map(partial(call, function) if told else function, items))
    finally:
        lines.put(None)
        listener.join()


def listen(lines: Any, told: Callable[[Any], None] | None) -> None:
    """Pass on what comes, until nothing does."""
    while (line := lines.get()) is not None:
        if told is not None:
            told(line)


_lines: Any = None
_settings = ExitStack()  # For as long as a process lives.


def call(function: Callable[..., Result], item: Any) -> Result:
    """Call a function in a process that can tell the one that started it."""
    return function(item, _lines.put)


def begin(count: int, found: Sequence[str], places: Any, settings: Settings | None, lines: Any) -> None:
    """Become one process of so many."""
    global _lines
    end_with_parent()
    with places.get_lock():
        place, places.value = places.value, places.value + 1
    take_share(count, place, found)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    _lines = lines
    if settings is not None:
        _settings.enter_context(settings.applied())


def gpus() -> list[str]:
    """Return the names by which CUDA knows the devices that this process may see."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(place) for place in range(torch.cuda.device_count())] if named is None else named.split(",")


def take_share(count: int, place: int, found: Sequence[str]) -> None:
    """Take, as one process of so many, its share of the cores, and of several GPUs one, by turns.

    It must not have looked for a GPU before.
    """
    if len(found) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = found[place % len(found)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, min(torch.get_num_threads(), cores // count)))


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, killed or not."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
