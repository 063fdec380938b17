"""Losses in which a node also learns what the teacher says of its neighbours: KRD, HGMD and FF-G2M.

`edge_index` [2, E] carries messages from row 0 (source j, the neighbour) to row 1 (sink i, the node that learns). The
authors sample or count edges, where hubs rule; here each node has the same say, and a draw is its expectation.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import scatter

from graphkd.checks import full, options
from graphkd.contract import DistillationLoss, Scope
from graphkd.logit import TEMPERATURE, kl, log_probs
from graphkd.signals import Signals

BINS = 50
"""Of the entropy changes among which agreement is compared, as in KRD's code."""
SMALLEST_ENTROPY = 1e-8


def lessons(student: Tensor, teacher: Tensor, edge_index: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return (KL(t_i ‖ s_i) + Σ_j w_ij KL(t_j ‖ s_i)) / (1 + Σ_j w_ij) over in-neighbours j ≠ i, [N] in nats.

    `weight` [E] is constant. KL is linear in t apart from the entropy, so the neighbours' rows are summed first, once,
    and cost no gradient.
    """
    with torch.no_grad():
        log_t = log_probs(teacher, temperature)
        entropy = -(log_t.exp() * log_t).sum(-1, keepdim=True)
        own = torch.cat([log_t.exp(), entropy, torch.ones_like(entropy)], dim=-1)  # [N, C + 2]
        source, sink = edge_index
        counted = torch.where(source == sink, 0, full(weight).to(own.dtype)).unsqueeze(-1)
        total = own + scatter(own.index_select(0, source) * counted, sink, dim=0, dim_size=len(own), reduce="sum")
        total = total / total[:, -1:]
    return -(total[:, :-2] * log_probs(student, temperature)).sum(-1) - total[:, -2]


def krd(student: Tensor, teacher: Tensor, edge_index: Tensor, reliability: Tensor, temperature: float = 1.0) -> Tensor:
    """Learn also from what the teacher says of reliable neighbours (KRD; Wu et al., 2023, arXiv:2306.05628), [N].

    `lessons` with w_ij = r_j, the neighbour's reliability; no T². The authors draw edges with probability r_j and
    average over edges.
    """
    return lessons(student, teacher, edge_index, reliability.index_select(0, edge_index[0]), temperature)


def certainty(logits: Tensor) -> Tensor:
    """Return 1 - H(p) / log C, [N] in [0, 1]: a stand-in for reliability where only a teacher's logits are known."""
    return (1 - _entropy(logits.detach()) / math.log(max(2, logits.size(-1)))).clamp(0, 1)


@torch.no_grad()
def fitted_power(student: Tensor, teacher: Tensor, change: Tensor) -> Tensor:
    """Fit the power a of KRD's reliability 1 - x^a to where a student agrees with its teacher, a scalar in [.05, 20].

    x is `change` [N] in [0, 1], the share of the largest change of entropy under noise. The rate of agreement in each
    of 50 bins of it, brought to [0, 1] by the least and the largest, is what 1 - x^a is fitted to by least squares, as
    in the authors' code; ours counts each bin by its nodes, leaves out empty ones, and searches a grid of 400 powers
    (one per cent apart). Where all bins agree equally, nothing can be fitted: 1.
    """
    place = (change * BINS).long().clamp(0, BINS - 1)
    agreed = (student.argmax(-1) == teacher.argmax(-1)).to(change.dtype)
    count, right = (scatter(it, place, dim_size=BINS, reduce="sum") for it in (torch.ones_like(agreed), agreed))
    rate, there = right / count.clamp(min=1), count > 0
    least, most = (torch.where(there, rate, end).aminmax()[i] for i, end in ((0, 1.0), (1, 0.0)))
    wanted = (rate - least) / (most - least).clamp(min=SMALLEST_ENTROPY)
    x = (torch.arange(BINS, device=change.device, dtype=change.dtype) + 0.5) / BINS
    powers = torch.logspace(math.log10(0.05), math.log10(20), 400, dtype=change.dtype, device=change.device)
    error = (count * (1 - x.pow(powers.unsqueeze(-1)) - wanted).square()).sum(-1)
    return torch.where(most > least, powers.index_select(0, error.argmin().view(1)).squeeze(0), 1)


@torch.no_grad()
def hardness(student: Tensor, teacher: Tensor, edge_index: Tensor, alpha: float = 1.0) -> Tensor:
    """Say how much of a neighbour j a node i should learn (HGMD; Wu et al., 2024, arXiv:2407.14768), [E] in [0, 1].

    1 - exp(-α cos(p_i, p_j) √(H(p_i) H(q_i)) / H(p_j)), entropies as shares of the largest: more where the node is hard
    for the teacher and for the student, from neighbours that are easy and alike.
    """
    source, sink = edge_index
    p = log_probs(teacher).exp()
    alike = F.cosine_similarity(p.index_select(0, sink), p.index_select(0, source), dim=-1)
    mine, theirs = (_shares(_entropy(logits)) for logits in (student, teacher))
    hard = (mine * theirs).sqrt().index_select(0, sink) / theirs.index_select(0, source)
    return -torch.expm1(-alpha * alike * hard)


def hgmd(
    student: Tensor,
    teacher: Tensor,
    edge_index: Tensor,
    alpha: float = 1.0,
    temperature: float = 1.0,
    mixup: bool = False,
) -> Tensor:
    """Learn more from neighbours where a node is hard (HGMD; Wu et al., 2024, arXiv:2407.14768), [N] in nats.

    HGMD-weight: `lessons` with w_ij = e² cos(p_i, p_j), e the node's `hardness` towards j: the authors draw edges with
    probability e and weigh the drawn ones by e cos; no T². HGMD-mixup: what a drawn edge teaches is (1 - e b) p_i +
    e b p_j with b ~ Beta(β, β), so in the mean, whatever β, w_ij = ½ e² / (1 + Σ_k e_ik (1 - ½ e_ik)): the gradient is
    that of the draws, the value lacks the entropy of a mixture. Their α falls to a hundredth over the training; here it
    is constant.
    """
    source, sink = edge_index
    e = hardness(student, teacher, edge_index, alpha)
    if mixup:
        own = torch.where(source == sink, 0, e * (1 - e / 2))
        weight = e.square() / 2 / (1 + scatter(own, sink, dim_size=len(student), reduce="sum")).index_select(0, sink)
    else:
        p = log_probs(teacher.detach()).exp()
        weight = e.square() * F.cosine_similarity(p.index_select(0, sink), p.index_select(0, source), dim=-1)
    return lessons(student, teacher, edge_index, weight, temperature)


def high_frequency(student: Tensor, teacher: Tensor, edge_index: Tensor, temperature: float = 1.0) -> Tensor:
    """Match in which classes linked nodes differ (FF-G2M; Wu et al., 2023, arXiv:2305.10758), [N] in nats.

    The mean over edges j -> i, j ≠ i, of KL(softmax(|t_i - t_j| / T) ‖ softmax(|s_i - s_j| / T)), 0 without any. The
    softmax of |s_i - s_j| sees an offset of a row, as in the authors' code.
    """
    source, sink = edge_index
    apart = [
        F.log_softmax((z.index_select(0, sink) - z.index_select(0, source)).abs() / temperature, dim=-1)
        for z in (full(teacher.detach()), full(student))
    ]
    total = scatter(kl(*apart), sink, dim_size=len(student), reduce="sum")
    degree = scatter((source != sink).to(total.dtype), sink, dim_size=len(student), reduce="sum")
    return total / degree.clamp(min=1)


def _entropy(logits: Tensor) -> Tensor:
    log_p = log_probs(logits)
    return -(log_p.exp() * log_p).sum(-1)


def _shares(entropy: Tensor) -> Tensor:
    """Return entropies as shares of the largest, in (0, 1]."""
    return (entropy / entropy.max().clamp(min=SMALLEST_ENTROPY)).clamp(min=SMALLEST_ENTROPY)


class KRD(DistillationLoss):
    """Knowledge from reliable neighbours, see `krd`.

    Reliabilities ride on the teacher's signals (`teacher.reliability` computes them, once); where they are not
    given, each node counts by the teacher's `certainty` (ours). With `refit` their power follows the student
    (`fitted_power`) in each call in training mode, by a moving average with this `momentum`; it is saved as `power`.
    """

    scope = Scope.EDGES
    needs = frozenset({"teacher", "edge_index"})
    wants = frozenset({"reliability"})
    search: ClassVar[dict[str, Any]] = {"temperature": TEMPERATURE, "refit": [False, True]}
    power: Tensor

    def __init__(self, temperature: float = 1.0, refit: bool = False, momentum: float = 0.9):
        super().__init__()
        options(temperature=temperature, refit=refit, momentum=momentum)
        self.temperature, self.refit, self.momentum = temperature, refit, momentum
        self.register_buffer("power", torch.ones(()))

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        weight = certainty(teacher.logits) if teacher.reliability is None else teacher.reliability
        if self.refit:
            change = 1 - full(weight)
            if self.training:
                now = fitted_power(student.logits, teacher.logits, change).to(self.power)
                self.power = torch.lerp(now, self.power, self.momentum)
            weight = 1 - change.pow(self.power.to(change))
        return krd(student.logits, teacher.logits, edge_index, weight, self.temperature)


class HGMD(DistillationLoss):
    """Hardness-aware lessons from neighbours, see `hgmd`: HGMD-weight, or HGMD-mixup with `mixup`."""

    scope = Scope.ALL  # the largest entropy is that of all rows
    needs = frozenset({"teacher", "edge_index"})
    search: ClassVar[dict[str, Any]] = {
        "alpha": (0.1, 10.0, "log"),
        "temperature": TEMPERATURE,
        "mixup": [False, True],
    }

    def __init__(self, alpha: float = 1.0, temperature: float = 1.0, mixup: bool = False):
        super().__init__()
        options(alpha=alpha, temperature=temperature, mixup=mixup)
        self.alpha, self.temperature, self.mixup = alpha, temperature, mixup

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return the mean over these nodes, in nats."""
        s, t = student.logits, teacher.logits
        return hgmd(s, t, edge_index, self.alpha, self.temperature, self.mixup).mean()


class FFG2M(DistillationLoss):
    """Full-frequency GNN-to-MLP (FF-G2M; Wu et al., 2023, arXiv:2305.10758): `low` and `high` frequencies on edges.

    Low: `lessons` in which every neighbour counts as much as the node, at T = 1. High: see `high_frequency`, at
    `temperature`. The authors average over edges, and give both the same weight.
    """

    scope = Scope.EDGES
    needs = frozenset({"teacher", "edge_index"})
    search: ClassVar[dict[str, Any]] = {"low": (0.1, 2.0), "high": (0.0, 2.0), "temperature": TEMPERATURE}

    def __init__(self, low: float = 1.0, high: float = 1.0, temperature: float = 1.0):
        super().__init__()
        options(low=low, high=high, temperature=temperature)
        self.low, self.high, self.temperature = low, high, temperature

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        s, t = student.logits, teacher.logits
        low = lessons(s, t, edge_index, s.new_ones(edge_index.size(1)), 1.0)
        return self.low * low + self.high * high_frequency(s, t, edge_index, self.temperature)


LOSSES = (KRD, HGMD, FFG2M)
"""The losses of this family; a new one is found by its name from here on."""
