"""The preset `best`: candidates are tried one after another, and those that bring something become the panel.

The list is fixed and in order; a budget of time only decides where it ends. Candidates are trained alone on the first
seed and judged on validation nodes, by ensemble selection (`mowst.training.select`): not who is best alone is kept,
but who adds to the others. Most are stopped early (`mowst.experiment.rungs`). Where the list ends before the budget,
those that are heard are tried again from other first weights. What comes out is a plain configuration, which repeats
the run without the search.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mowst.errors import InputError
from mowst.experiment.bench import Bench, Fitted
from mowst.experiment.checkpoint import Checkpoint, Saving, kept
from mowst.experiment.choosing import HELD_BACK, PRESETS, Candidates, composed
from mowst.experiment.config import Config, has_candidates, seconds
from mowst.experiment.expert import ExpertConfig
from mowst.experiment.folder import CHOSEN, SEARCH, dump
from mowst.experiment.opening import Opened, basis
from mowst.experiment.plan import schedule_of, seats_of
from mowst.experiment.rungs import Rungs
from mowst.models import Learner
from mowst.system import read_yaml, write_text
from mowst.training import Journal, Trainer, select, snapshot

Told = Callable[[str], None]
DRAWS = 3
"""How often those that are heard are tried again from other first weights, once the list has ended."""


def searches(config: Config) -> bool:
    """Tell whether a configuration asks for candidates to be tried first."""
    return config.preset == "best" and has_candidates(config)


def search(
    config: Config, told: Told = lambda line: None, place: Path | None = None, saving: Saving | None = None
) -> Config:
    """Try the candidates of a configuration's preset, and return it with those as strong expert that are worth keeping.

    Args:
        config: asks for `auto`.
        told: called with a line about each candidate.
        place: a run's folder. It keeps how far the search is, from where the same call goes on; at its end the
            first seed of the run has there what was trained of those kept, and need not train them again.
        saving: how often that is written; none: nothing is.

    Raises:
        InputError: the configuration or the data does not allow it.
        FloatingPointError: training diverged.
    """
    opened, seed = Opened(config), config.first_seed
    seats = seats_of(opened.config, "strong")
    if not seats:
        return opened.config
    config.predictions.check(name for name in opened.plan.kept if name not in seats)  # which need not be kept
    bench = opened.bench(seed)
    if place is None or saving is None:
        return tried(bench, told)
    with kept(place / SEARCH, lambda: basis(opened, seed), saving) as journal:
        bench.journal, hands_on = journal, config.baselines and config.mixture
        done = Tried(bench, told, again=not hands_on)
        found = done.chosen()
        if hands_on:
            chosen = Opened(found)
            begun = Checkpoint(place / f"seed-{seed}", lambda: basis(chosen, seed), saving)
            begun.journal.load_state_dict({"finished": done.phases(journal), "underway": None})
            begun.write()
        return found


def tried(bench: Bench, told: Told = lambda line: None) -> Config:
    """Train the members of a bench's strong expert alone, and return its configuration with those worth keeping.

    Args:
        bench: of a configuration whose strong expert is all candidates, with a budget for them.
        told: called with a line about each candidate.
    """
    if not seats_of(bench.config, "strong"):
        return bench.config
    return Tried(bench, told).chosen()


class Cost(NamedTuple):
    """Seconds that an expert takes."""

    own: float
    """To train it."""
    twin: float
    """To train a twin of it."""


class Tried:
    """What the candidates of a search have come to so far.

    Args:
        bench: of a configuration whose strong expert is all candidates; it gets further ones.
        told: called with a line about each.
        again: whether those that are kept have to be trained again afterwards.
    """

    def __init__(self, bench: Bench, told: Told, *, again: bool = True):
        self.bench, self.told, self.config = bench, told, bench.config
        self.budget, self.start = seconds(self.config.budget), bench.clock()
        strong = self.config.strong
        self.listed: Candidates = tuple(zip(strong.kind.split("+"), strong.each, strict=True))
        self.names = list(seats_of(self.config, "strong"))
        self.weak = list(seats_of(self.config, "weak")) or ["weak"]
        self.y = bench.ready.y[bench.ready.val_mask]
        self.trained, self.drawn, self.anew = list[str](), set[str](), again
        self.said, self.costs, self.weights = dict[str, Tensor](), dict[str, Cost](), dict[str, float]()
        self.rungs, self.count = Rungs(), 0
        bench.enough = self.enough

    def chosen(self) -> Config:
        """Try the candidates for as long as the budget lasts, and return the configuration with those worth keeping.

        Raises:
            FloatingPointError: the training of the weak expert, or of every candidate, diverged.
        """
        for name in self.weak:
            self.take(name)
        for name in self.candidates():
            if self.count and self.over() and not (self.bench.journal and self.bench.journal.ahead):
                tried = f"{self.count} of {len(self.names)} candidates were tried"
                self.told(f"{self.config.budget} are spent: {tried}")
                break
            self.rungs.begin(schedule_of(self.bench.config, self.bench.seed, name))
            try:
                self.take(name)
            except FloatingPointError as error:
                self.told(f"{name}: left out: {error}")
                continue
            self.count += 1
        if not self.count:
            raise FloatingPointError("the training of every candidate diverged; a smaller lr may help")
        heard, config = self.heard(), self.cross_fitted()
        self.told(f"kept: {', '.join(heard)}")
        return composed(config, tuple(self.listed[self.names.index(name)] for name in heard))

    def heard(self) -> list[str]:
        """Return those worth keeping, at least one, in their order."""
        likeliest = select({name: said for name, said in self.said.items() if name in self.names}, self.y, rounds=1)
        weights = self.weights if any(self.weights.get(name) for name in self.names) else likeliest
        return [name for name in self.names if weights.get(name)]

    def phases(self, journal: Journal) -> list[dict[str, Any]]:
        """Return what a journal has of the weak expert and of those worth keeping, as a run of these would have it."""
        trained = dict(zip(self.trained, journal.finished, strict=True))
        return [trained[name] for name in (*self.weak, *self.heard())]

    def candidates(self) -> Iterator[str]:
        """Yield the names of all on the list, then of further ones, which are added to it."""
        yield from list(self.names)
        for draw in range(1, DRAWS + 1):
            known = len(self.names)
            self.listed += self.again(draw)
            self.bench.config = composed(self.config, self.listed)
            self.names = list(seats_of(self.bench.config, "strong"))
            yield from self.names[known:]

    def again(self, draw: int) -> Candidates:
        """Return those that are heard with another draw of first weights, the weightiest first."""
        found = dict[str, tuple[float, str, dict[str, Any]]]()
        for name, (kind, differs) in zip(self.names, self.listed, strict=True):
            if self.weights.get(name) and name in self.drawn:
                alike = {**differs, "seed": draw}
                weight = found[key][0] if (key := f"{kind} {alike}") in found else 0.0
                found[key] = weight + self.weights[name], kind, alike
        return tuple((kind, differs) for _, kind, differs in sorted(found.values(), key=lambda each: -each[0]))

    def over(self, rehearsals: int | None = None) -> bool:
        """Tell whether the time so far, and what those heard will cost in the run, pass the budget.

        Args:
            rehearsals: how many twins of each there will be; none: as many as the configuration says.
        """
        heard = [self.costs[name] for name in self.costs if name in self.weak or self.weights.get(name)]
        count = self.config.rehearsals if rehearsals is None else rehearsals
        later = sum(self.anew * cost.own + count * cost.twin for cost in heard)
        return self.bench.clock() - self.start + later > self.budget

    def cross_fitted(self) -> Config:
        """Return the configuration, with twins for every fold where what is left of the budget allows it."""
        folds = self.config.folds
        if folds == self.config.rehearsals or self.over(folds):
            return self.config
        self.told(f"there is time left for twins on all {folds} folds")
        return replace(self.config, rehearsals=folds)

    def enough(self, trainer: Trainer, record: Any) -> bool:
        """Tell whether a candidate in training is to be stopped: time is up, or at a rung it promises nothing."""
        if self.count and self.over():
            return True
        if self.rungs.passes(record):
            return False
        return select(self.said | {"": said_at_best(trainer)}, self.y)[""] == 0

    def take(self, name: str) -> None:
        """Train an expert, and weigh it among the others; one that was stopped is heard no more."""
        fitted = self.bench.train(name)
        del self.bench.fitted[name]  # what it says of all nodes is large, and there are many
        self.trained.append(name)
        alone, last = 100 * fitted.history[-1]["best"], fitted.history[-1]["epoch"]
        words = f"{fitted.own_seconds:.1f} s{self.words(name)}"
        if self.stopped(name, fitted):
            self.told(f"{name}: stopped after {last} epochs at {alone:.2f}, {words}")
        else:
            until = 1.0 if isinstance(fitted.model, Learner) else fitted.best_epoch / last  # twins are trained so far
            self.costs[name] = Cost(fitted.own_seconds, until * fitted.own_seconds)
            self.drawn |= set() if isinstance(fitted.model, Learner) else {name}
            self.said[name] = fitted.output.of("").values[self.bench.ready.val_mask]
            self.weights = select(self.said, self.y)
            weight = f"weight {self.weights[name]:.2f}"
            self.told(f"{name}: {alone:.2f} on validation nodes alone, {weight}, {words}")
        self.rungs.end(fitted.history)

    def words(self, name: str) -> str:
        """Say in what a candidate differs from the strong expert's configuration."""
        differs = {} if name in self.weak else self.listed[self.names.index(name)][1]
        return "".join(f", {key} {value}" for key, value in differs.items())

    def stopped(self, name: str, fitted: Fitted) -> bool:
        """Tell by its history whether an expert was stopped before its epochs or its patience were at an end."""
        pace, last = schedule_of(self.bench.config, self.bench.seed, name), fitted.history[-1]["epoch"]
        whole = last >= pace.epochs or last - fitted.best_epoch >= pace.patience
        return not (whole or isinstance(fitted.model, Learner))


