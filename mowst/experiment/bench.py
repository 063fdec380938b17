"""The models of one seed, each trained once, when it is first asked for."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from lightning_fabric import Fabric
from torch import nn
from torch_geometric.data import Data

from graphkd import Signals, Weighted
from mowst.evaluation import METRICS, Metric, best_threshold, routable, signal
from mowst.experiment.batching import batched
from mowst.experiment.building import build_model, classes_of, seeded
from mowst.experiment.config import Config
from mowst.experiment.nodes import drawn_of
from mowst.experiment.plan import FINAL, Plan, expert_named, name_of, regime_of, schedule_of, seats_of
from mowst.models import ROLES, Mixture, Mowst, Output, parts_of
from mowst.training import (
    OBJECTIVES,
    Enough,
    Hook,
    Journal,
    Outcome,
    Trained,
    Trainer,
    Twins,
    attached,
    feed_of,
    hide,
    observe,
    parse,
    refit,
    solo,
    wanted,
)

APART = 100_000
"""Between the draws of an expert (`ExpertConfig.seed`): no run has more seeds."""


class Fitted(NamedTuple):
    """One trained model, with its weights as validation chose them."""

    name: str
    """`weak`, `strong`, `mixture`, `student`, or `final`."""
    model: nn.Module
    output: Output
    """What it says of every node, in evaluation mode."""
    history: list[dict[str, Any]]
    seconds: float
    """Of its training, that of experts it was made of included."""
    twins: Twins | None = None
    """What twins of the experts said of held-out training nodes, where the regime has some."""
    losses: nn.Module = nn.ModuleList()
    """The distillation losses it was trained with, which may have parameters."""
    best_epoch: int = 0
    """The epoch of its phase after which it validated best; 0: its first weights did."""
    own_seconds: float = 0.0
    """Of its training alone."""


def metric_of(data: Data) -> Metric:
    """Return the metric that a graph names; accuracy if it names none."""
    return METRICS.lookup(data.get("metric", "accuracy"))


class Bench:
    """Trains the models of one seed on a prepared graph. Only training and validation labels are seen.

    Args:
        config: how.
        plan: who teaches whom.
        ready: the graph, prepared (`mowst.experiment.building.prepare`).
        seed: of initial weights, dropout and folds.
        fabric: device and precision.
        teacher: signals of a teacher from outside the run.
        hook: called with the record of every validation, with its seed and model.
        journal: of finished phases, which are skipped.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        ready: Data,
        seed: int,
        fabric: Fabric,
        *,
        teacher: Signals | None = None,
        hook: Hook | None = None,
        journal: Journal | None = None,
    ):
        self.config = batched(config, ready, fabric.device)
        self.plan, self.ready, self.seed, self.fabric = plan, ready, seed, fabric
        self.teacher, self.hook, self.journal = teacher, hook, journal
        self.fitted: dict[str, Fitted] = {}
        self.enough: Enough | None = None
        self.asks: Callable[[int], bool] = lambda epoch: True
        """Whether `enough` has to be asked after an epoch."""

    def train(self, name: str) -> Fitted:
        """Return the `weak` or `strong` expert alone, the `mixture`, or the `student`: the same whatever else is asked.

        A mixture that starts from an expert alone has it trained here, too.

        Raises:
            FloatingPointError: training diverged.
        """
        if name not in self.fitted:
            try:
                self.fitted[name] = self._trained(name)
            except FloatingPointError as error:
                raise error if name == "mixture" else FloatingPointError(f"{name}: {error}") from error
            if name == self.plan.teacher:
                self.teacher = self.signals_of(self.fitted[name].model)
        return self.fitted[name]

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that its seconds are of: one that has also counted what was run before its journal was read."""
        return time.perf_counter if self.journal is None else self.journal.clock

    def final(self) -> Fitted:
        """Return the mixture for use: its experts trained anew on training and validation labels (`refit`).

        Raises:
            FloatingPointError: training diverged.
        """
        clock = self.clock
        mixture, start = self.train("mixture"), clock()
        with seeded(self.seed, self.fabric.device):
            trainer = self.trainer("mixture", whole=True)
            trainer.hook = None  # its scores on validation nodes say nothing any more
            trainer.model.load_state_dict(mixture.model.state_dict())
            heard = parts_of(trainer.model, ROLES, heard=True)
            lengths = {part: self.train(name_of(self.config, part)).best_epoch for part in heard}
            refit(trainer, schedule_of(self.config, self.seed), lengths)
        own = clock() - start
        return Fitted(FINAL, trainer.model, trainer.output(), [], own + mixture.seconds, own_seconds=own)

    def _trained(self, name: str) -> Fitted:
        clock = self.clock
        start, within, taken = clock(), 0.0, list[Fitted]()

        def alone(part: str) -> Trained:
            nonlocal within
            begun = clock()
            found = self.train(name_of(self.config, part))
            within += clock() - begun
            taken.append(found)
            return Trained(found.model.state_dict(), found.best_epoch)

        own_seed = 0 if name == "mixture" else expert_named(self.config, name).seed
        with seeded(self.seed + own_seed * APART, self.fabric.device):
            trainer = self.trainer(name)
            trainer.alone = alone
            trainer.enough, trainer.asks = self.enough, self.asks
            losses: tuple[Weighted, ...] = ()
            outcome = Outcome()
            if name in ROLES or name in seats_of(self.config):
                outcome = solo(trainer, schedule_of(self.config, self.seed, name))
            else:
                outcome, losses = self._follow(trainer, name)
        kept = nn.ModuleList(weighted.loss for weighted in losses)
        own = clock() - start - within
        model, out = trainer.model, trainer.output()
        if isinstance(model, Mowst) and (model.router is None or outcome.stale_threshold):
            self.set_threshold(model, out)
        seconds = own + sum(each.seconds for each in taken)
        best = trainer.best.epoch
        return Fitted(name, model, out, trainer.history, seconds, outcome.twins, kept, best, own)

    def set_threshold(self, model: Mowst, out: Output) -> None:
        """Give a mixture the threshold of routing that validates best."""
        assert isinstance(out, Mixture)
        seen, y = routable(model, out, self.ready.x).rows(self.ready.val_mask), self.ready.y[self.ready.val_mask]
        model.threshold.fill_(best_threshold(seen, y, metric_of(self.ready)))

    def trainer(self, name: str, *, whole: bool = False) -> Trainer:
        """Return a trainer of a fresh model, with weights from torch's generator, on a graph without test labels.

        It validates on as many nodes as the configuration says, or, whole, on all.
        """
        seen = copy.copy(self.ready)
        seen.y = hide(self.ready.y, self.ready.train_mask | self.ready.val_mask)
        seen.val_mask = drawn_of(seen.val_mask, None if whole else self.config.eval_nodes, self.seed)
        hook = self.hook
        return Trainer(
            build_model(name, self.config, self.ready.num_features, classes_of(self.ready)).to(self.fabric.device),
            seen,
            signal(self.config.signal, metric_of(self.ready)),
            fabric=self.fabric,
            hook=None if hook is None else lambda line: hook({"seed": self.seed, "model": name, **line}),
            teacher=self.teacher,
            feed=feed_of(self.config.batch, self.seed),
            journal=self.journal,
        )

    def _follow(self, trainer: Trainer, name: str) -> tuple[Outcome, tuple[Weighted, ...]]:
        """Follow the regime, and return the distillation losses that took part, too."""
        config = self.config
        objective = None if config.objective is None else OBJECTIVES.lookup(config.objective)
        losses = parse(config.kd or ())
        with attached(losses, trainer, self.plan.learns, self.plan.taught_by) as terms:
            return regime_of(config)(trainer, schedule_of(config, self.seed, name), objective, terms), losses

    def signals_of(self, model: nn.Module) -> Signals:
        """Return what a model of this run has to say as a teacher."""
        with seeded(self.seed, self.fabric.device):
            return observe(model, self.ready, wanted(parse(self.config.kd or ())))
