"""Regimes: functions that call `trainer.fit`. A regime is `(trainer, schedule, objective) -> None`.

`pretrain` is the solo regime on a submodule; the other regimes start from whatever weights the trainer holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from mowst import objectives
from mowst.errors import unknown
from mowst.names import Names
from mowst.objectives import Loss
from mowst.trainer import Phase, Term, Trainer

OPTIMIZERS = Names("optimizer", {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam})


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
        }
        return Phase(name, trains, terms, **pace)


def solo(
    trainer: Trainer, schedule: Schedule, objective: Loss = objectives.cross_entropy, extra: Iterable[Term] = ()
) -> None:
    """One expert alone: the trainer's model gives logits."""
    trainer.fit(schedule.phase("solo", ("",), Term(objective), *extra))


def pretrain(trainer: Trainer, schedule: Schedule, parts: Iterable[str]) -> None:
    """Train the named experts of a mixture, each alone; the mixture's best weights then hold them."""
    for part in parts:
        own = trainer.sub(part)
        own.fit(schedule.phase(f"pretrain {part}", ("",), Term(objectives.cross_entropy)))
    trainer.restart()


def joint(trainer: Trainer, schedule: Schedule, objective: Loss = objectives.joint, extra: Iterable[Term] = ()) -> None:
    """Both experts and the gate together; with the joint objective this is Mowst*."""
    trainer.fit(schedule.phase("joint", ("weak", "strong", "gate"), Term(objective), *extra))


def alternate(
    trainer: Trainer, schedule: Schedule, objective: Loss = objectives.separate, extra: Iterable[Term] = ()
) -> None:
    """Turns: weak expert and gate until validation stops improving, then the strong one; until a round brings nothing.

    With the separate objective this is Mowst (arXiv 2311.05185, algorithm 2).
    """
    for turn in range(1, schedule.rounds + 1):
        weak_won = trainer.fit(schedule.phase(f"weak turn {turn}", ("weak", "gate"), Term(objective), *extra))
        strong_won = trainer.fit(schedule.phase(f"strong turn {turn}", ("strong",), Term(objective), *extra))
        if not (weak_won or strong_won):
            return


REGIMES = Names("regime", {"joint": joint, "alternate": alternate})
PRETRAIN = {"none": (), "weak": ("weak",), "strong": ("strong",), "both": ("weak", "strong")}


def pretrained_parts(choice: str) -> tuple[str, ...]:
    """Return the experts that `none`, `weak`, `strong` or `both` names."""
    if choice not in PRETRAIN:
        raise unknown("pretrain", choice, PRETRAIN)
    return PRETRAIN[choice]
