"""One trial of a study: a configuration drawn, trained and judged without a test label in sight.

`objective` is a plain function of a trial, for `mowst.tune` and for a study of one's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from optuna import TrialPruned
from optuna.trial import BaseTrial
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.experiment import Bench, Config, Fitted, judged_alone
from mowst.system import out_of_memory
from mowst.training import epochs_between, hide
from mowst.tuning.arguments import checked
from mowst.tuning.goals import GOALS, Goal
from mowst.tuning.sharing import Shared
from mowst.tuning.space import Space, make_space

REPORTS = 50
"""How often at most a phase asks the pruner."""
UNJUDGED = ("pretrain weak", "rehearse weak", "rehearse strong")
"""Phases that say nothing of what the whole will reach, so that no trial is pruned for having them."""


class Watch:
    """A trainer's hook: counts a trial's epochs, and shows the pruner the first seed's best score now and then.

    The best score of a strong expert that trained alone stays in it when the whole goes on from there: a mixture may
    still be worse, but pruning that starts anew there saves less.
    """

    def __init__(self, trial: BaseTrial, config: Config, every: int, asks: bool):
        self.trial, self.config, self.every, self.asks = trial, config, every, asks
        self.judged = judged_alone(config).judged
        self.epochs, self.step, self.best = 0, 0, -float("inf")
        self.last: dict[str, Any] | None = None
        self.scored: list[list[Any]] = []
        self.reported: list[list[Any]] = []

    def __call__(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        self.epochs += epochs_between(self.last, line)
        self.last = line
        part = self.judged == "mixture" and line["model"] == "strong"
        other = not part and (line["model"] != self.judged or line["phase"] in UNJUDGED)
        if not self.asks or other or line["seed"] != self.config.first_seed:
            return
        # The score of the strong expert alone says something only beside experts of its kind.
        scored = self.config.strong.kind if part else ""
        if not self.scored or self.scored[-1][1] != scored:
            self.scored.append([self.step * self.config.eval_every, scored])
            self.trial.set_user_attr("scored", self.scored)  # for `mowst.tuning.sampling.Alike`
        self.step += 1
        self.best = max(self.best, 100 * line["best"])
        if self.step % self.every == 0:
            self.report(self.best, self.step * self.config.eval_every)
            if self.trial.should_prune():
                raise TrialPruned(f"pruner, at {self.best:.2f} in epoch {line['epoch']} of {line['phase']}")

    def report(self, value: float, step: int) -> None:
        """Show the pruner what was reached after so many epochs."""
        self.reported.append([value, step])
        self.trial.report(value, step)

    def state_dict(self) -> dict[str, Any]:
        """Return where it stands, in plain values."""
        counted = {"epochs": self.epochs, "step": self.step, "best": self.best, "last": self.last}
        return copy.deepcopy({**counted, "scored": self.scored, "reported": self.reported})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a killed trial stood, whose reports are those of the one that goes on."""
        self.epochs, self.step, self.best, self.last = (state[key] for key in ("epochs", "step", "best", "last"))
        self.scored = state["scored"]
        if self.scored:
            self.trial.set_user_attr("scored", self.scored)
        for value, step in state["reported"][len(self.reported) :]:
            self.report(value, step)


@checked
def objective(
    trial: BaseTrial,
    config: Config,
    space: Space | None = None,
    goals: Sequence[str] = ("metric",),
    shared: Shared | None = None,
) -> float | tuple[float, ...]:
    """Run one trial and return what it reaches, the mean over the configuration's seeds, for one's own study too.

    Args:
        trial: chooses the configuration; where it is pruned, its attribute `reason` says why.
        config: what is not searched.
        space: by default all of the configuration's.
        goals: names of `GOALS`, or dotted paths; with several, a tuple comes back and nothing is reported.
        shared: holds the graph for trials that read it alike, and says where they are saved while they are trained,
            so that one that was killed goes on; by default each opens it, and nothing is saved.

    Raises:
        InputError: an argument is of another kind, a goal unknown, or the configuration cannot be run.
        optuna.TrialPruned: the pruner says so, training diverged, or memory was too small.
    """
    if isinstance(goals, str) or not goals:
        raise InputError(f"goals: must be a list of names, with one at least, got {goals!r}")
    measures = [GOALS.lookup(goal) for goal in goals]
    chosen = (space or make_space(config)).draw(trial)
    every = max(1, config.epochs // (REPORTS * config.eval_every))  # the same in all trials: pruners compare steps
    watch = Watch(trial, chosen, every, asks=len(goals) == 1)
    try:
        with failures():
            values = judged(watch, chosen, measures, shared or Shared())
    except TrialPruned as stop:
        trial.set_user_attr("reason", str(stop))
        raise
    finally:
        trial.set_user_attr("epochs", watch.epochs)
    by_goal = list(zip(*values, strict=True))
    trial.set_user_attr("by_seed", by_goal)
    means = tuple(sum(value) / len(value) for value in by_goal)
    return means[0] if len(means) == 1 else means


def judged(watch: Watch, config: Config, measures: Sequence[Goal], shared: Shared) -> list[list[float]]:
    """Train a trial's configuration on each of its seeds, and return what it is worth there by each measure."""
    values = []
    with shared.trials.claimed(watch.trial, config) as place:
        opened = shared.open(config, judged_alone(config))
        for seed in config.all_seeds:
            bench = opened.bench(seed, watch)
            with shared.trials.going_on(place, opened, seed, watch) as bench.journal:
                fitted, data = trained(bench)
            values.append([measure(fitted, data) for measure in measures])
    return values


@contextmanager
def failures() -> Iterator[None]:
    """Let divergence and too little memory prune a trial."""
    try:
        yield
    except FloatingPointError as error:
        raise TrialPruned(f"diverged: {error}") from None
    except (RuntimeError, MemoryError, OSError) as error:
        if not out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        raise TrialPruned(f"out of memory: {' '.join(str(error).split())}") from None


def trained(bench: Bench) -> tuple[Fitted, Data]:
    """Train what a configuration is about, without baselines, on a graph that has no test nodes; return both."""
    bench.ready = without_test(bench.ready)
    for name in judged_alone(bench.config).models:
        fitted = bench.train(name)
    return fitted, bench.ready


def without_test(ready: Data) -> Data:
    """Return a graph without its test mask, and with labels on training and validation nodes only."""
    ready = copy.copy(ready)
    ready.y = hide(ready.y, ready.train_mask | ready.val_mask)
    del ready.test_mask
    return ready
