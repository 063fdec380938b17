"""Several processes of one machine that share a job, each with its share of the cores and, as far as they go, a GPU.

A process is started afresh (spawned), so that what is true of the one that starts it says nothing of it; it ends with
that one, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.spawn import get_preparation_data
from typing import Any, NoReturn, TypeVar

import torch

from mowst.errors import InputError
from mowst.system.main import Stopped, speak_plainly, stop
from mowst.system.process import Settings, hush_libraries
from mowst.system.threads import share

Item = TypeVar("Item")
Result = TypeVar("Result")

HEARD_EVERY = 0.1
"""Seconds between two looks at what processes tell."""
PATIENCE = 10.0
"""Seconds that a process has to end in good order."""
OURS, UNGUARDED = "mowst worker", 87
"""How processes of ours are called, and their exit code where they would start processes before they are there."""


class Worker(SpawnProcess):
    """A process whose name says that it is ours, before it imports the main module again."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options | {"name": OURS})


class Spawning(SpawnContext):
    """Spawns processes of ours."""

    Process = Worker


def spawning() -> SpawnContext:
    """Return what starts processes of ours, afresh."""
    return Spawning()


def need_guard() -> None:
    """End this process if it is one of ours whose main module asks for processes while it is imported.

    Of that the one that started it speaks (`ended_early`); elsewhere Python says it itself.
    """
    try:
        get_preparation_data("")
    except RuntimeError:
        if multiprocessing.current_process().name == OURS:
            os._exit(UNGUARDED)


class EndedError(InputError):
    """A process has ended before its work was done."""


def ended_early(processes: Iterable[BaseProcess]) -> InputError:
    """Return the error for processes of which one has ended before its work was done."""
    codes = [process.exitcode for process in processes]
    if UNGUARDED in codes:
        return InputError(
            "workers: each process imports the script that asked for it, and this one asks again while it is imported; "
            'put what it does under `if __name__ == "__main__":`, or take workers=1'
        )
    return EndedError(f"workers: one of {len(codes)} was killed, perhaps for want of memory; try fewer")


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
    need_guard()
    items = list(items)
    count, context = min(count, len(items)), spawning()
    lines: Any = context.SimpleQueue()
    others, ours = set(multiprocessing.active_children()), set[BaseProcess]()
    given = (count, gpus(), context.Value("i", 0), settings, lines)
    try:
        with ProcessPoolExecutor(count, context, initializer=begin, initargs=given) as pool:
            try:
                futures = [pool.submit(partial(call, function, told is not None), item) for item in items]
                ours = set(multiprocessing.active_children()) - others
                listen(futures, ours, lines, told)
                return [future.result() for future in futures]
            except BaseException:
                end(ours | (set(multiprocessing.active_children()) - others))
                raise
    except BrokenProcessPool:
        raise ended_early(ours) from None


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


def end(processes: Collection[BaseProcess]) -> None:
    """End processes: by a word, so that each undoes what it has half done, and by force if it takes too long."""
    for process in processes:
        process.terminate()
    last = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, last - time.monotonic()))
        if process.is_alive():
            process.kill()


_lines: Any = None
_settings = ExitStack()  # For as long as a process lives.


def call(function: Callable[..., Result], tells: bool, item: Any) -> Result:
    """Call a function in a process, which may tell the one that started it; ended, it undoes what is half done."""
    before = signal.signal(signal.SIGTERM, stop_once)
    try:
        return function(item, _lines.put) if tells else function(item)
    except Stopped as error:
        os._exit(128 + error.number)
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_once(number: int, frame: object) -> NoReturn:
    """End by an exception, in whose course nothing disturbs: whoever has no more patience kills."""
    signal.signal(number, signal.SIG_IGN)
    stop(number, frame)


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

    It must not have looked for a GPU before. Where OMP_NUM_THREADS is set, it says how many threads each has.
    """
    if len(gpu_names) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_names[place % len(gpu_names)]
    torch.set_num_threads(share(count))


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, killed or not."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait_for([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
