"""Where a seed stands while it is trained: OUT/seed-k/checkpoint.safetensors, from which a run goes on.

It holds the seed's journal: what finished phases came to, and everything that the running one needs. The folder of the
finished seed takes its place.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from jsonargparse import Namespace

from mowst.errors import InputError
from mowst.experiment.config import Config
from mowst.experiment.folder import SEARCH, marked
from mowst.experiment.reading import config_of, given_fields, parse, parser
from mowst.experiment.states import read_about, read_state, write_state
from mowst.system import Asked, postponed
from mowst.training import Journal, World

FILE, FORMAT = "checkpoint.safetensors", 2

ANOTHER = {
    "format": "another format of checkpoints",
    "mowst": "another version of mowst",
    "torch": "another version of torch",
    "config_sha256": "another configuration",
    "graph_sha256": "another graph",
    "split": "another split",
    "labels_sha256": "other labels",
    "class_names": "other names of classes",
    "teacher_sha256": "another teacher",
    "device": "another kind of device",
    "devices": "another number of --devices",
    "fast": "another --fast",
    "matmul": "another --matmul",
}
"""What a checkpoint must agree in with the run that goes on from it, and how to say that it does not."""


@dataclass(frozen=True)
class Saving:
    """How often the seeds of a run are saved while they are trained."""

    minutes: float = 1.0
    """Least minutes from one time to the next; 0: after every epoch; infinite: not by the clock."""
    epochs: int | None = None
    """Epochs from one time to the next; none: not by their number."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the process that the result depends on."""

    def __post_init__(self) -> None:
        if not self.minutes >= 0:
            raise InputError(f"checkpoint_minutes: must be at least 0, got {self.minutes}")
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"checkpoint_epochs: must be at least 1, got {self.epochs}")


class Beside(Protocol):
    """What watches a seed being trained, and goes on from where it was, too."""

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands, in plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand there."""


class Checkpoint:
    """The file that says where one seed stands.

    Args:
        folder: of the seed.
        about: returns what the seed is of, in plain values.
        saving: how often it is written.
        beside: what else is saved and put back.
        world: the processes that train the seed together. The first writes and reads; all stop, and go on, together.
    """

    def __init__(
        self,
        folder: Path,
        about: Callable[[], dict[str, Any]],
        saving: Saving,
        beside: Beside | None = None,
        world: World | None = None,
    ):
        self.path, self.saving, self._about, self.beside = folder / FILE, saving, about, beside
        self.world = world or World()
        self.about: dict[str, Any] | None = None
        self.asked = Asked()
        self.journal = Journal(self.look, self.passed, self.room)
        self.written, self.when = (0, 0), time.monotonic()

    def said(self) -> dict[str, Any]:
        """Return what the seed is of."""
        if self.about is None:
            self.about = {"format": FORMAT, **self._about(), **self.saving.conditions}
        return self.about

    def read(self) -> None:
        """Let the journal stand where the file says, if it is there.

        Raises:
            InputError: it is damaged, or of something else.
        """
        state = self.world.told(self._held() if self.world.first else None)
        if state is not None:
            self.journal.load_state_dict(state)
            self.written = stands(state)

    def _held(self) -> Any:
        """Return what the file holds; none if there is none."""
        if not self.path.exists():
            return None
        hint = f"take {self.path} away to train anew, or give another folder"
        try:
            held = read_about(self.path)
            for key, what in ANOTHER.items():
                if held.get(key) != self.said().get(key):
                    raise InputError(f"{self.path}: of {what}: {held.get(key)!r}, here it is {self.said().get(key)!r}")
            state = read_state(self.path)
        except InputError as error:
            raise InputError(f"{error}; {hint}") from None
        if self.beside is not None:
            self.beside.load_state_dict(held["beside"])
        return state

    def passed(self, journal: Journal) -> None:
        """Save after an epoch, if it is time."""
        if self.saving.epochs is not None and journal.epochs % self.saving.epochs == 0:
            self.write()
        self.look(journal)

    def room(self) -> int:
        """Return how many epochs may pass before it is time to save by their number."""
        every = self.saving.epochs
        return sys.maxsize if every is None else every - self.journal.epochs % every

    def look(self, journal: Journal) -> None:
        """Save if it is time, or if somebody wants the run to end; then end it."""
        self.asked.number = int(self.world.largest(self.asked.number or 0)) or None
        if self.asked.number is not None or time.monotonic() - self.when >= 60 * self.saving.minutes:
            self.write()
        self.asked.heed()

    def write(self) -> None:
        """Write down where the seed stands, unless that is what was written before, or less, or another one does so.

        Raises:
            InputError: the disk is full or the folder cannot be written; the file of before is there still.
        """
        if not self.world.first:
            return
        self.when, state = time.monotonic(), self.journal.state_dict()
        if stands(state) <= self.written:
            return
        here = {"stands": list(stands(state)), "threads": torch.get_num_threads()}
        here |= {} if self.beside is None else {"beside": self.beside.state_dict()}
        try:
            write_state(self.path, self.said() | here, state)
        except TypeError as error:
            warnings.warn(f"no checkpoint is written: {error}", stacklevel=2)
        self.written = stands(state)


def stands(state: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many phases are finished in a journal's state, and how many epochs of the next one."""
    underway = state["underway"]
    return len(state["finished"]), 0 if underway is None else underway["counters"]["epoch"]


