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
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import Scope, Signals
from mowst.evaluation import Score, Scores
from mowst.kernels import LOOK, by_column, recorder
from mowst.models import InParts, Judged, Known, Learner, Output, as_output, gathered, reads_of, run_module, watched
from mowst.training.batches import Batch, Feed, Needs, Whole
from mowst.training.draws import set_random_states
from mowst.training.epochs import Epochs, Seen, checked_score
from mowst.training.frozen import said_by
from mowst.training.learning import learn
from mowst.training.moments import Work
from mowst.training.phases import Phase, thawed
from mowst.training.progress import Best, Journal, MovingAverage, Progress, State, Trained, snapshot
from mowst.training.steps import Stepper
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
        fabric: device and precision, and the processes that train together, which all call the same methods; a CPU in
            float32 by default.
        hook: called after each evaluation with the record of the epoch; what it raises ends the training. The model
            has the weights of that epoch, or of the last that is looked at with it; those that multiply sparse features
            lie by column.
        alone: returns a part that is trained alone, by name; `pretrain` takes it. None: it is trained in its place.
        teacher: signals of all nodes, of a frozen teacher from outside the model.
        feed, journal: which nodes are run; finished phases, which are skipped.
        every: epochs from one look at scores to the next, which changes nothing but how long a device is waited for.
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
        every: int | None = None,
    ):
        self.score, self.hook, self.alone, self.journal, self.every = Score.of(score), hook, alone, journal, every
        self.enough: Enough | None = None
        self.asks: Callable[[int], bool] = lambda epoch: True  # whether `enough` has to be asked after it
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
        self.best.take(checked_score(float(self._judge(self._asked(Known())))), 0, self.model)

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
        record = recorder()
        with nullcontext() if record is None else record.aside():
            return self._go(phase, losses, thawed(self.model, phase.trains, free))

    def _go(self, phase: Phase, losses: list[nn.Module], parts: list[nn.Module]) -> Progress:
        """Go from epoch to epoch, with these parts in training."""
        precision = self.fabric.strategy.precision
        average = MovingAverage(self.model, phase.ema_decay) if phase.ema_decay else None
        here = Progress(self.model, losses, phase.optimizer_of(parts), self.best, average, precision)
        work = self._work(phase, here, parts)
        if self.journal is not None and self.journal.begin(here):
            self.history += here.history
        else:
            if self.best.score == -math.inf and not phase.last:
                self.best.take(checked_score(float(work.judge()), phase.name), 0, self.model)
            here.before = self.best.score
        epochs = Epochs(phase, here, work, partial(self._record, phase, here), self._looks(precision.state_dict()))
        while here.epoch < phase.epochs and here.waited < phase.patience and not self._halted(here):
            begin, journal = here.epoch, self.journal or Journal()
            epochs.forth(epochs.free(journal.room(), self.asks if self.enough else lambda epoch: False))
            journal.went(here.epoch - begin)
        return here

    def _work(self, phase: Phase, here: Progress, parts: list[nn.Module]) -> Work:
        """Return what an epoch of a phase consists of."""
        known = self._known(phase)
        needs = self._needs(self._reach(known), phase.scope, (term.on for term in phase.terms))
        batches, validation = self.feed.training(replace(self.whole, known=known), needs), self._asked(known)
        stepper = Stepper(phase, here, parts, batches, self._call, self.world)
        again = isinstance(self.feed, Whole) and self.world.alone
        return Work(stepper.train, lambda: self._judge(validation, here.average), again)

    def _looks(self, scaler: Mapping[str, Any]) -> int:
        """Return after how many epochs their scores are looked at: each, where processes or a scaler wait for them."""
        every = self.every or (1 if recorder() is None else LOOK)
        return every if self.world.alone and not scaler else 1

    def _halted(self, here: Progress) -> bool:
        """Tell whether the last validation, if there was one after this epoch, is enough."""
        return self.enough is not None and any(
            line["epoch"] == here.epoch and self.enough(self, line) for line in here.history[-1:]
        )

    def _learn(self, phase: Phase, learner: Learner) -> Progress:
        """Let an expert learn that does so by itself; what it has learned is the best there is."""
        here, start = Progress(self.model, [], None, self.best, before=self.best.score), time.perf_counter()
        here.epoch = self.world.told(learn(learner, phase, self.whole, Judged(self.val, self.val_y)))
        self.world.alike(self.model)
        out = self.output()
        score = self.score(out.rows(self.val), self.val_y)
        self.best.take(score, here.epoch, self.model)
        loss = float(phase.terms[0].value(out, self.whole))
        self._record(phase, here, Seen(loss, score), time.perf_counter() - start)
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
        asked = self.feed.asked(self.whole, self.reads.hops, None)
        with self.fabric.autocast(), self.world.turns():
            return gathered(said_by(self.parts, phase, asked), len(self.whole.y))

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
    def _judge(self, batches: Iterable[Batch], average: MovingAverage | None = None) -> Tensor:
        """Score the model, or its average, [], on its device; not a number where an expert's logits are not."""
        self.model.eval()
        with nullcontext() if average is None else average.standing_in():
            out = self.world.rows(self._said(batches, len(self.world.share.of(self.val))), len(self.val))
            found = self.score.value(out, self.val_y)
        score = found if isinstance(found, Tensor) else torch.tensor(found, dtype=torch.float64)
        wrong = torch.stack([logits.isnan().any() for logits in out[:2]]).any()
        score = score.masked_fill(wrong.to(score.device), math.nan)
        return score if self.world.alone else self.world.told(score.cpu())

    def _record(self, phase: Phase, here: Progress, seen: Seen, seconds: float) -> None:
        values = {"loss": seen.loss, "val": seen.score, "seconds": seconds}
        record = {"phase": phase.name, "epoch": here.epoch, **values, "best": self.best.score}
        self.history.append(record)
        here.history.append(record)
        if self.hook is not None:
            self.hook(record)
