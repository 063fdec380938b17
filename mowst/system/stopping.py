"""Signals that ask a program to end, and wait until what is being done has reached a good place to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mowst.system.main import STOPPING, Stopped

WAITING = b"finishing the epoch, then saving; a second signal ends at once\n"


@dataclass
class Asked:
    """Whether somebody has asked for an end."""

    number: int | None = None
    """Of the signal; none: nobody has."""
    twice: bool = False
    """Whether it was asked again, by somebody who does not want to wait."""

    def heed(self) -> None:
        """End here if somebody has asked for it.

        Raises:
            Stopped: somebody has.
        """
        if self.number is not None:
            raise Stopped(self.number)


@contextmanager
def postponed(waits: Callable[[], bool]) -> Iterator[Asked]:
    """Let SIGINT and SIGTERM wait for `Asked.heed`, while `waits` says that something is under way.

    At any other time, and the second time, they end the program at once, by `Stopped`. A signal that is ignored stays
    so, and outside of the main thread, where Python allows no handlers, nothing is changed.
    """
    asked, before = Asked(), {}

    def receive(number: int, _: object) -> None:
        asked.twice = asked.number is not None
        asked.number = number
        if asked.twice or not waits():
            raise Stopped(number)
        with suppress(OSError):
            os.write(2, WAITING)

    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in STOPPING}
        before = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, receive)
        yield asked
        asked.heed()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
