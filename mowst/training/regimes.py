"""Regimes: functions that call `trainer.fit`. A regime is `(trainer, schedule, objective) -> None`.

`pretrain` is the solo regime on a submodule; the other regimes start from whatever weights the trainer holds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from mowst.errors import unknown
from mowst.evaluation.metrics import rows
from mowst.models.mixture import EXPERTS
from mowst.names import Names
from mowst.training import objectives
from mowst.training.held_out import divide, fit_expert, rehearse, settle, surely
from mowst.training.objectives import Loss
from mowst.training.phases import Phase, Term
from mowst.training.state import snapshot
from mowst.training.trainer import Trainer

Regime = Callable[..., None]
OPTIMIZERS = Names(
    "optimizer", {"adamw": partial(torch.optim.AdamW, fused=True), "adam": partial(torch.optim.Adam, fused=True)}
)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: what every phase of a regime shares."""

    optimizer: str = "adamw"
    lr: float = 0.01
    gate_lr: float = 0.01
    weight_decay: float = 5e-4
    epochs: int = 500
    patience: int = 100
    rounds: int = 10
    eval_every: int = 1
    ema_decay: float = 0.0
    pretrain: str = "strong"
    folds: int = 5
    rehearsals: int = 1

    def phase(self, name: str, trains: tuple[str, ...], *terms: Term) -> Phase:
        """Return a phase with this schedule's pace."""
        pace: dict[str, Any] = {
            "optimizer": OPTIMIZERS.lookup(self.optimizer),
            "lr": self.lr,
            "lrs": {"gate": self.gate_lr},
            "weight_decay": self.weight_decay,
            "epochs": self.epochs,
            "patience": self.patience,
            "eval_every": self.eval_every,
            "ema_decay": self.ema_decay,
        }
        return Phase(name, trains, terms, **pace)


def solo(
    trainer: Trainer, schedule: Schedule, objective: Loss = objectives.cross_entropy, extra: Iterable[Term] = ()
) -> None:
    """One expert alone: the trainer's model gives logits."""
    trainer.fit(schedule.phase("solo", ("",), Term(objective), *extra))


solo.alone = "weak"  # type: ignore[attr-defined]


def alone(regime: Regime) -> str | None:
    """Return the expert that a regime trains without the other one (its attribute `alone`); none: the mixture."""
    return getattr(regime, "alone", None)


def pretrain(trainer: Trainer, schedule: Schedule, parts: Iterable[str], extra: Sequence[Term] = ()) -> None:
    """Train the named experts of a mixture, each alone; the mixture's best weights then hold them.

    An expert that was trained alone already (`trainer.trained`) is taken as it is. After how many epochs each of them
    was best is in `trainer.lengths`. The weak one learns from extra terms too, if there are any: after the strong one.
    """
    for part in parts:
        if part in trainer.trained and not (part == "weak" and extra):
            trainer.sub(part).model.load_state_dict(trainer.trained[part].state)
            trainer.taken.add(part)
            trainer.lengths[part] = trainer.trained[part].epochs
        else:
            trainer.lengths[part] = fit_expert(trainer, schedule, f"pretrain {part}", part, extra).best_epoch
    trainer.restart()


def joint(trainer: Trainer, schedule: Schedule, objective: Loss = objectives.joint, extra: Iterable[Term] = ()) -> None:
    """Both experts and the gate together; with the joint objective this is Mowst*."""
    pretrain(trainer, schedule, pretrained_parts(schedule.pretrain))
    trainer.fit(schedule.phase("joint", ("weak", "strong", "gate"), Term(objective), *extra))


