"""Losses that compare how nodes or classes resemble each other (SP, DIST), and one that regresses hidden layers (Hint).

Gram matrices of all nodes are never formed: their inner products are those of small matrices, O(N H H').
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphkd.checks import MOST_WEIGHTS, WIDEST, full, options, together, whole
from graphkd.contract import DistillationLoss, Scope
from graphkd.logit import TEMPERATURE, log_probs
from graphkd.relation import Relation
from graphkd.signals import Signals, signals

SMALLEST_NORM = 1e-12
"""Below which a row or a column counts as constant; it is then similar to nothing."""


def sp(student: Tensor, teacher: Tensor, normalize: bool = True) -> Tensor:
    """Preserve which nodes resemble each other: ‖G(teacher) - G(student)‖² / N², a scalar.

    G is the Gram matrix HH' of a representation [N, H], with `normalize` each of its rows divided by its length, as in
    similarity-preserving KD (Tung & Mori, 2019, arXiv:1907.09682, eq. 4); without, NOSMOG's representational similarity
    (Tian et al., 2023, arXiv:2208.10010). Of ‖G_t‖² - 2 <G_t, G_s> + ‖G_s‖² each term is <A'B, C'D> of small matrices.
    """
    s, t = full(student), full(teacher.detach())
    t = t.to(torch.promote_types(s.dtype, t.dtype))
    s = s.to(t.dtype)
    s_row, t_row = (_lengthened(h) if normalize else h for h in (s, t))

    def inner(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return ((a.t() @ b) * (c.t() @ d)).sum()  # <a c', b d'>

    apart = inner(t_row, t_row, t, t) - 2 * inner(t_row, s_row, t, s) + inner(s_row, s_row, s, s)
    return apart / student.size(0) ** 2


def _lengthened(h: Tensor) -> Tensor:
    """Return the rows of h divided by the lengths of those of hh', [N, H]."""
    squared = ((h @ (h.t() @ h)) * h).sum(-1, keepdim=True)
    there = squared > SMALLEST_NORM**2
    return torch.where(there, h / torch.where(there, squared, 1).sqrt(), 0)


def dist(student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> Tensor:
    """Match relations instead of values (DIST; Huang et al., 2022, arXiv:2205.10536, eq. 9 and 10), a scalar.

    T² (β mean_i (1 - ρ(q_i, p_i)) + γ mean_c (1 - ρ(q_·c, p_·c))) with ρ Pearson's correlation: of a node's
    probabilities over the classes, and of a class's over the nodes.
    """
    p, q = (log_probs(logits, temperature).exp() for logits in (teacher.detach(), student))
    within, across = (1 - correlation(q, p)).mean(), (1 - correlation(q.t(), p.t())).mean()
    return temperature**2 * (beta * within + gamma * across)


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Pearson's correlation of the rows of two matrices, [rows]; 0 where one is constant."""
    first, second = (rows - rows.mean(-1, keepdim=True) for rows in (first, second))
    lengths = [rows.square().sum(-1).clamp(min=SMALLEST_NORM).sqrt() for rows in (first, second)]
    return (first * second).sum(-1) / (lengths[0] * lengths[1])


class SP(Relation):
    """Similarity-preserving KD, see `sp`; `normalize=False` is NOSMOG's representational similarity.

    NOSMOG puts a linear layer, ReLU and dropout between the student's hidden layer and this; left out.
    """

    scope = Scope.ALL
    search: ClassVar[dict[str, Any]] = {"normalize": [True, False], "of": ["logits", "hidden"]}

    def __init__(self, normalize: bool = True, of: str = "logits"):
        super().__init__(of)
        options(normalize=normalize)
        self.normalize = normalize

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return a scalar over the pairs of these rows."""
        return sp(*self.views(student, teacher), self.normalize)


class DIST(DistillationLoss):
    """Distillation from a stronger teacher, see `dist`: blind to a scale and a shift of probabilities."""

    scope = Scope.ALL
    search: ClassVar[dict[str, Any]] = {
        "beta": (0.1, 4.0, "log"),
        "gamma": (0.1, 4.0, "log"),
        "temperature": TEMPERATURE,
    }
    binary = "a node's two probabilities correlate by 1 or -1, so the part of β is constant and only that of γ is left"

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0):
        super().__init__()
        options(beta=beta, gamma=gamma, temperature=temperature)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return a scalar over these rows."""
        return dist(student.logits, teacher.logits, self.beta, self.gamma, self.temperature)


class Hint(DistillationLoss):
    """FitNet's hint (Romero et al., 2015, arXiv:1412.6550, eq. 3): ½ ‖W h + b - h_teacher‖² / H', [N].

    The last hidden layers of both models, with a linear map between their widths that is trained along. The paper takes
    middle layers, trains on the hint first and on labels afterwards (here: a weight), and does not divide by the
    teacher's width H'.
    """

    needs = frozenset({"teacher", "hidden", "teacher_hidden"})
    synonyms: ClassVar[set[str]] = {"fitnet"}

    def __init__(self, hidden_channels: int | None = None, teacher_channels: int | None = None):
        super().__init__()
        if (hidden_channels is None) != (teacher_channels is None):
            raise ValueError(f"{type(self).__name__}: give both hidden_channels and teacher_channels, or neither")
        self.map: nn.Linear | None = None
        if hidden_channels is not None and teacher_channels is not None:
            whole("hidden_channels", hidden_channels, 1, WIDEST)
            whole("teacher_channels", teacher_channels, 1, WIDEST)
            if hidden_channels * teacher_channels > MOST_WEIGHTS:
                raise ValueError(f"hidden_channels x teacher_channels must be at most {MOST_WEIGHTS:,} weights")
            self.map = nn.Linear(hidden_channels, teacher_channels)

    def prepare(self, student: Signals, teacher: Signals | None = None) -> None:
        """Create the map between these layers, where there is none yet.

        Raises:
            ValueError: these are no signals of two models with hidden layers.
        """
        name = type(self).__name__
        student, teacher = signals(f"{name}: student", student), signals(f"{name}: teacher", teacher)
        self._check_needs(student, teacher, None, None)
        if self.map is None:
            h = full(student.hidden[-1])
            self.map = nn.Linear(h.size(1), teacher.hidden[-1].size(1), device=h.device, dtype=h.dtype)

    def mapped(self, student: Signals, teacher: Signals) -> Tensor:
        """Return the student's last hidden layer in the space of the teacher's, [N, H'].

        Raises:
            ValueError: there is no map, or it is for other layers than these.
        """
        name, h, wanted = type(self).__name__, student.hidden[-1], teacher.hidden[-1]
        if self.map is None:
            raise ValueError(f"{name} has no map yet: give hidden_channels and teacher_channels, or call prepare")
        made, met = [self.map.in_features, self.map.out_features], [h.size(1), wanted.size(1)]
        if made != met:
            raise ValueError(f"{name} maps {made[0]} columns to {made[1]}, here are {met[0]} and {met[1]}")
        together(name, map=self.map.weight, hidden=h)
        if self.map.weight.dtype != h.dtype:
            kinds = f"{self.map.weight.dtype}, the hidden layer of {h.dtype}"
            raise ValueError(f"{name} is of {kinds}; call loss.to(dtype)")
        mapped: Tensor = self.map(h)
        return mapped

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return half the mean squared error of each node, [N]."""
        return (self.mapped(student, teacher) - teacher.hidden[-1]).square().mean(-1) / 2


LOSSES = (SP, DIST, Hint)
"""The losses of this family; a new one is found by its name from here on."""
