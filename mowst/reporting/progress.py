"""Where training is, for people who wait."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Display:
    """Shows where training is: a bar on a terminal, a line per finished phase elsewhere. It is a trainer's hook.

    Args:
        console: to print on.
        epochs: of a phase at most.
        mixed: whether seeds train side by side, so that their records come mixed.
    """

    def __init__(self, console: Console, epochs: int, *, mixed: bool = False):
        self.console, self.epochs, self.mixed = console, epochs, mixed
        self.last: dict[int, dict[str, Any]] = {}
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("loading", total=epochs)

    def __call__(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        place = line["seed"] if self.mixed else 0
        before = self.last.get(place)
        if before and self.name(line) != self.name(before):
            self.phase_ended(before)
        self.last[place] = line
        words = f"{self.name(line)}, validation {line['val']:.4f}, best {line['best']:.4f}"
        self.bar.update(self.task, description=words, completed=line["epoch"])

    def name(self, line: dict[str, Any]) -> str:
        """Name a phase for people."""
        return f"seed {line['seed']}, {line['model']}, {line['phase']}"

    def phase_ended(self, line: dict[str, Any]) -> None:
        """Print what a phase came to."""
        self.console.print(f"{self.name(line)}: {line['epoch']} epochs, best {line['best']:.4f}")

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.last.values():
            self.phase_ended(line)
        self.bar.stop()


class Trainings:
    """Shows how many of a known number of trainings are done, and what is left to wait: a bar on a terminal, and lines.

    Args:
        console: to print on.
        hint: how to do without them, if there is a way.
    """

    def __init__(self, console: Console, hint: str = ""):
        self.console, self.hint = console, hint
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def begin(self, trainings: int, seconds: float, whole: int, workers: int) -> None:
        """Say what is to come: of the whole number so many trainings, which are expected to take so long together."""
        self.count, self.done, self.expected, self.passed = trainings, 0, seconds, 0.0
        self.start, self.task = time.monotonic(), self.bar.add_task("finals", total=trainings)
        if trainings:
            there = f" ({whole - trainings} more are there already)" * (trainings < whole)
            each, together = lasting(seconds / trainings), lasting(seconds / workers)
            hint = f"; {self.hint}" * bool(self.hint)
            words = f"finals: {trainings} trainings of about {each}{there}, {together} in all{hint}"
            self.console.print(words, soft_wrap=True, highlight=False)

    def watch(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        self.bar.update(self.task, description=f"seed {line['seed']}, {line['model']}, {line['phase']}")

    def ended(self, words: str, expected: float) -> None:
        """Say what one training came to, and how long the others may take, by how long those took that are done."""
        self.done, self.passed = self.done + 1, self.passed + expected
        left = (self.expected - self.passed) * (time.monotonic() - self.start) / (self.passed or 1.0)
        rest = f", about {lasting(max(0.0, left))} left" if self.done < self.count else ""
        self.bar.update(self.task, completed=self.done)
        self.console.print(f"finals: {words}; {self.done} of {self.count}{rest}", soft_wrap=True, highlight=False)

    def __enter__(self) -> Trainings:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


def lasting(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
