"""Regimes: how the parts of a model are trained, as functions that call `trainer.fit`.

A `Regime` is such a function, `(trainer, schedule, objective, extra) -> Outcome`, with what it needs and gives. It may
be stopped after any phase and run again: what is in the trainer's journal is skipped (`mowst.training.progress`). A
plain function of one's own is a regime, too, of which nothing else is known.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mowst.errors import InputError, unknown
from mowst.evaluation import surely
from mowst.models import ROLES, Asks, Mowst, parts_of
from mowst.names import Names, callable_only
from mowst.training import objectives
from mowst.training.held_out import Twins, divide, fit_expert, rehearse, settle
from mowst.training.objectives import Loss, Objective
from mowst.training.panels import shortlist
from mowst.training.phases import Term
from mowst.training.progress import snapshot
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer


class Outcome(NamedTuple):
    """What a regime leaves beside the trained model."""

    twins: Twins | None = None
    """What twins of the experts said of held-out training nodes."""
    stale_threshold: bool = False
    """Whether the mixture's threshold of routing is of other experts than it has now."""


@dataclass(frozen=True)
class Regime:
    """A way to train, and what is to be known of it before it begins."""

    steps: Callable[..., Outcome | None]
    """`(trainer, schedule, *, objective, extra) -> Outcome`; `extra` are further terms, where it takes them."""
    objective: Objective | None = None
    """What it minimises if nothing is asked for; none: it has one of its own."""
    alone: str | None = None
    """The expert that it trains without the other one; none: it trains the mixture."""
    gate: str = "learned"
    """The gate that it goes with."""
    holds_out: bool = False
    """Whether it fits a gate on training nodes held out, and a router where the gate looks at both experts."""
    takes_extra: bool = True
    """Whether it takes further terms."""
    apart: bool = False
    """Whether each expert is trained on its own, so that it may be a panel, or learn by itself, without gradients."""

    def __call__(
        self, trainer: Trainer, schedule: Schedule, objective: Loss | None = None, extra: Iterable[Term] = ()
    ) -> Outcome:
        """Train, by default with the regime's own objective."""
        extra, chosen = tuple(extra), objective or self.objective
        if isinstance(trainer.model, Mowst):
            chosen = self.suited(chosen, trainer.model.asks, asked_for=objective is not None)
        given: dict[str, Any] = {} if chosen is None else {"objective": chosen}
        return self.steps(trainer, schedule, **given, **({"extra": extra} if extra else {})) or Outcome()

    def suited(self, objective: Loss | None, asks: Asks, *, asked_for: bool) -> Loss | None:
        """Return the objective, or `joint` for a logarithmic pool whose scale the regime's own one does not mean.

        Raises:
            InputError: an objective that was asked for does not mean it.
        """
        if not (asks.scale and isinstance(objective, Objective) and not objective.any_pool):
            return objective
        if asked_for:
            raise InputError(
                "objective: separate and joint-logits weigh two losses, and this gate gives a logarithmic pool, whose "
                "scale they do not mean; give the objective joint, or the gate logistic, monotone, learned or power"
            )
        return objectives.joint

    @classmethod
    def of(cls, found: Any) -> Regime:
        """Take a function of one's own as a regime; it takes further terms if it has a parameter `extra`."""
        if isinstance(found, cls):
            return found
        return cls(callable_only(found), takes_extra="extra" in inspect.signature(found).parameters)


def pretrain(
    trainer: Trainer, schedule: Schedule, parts: Iterable[str], extra: Sequence[Term] = ()
) -> Mapping[str, int]:
    """Train the named experts of a mixture, each alone; the mixture's best weights then hold them.

    One that the trainer has from elsewhere (`trainer.alone`) is taken as it is. The weak one learns from extra terms,
    too, if there are any: after the strong one.

    Returns: after how many epochs each of them was best.
    """
    lengths = {}
    for part in parts:
        trained = None if part == "weak" and extra else trainer.alone(part)
        if trained is None:
            lengths[part] = fit_expert(trainer, schedule, f"pretrain {part}", part, extra).best.epoch
        else:
            trainer.sub(part).model.load_state_dict(trained.state)
            lengths[part] = trained.epochs
    trainer.restart()
    return lengths


def train_alone(trainer: Trainer, schedule: Schedule, objective: Loss, extra: Sequence[Term] = ()) -> None:
    """One expert alone: the trainer's model gives logits."""
    trainer.fit(schedule.phase("solo", ("",), Term(schedule.weighted(objective, trainer.whole)), *extra))


def train_jointly(trainer: Trainer, schedule: Schedule, objective: Loss, extra: Sequence[Term] = ()) -> None:
    """Both experts and the gate together; with the joint objective this is Mowst*."""
    pretrain(trainer, schedule, pretrained_parts(schedule.pretrain))
    trainer.fit(schedule.phase("joint", ("weak", "strong", "gate"), Term(objective), *extra))


