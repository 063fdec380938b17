"""Training, one phase at a time.

A `Phase` (`mowst.training.phases`) names the parts of the model that train and the terms of the loss. `Trainer.fit`
runs it from the best weights so far: frozen parts are in evaluation mode without gradients, and what they say is
computed once. Which nodes are run for a step is the feed's business (`mowst.training.batches`). Losses see a graph in
which every label outside the training mask is -100; test labels are the business of whoever made the trainer.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import Scope, Signals
from mowst.evaluation import Score, Scores
from mowst.kernels import by_column
from mowst.models import InParts, Judged, Known, Learner, Output, as_output, gathered, reads_of, run_module, watched
from mowst.training.batches import Batch, Feed, Needs, Whole
from mowst.training.learning import learn
from mowst.training.phases import Phase, Watching, thawed
from mowst.training.progress import Best, Journal, MovingAverage, Progress, State, Trained, set_random_states, snapshot
from mowst.training.steps import take_steps
from mowst.training.world import Share, World

Hook = Callable[[dict[str, Any]], None]
Enough = Callable[["Trainer", Mapping[str, Any]], bool]
"""Asked with the record of the last validation whether a phase is to end there; it must change nothing."""


class Trainer:
    """Fits phases one after another and keeps the weights that are best on validation.

    Args:
        model: called as `model(x, edge_index)`; a `Mixture` or logits `[N, C]`. One that is `InParts` is not asked
            again for what a phase cannot change.
        data: graph with `x, edge_index, y, train_mask, val_mask`, and, if it was prepared, its adjacency `adj_t`.
        score: `(output, y) -> float` on the validation nodes, higher is better: the one early-stopping signal.
        fabric: device and precision, and the processes that train together (`mowst.training.world`), which all call the
            same methods; a CPU in float32 by default.
        hook: called after each evaluation with the record of the epoch; what it raises ends the training. The model
            has the weights of the epoch then, not their average, and those that multiply sparse features lie by column.
        alone: returns a part that is trained alone, by name; `pretrain` takes it. None: it is trained in its place.
        teacher: signals of all nodes, of a frozen teacher from outside the model.
        feed: says which nodes are run.
        journal: of finished phases, which are skipped; none: none are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        score: Scores,
        *,
        fabric: Fabric | None = None,
        hook: Hook | None = None,
        alone: Callable[[str], Trained | None] = lambda part: None,
        teacher: Signals | None = None,
        feed: Feed | None = None,
        journal: Journal | None = None,
    ):
        self.score, self.hook, self.alone, self.journal = Score.of(score), hook, alone, journal
        self.enough: Enough = lambda trainer, record: False
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self.feed: Feed = feed or Whole()
        self.whole = Batch.of(data, teacher)
        self.world = World(self.fabric)
        self.val = data.val_mask.nonzero().squeeze(-1)
        self.val_y = data.y[self.val]
        self.fresh = snapshot(model)
        self.history: list[dict[str, Any]] = []
        self._hold(model)

    def _hold(self, model: nn.Module) -> None:
        """Train this model from now on."""
        self.model, self.reads = model, reads_of(model)
        self.parts = model if isinstance(model, InParts) else None
        self.restart()

    def sub(self, part: str) -> Trainer:
        """Return a trainer of one part on its own, with the same data, score, history and hook."""
        trainer = copy.copy(self)
        trainer._hold(self.model.get_submodule(part))
        return trainer

    def judged_by(self, score: Scores) -> Trainer:
        """Return a trainer of the same model that stops by another score."""
        trainer = copy.copy(self)
        trainer.score = Score.of(score)
        trainer.restart()
        return trainer

    def twin(self, part: str, nodes: Tensor) -> Trainer:
        """Return a trainer of a copy of a part ("": all), with its first weights, that sees the labels of `nodes`.

        These are training nodes, or validation nodes.
        """
        trainer = copy.copy(self)
        model = copy.deepcopy(self.model.get_submodule(part))
        prefix = f"{part}." if part else ""
        fresh = {name: value for name, value in self.fresh.items() if name.startswith(prefix)}
        model.load_state_dict({name.removeprefix(prefix): value for name, value in fresh.items()})
        trainer.whole = self.whole.trained_on(nodes, self.whole.y.index_copy(0, self.val, self.val_y))
        trainer._hold(model)
        return trainer

    def restart(self) -> None:
        """Take the model's present weights as the starting point, whatever was best before."""
        self.best = Best(snapshot(self.model))

    def consider(self) -> None:
        """Take the model's present weights as the best so far, and score them."""
        self.restart()
        self._keep(self._evaluate(self._asked(Known())), 0)

    def fit(self, phase: Phase) -> bool:
        """Run one phase from the best weights so far; true when the validation score improved.

        Parameters of losses are trained with the model, and are at the end what they were at its best.

        Raises:
            FloatingPointError: the loss or the score is not a number; the best weights so far are in place.
        """
        phase = phase.live()
        losses = phase.losses()
        entry = None if self.journal is None else self.journal.next(phase.name)
        if entry is not None:
            return self._take(entry, losses)
        free = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.model.load_state_dict(self.best.weights)
        self.best.losses = {loss: snapshot(loss) for loss in losses} | self.best.losses
        self.world.alike(self.model, *losses)
        try:
            with by_column(self.model, self.whole.x):
                progress = self._run(phase, losses, free)
        finally:
            if self.journal is not None:
                self.journal.leave()
            self._settle()
            for parameter in free:
                parameter.requires_grad_(True)
        if self.journal is not None:
            self.journal.finish(progress.finished(phase.name))
        return self.best.score > progress.before

    def _take(self, entry: State, losses: list[nn.Module]) -> bool:
        """Stand where a phase ended that was run before."""
        self.best.load_state_dict(entry["best"], losses)
        self.history += entry["history"]
        self._settle()
        if entry["scaler"]:
            self.fabric.strategy.precision.load_state_dict(entry["scaler"])
        set_random_states(entry["random"])
        return bool(entry["improved"])

    def _settle(self) -> None:
        """Put the best weights in place, those of the losses too."""
        self.model.load_state_dict(self.best.weights)
        self.model.eval()
        for loss, weights in self.best.losses.items():
            loss.load_state_dict(weights)

    def _run(self, phase: Phase, losses: list[nn.Module], free: list[nn.Parameter]) -> Progress:
        """Run the epochs of a phase."""
        if isinstance(self.model, Learner):
            return self._learn(phase, self.model)
        parts = thawed(self.model, phase.trains, free)
        known = self._known(phase)
        needs = self._needs(self._reach(known), phase.scope, (term.on for term in phase.terms))
        batches = self.feed.training(replace(self.whole, known=known), needs)
        validation = self._asked(known)
        average = MovingAverage(self.model, phase.ema_decay) if phase.ema_decay else None
        precision = self.fabric.strategy.precision
        here = Progress(self.model, losses, phase.optimizer_of(parts), self.best, average, precision)
        if self.journal is not None and self.journal.begin(here):
            self.history += here.history
        else:
            if self.best.score == -math.inf and not phase.last:
                self._keep(self._evaluate(validation), 0)
            here.before = self.best.score
        while here.epoch < phase.epochs and here.waited < phase.patience and not self._halted(here):
            here.epoch += 1
            start = time.perf_counter()
            for part in parts:
                part.train()
            loss = take_steps(phase, here, batches(here.epoch), self._call, self.world)
            self.world.settle(*parts, *losses)
            if average is not None:
                average.update()
            if here.epoch % phase.eval_every == 0 or here.epoch == phase.epochs:
                score = self._evaluate(validation, average)
                better = self._keep(score, here.epoch, average, always=phase.last)
                here.waited = 0 if better else here.waited + phase.eval_every
                self._record(phase, here, loss=loss, val=score, seconds=time.perf_counter() - start)
            if self.journal is not None:
                self.journal.passed(self.journal)
        return here

    def _halted(self, here: Progress) -> bool:
        """Tell whether the last validation, if there was one after this epoch, is enough."""
        return any(line["epoch"] == here.epoch and self.enough(self, line) for line in here.history[-1:])

    def _learn(self, phase: Phase, learner: Learner) -> Progress:
        """Let an expert learn that does so by itself; what it has learned is the best there is."""
        here, start = Progress(self.model, [], None, self.best, before=self.best.score), time.perf_counter()
        here.epoch = self.world.told(learn(learner, phase, self.whole, Judged(self.val, self.val_y)))
        self.world.alike(self.model)
        out = self.output()
        self._keep(score := self.score(out.rows(self.val), self.val_y), here.epoch, always=True)
        loss = float(phase.terms[0].value(out, self.whole))
        self._record(phase, here, loss=loss, val=score, seconds=time.perf_counter() - start)
        return here

    @torch.no_grad()
    def output(self) -> Output:
        """Run the model with its present weights on all nodes, in evaluation mode."""
        self.model.eval()
        batches = self.feed.asked(self.whole, self.reads.hops, None)
        return self.world.same(self._said(batches, len(self.whole.y)))

    @torch.no_grad()
    def glimpse(self, scope: Scope, on: Collection[str]) -> tuple[Output, Batch]:
        """Run the model in evaluation mode on the first batch that it would be trained on with such losses."""
        self.model.eval()
        needs = self._needs(self.reads.hops, scope, on)._replace(share=Share())
        batch = next(iter(self.feed.training(self.whole, needs)(1)))
        return self._call(batch), batch

    def _known(self, phase: Phase) -> Known:
        """Return what the phase cannot change, for all nodes."""
        if self.parts is None:
            return Known()
        losses: list[Any] = [term.loss for term in phase.terms]
        watching: list[Watching] = [loss for loss in losses if isinstance(loss, Watching)]
        parts = self.parts

        def said() -> Iterator[Known]:
            for batch in self.feed.asked(self.whole, self.reads.hops, None):
                known = parts.known(batch.x, batch.graph, phase.trains)
                layers = next((seen for each in watching if (seen := each.frozen_layers())), ())
                yield batch.of_seeds(known._replace(layers=layers))

        with self.fabric.autocast(), self.world.turns():
            return gathered(said(), len(self.whole.y))

    def _needs(self, hops: int | None, scope: Scope, on: Iterable[str]) -> Needs:
        """Return what is needed of batches, by how far the model reaches."""
        alone = scope is Scope.NODE and (self.parts is None or self.reads.hands_on) and not watched(self.model)
        return Needs(hops, scope, frozenset(on), self.world.share, alone, alone and self.reads.spares_a_hop)

    def _reach(self, known: Known) -> int | None:
        return self.reads.hops if self.parts is None else self.parts.reach(known)

    def _call(self, batch: Batch) -> Output:
        with self.fabric.autocast(), self.world.turns():
            return as_output(run_module(self.model, self.reads, batch.x, batch.graph, **batch.known.given()))

    def _said(self, batches: Iterable[Batch], count: int) -> Output:
        """Return what the model says of the seeds of batches, which are so many."""
        return gathered((batch.of_seeds(self._call(batch)) for batch in batches), count)

    def _asked(self, known: Known) -> Iterable[Batch]:
        """Return the batches that this process's share of the validation nodes is scored from."""
        return self.feed.asked(replace(self.whole, known=known), self._reach(known), self.world.share.of(self.val))

    @torch.no_grad()
    def _evaluate(self, batches: Iterable[Batch], average: MovingAverage | None = None) -> float:
        self.model.eval()
        with nullcontext() if average is None else average.standing_in():
            out = self.world.rows(self._said(batches, len(self.world.share.of(self.val))), len(self.val))
            score = self.world.told(self.score(out, self.val_y))
        if math.isnan(score) or any(bool(logits.isnan().any()) for logits in out[:2]):
            raise FloatingPointError("the validation score is no number: a class has no node there, or lr is large")
        return score

    def _keep(self, score: float, epoch: int, average: MovingAverage | None = None, *, always: bool = False) -> bool:
        """Take the model's present weights, or their average, as the best where they score better."""
        if not (always or score > self.best.score):
            return False
        now = self.model.state_dict() if average is None else average.state
        self.best.score, self.best.epoch = score, epoch
        self.best.weights = {name: value.detach().clone() for name, value in now.items()}
        self.best.losses = {loss: snapshot(loss) for loss in self.best.losses}
        return True

    def _record(self, phase: Phase, here: Progress, **values: Any) -> None:
        record = {"phase": phase.name, "epoch": here.epoch, **values, "best": self.best.score}
        self.history.append(record)
        here.history.append(record)
        if self.hook is not None:
            self.hook(record)
