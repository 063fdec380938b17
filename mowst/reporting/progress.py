"""Where training is, for people who wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mowst.reporting.finished import phase_words

SILENCE = 30.0
"""Seconds after which a log has a line, whatever happens."""


class Display:
    """Shows where training is, and what is left to wait. It is a trainer's hook.

    On a terminal every seed that trains has a line with its phase, epoch, present and best validation score. Elsewhere
    there is a line for each finished phase, and one every half a minute in longer ones.

    Args:
        console: to print on.
        epochs: of a phase at most.
        workers: processes that share the seeds; of several the records come mixed.
        seeds: that are to be trained.
        clock: seconds since whenever.
    """

    def __init__(
        self,
        console: Console,
        epochs: int,
        *,
        workers: int = 1,
        seeds: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.console, self.epochs, self.workers, self.seeds, self.clock = console, epochs, workers, seeds, clock
        self.last: dict[int, dict[str, Any]] = {}
        self.begun: dict[int, float] = {}
        self.phase_begun: dict[int, float] = {}
        self.spoken = -SILENCE
        words = (TextColumn(f"{{task.fields[{name}]}}") for name in ("scores", "left"))
        columns = TextColumn("{task.description}"), BarColumn(12), MofNCompleteColumn(), *words
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.tasks: dict[int, TaskID] = {}
        self.waiting = self.bar.add_task("loading", total=None, scores="", left="")

    def __call__(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        seed, now = line["seed"], self.clock()
        place = seed if self.workers > 1 else 0
        before = self.last.get(place)
        if before is None or self.name(line) != self.name(before):
            if before is not None:
                self.phase_ended(before)
            self.phase_begun[place] = now
        self.begun.setdefault(seed, now)
        self.last[place] = line
        left = self.left(line, now - self.phase_begun[place], now)
        self.show(seed, line, left)
        if not self.console.is_terminal and now - self.spoken >= SILENCE and line["epoch"] > 1:
            where = f"epoch {line['epoch']} of at most {self.epochs}"
            self.say(f"{self.name(line)}: {', '.join(filter(None, (where, scores(line), left)))}")

    def share(self, workers: int) -> None:
        """Say that from now on so many processes share the seeds."""
        if self.workers == 1 and 0 in self.last:
            seed = self.last[0]["seed"]
            self.last, self.phase_begun = {seed: self.last[0]}, {seed: self.phase_begun[0]}
        self.workers = workers
        self.say(f"{workers} processes share the seeds from now on")

    def show(self, seed: int, line: dict[str, Any], left: str) -> None:
        """Bring the line of a seed up to date; seeds that have ended have none."""
        if seed not in self.tasks:
            self.bar.update(self.waiting, visible=False)
            for other in list(self.tasks)[: len(self.tasks) + 1 - self.workers]:
                self.bar.remove_task(self.tasks.pop(other))
            self.tasks[seed] = self.bar.add_task("", total=self.epochs, scores="", left="")
        self.tasks[seed] = task = self.tasks.pop(seed)  # those that speak last are last
        name, epoch = self.name(line), line["epoch"]
        self.bar.update(task, description=name, completed=epoch, scores=scores(line), left=left)

    def left(self, line: dict[str, Any], passed: float, now: float) -> str:
        """Say what is left to wait: by the seeds that are done, or, before that, at most in this phase."""
        start, latest = min(self.begun.values()), max(self.begun.values())
        done = len(self.begun) - self.workers
        if done > 0 and latest > start:
            whole = self.seeds * (latest - start) / done
            return f"about {lasting(max(0.0, whole - (now - start)))} left"
        if line["epoch"] < 2 or not passed:
            return ""
        rest = passed / (line["epoch"] - 1) * max(0, self.epochs - line["epoch"])
        return f"at most {lasting(rest)} left in this phase"

    def name(self, line: dict[str, Any]) -> str:
        """Name a phase for people."""
        return f"seed {line['seed']}, {line['model']}, {phase_words(line['phase'])}"

    def phase_ended(self, line: dict[str, Any]) -> None:
        """Print what a phase came to."""
        self.say(f"{self.name(line)}: {line['epoch']} epochs, best {line['best']:.4f}")

    def say(self, words: str) -> None:
        """Print a line."""
        self.spoken = self.clock()
        self.console.print(words, soft_wrap=True)

    def __enter__(self) -> Display:
        self.spoken = self.clock()
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.last.values():
            self.phase_ended(line)
        self.bar.stop()


def scores(line: dict[str, Any]) -> str:
    """Say how good a model is that is being trained."""
    return f"now {line['val']:.4f}, best {line['best']:.4f}"


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