def train_by_turns(trainer: Trainer, schedule: Schedule, objective: Loss, extra: Sequence[Term] = ()) -> None:
    """Turns: weak expert and gate until validation stops improving, then the strong one; until a round brings nothing.

    With the separate objective this is Mowst (arXiv 2311.05185, algorithm 2).
    """
    pretrain(trainer, schedule, pretrained_parts(schedule.pretrain))
    for turn in range(1, schedule.rounds + 1):
        weak_won = trainer.fit(schedule.phase(f"weak turn {turn}", ("weak", "gate"), Term(objective), *extra))
        strong_won = trainer.fit(schedule.phase(f"strong turn {turn}", ("strong",), Term(objective), *extra))
        if not (weak_won or strong_won):
            return


def train_held_out(trainer: Trainer, schedule: Schedule, objective: Loss, extra: Sequence[Term] = ()) -> Outcome:
    """Both experts alone, then the gate, fitted on nodes that neither expert has seen the labels of.

    1. Both experts are trained alone on all training nodes; with extra terms, the strong one may teach the weak. Of a
       panel each member is, and those are kept that validation nodes speak for.
    2. The training nodes are divided into folds. A twin of each expert, from fresh weights, is trained without one fold
       for as many epochs as served the expert best, and calibrated there; with `rehearsals` above one, for so many
       folds (all of them: cross-fitting). The experts are calibrated by their twins.
    3. The gate is fitted on what the twins say of the held-out nodes and the experts of the validation nodes, and so
       are a panel's weights, and the router, the gate of routed inference.
    4. Nodes are routed by the router unless one expert alone validates better by more than a standard error.

    Whatever `schedule.pretrain` says, each expert that is kept is trained 1 + `rehearsals` times; the strong one goes
    first, so that whoever watches knows early what to expect.
    """
    model = mixture_of(trainer)
    nodes = trainer.whole.train_mask.nonzero().squeeze(-1)
    folds = divide(nodes, trainer.whole.y, schedule.folds, schedule.seed)[: schedule.rehearsals]
    untouched = copy.deepcopy(extra)  # losses may have parameters, which would remember labels
    lengths = pretrain(trainer, schedule, reversed(parts_of(model, ROLES)), extra)
    twins = rehearse(trainer, schedule, folds, lengths, untouched, shortlist(trainer))
    return Outcome(settle(model, trainer, twins, objective))


def fine_tune(trainer: Trainer, schedule: Schedule, objective: Loss, extra: Sequence[Term] = ()) -> Outcome:
    """As `held-out`; then both experts train on, together, behind the fitted gate.

    That is kept where it validates better by more than a standard error. The router stays the one of before, and is of
    other experts then: the threshold has to be chosen anew, on validation nodes.
    """
    outcome, model = train_held_out(trainer, schedule, objective, extra), mixture_of(trainer)
    held, before = trainer.output().rows(trainer.val), snapshot(model)
    trainer.fit(schedule.phase("fine-tune", ROLES, Term(objective), *extra))
    tuned = trainer.output().rows(trainer.val)
    if surely(trainer.score, trainer.val_y, tuned, held):
        model.threshold.fill_(math.nan)
        trainer.best.weights = snapshot(model)
        return outcome._replace(stale_threshold=True)
    model.load_state_dict(before)
    trainer.consider()
    return outcome


def mixture_of(trainer: Trainer) -> Mowst:
    """Return the trainer's model, which must be a mixture.

    Raises:
        InputError: it is not.
    """
    if not isinstance(trainer.model, Mowst):
        raise InputError(f"regime held-out: trains a mixture, not a {type(trainer.model).__name__}")
    return trainer.model


solo = Regime(train_alone, objectives.cross_entropy, alone="weak", apart=True)
joint = Regime(train_jointly, objectives.joint)
alternate = Regime(train_by_turns, objectives.separate)
held_out = Regime(train_held_out, objectives.joint, gate="fused", holds_out=True, apart=True)
fine_tuned = Regime(fine_tune, objectives.joint, gate="fused", holds_out=True)
REGIMES: Names[Regime] = Names(
    "regime",
    {"held-out": held_out, "fine-tuned": fine_tuned, "joint": joint, "alternate": alternate, "solo": solo},
    adapt=Regime.of,
)
PRETRAIN = {"none": (), "weak": ("weak",), "strong": ("strong",), "both": ("weak", "strong")}


def pretrained_parts(choice: str) -> tuple[str, ...]:
    """Return the experts that `none`, `weak`, `strong` or `both` names."""
    if choice not in PRETRAIN:
        raise unknown("pretrain", choice, PRETRAIN)
    return PRETRAIN[choice]
