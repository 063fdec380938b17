"""Candidates of a search, tried one after another: what each comes to, who is stopped, who is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mowst.experiment.bench import Bench, Fitted
from mowst.experiment.choosing import Candidates, composed, of_good
from mowst.experiment.config import Config, seconds
from mowst.experiment.plan import schedule_of, seats_of
from mowst.experiment.rungs import Rungs
from mowst.models import Learner
from mowst.training import Journal, Trainer, select, snapshot

Told = Callable[[str], None]
DRAWS = 3
"""How often those that are heard are tried again from other first weights, once the list has ended."""


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
        self.names, self.of_good = list(seats_of(self.config, "strong")), of_good(self.listed)
        self.weak = list(seats_of(self.config, "weak")) or ["weak"]
        self.y = bench.ready.y[bench.ready.val_mask]
        self.trained, self.drawn, self.anew = list[str](), set[str](), again
        self.said, self.costs, self.weights = dict[str, Tensor](), dict[str, Cost](), dict[str, float]()
        self.rungs, self.count = Rungs(), 0
        bench.enough, bench.asks = self.enough, self.rungs.stands

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
            again = self.names.index(name) >= len(self.config.strong.each)
            self.rungs.begin(schedule_of(self.bench.config, self.bench.seed, name), again=again)
            try:
                self.take(name)
            except FloatingPointError as error:
                why = str(error).removeprefix(f"{name}: ")
                self.told(f"{name}: left out: {why}")
                self.trained.append(name)
                if self.bench.journal is not None:
                    self.bench.journal.fail(len(self.trained), why)
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
        """Tell whether a candidate in training is to be stopped: time is up, or at a rung it promises nothing.

        The first ones, which `good` trains, too, meet no rung.
        """
        if self.count and self.over():
            return True
        if self.count < self.of_good or self.rungs.passes(record):
            return False
        return select(self.said | {"": said_at_best(trainer, self.bench.ready.val_mask)}, self.y)[""] == 0

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
def said_at_best(trainer: Trainer, nodes: Tensor) -> Tensor:
    """Return what a model says of some nodes, [n, C], with its best weights so far; it stays as it is."""
    own = snapshot(trainer.model)
    trainer.model.load_state_dict(trainer.best.weights)
    said = trainer.output().of("").values[nodes]
    trainer.model.load_state_dict(own)
    return said
