"""What a loss sees of a model, and what is asked of it before a loss computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphkd import checks
from graphkd.checks import full

UNLABELLED = -100
"""The label of a node whose label is not to be seen."""


class Signals(NamedTuple):
    """What a loss may see of one model: its logits, its hidden layers, and how far each node can be believed."""

    logits: Tensor  # [N, C]
    hidden: tuple[Tensor, ...] = ()  # one [N, H] a layer
    reliability: Tensor | None = None  # [N] in [0, 1], of a teacher: see `teacher.reliability`


def signals(name: str, given: Any) -> Signals:
    """Return signals, of logits alone if it is these, with the sizes that `Signals` says; numbers are not looked at.

    Raises:
        ValueError: they have not.
    """
    if isinstance(given, Tensor):
        given = Signals(given)
    if not isinstance(given, Signals):
        raise ValueError(f"{name} must be logits [N, C], or Signals(logits, ...), got {checks.shown(given)}")
    logits = checks.logits(f"{name}.logits", given.logits)
    if not isinstance(given.hidden, tuple | list):
        raise ValueError(f"{name}.hidden must be a tuple of tensors [N, H], got {checks.shown(given.hidden)}")
    for i, h in enumerate(given.hidden):
        checks.matrix(f"{name}.hidden[{i}]", h, len(logits))
        checks.together(name, logits=logits, hidden=h)
    if given.reliability is not None:
        checks.shares(f"{name}.reliability", given.reliability, len(logits))
        checks.together(name, logits=logits, reliability=given.reliability)
    return given


def believed(name: str, teacher: Signals, hidden: bool = False) -> Signals:
    """Return a teacher's signals detached, in at least float32; its logits (and hidden layers) are finite.

    Raises:
        ValueError: some cannot.
    """
    teacher = mapped(teacher, lambda value: full(value).detach())
    for i, h in enumerate(teacher.hidden if hidden else ()):
        checks.finite(f"{name}.hidden[{i}]", h)
    return teacher._replace(logits=checks.believable(f"{name}.logits", teacher.logits))


def fill_target(target: Tensor | None, teacher: Signals | Tensor | None) -> Tensor | None:
    """Return classes [N]: the label where there is one, the teacher's argmax (if any) where it is -100.

    Raises:
        ValueError: they are no labels, or no teacher's signals.
    """
    if teacher is not None:
        teacher = believed("teacher", signals("teacher", teacher))
    if target is not None:
        N, C = (None, None) if teacher is None else teacher.logits.shape
        target = checks.classes("target", target, N, C)
    return filled(target, teacher)


def take(signals: Signals | Tensor, rows: Tensor) -> Signals:
    """Return the signals of some nodes: a boolean mask [N] or indices.

    Raises:
        ValueError: they are neither, or there are no signals.
    """
    return taken("signals", signals, rows)


def taken(name: str, given: Signals | Tensor, rows: Tensor) -> Signals:
    """Return the signals, called by that name, of some nodes."""
    given = signals(name, given)
    chosen = checks.mask_or_nodes("rows", rows, given.logits.size(0))
    return mapped(given, lambda value: value[chosen])


def filled(target: Tensor | None, teacher: Signals | None) -> Tensor | None:
    """Return checked classes [N] with the teacher's argmax where there is no label."""
    if teacher is None:
        return target
    guess = teacher.logits.argmax(-1)
    return guess if target is None else torch.where(target < 0, guess, target)


def mapped(signals: Signals, change: Callable[[Tensor], Tensor]) -> Signals:
    """Return signals of which every tensor is changed."""
    reliability = None if signals.reliability is None else change(signals.reliability)
    return Signals(change(signals.logits), tuple(change(h) for h in signals.hidden), reliability)