@contextmanager
def kept(
    folder: Path,
    about: Callable[[], dict[str, Any]],
    saving: Saving,
    beside: Beside | None = None,
    world: World | None = None,
) -> Iterator[Journal]:
    """Give a seed's journal, which stands where its checkpoint says, and is saved as training goes on.

    A signal that asks the program to end waits for the epoch, and what was done is saved.

    Args:
        folder: of the seed.
        about: returns what the seed is of, in plain values.
        saving: how often.
        beside: what else is saved and put back.
        world: the processes that train the seed together; none: this one alone does.

    Raises:
        InputError: the checkpoint is damaged or of something else, or cannot be written.
        Stopped: a signal has ended it.
    """
    checkpoint = Checkpoint(folder, about, saving, beside, world)
    checkpoint.read()
    with postponed(lambda: checkpoint.journal.running is not None) as asked:
        checkpoint.asked = asked
        try:
            yield checkpoint.journal
        except KeyboardInterrupt:
            if not asked.twice:
                checkpoint.write()
            raise


class Standing(NamedTuple):
    """Where a seed stands that is not finished."""

    phases: int
    """Finished ones."""
    epochs: int
    """Of the next one."""
    threads: int
    """That it was trained with."""
    batch: str
    """What a step is taken on."""
    devices: int
    """That took its steps together."""

    def __str__(self) -> str:
        return f"after {self.phases} phases" + f" and {self.epochs} epochs" * (self.epochs > 0)


def standing(folder: Path, names: Iterable[str]) -> dict[str, Standing]:
    """Return where folders of a run stand that have a checkpoint; of one that is damaged its seed will speak."""
    found = {}
    for name in names:
        with suppress(InputError, KeyError, TypeError, ValueError):
            held = read_about(folder / name / FILE)
            phases, epochs = held["stands"]
            found[name] = Standing(phases, epochs, held["threads"], held["batch"], held["devices"])
    return found


class Before(NamedTuple):
    """What there is of a run that was stopped."""

    config: Config
    """Its configuration, with batches as it has chosen them by the memory that was free then."""
    threads: int | None
    """That it took; none: nothing is there."""
    said: str | None
    """What is there, in words."""
    devices: int | None = None
    """That took its steps together; none: nothing is there."""


def before(config: Config, folder: Path, done: Mapping[int, Mapping[str, Any]]) -> Before:
    """Return what a folder holds of a run, finished seeds (`done`) and others."""
    names = {f"seed-{seed}": f"seed {seed}" for seed in config.all_seeds if seed not in done} | {SEARCH: "the search"}
    stand = standing(folder, names)
    records: list[Mapping[str, Any]] = [*done.values(), *(each._asdict() for each in stand.values())]
    if not records:
        return Before(config, None, None)
    if config.batch == "auto":
        config = replace(config, batch=records[0].get("batch", "auto"))
    there = [f"seed {seed} is there already" for seed in done] + [
        f"{names[name]} {where}" for name, where in stand.items()
    ]
    return Before(config, records[0].get("threads"), ", ".join(there), records[0].get("devices", 1))


def resumed(parsed: Namespace, arguments: Sequence[str] | None) -> Config:
    """Return the configuration of the run that a command line goes on with.

    Raises:
        InputError: there is none in that folder, it has ended, or the command line says what the run has said before.
    """
    folder = Path(parsed.resume)
    given = given_fields(sys.argv[1:] if arguments is None else arguments)
    given += [name for name in ("out", "config") if getattr(parsed, name)] + ["kd"] * (parsed.kd is not None)
    if given:
        raise InputError(f"--resume {folder}: goes on with the run's own configuration; leave out --{given[0]}")
    if (held := marked(folder).config) is None:
        raise InputError(f"--resume {folder}: holds no run; give the folder that --out named")
    if (folder / "result.json").exists():
        raise InputError(f"--resume {folder}: that run has ended, nothing is left to do; its results are there")
    with tempfile.TemporaryDirectory() as beside:
        path = Path(beside) / "config.yaml"
        path.write_text(held, encoding="utf-8")
        return config_of(parse(parser("run", ""), ["--config", str(path)]))
