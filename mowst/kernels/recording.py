"""Work of a CUDA device that is recorded once and then done again, without a word from Python (a CUDA graph).

A command says whether anything is recorded at all (`recording`); a library does not, unless asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch

LOOK = 10
"""Epochs from one look to the next where they are recorded."""


class Recorder(Protocol):
    """Records work."""

    def aside(self) -> AbstractContextManager[None]:
        """Run inside what is going to be recorded, and whatever went before it that leaves traces."""

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do some work, record it, and return a function that does it again, on the same tensors.

        Raises:
            RuntimeError: it cannot be recorded.
        """


class CudaGraphs:
    """Records by `torch.cuda.graph`, on a stream of its own. Random numbers are those of torch's CUDA generator.

    Work that waits for the device is refused before anything is recorded: a recording that fails leaves torch's
    allocator and generator in disorder.
    """

    def __init__(self) -> None:
        self.stream: Any = None
        self.pool: Any = None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the stream that is recorded, so that gradients gather there, too."""
        here = torch.cuda.current_stream()
        make: Any = torch.cuda.Stream
        if self.stream is None or self.stream.device != here.device:
            self.stream = make()
        self.pool = torch.cuda.graph_pool_handle()
        self.stream.wait_stream(here)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            here.wait_stream(self.stream)

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Do some work, record it, and return a function that does it again."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


_present: list[Recorder] = []


def recorder() -> Recorder | None:
    """Return who records now; none: nobody does."""
    return _present[-1] if _present else None


@contextmanager
def recording(by: Recorder | None) -> Iterator[None]:
    """Let training be recorded inside; none: not."""
    if by is None:
        yield
        return
    _present.append(by)
    try:
        yield
    finally:
        _present.remove(by)
