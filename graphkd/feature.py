"""Losses with parameters of their own: linear heads from a student's hidden layers to the classes.

The heads serve training only and are saved with the loss. Their sizes come from the constructor
(`hidden_channels`, `num_classes`) or from signals given to `prepare`, before the optimiser is built.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphkd.checks import MOST_WEIGHTS, WIDEST, full, options, positive, shown, together, whole
from graphkd.contract import DistillationLoss, Scope
from graphkd.logit import TEMPERATURE, is_target, log_probs, others_log_probs
from graphkd.signals import Signals, signals

NO_LABELS = "USKD: none of these rows has a label, so the loss is 0; give it rows with labels, or a teacher"


def ofa(
    student: Tensor,
    teacher: Tensor,
    target: Tensor,
    gamma: float = 1.5,
    temperature: float = 1.0,
    gamma_on: str = "all",
) -> Tensor:
    """Enhance what the teacher says of the target (OFA-KD, Hao et al., 2023, arXiv:2310.19444), [N].

    -Σ_c w_c log q_c with w_c = (p_c + [c = y])^γ - [c = y]; no T². `gamma_on` "all" raises every class to γ, as the
    authors' code does, "target" only the target's. γ = 1 is the cross-entropy to the teacher. Below 1 the target may
    weigh less than another class that the teacher prefers even where it is likely (γ = 1/2, two classes: p_y < .86).
    """
    hot = is_target(student, target)
    probs = log_probs(teacher.detach(), temperature).exp()
    others = probs.pow(gamma) if gamma_on == "all" else probs
    weight = torch.where(hot, (probs + 1).pow(gamma) - 1, others)
    return -(weight * log_probs(student, temperature)).sum(-1)


def binary_kl(student: Tensor, teacher: Tensor, temperature: float = 2.0, center: bool = False) -> Tensor:
    """Match logits one by one (BinaryKL-Norm; Yang et al., 2024, arXiv:2411.08937): T² Σ_c log cosh(d_c / 2T), [N].

    That is T² Σ_c KL(Bern(1/2) ‖ Bern(σ(d_c / T))), d = student - teacher, in a form that is finite everywhere.
    `center` (ours) takes each row's mean out of d, for teachers with an arbitrary offset a row.
    """
    difference = full(student) - full(teacher).detach()
    if center:
        difference = difference - difference.mean(-1, keepdim=True)
    u = difference / temperature
    return temperature**2 * (u / 2 + F.softplus(-u) - math.log(2.0)).sum(-1)


@torch.no_grad()
def zipf_labels(student: Tensor, weak: Tensor, target: Tensor, author_code: bool = False) -> Tensor:
    """Return soft labels 1/rank over the non-target classes (USKD, see `uskd`), [N, C]: rows sum to 1, 0 at the target.

    Ranked by the sum of two distributions over non-target classes, the student's and its weak head's. The authors'
    code divides the student's log-probabilities instead, and lets the target take a rank: `author_code`.
    """
    hot = is_target(student, target)
    if author_code:
        log_p, own = log_probs(weak), log_probs(student)
        score = log_p.exp() / (1 - _at(log_p.exp(), hot) + 1e-6) + own / (1 - _at(own, hot) + 1e-6)
    else:
        score = others_log_probs(student, target).exp() + others_log_probs(weak, target).exp()
        score = score.masked_fill(hot, -torch.inf)
    rank = score.sort(dim=-1, descending=True, stable=True).indices.argsort(dim=-1) + 1
    label = (1 / rank.to(score.dtype)).masked_fill(hot, 0.0)
    return label / label.sum(-1, keepdim=True)


def uskd(
    student: Tensor,
    weak: Tensor,
    target: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.1,
    mu: float = 0.005,
    author_code: bool = False,
) -> Tensor:
    """Distil without a teacher (USKD; Yang et al., 2023, arXiv:2303.13005), a scalar over the labelled rows.

    α of the target's log-likelihood weighted by 1 + S_y² - mean S_y², S_y the student's own confidence in it;
    β of the cross-entropy to `zipf_labels`; μ of a smoothed cross-entropy that trains the weak head's logits `weak`.
    """
    student, weak, labelled = full(student), full(weak), target >= 0
    share = labelled.to(student.dtype) / labelled.sum().clamp(min=1)  # [N], sums to 1: a mean over labelled rows
    hot = is_target(student, target)
    log_q = _at(log_probs(student), hot).squeeze(-1)
    confidence = log_q.detach().exp().square()
    own = -(1 + confidence - confidence @ share) * log_q
    rest = -(zipf_labels(student, weak, target, author_code) * others_log_probs(student, target)).sum(-1)
    read = F.cross_entropy(weak, target.clamp(min=0), label_smoothing=0.1, reduction="none")
    return (alpha * own + beta * rest + mu * read) @ share


def _at(value: Tensor, hot: Tensor) -> Tensor:
    """Return the marked entry of each row, [N, 1]."""
    return value.masked_fill(~hot, 0.0).sum(-1, keepdim=True)


class HeadedLoss(DistillationLoss):
    """A loss with a linear head, [H] -> [C], on each (or only the last) hidden layer of the student."""

    needs = frozenset({"teacher", "hidden"})
    only_last = True

    def __init__(self, hidden_channels: int | Sequence[int] | None = None, num_classes: int | None = None):
        super().__init__()
        sizes = self._sizes(hidden_channels, num_classes)
        used = sizes[-1:] if self.only_last else sizes
        self.heads = nn.ModuleList(nn.Linear(size, num_classes or 0) for size in used)

    def prepare(self, student: Signals, teacher: Signals | None = None) -> None:
        """Create the heads that these signals need, where there are none yet.

        Raises:
            ValueError: these are no signals.
        """
        student = signals(f"{type(self).__name__}: student", student)
        if not self.heads:
            logits = full(student.logits)
            for h in self._layers(student):
                head = nn.Linear(h.size(-1), logits.size(-1), device=logits.device, dtype=logits.dtype)
                self.heads.append(head)

    def exits(self, student: Signals) -> list[Tensor]:
        """Return each head's logits, [N, C].

        Raises:
            ValueError: there are no heads, or they are for other layers or classes than these.
        """
        name = type(self).__name__
        student = signals(f"{name}: student", student)
        layers = self._layers(student)
        if not self.heads:
            raise ValueError(f"{name} has no heads yet: give hidden_channels and num_classes, or call prepare(student)")
        if len(layers) != len(self.heads):
            raise ValueError(f"{name} has {len(self.heads)} heads for {len(layers)} hidden layers")
        exits = list(zip(self.heads, layers, strict=True))
        for head, h in exits:
            _check_head(name, head, h, student.logits)
        return [head(h) for head, h in exits]

    def _layers(self, student: Signals) -> tuple[Tensor, ...]:
        return student.hidden[-1:] if self.only_last else student.hidden

    def _sizes(self, hidden_channels: Any, num_classes: Any) -> list[int]:
        """Check what the constructor was given, and return the widths of the hidden layers."""
        sizes = [] if hidden_channels is None else hidden_channels
        sizes = [sizes] if isinstance(sizes, int) else sizes
        if not isinstance(sizes, list | tuple):
            raise ValueError(f"hidden_channels must be a width or a list of widths, got {shown(hidden_channels)}")
        if (num_classes is None) != (not sizes):
            raise ValueError(f"{type(self).__name__}: give both hidden_channels and num_classes, or neither")
        for size in sizes:
            whole("hidden_channels", size, 1, WIDEST)
        if num_classes is not None:
            whole("num_classes", num_classes, 2, WIDEST)
            if sum(sizes) * num_classes > MOST_WEIGHTS:
                raise ValueError(f"hidden_channels x num_classes must be at most {MOST_WEIGHTS:,} weights")
        return list(sizes)


def _check_head(name: str, head: nn.Module, h: Tensor, logits: Tensor) -> None:
    """Refuse a hidden layer that a head does not take, and logits of other classes than its."""
    assert isinstance(head, nn.Linear)
    made, met = [head.in_features, head.out_features], [h.size(1), logits.size(1)]
    if made != met:
        raise ValueError(f"{name} has a head of {made[0]} columns to {made[1]} classes, here are {met[0]} and {met[1]}")
    together(name, head=head.weight, hidden=h)
    if head.weight.dtype != h.dtype:
        raise ValueError(
            f"{name} has a head of {head.weight.dtype}, the hidden layer is {h.dtype}; call loss.to(dtype)"
        )


class OFA(HeadedLoss):
    """OFA-KD, see `ofa`: the logits and an exit at each hidden layer, summed; gradients reach the backbone.

    The authors take γ = 1 for CIFAR-100, 1.5 for ImageNet. Their exits for images (convolutions, patches) are linear
    ones here.
    """

    needs = frozenset({"teacher", "target", "hidden"})
    only_last = False
    search: ClassVar[dict[str, Any]] = {"gamma": (1.0, 3.0), "temperature": TEMPERATURE, "gamma_on": ["all", "target"]}

    def __init__(
        self,
        hidden_channels: Sequence[int] | None = None,
        num_classes: int | None = None,
        gamma: float = 1.5,
        temperature: float = 1.0,
        gamma_on: str = "all",
    ):
        super().__init__(hidden_channels, num_classes)
        options(gamma=gamma, temperature=temperature, gamma_on=gamma_on)
        positive("gamma", gamma)
        self.gamma, self.temperature, self.gamma_on = gamma, temperature, gamma_on
        if gamma < 1:
            self.warn_once(f"OFA: gamma={gamma:g} can prefer a wrong class to a likely target; take gamma from 1")

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return the sum over the exits, [N]."""
        terms = [
            ofa(logits, teacher.logits, target, self.gamma, self.temperature, self.gamma_on)
            for logits in (student.logits, *self.exits(student))
        ]
        return torch.stack(terms).sum(0)


