"""Work that this process does, item after item, while others join it once that is worth it.

Nothing waits for a process to start: each takes the next item when it is ready, this one too. If one is killed, or
memory becomes too small, all but this one are ended, and it does the rest alone.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import torch

from mowst.system.memory import out_of_memory
from mowst.system.process import Settings
from mowst.system.workers import HEARD_EVERY, UNGUARDED, begin, call, end, ended_early, gpus, need_guard, spawning

Item = TypeVar("Item")
Result = TypeVar("Result")
Tell = Callable[[Any], None]

ALONE = "a process that shared the work was killed, or memory was too small for it; one process goes on alone"


class Joining(Protocol):
    """Says how many processes are to join."""

    def hear(self, line: Any, *, here: bool) -> None:
        """Take what the work tells, `here` or in another process."""

    def more(self, beside: int, left: int) -> int:
        """Return how many are to join those `beside` this one now, `left` items being taken by nobody yet."""


def in_company(
    here: Callable[[Item, Tell], Result],
    there: Callable[[Item, Tell], Result],
    items: Iterable[Item],
    joining: Joining,
    *,
    settings: Settings | None = None,
    told: Tell | None = None,
) -> list[Result]:
    """Map a function over items, and return its results in the order of the items.

    Args:
        here: what this process does with an item; takes a second argument, `tell`.
        there: the same as another process does it; it and the items must be picklable.
        items: each is taken by whoever is ready for it.
        joining: is asked whenever the work here tells something.
        settings: process-wide settings of those that join. Each has as many threads of torch as this one.
        told: called here with whatever is told; what it raises ends the job.

    Raises:
        Exception: what the function raised; the others are ended.
    """
    need_guard()
    company = Company(there, list(items), joining, settings, told or (lambda line: None))
    try:
        return company.done(here)
    finally:
        company.disband()


class Company:
    """One process that works and those that have joined it; arguments as of `in_company`."""

    def __init__(
        self,
        there: Callable[[Any, Tell], Any],
        items: Sequence[Any],
        joining: Joining,
        settings: Settings | None,
        told: Tell,
    ):
        self.there, self.items, self.joining, self.settings, self.told = there, items, joining, settings, told
        self.context = spawning()
        self.lines: Any = self.context.SimpleQueue()
        self.taken: Any = self.context.Value("i", 0)
        self.places = self.context.Value("i", 1)  # this process has the first
        self.results = dict[int, Any]()
        self.heard = deque[tuple[int | None, Any]]()
        self.beside, self.futures, self.pools = set[BaseProcess](), list[Future[Any]](), ExitStack()
        self.over = threading.Event()
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.alone = False

    def done(self, here: Callable[[Any, Tell], Any]) -> list[Any]:
        """Do it all, and return the results."""
        while len(self.results) < len(self.items):
            if (place := self.next()) is None:
                self.attend()
                time.sleep(HEARD_EVERY)
                continue
            try:
                self.results[place] = here(self.items[place], self.hear)
            except Exception as error:
                if not (out_of_memory(error) and self.beside):
                    raise
                self.go_alone()
        return [self.results[place] for place in range(len(self.items))]

    def next(self) -> int | None:
        """Return the place of an item to do here; none: others have what is left."""
        if self.alone:
            return next(place for place in range(len(self.items)) if place not in self.results)
        return take(self.taken, len(self.items))

    def hear(self, line: Any) -> None:
        """Take what is told here, and see to the others."""
        self.joining.hear(line, here=True)
        self.told(line)
        self.attend()

    def attend(self) -> None:
        """Take what the others have told and done, and let more of them join."""
        self.catch_up()
        errors = [error for future in self.futures if future.done() and (error := future.exception()) is not None]
        for error in errors:
            if not (isinstance(error, BrokenProcessPool) or out_of_memory(error)):
                raise error
        if errors or any(process.exitcode for process in self.beside):
            self.go_alone()
        left = len(self.items) - self.taken.value
        if not self.alone and left > 0 and (count := self.joining.more(len(self.beside), left)) > 0:
            self.start(count)

    def catch_up(self) -> None:
        """Take what was heard."""
        while self.heard:
            place, said = self.heard.popleft()
            if place is None:
                self.joining.hear(said, here=False)
                self.told(said)
            else:
                self.results[place] = said

    def start(self, count: int) -> None:
        """Start processes that join."""
        others = set(multiprocessing.active_children())
        given = count, gpus(), self.places, self.settings, self.lines
        initial = partial(begin_beside, torch.get_num_threads())
        pool = ProcessPoolExecutor(count, self.context, initializer=initial, initargs=(self.taken, *given))
        self.pools.enter_context(pool)
        try:
            with uninterrupted():
                work = partial(call, partial(serve, self.there), True, self.items)
                self.futures += [pool.submit(work) for _ in range(count)]
        finally:
            self.beside |= set(multiprocessing.active_children()) - others
        if not self.listener.is_alive():
            self.listener.start()

    def listen(self) -> None:
        """Keep what the others tell, so that none of them waits until this process has time for it."""
        while True:
            if not self.lines.empty():
                self.heard.append(self.lines.get())
            elif self.over.wait(HEARD_EVERY):
                return

    def go_alone(self) -> None:
        """End the others, keep what they have done, and say so."""
        unguarded = UNGUARDED in (process.exitcode for process in self.beside)
        warnings.warn(str(ended_early(self.beside)) if unguarded else ALONE, stacklevel=2)
        self.alone = True
        self.disband()
        self.catch_up()

    def disband(self) -> None:
        """End the others."""
        end(self.beside)
        self.over.set()
        if self.listener.is_alive():
            self.listener.join(1.0)  # one that was killed may have left half a line, for whose rest it would wait
        self.pools.close()
        self.beside, self.futures = set(), []


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let an interrupt wait; a process that is started inside never hears of one, not even while it imports."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def take(taken: Any, count: int) -> int | None:
    """Take the next of so many places; none is left: none."""
    with taken.get_lock():
        place, taken.value = taken.value, min(count, taken.value + 1)
    return place if place < count else None


_taken: Any = None  # In a process that has joined.


def begin_beside(threads: int, taken: Any, *given: Any) -> None:
    """Become a process that joins another one; `given` as of `begin`."""
    global _taken
    _taken = taken
    begin(*given)
    torch.set_num_threads(threads)


def serve(there: Callable[[Any, Tell], Any], items: Sequence[Any], put: Tell) -> None:
    """Do items as long as there are any, and tell what is told and what came of it."""
    while (place := take(_taken, len(items))) is not None:
        put((place, there(items[place], lambda line: put((None, line)))))
