"""Whether names stand for something, and what they stand for goes together: said before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphkd import Weighted
from mowst.errors import InputError
from mowst.evaluation import SIGNALS
from mowst.models import DISPERSIONS, EXPERTS, GATES, asks_of
from mowst.training.distillation import TEACHES, parse, wanted
from mowst.training.objectives import OBJECTIVES
from mowst.training.regimes import REGIMES, pretrained_parts
from mowst.training.schedule import OPTIMIZERS


def check_names(
    experts: Sequence[str], gate: str, dispersions: Sequence[str], signal: str, optimizer: str, pretrain: str
) -> None:
    """Look every name up.

    Raises:
        InputError: one stands for nothing; the choices are named.
    """
    for expert in experts:
        EXPERTS.lookup(expert)
    GATES.lookup(gate)
    for dispersion in dispersions:
        DISPERSIONS.lookup(dispersion)
    SIGNALS.lookup(signal)
    OPTIMIZERS.lookup(optimizer)
    pretrained_parts(pretrain)


def check_apart(regime: str) -> None:
    """Refuse an expert's own pace, seed or weights where the regime does not train each on its own.

    Raises:
        InputError: it does not.
    """
    if not REGIMES.lookup(regime).apart:
        raise InputError(
            f"pace, seed and class_weight: an expert has its own where it is trained alone, not by regime {regime}"
        )


def check_objective(objective: str | None, regime: str, gate: str) -> None:
    """Refuse an objective that is not for what the regime trains, or does not mean the gate's scale.

    Raises:
        InputError: it is one.
    """
    if objective is None:
        return
    chosen, trains = OBJECTIVES.lookup(objective), REGIMES.lookup(regime)
    if trains.alone and OBJECTIVES.knows(objective):
        raise InputError(f"objective {objective}: is a mixture's; regime {regime} trains one expert")
    trains.suited(chosen, asks_of(GATES.lookup(gate)), asked_for=True)


def check_distillation(kd: Any, teacher: str | None, regime: str, *, mixture: bool) -> None:
    """Refuse losses and a teacher that the regime cannot use.

    Raises:
        InputError: it cannot.
    """
    trains = REGIMES.lookup(regime)
    if kd is None:
        if teacher is not None:
            raise InputError(f"teacher {teacher}: nothing is learned from it without losses; give --kd, e.g. nkd")
        return
    if not trains.takes_extra:
        raise InputError(
            f"kd: regime {regime} takes no further losses (it has no parameter `extra`); "
            "choose from held-out, solo, joint, alternate"
        )
    losses = parse(kd)
    if trains.holds_out:
        _check_twins(losses, teacher, regime)
    if not (trains.alone or mixture):
        raise InputError("kd: without a mixture there is nothing to distil into; use regime solo")
    if teacher is None and TEACHES & wanted(losses):
        raise InputError(f"kd: {kd} needs a teacher; give a run's folder, a file of logits, or strong")
    if teacher == "weak" and not trains.alone:
        raise InputError("teacher weak: is the student itself here; only regime solo can train it twice")


def _check_twins(losses: Sequence[Weighted], teacher: str | None, regime: str) -> None:
    if teacher not in (None, "strong"):
        raise InputError(
            f"teacher {teacher}: has seen the labels that regime {regime} holds out; give strong, or "
            "regime joint, alternate or solo"
        )
    if hidden := [each.name for each in losses if {"hidden", "teacher_hidden"} & wanted([each])]:
        raise InputError(
            f"kd: {', '.join(hidden)} looks at hidden layers, and regime {regime} teaches by logits only; "
            "choose from joint, alternate, solo"
        )
