"""Samplers and pruners by Optuna's own names."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

import numpy as np
import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, PercentilePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from mowst.errors import InputError
from mowst.names import Names
from mowst.tuning.storage import experimental

SAMPLERS: Names[Callable[..., BaseSampler]] = Names(
    "sampler",
    {
        "tpe": samplers.TPESampler,
        "random": samplers.RandomSampler,
        "gp": samplers.GPSampler,
        "cmaes": samplers.CmaEsSampler,
        "nsgaii": samplers.NSGAIISampler,
        "nsgaiii": samplers.NSGAIIISampler,
        "qmc": samplers.QMCSampler,
        "bruteforce": samplers.BruteForceSampler,
    },
)
PRUNERS: Names[Callable[..., BasePruner]] = Names(
    "pruner",
    {"percentile": PercentilePruner, "median": MedianPruner, "hyperband": HyperbandPruner, "none": NopPruner},
)
USUAL = {"multivariate": True, "group": True, "constant_liar": True}
"""What we ask of every sampler that knows it: dimensions drawn together, and running trials taken into account."""

REHEARSED = 12
"""Trials in memory that a sampler draws before a study begins: most draw at random at first, for ten trials."""


class Numbered(BaseSampler):
    """Draws trial n by a sampler that is made for it, with a seed that is a function of the study's seed and n.

    So no two workers draw the same, nor does a study that is resumed, and yet one worker's study repeats itself.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        self.make, self.seed = make, seed
        self.inner = make(seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        self.inner = self.make(int(np.random.SeedSequence((self.seed, trial.number)).generate_state(1)[0]))
        with fails_as("sampler"):
            self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler."""
        with fails_as("sampler"):
            return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Ask the trial's sampler."""
        with fails_as("sampler"):
            return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """Ask the trial's sampler."""
        with fails_as("sampler"):
            return self.inner.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell the trial's sampler."""
        with fails_as("sampler"):
            self.inner.after_trial(study, trial, state, values)


def make_sampler(name: str, seed: int, options: dict[str, Any]) -> BaseSampler:
    """Return a sampler by Optuna's name, by dotted path, or from OptunaHub: `hub:samplers/auto_sampler:AutoSampler`."""
    factory = from_hub(name) if name.startswith("hub:") else SAMPLERS.lookup(name)
    return Numbered(lambda number: made(f"sampler {name}", factory, {**USUAL, "seed": number}, options), seed)


@contextmanager
def fails_as(what: str) -> Iterator[None]:
    """Say in a line what a sampler or a pruner stumbles over: its options, or what it lacks."""
    try:
        yield
    except (InputError, OptunaError):  # which are lines of ours, and what Optuna says to itself
        raise
    except RuntimeError as error:
        if "study.stop" in str(error).lower():
            raise  # one that has tried everything wants to stop the study, where there may be none
        raise InputError(f"{what}: {said(error)}; other options may help") from None
    except Exception as error:  # with options of the wrong kind: anything
        raise InputError(f"{what}: {said(error)}; other options may help") from None


def said(error: Exception) -> str:
    """Return what an error says, and which it is where that alone says little."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError | ImportError) and text else f"{type(error).__name__}: {text}"


@experimental()
def rehearse(sampler: BaseSampler, draw: Callable[[Trial], Any], goals: int, pruner: BasePruner | None = None) -> None:
    """Let a sampler draw, and a pruner judge, in a study of some trials in memory: some say only then what they lack.

    Raises:
        InputError: one of them fails.
    """
    study = quiet_study(goals, sampler, pruner)
    with fails_as("sampler"):
        for number in range(REHEARSED):
            trial = study.ask()
            draw(trial)
            with suppress(RuntimeError):  # one that has tried everything wants to stop the study
                study.tell(trial, [number] * goals)
    if pruner is not None and goals == 1:
        study = quiet_study(1, samplers.RandomSampler(), pruner)
        with fails_as("pruner"):
            for number in range(REHEARSED):
                trial = study.ask()
                for step in range(1, 4):
                    trial.report(number, step)
                    trial.should_prune()
                study.tell(trial, number)


def quiet_study(goals: int, sampler: BaseSampler, pruner: BasePruner | None) -> Study:
    """Make a study in memory without a word of Optuna's."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=["minimize"] * goals, sampler=sampler, pruner=pruner)
    finally:
        optuna.logging.set_verbosity(before)


class Alike(BasePruner):
    """Shows a pruner only the trials that had the same thing scored at this step.

    A trial is scored by its strong expert while that trains alone, and by the whole afterwards. Where a GCN is worse
    than GraphSAGE, the mixture with it may still be the better one, and must not be stopped for that.
    """

    def __init__(self, pruner: BasePruner):
        self.pruner = pruner

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Ask the pruner."""
        step = trial.last_step or 0
        alike = copy.copy(study)
        alike.get_trials = lambda *args, **kwargs: [  # type: ignore[method-assign]
            other for other in study.get_trials(*args, **kwargs) if scored(other, step) == scored(trial, step)
        ]
        with fails_as("pruner"):
            return self.pruner.prune(alike, trial)


def scored(trial: FrozenTrial, step: int) -> str:
    """Return what a trial had scored at a step, from its attribute of that name: pairs (after which step, what)."""
    return next((what for after, what in reversed(trial.user_attrs.get("scored", ())) if after < step), "")


def make_pruner(name: str, epochs: int, options: dict[str, Any]) -> BasePruner:
    """Return a pruner by name or dotted path, its pace set for phases of so many epochs.

    All compare like with like but Hyperband, whose brackets are its own and must be seen by the sampler.
    """
    pace: dict[str, float] = {
        "percentile": 75.0,  # at the median, trials are stopped that start late and end first
        "n_startup_trials": 3,  # that had the same scored
        "n_warmup_steps": epochs // 30,
        "min_resource": max(1, epochs // 27),
        "max_resource": epochs,
    }
    pruner = made(f"pruner {name}", PRUNERS.lookup(name), pace, options)
    return pruner if isinstance(pruner, HyperbandPruner) else Alike(pruner)


@experimental()
def made(what: str, factory: Callable[..., Any], usual: dict[str, Any], options: dict[str, Any]) -> Any:
    """Make a sampler or a pruner with the usual options that it knows and all that were asked for."""
    try:
        known = inspect.signature(factory).parameters
        return factory(**{key: value for key, value in usual.items() if key in known} | options)
    except Exception as error:  # of a class of others, with options of the wrong kind: anything
        raise InputError(f"{what}: {said(error)}") from None


def from_hub(name: str) -> Callable[..., Any]:
    """Fetch a sampler from OptunaHub: `hub:PACKAGE:CLASS`."""
    package, _, cls = name.removeprefix("hub:").rpartition(":")
    try:
        return getattr(import_module("optunahub").load_module(package), cls)
    except Exception as error:  # no network, no such package: none has an error of its own
        raise InputError(
            f"sampler: {name!r} cannot be had from OptunaHub ({' '.join(str(error).split())}); it needs the optunahub "
            "package, the network, and hub:PACKAGE:CLASS"
        ) from None