class DualHead(HeadedLoss):
    """Dual-head KD (DHKD), see `binary_kl`: an auxiliary head matches the teacher, the model's own learns from labels.

    The two pull on the shared backbone only; the model's head receives no gradient. Authors' head is linear for
    ImageNet, an MLP for CIFAR; here it is linear. Left out: their alignment of the two gradients where they conflict,
    which is a rule for the optimiser's step.
    """

    synonyms: ClassVar[set[str]] = {"dhkd"}
    search: ClassVar[dict[str, Any]] = {"temperature": TEMPERATURE, "center": [False, True]}

    def __init__(
        self,
        hidden_channels: int | Sequence[int] | None = None,
        num_classes: int | None = None,
        temperature: float = 2.0,
        center: bool = False,
    ):
        super().__init__(hidden_channels, num_classes)
        options(temperature=temperature, center=center)
        self.temperature, self.center = temperature, center

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return the auxiliary head's loss, [N]."""
        return binary_kl(self.exits(student)[-1], teacher.logits, self.temperature, self.center)


class USKD(HeadedLoss):
    """Teacher-free, see `uskd`; labelled rows only (with a teacher given, its argmax labels the others)."""

    scope = Scope.ALL
    needs = frozenset({"target", "hidden"})
    binary = "there is one non-target class, so its Zipf part is 0"
    search: ClassVar[dict[str, Any]] = {"alpha": (0.1, 2.0), "beta": (0.01, 1.0, "log"), "mu": (0.001, 0.5, "log")}

    def __init__(
        self,
        hidden_channels: int | Sequence[int] | None = None,
        num_classes: int | None = None,
        *,
        alpha: float = 1.0,
        beta: float = 0.1,
        mu: float = 0.005,
        author_code: bool = False,
    ):
        super().__init__(hidden_channels, num_classes)
        options(alpha=alpha, beta=beta, mu=mu, author_code=author_code)
        self.alpha, self.beta, self.mu, self.author_code = alpha, beta, mu, author_code

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats, a scalar over the labelled rows."""
        weak = self.exits(student)[-1]
        self.notice("labels", lambda: "" if bool((target >= 0).any()) else NO_LABELS)
        weights = {"alpha": self.alpha, "beta": self.beta, "mu": self.mu}
        return uskd(student.logits, weak, target, **weights, author_code=self.author_code)


LOSSES = (OFA, DualHead, USKD)
"""The losses of this family; a new one is found by its name from here on."""
