"""All that a phase of training needs to go on, as tensors and plain values, and what finished phases have left.

`Progress` is where a phase stands: weights, best weights, optimiser, moving average, counters, random states, and the
parameters of losses. A `Journal` keeps what every finished phase came to, and, if asked, where the running one stands:
a regime that is run again on fresh weights with the same seed skips what is in it, and ends bit for bit as if it had
never been stopped.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mowst.errors import InputError
from mowst.training.draws import random_states, set_random_states

Weights = Mapping[str, Tensor]
State = dict[str, Any]
"""Tensors and plain values: numbers, words, None, and lists and dictionaries of them."""


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy the whole state of a module: parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


class MovingAverage:
    """The exponential moving average of a model's state over epochs, which may stand in for the state itself.

    After n epochs the decay is min(decay, (1 + n) / (10 + n)): it grows, so that what is best early is not held back by
    where it began. Numbers that are counted are not averaged, and what does not change stays as it is, infinities too.
    (torch's `AveragedModel` copies the model, and with it what its hooks and layers hold.)

    Args:
        model: whose state is averaged.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.epochs = model, decay, 0
        self.state = snapshot(model)

    def state_dict(self) -> State:
        """Return the average and over how many epochs it goes."""
        return {"epochs": self.epochs, "weights": {name: value.clone() for name, value in self.state.items()}}

    def load_state_dict(self, state: State) -> None:
        """Go on from there."""
        self.epochs = state["epochs"]
        for name, value in state["weights"].items():
            self.state[name].copy_(value)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the state of one more epoch; the average after the first is that state."""
        n, self.epochs = self.epochs, self.epochs + 1
        decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        for name, now in self.model.state_dict().items():
            mean = self.state[name]
            if mean.is_floating_point() or mean.is_complex():
                now = torch.where(mean == now, mean, mean.lerp(now, 1 - decay))
            mean.copy_(now)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Let the model have the average for its state, for a while."""
        own = snapshot(self.model)
        self.model.load_state_dict(self.state)
        try:
            yield
        finally:
            self.model.load_state_dict(own)


class Scaler(Protocol):
    """What multiplies a loss, so that gradients in half precision do not vanish, and finds out by how much."""

    def state_dict(self) -> State:
        """Return by how much, in plain values; nothing where the precision needs none."""

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from there."""


class Trained(NamedTuple):
    """A part that was trained alone."""

    state: Weights
    epochs: int
    """After which it validated best."""


@dataclass
class Best:
    """The weights that have validated best so far."""

    weights: Weights
    score: float = -math.inf
    epoch: int = 0
    """Of its phase; 0: the first weights."""
    losses: dict[nn.Module, Weights] = field(default_factory=dict)
    """The parameters of losses at that moment."""

    def take(self, score: float, epoch: int, model: nn.Module, average: MovingAverage | None = None) -> None:
        """Take a model's present weights, or their average, as the best."""
        now = model.state_dict() if average is None else average.state
        self.score, self.epoch = score, epoch
        self.weights = {name: value.detach().clone() for name, value in now.items()}
        self.losses = {loss: snapshot(loss) for loss in self.losses}

    def state_dict(self, losses: Sequence[nn.Module]) -> State:
        """Return it, with the parameters of these losses in their order."""
        kept = [dict(self.losses[loss]) for loss in losses]
        return {"weights": dict(self.weights), "score": self.score, "epoch": self.epoch, "losses": kept}

    def load_state_dict(self, state: State, losses: Sequence[nn.Module]) -> None:
        """Take what was the best then."""
        self.weights, self.score, self.epoch = state["weights"], state["score"], state["epoch"]
        self.losses |= dict(zip(losses, state["losses"], strict=True))


@dataclass
class Progress:
    """Where a phase stands."""

    model: nn.Module
    losses: Sequence[nn.Module]
    optimizer: torch.optim.Optimizer | None
    """None where there are no gradients."""
    best: Best
    average: MovingAverage | None = None
    scaler: Scaler | None = None
    """Of gradients, where their precision needs one; it lasts from phase to phase."""
    epoch: int = 0
    waited: int = 0
    """Epochs since the best validation score."""
    before: float = -math.inf
    """The best score before the phase began."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """The records of its validations."""
    begun: float = field(default_factory=time.perf_counter)
    """When it would have begun, had it never been stopped (`time.perf_counter`)."""

    @property
    def seconds(self) -> float:
        """Return how long it has run, all in all."""
        return time.perf_counter() - self.begun

    def state_dict(self) -> State:
        """Return a copy of everything that the phase needs to go on."""
        return {
            "model": snapshot(self.model),
            "losses": [snapshot(loss) for loss in self.losses],
            "optimizer": None if self.optimizer is None else copy.deepcopy(self.optimizer.state_dict()),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": {} if self.scaler is None else dict(self.scaler.state_dict()),
            "best": self.best.state_dict(self.losses),
            "counters": {"epoch": self.epoch, "waited": self.waited, "before": self.before},
            "seconds": self.seconds,
            "history": list(self.history),
            "random": random_states(),
        }

    def load_state_dict(self, state: State) -> None:
        """Stand where the phase stood when the state was taken, random numbers included."""
        self.model.load_state_dict(state["model"])
        for loss, weights in zip(self.losses, state["losses"], strict=True):
            loss.load_state_dict(weights)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.best.load_state_dict(state["best"], self.losses)
        self.epoch, self.waited, self.before = (state["counters"][name] for name in ("epoch", "waited", "before"))
        self.history[:] = state["history"]
        self.begun = time.perf_counter() - state["seconds"]
        set_random_states(state["random"])

    def finished(self, phase: str) -> State:
        """Return what the phase came to, without what only a phase needs that goes on."""
        improved = self.best.score > self.before
        lasting = ("best", "history", "random", "scaler", "seconds")
        kept = {key: value for key, value in self.state_dict().items() if key in lasting}
        return {"phase": phase, "improved": improved, **kept}


class Journal:
    """What the phases of a run have come to, in the order in which they ran.

    Args:
        told: called with the journal after every phase; what it raises ends the training.
        passed: likewise after every epoch, or after several in one go.
        room: returns how many epochs may pass, from now on, before `passed` is called; by default one, or, where there
            is none, any number.
    """

    def __init__(
        self,
        told: Callable[[Journal], None] = lambda journal: None,
        passed: Callable[[Journal], None] | None = None,
        room: Callable[[], int] | None = None,
    ):
        self.told, self.passed = told, passed
        self.room = room or (lambda: sys.maxsize if passed is None else 1)
        self.epochs = 0
        self.finished: list[State] = []
        self._underway: State | None = None
        self._running: Progress | None = None
        self._place = 0
        self._skipped = 0.0

    @property
    def running(self) -> Progress | None:
        """The phase that is in its epochs now."""
        return self._running

    @property
    def ahead(self) -> bool:
        """Tell whether what comes next was run before, or begun."""
        return self._place < len(self.finished) or self._underway is not None

    def clock(self) -> float:
        """Return the time in seconds of a clock that has also counted what was run before this journal was read."""
        return time.perf_counter() + self._skipped

    def next(self, phase: str) -> State | None:
        """Return what the next phase came to; none if it is still to be run.

        Raises:
            InputError: it was another phase then.
            FloatingPointError: its training diverged then.
        """
        if self._place == len(self.finished):
            return None
        entry = self.finished[self._place]
        if "failed" in entry:
            self._place += 1
            raise FloatingPointError(entry["failed"])
        if entry["phase"] != phase:
            raise InputError(f"journal: phase {self._place} was {entry['phase']!r}, now it is {phase!r}: another run")
        self._place += 1
        self._skipped += entry.get("seconds", 0.0)
        return entry

    def begin(self, progress: Progress) -> bool:
        """Follow a phase, and let it go on from where it stood; false if it begins."""
        self._running, underway, self._underway = progress, self._underway, None
        if underway is not None:
            progress.load_state_dict(underway)
            self._skipped += underway["seconds"]
        return underway is not None

    def went(self, epochs: int) -> None:
        """Take in that so many epochs have passed."""
        self.epochs += epochs
        if epochs and self.passed is not None:
            self.passed(self)

    def leave(self) -> None:
        """Follow it no longer: it has ended, or somebody has ended it."""
        self._running = None

    def finish(self, entry: State) -> None:
        """Take in what a phase came to."""
        self.finished.append(entry)
        self._place = len(self.finished)
        self.told(self)

    def fail(self, place: int, why: str) -> None:
        """Take in that the training of a phase, of so many the last, diverged: it does so again for who goes on."""
        if len(self.finished) < place:
            self.finish({"phase": None, "failed": why, "seconds": 0.0})

    def state_dict(self) -> State:
        """Return everything in it, and where the phase stands that is running."""
        underway = self._underway if self._running is None else self._running.state_dict()
        return {"finished": list(self.finished), "underway": underway}

    def load_state_dict(self, state: State) -> None:
        """Take it in, before the first phase."""
        self.finished, self._underway, self._place = list(state["finished"]), state["underway"], 0


def epochs_between(before: Mapping[str, Any] | None, line: Mapping[str, Any]) -> int:
    """Return the epochs between a record of a history and the one before it, if there is one."""
    same = before is not None and all(before.get(key) == line.get(key) for key in ("seed", "model", "phase"))
    if before is None or not same or line["epoch"] <= before["epoch"]:
        return int(line["epoch"])
    return int(line["epoch"] - before["epoch"])