@torch.no_grad()
def said_at_best(trainer: Trainer) -> Tensor:
    """Return what a model says of the validation nodes, [n, C], with its best weights so far; it stays as it is."""
    own = snapshot(trainer.model)
    trainer.model.load_state_dict(trainer.best.weights)
    said = trainer.output().of("").values[trainer.val]
    trainer.model.load_state_dict(own)
    return said


def settled(config: Config, place: Path | None, told: Told = lambda line: None, saving: Saving | None = None) -> Config:
    """Return what a run trains: where candidates are to be tried first, what came of it, also if that was before.

    Args:
        config: of the run.
        place: the run's folder, which keeps the choice, and as `search` says; none: nothing is kept.
        told: called with a line about each candidate.
        saving: how often it is written how far it is; none: never.

    Raises:
        InputError: as of `search`; or what the folder keeps is not what it wrote.
    """
    if not searches(config):
        return config
    if place is not None and (place / CHOSEN).exists():
        return recalled(config, place / CHOSEN)
    found = search(config, told, place, saving)
    if place is not None:
        write_text(place / CHOSEN, dump(replace(found, batch=config.batch)))
        shutil.rmtree(place / SEARCH, ignore_errors=True)
    begun = place is not None and saving is not None  # of a seed that has begun memory does not choose batches again
    return found if begun else replace(found, batch=config.batch)


def recalled(config: Config, path: Path) -> Config:
    """Return what was chosen before for a configuration, by the file that was written then.

    Of the file only the choice is taken, among the preset's candidates, and everything else must be as in the
    configuration: so a file that was edited changes no run, and names no code.

    Raises:
        InputError: it is damaged, or of another configuration.
    """
    held = read_yaml("configuration", path)
    with suppress(InputError, TypeError, KeyError):
        strong = ExpertConfig(**held["strong"])
        known = [alike(member) for member in composed(config, PRESETS[config.preset]).strong.members.values()]
        if all(alike(member) in known for member in strong.members.values()) and strong.members:
            for pace, rehearsals in product(({}, HELD_BACK), (config.rehearsals, config.folds)):
                found = replace(config, strong=strong, rehearsals=rehearsals, **pace)
                if dump(replace(found, batch=held["batch"])) == path.read_text(encoding="utf-8"):
                    return found
    raise InputError(f"{path}: is not what the search for this run wrote; take it away to search again")


def alike(expert: ExpertConfig) -> ExpertConfig:
    """Return a candidate without what is not the list's to say: its draw, and norm, which the graph may forbid."""
    return replace(expert, seed=0, norm="none")
