"""How long and how fast: what every phase of a regime shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mowst.names import Names
from mowst.training.batches import Batch
from mowst.training.objectives import Loss, balance, balanced
from mowst.training.phases import Phase, Term

OPTIMIZERS: Names[Callable[..., torch.optim.Optimizer]] = Names(
    "optimizer", {"adamw": partial(torch.optim.AdamW, fused=True), "adam": partial(torch.optim.Adam, fused=True)}
)


@dataclass(frozen=True)
class Schedule:
    """The pace of a regime; the fields of a configuration of the same names say what they mean."""

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
    class_weight: str = "none"
    """How the cross-entropy of an expert that is trained on its own is weighted: none, or balanced."""
    seed: int = 0
    """Of the folds."""
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Where parts of a mixture that are trained on their own have another pace: the fields that differ, by part."""

    def of(self, part: str) -> Schedule:
        """Return the schedule of one part that is trained on its own."""
        return replace(self, **self.own.get(part, {}))

    def weighted(self, loss: Loss, whole: Batch) -> Loss:
        """Return a loss of the labels, weighted as the schedule says by those that a whole graph shows."""
        return balanced(loss, whole.y) if self.class_weight == "balanced" else loss

    def label_weights(self, y: Tensor) -> Tensor | None:
        """Return the weight in such a loss of each of some labels [N], below 0 where none is, [N]; none: all alike."""
        return balance(y)[y.clamp_min(0)] if self.class_weight == "balanced" else None

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
