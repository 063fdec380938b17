"""Samplers and pruners by Optuna's own names."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

import numpy as np
import optuna
from optuna import samplers
from optuna.distributions import BaseDistribution
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
        self.inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler."""
        return self.inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Ask the trial's sampler."""
        return self.inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """Ask the trial's sampler."""
        return self.inner.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell the trial's sampler."""
        self.inner.after_trial(study, trial, state, values)


def make_sampler(name: str, seed: int, options: dict[str, Any]) -> BaseSampler:
    """Return a sampler by Optuna's name, by dotted path, or from OptunaHub: `hub:samplers/auto_sampler:AutoSampler`."""
    factory = from_hub(name) if name.startswith("hub:") else SAMPLERS.lookup(name)
    return Numbered(lambda number: made(f"sampler {name}", factory, {**USUAL, "seed": number}, options), seed)


def rehearse(sampler: BaseSampler, draw: Callable[[Trial], Any], goals: int) -> None:
    """Let a sampler draw in a study of three trials in memory: some say only then what they need or cannot do."""
    study = optuna.create_study(directions=["minimize"] * goals, sampler=sampler)
    try:
        for number in range(3):
            trial = study.ask()
            draw(trial)
            with suppress(RuntimeError):  # one that has tried everything wants to stop the study
                study.tell(trial, [number] * goals)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"sampler: {' '.join(str(error).split())}") from None


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
    known = inspect.signature(factory).parameters
    try:
        return factory(**{key: value for key, value in usual.items() if key in known} | options)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"{what}: {' '.join(str(error).split())}") from None


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