def alternate(
    trainer: Trainer, schedule: Schedule, objective: Loss = objectives.separate, extra: Iterable[Term] = ()
) -> None:
    """Turns: weak expert and gate until validation stops improving, then the strong one; until a round brings nothing.

    With the separate objective this is Mowst (arXiv 2311.05185, algorithm 2).
    """
    pretrain(trainer, schedule, pretrained_parts(schedule.pretrain))
    for turn in range(1, schedule.rounds + 1):
        weak_won = trainer.fit(schedule.phase(f"weak turn {turn}", ("weak", "gate"), Term(objective), *extra))
        strong_won = trainer.fit(schedule.phase(f"strong turn {turn}", ("strong",), Term(objective), *extra))
        if not (weak_won or strong_won):
            return


def held_out(
    trainer: Trainer, schedule: Schedule, objective: Loss = objectives.joint, extra: Iterable[Term] = ()
) -> None:
    """Both experts alone, then the gate, fitted on training nodes that neither expert has seen the labels of.

    1. Both experts are trained alone on all training nodes; with extra terms, the strong one may teach the weak.
    2. The training nodes are divided into folds. A twin of each expert, from fresh weights, is trained without one fold
       for as many epochs as served the expert best, and calibrated there; with `rehearsals` above one, for so many
       folds (all of them: cross-fitting). The experts are calibrated by their twins.
    3. The gate is fitted on what the twins say of the held-out nodes, from a start that leans to the strong expert,
       and so is the router, the gate of routed inference.
    4. The fitted gate is kept unless the validation score is better at its start, or at weights that it calls plain, by
       more than a standard error; nodes are routed by the router unless one expert alone is better by as much.

    Whatever `schedule.pretrain` says, each expert is trained 1 + `rehearsals` times; the strong one goes first, so that
    whoever watches knows early what to expect.
    """
    folds = divide(trainer.on["train"], trainer.batch.y, schedule.folds)[: schedule.rehearsals]
    extra = tuple(extra)
    untouched = copy.deepcopy(extra)  # losses may have parameters, which would remember labels
    pretrain(trainer, schedule, reversed(EXPERTS), extra)
    trainer.twins = rehearse(trainer, schedule, folds, untouched)
    settle(trainer, trainer.twins, objective)


held_out.routes = True  # type: ignore[attr-defined]


def fine_tuned(
    trainer: Trainer, schedule: Schedule, objective: Loss = objectives.joint, extra: Iterable[Term] = ()
) -> None:
    """As `held_out`; then both experts train on, together, behind the fitted gate.

    That is kept where it validates better by more than a standard error. The router stays the one of before, and is of
    other experts then: the model's threshold is not a number until one is chosen on validation nodes.
    """
    extra = tuple(extra)
    held_out(trainer, schedule, objective, extra)
    held: Any = rows(trainer.output(), trainer.val)
    before = snapshot(trainer.model)
    trainer.fit(schedule.phase("fine-tune", EXPERTS, Term(objective), *extra))
    tuned: Any = rows(trainer.output(), trainer.val)
    model: Any = trainer.model
    if surely(trainer, tuned, held):
        model.threshold.fill_(math.nan)
        trainer.best_state = snapshot(model)
    else:
        model.load_state_dict(before)
        trainer.consider()


fine_tuned.routes = True  # type: ignore[attr-defined]


def routes(regime: Regime) -> bool:
    """Tell whether a regime fits a router (its attribute `routes`), for a gate that looks at both experts."""
    return getattr(regime, "routes", False)


REGIMES = Names(
    "regime",
    {"held-out": held_out, "fine-tuned": fine_tuned, "joint": joint, "alternate": alternate, "solo": solo},
)
OWN_GATE = {held_out: "fused", fine_tuned: "fused"}
"""The gate of a regime for which `learned`, that of the published experiments, is not the one."""
PRETRAIN = {"none": (), "weak": ("weak",), "strong": ("strong",), "both": ("weak", "strong")}


def pretrained_parts(choice: str) -> tuple[str, ...]:
    """Return the experts that `none`, `weak`, `strong` or `both` names."""
    if choice not in PRETRAIN:
        raise unknown("pretrain", choice, PRETRAIN)
    return PRETRAIN[choice]
