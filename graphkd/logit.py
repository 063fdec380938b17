"""Losses that compare two rows of logits: KD, GLNN's recipe, DKD, NKD, and standardization around them.

Formulas first, on plain tensors: `student` and `teacher` [N, C] logits, `target` [N] classes; each returns [N]. They
check nothing: `graphkd.kd` is `kd` with its arguments checked, and so on.
The teacher is detached inside, and only `log_softmax` and `logsumexp` are used, so ±1e4 is as good as ±1.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from graphkd.checks import full, options, shown
from graphkd.contract import DistillationLoss, Scope
from graphkd.signals import Signals

TEMPERATURE = (0.5, 8.0, "log")


def log_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax(logits / T) in at least float32, [N, C] in nats."""
    return F.log_softmax(full(logits) if temperature == 1 else full(logits) / temperature, dim=-1)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(p ‖ q) of each row in nats, from log-probabilities, [N]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def is_target(logits: Tensor, target: Tensor) -> Tensor:
    """Mark the target's entry of each row, [N, C]; none where the target is -100."""
    return target.unsqueeze(-1) == torch.arange(logits.size(-1), device=logits.device)


def others_log_probs(logits: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the log-softmax over the classes other than the target, 0 at the target, [N, C].

    Masked before and after: neither the value nor the gradient ever meets 0 times infinity.
    """
    hot = is_target(logits, target)
    return log_probs(full(logits).masked_fill(hot, -torch.inf), temperature).masked_fill(hot, 0.0)


def kd(student: Tensor, teacher: Tensor, temperature: float = 4.0, direction: str = "forward") -> Tensor:
    """Match softened class probabilities (Hinton et al., 2015, arXiv:1503.02531): T² KL(teacher ‖ student)."""
    log_p, log_q = log_probs(teacher.detach(), temperature), log_probs(student, temperature)
    return temperature**2 * (kl(log_p, log_q) if direction == "forward" else kl(log_q, log_p))


def dkd(
    student: Tensor, teacher: Tensor, target: Tensor, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """Weigh target and non-target knowledge apart (Zhao et al., 2022, arXiv:2203.08679): T² (α TCKD + β NCKD)."""
    teacher = teacher.detach()
    tckd = kl(_binary(teacher, target, temperature), _binary(student, target, temperature))
    return temperature**2 * (alpha * tckd + beta * nckd(student, teacher, target, temperature))


def nckd(student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 4.0) -> Tensor:
    """Return the divergence of the two distributions over non-target classes, [N]."""
    hot = is_target(student, target)
    log_p = others_log_probs(teacher.detach(), target, temperature)
    log_q = others_log_probs(student, target, temperature)
    return (log_p.exp().masked_fill(hot, 0.0) * (log_p - log_q)).sum(-1)


def nkd(student: Tensor, teacher: Tensor, target: Tensor, gamma: float = 1.5, temperature: float = 1.0) -> Tensor:
    """Match the target by weight, the others as a distribution (Yang et al., 2023, arXiv:2303.13005).

    -p_y log q_y - γ T² Σ_{c≠y} p̂_c log q̂_c, with p the teacher's, q the student's, ^ over non-target classes.
    """
    hot = is_target(student, target)
    teacher = teacher.detach()
    own = -(log_probs(teacher).exp() * log_probs(student)).masked_fill(~hot, 0.0).sum(-1)
    share = others_log_probs(teacher, target, temperature).exp().masked_fill(hot, 0.0)
    rest = -(share * others_log_probs(student, target, temperature)).sum(-1)
    return own + gamma * temperature**2 * rest


def standardize(logits: Tensor, min_std: float = 1e-3) -> Tensor:
    """Bring each row to mean 0 and (unbiased) standard deviation 1 (Sun et al., 2024, arXiv:2403.01427), [N, C].

    The deviation is clamped at `min_std` before the root, so a constant row has a finite gradient.
    """
    centred = full(logits) - full(logits).mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (logits.size(-1) - 1)
    return centred / variance.clamp(min=min_std**2).sqrt()


def _binary(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return (log p_y, log(1 - p_y)) of each row, [N, 2]."""
    log_p, hot = log_probs(logits, temperature), is_target(logits, target)
    own, rest = log_p.masked_fill(~hot, 0.0), log_p.masked_fill(hot, -torch.inf)
    return torch.stack([own.sum(-1), rest.logsumexp(-1)], dim=-1)


class KD(DistillationLoss):
    """Soft targets, see `kd`. T² keeps gradients comparable across temperatures; "reverse" is mode-seeking."""

    search: ClassVar[dict[str, Any]] = {"temperature": TEMPERATURE}

    def __init__(self, temperature: float = 4.0, direction: str = "forward"):
        super().__init__()
        options(temperature=temperature, direction=direction)
        self.temperature, self.direction = temperature, direction

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        return kd(student.logits, teacher.logits, self.temperature, self.direction)


class GLNN(KD):
    """GLNN's recipe (Zhang et al., 2022, arXiv:2110.08727): `kd` at T = 1, on all nodes, with no labels."""

    def __init__(self, temperature: float = 1.0):
        super().__init__(temperature)


class DKD(DistillationLoss):
    """Decoupled KD, see `dkd`. α = 1 with β = 1 - p_y per node is KD itself."""

    needs = frozenset({"teacher", "target"})
    search: ClassVar[dict[str, Any]] = {"temperature": TEMPERATURE, "alpha": (0.1, 2.0), "beta": (0.25, 8.0, "log")}
    binary = "there is one non-target class, so its non-target part is 0 and only TCKD is left"

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0):
        super().__init__()
        options(alpha=alpha, beta=beta, temperature=temperature)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        if self.alpha == 0 and student.logits.size(-1) < 3:
            self.warn_once("DKD with 2 classes and alpha=0 is 0 throughout and teaches nothing: give an alpha above 0")
        return dkd(student.logits, teacher.logits, target, self.alpha, self.beta, self.temperature)


