"""Where training is, for people who wait."""

from __future__ import annotations

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