class NKD(DistillationLoss):
    """Normalised KD, see `nkd`. Not zero where student and teacher agree: the target term always pulls q_y up."""

    needs = frozenset({"teacher", "target"})
    search: ClassVar[dict[str, Any]] = {"temperature": TEMPERATURE, "gamma": (0.25, 4.0, "log")}
    binary = "there is one non-target class, so its non-target part is 0 and γ has no effect"

    def __init__(self, gamma: float = 1.5, temperature: float = 1.0):
        super().__init__()
        options(gamma=gamma, temperature=temperature)
        self.gamma, self.temperature = gamma, temperature

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        return nkd(student.logits, teacher.logits, target, self.gamma, self.temperature)


class Standardized(DistillationLoss):
    """Another logit loss on rows brought to mean 0 and deviation 1, see `standardize`.

    `temperature` replaces the inner loss's. A row's largest gap is then √C, which caps what a softmax can say:
    with 7 classes p_max is .385 at T = 2, .70 at T = 1, .96 at T = 1/2; few classes want a small temperature.
    """

    synonyms: ClassVar[set[str]] = {"lskd"}
    search: ClassVar[dict[str, Any]] = {"temperature": (0.25, 4.0, "log")}

    def __init__(self, inner: DistillationLoss | None = None, temperature: float | None = None, min_std: float = 1e-3):
        super().__init__()
        inner = KD(2.0) if inner is None else inner
        if not isinstance(inner, DistillationLoss):
            raise ValueError(f"standardized: inner must be a loss such as graphkd.KD(), got {shown(inner)}")
        if inner.scope is not Scope.NODE or not inner.needs <= {"teacher", "target"} or isinstance(inner, Standardized):
            raise ValueError(f"standardized: {type(inner).__name__} is no loss on logits alone; choose kd, dkd or nkd")
        options(min_std=min_std)
        if temperature is not None:
            options(temperature=temperature)
            if not hasattr(inner, "temperature"):
                raise ValueError(f"standardized: {type(inner).__name__} has no temperature to replace")
            inner = copy.deepcopy(inner)  # the caller's stays as it is
            setattr(inner, "temperature", temperature)  # noqa: B010 - a module's attributes have no types
        self.inner, self.min_std = inner, min_std
        self.needs = inner.needs

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return what the inner loss says of standardized logits, [N]."""
        if student.logits.size(-1) < 3:
            raise ValueError("standardized: with 2 classes only the sign of each row survives and no gradient is left")
        student = Signals(standardize(student.logits, self.min_std))
        return self.inner(student, Signals(standardize(teacher.logits, self.min_std)), target=target)


LOSSES = (KD, GLNN, DKD, NKD, Standardized)
"""The losses of this family; a new one is found by its name from here on."""
