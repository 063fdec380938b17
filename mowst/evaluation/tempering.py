"""Ways to calibrate a whole prediction on nodes with labels.

A node's log-probabilities z [C] become z / T(v) + b, T > 0, and are normalised again. T is one number (Guo et al.,
2017, arXiv 1706.04599), one for each group of nodes, or chosen for each node by a gate that sees what the experts say
and its degree (the idea of GETS, Zhuang et al., 2024, arXiv 2410.09570): then b = 0, and the likeliest class stays.
Offsets b of the classes (Alexandari et al., 2020, arXiv 1901.06852) are for classes that are more or less frequent than
among the training labels, as where so many of each were labelled on purpose; they may make another class the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import index_to_mask

from mowst.evaluation.calibration import finite, temperature
from mowst.evaluation.descent import descend
from mowst.evaluation.structure import degrees
from mowst.models import Logits, Mixture, Output, as_output, negentropy, piecewise, probabilities

STEP = math.log(2.0)
"""Of the gate's temperatures: half, once and twice the common one."""
FOLDS = 5
PULL = 1.0
"""Weight of the squared norm of the gate's numbers, against the sum over nodes of their cross-entropy in nats."""
PULL_OFFSETS = 10.0
"""The same of the offsets of classes."""


def tempered(out: Output | Tensor, temperatures: Tensor | float) -> Logits:
    """Divide log-probabilities by temperatures, one for all or [n], and return them as logits [n, C]."""
    log_p = finite(as_output(out).log_probs())
    divisors = torch.as_tensor(temperatures, dtype=log_p.dtype, device=log_p.device)
    return Logits(log_p / (divisors if divisors.dim() == 0 else divisors.unsqueeze(-1)))


def common(out: Output | Tensor, y: Tensor, nodes: Tensor) -> float:
    """Fit one temperature on some nodes: mask [n] with labels [n] there."""
    return temperature(as_output(out).log_probs()[nodes], y[nodes])


def by_group(out: Output | Tensor, y: Tensor, nodes: Tensor, group: Tensor) -> Tensor:
    """Fit a temperature for each group on the nodes of a mask [n] that are in it; `group` [n] numbers them -> [n].

    A group without such a node keeps 1.
    """
    log_p = as_output(out).log_probs()
    temperatures = torch.ones(len(y), dtype=torch.float64, device=group.device)
    for each in torch.unique(group).tolist():
        inside = group == each
        temperatures[inside] = temperature(log_p[nodes & inside], y[nodes & inside])
    return temperatures


class TemperatureGate(NamedTuple):
    """A gate over three temperatures: log T(v) = log T + sum_m softmax(W s(v))_m t_m, t = (-log 2, 0, log 2).

    Or, with weights of 0, one temperature and offsets of the classes.
    """

    common: float
    """T, which a gate without weights gives everywhere."""
    weight: list[list[float]]
    """W [D + 1, 3]; the last row is for a column of ones."""
    mean: list[float]
    """[D], of the columns that it sees."""
    deviation: list[float]
    """[D]."""
    offsets: Sequence[float] = ()
    """b [C], added to the log-probabilities after the division; none: 0."""

    def calibrated(self, out: Output | Tensor, seen: Tensor) -> Logits:
        """Return log-probabilities of all nodes as they are after calibration, as logits [N, C]."""
        logits = tempered(out, self.temperatures(seen)).values
        return Logits(logits + torch.tensor(self.offsets, dtype=logits.dtype)) if self.offsets else Logits(logits)

    def temperatures(self, seen: Tensor) -> Tensor:
        """Return each node's temperature, [N, D] -> [N]; at least half the common one and at most twice it."""
        inputs = standardized(seen, *(torch.tensor(each, dtype=torch.float64) for each in (self.mean, self.deviation)))
        return log_temperatures(inputs, torch.tensor(self.weight, dtype=torch.float64), self.common).exp()


def standardized(seen: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Bring columns [n, D] to mean 0 and deviation 1, and add one of ones -> [n, D + 1]."""
    inputs = (finite(seen) - mean) / deviation
    return torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=-1)


def log_temperatures(inputs: Tensor, weight: Tensor, common: float) -> Tensor:
    """[n, D + 1], [D + 1, 3] -> [n]."""
    steps = STEP * torch.arange(-1.0, 2.0, dtype=torch.float64, device=inputs.device)
    return math.log(common) + (inputs @ weight).softmax(dim=-1) @ steps


def gate(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> TemperatureGate:
    """Fit a gate over temperatures on the nodes of a mask [n], from columns `seen` [n, D].

    Minimises the cross-entropy plus |W|^2, by L-BFGS, from the common temperature, where the output is.
    """
    seen, nodes = finite(seen), nodes.cpu()
    log_p, labels = on_nodes(out, y, nodes)
    base = temperature(log_p, labels)
    mean, deviation = seen.mean(dim=0), seen.std(dim=0, correction=0).clamp_min(1e-9)
    inputs = standardized(seen[nodes], mean, deviation).to(log_p.device)
    weight = log_p.new_zeros(inputs.size(-1), 3, requires_grad=True)

    def loss() -> Tensor:
        divided = log_p / log_temperatures(inputs, weight, base).exp().unsqueeze(-1)
        return F.cross_entropy(divided, labels, reduction="sum") + PULL * (weight**2).sum()

    descend([weight], loss)
    return TemperatureGate(base, weight.tolist(), mean.tolist(), deviation.tolist())


def level(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> TemperatureGate:
    """Fit an offset for each class, after the common temperature, on the nodes of a mask [n]; `seen` only tells D.

    Minimises the cross-entropy plus 10 |b|^2, by L-BFGS, from 0.
    """
    log_p, labels = on_nodes(out, y, nodes.cpu())
    base = temperature(log_p, labels)
    offsets = log_p.new_zeros(log_p.size(-1), requires_grad=True)

    def loss() -> Tensor:
        raised = log_p / base + offsets
        return F.cross_entropy(raised, labels, reduction="sum") + PULL_OFFSETS * (offsets**2).sum()

    descend([offsets], loss)
    return idle(seen.size(-1))._replace(common=base, offsets=offsets.tolist())


def on_nodes(out: Output | Tensor, y: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities [n, C] and labels [n] of some nodes, where the output is."""
    log_p = finite(as_output(out).rows(nodes).log_probs())
    return log_p, y.cpu()[nodes].to(log_p.device)


def idle(columns: int) -> TemperatureGate:
    """Return a gate that sees so many columns and changes nothing."""
    return TemperatureGate(1.0, [[0.0] * 3] * (columns + 1), [0.0] * columns, [1.0] * columns)


def surest(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> TemperatureGate:
    """Fit a gate, or offsets: the one that gains more, if it surely does where it was not fitted; else change nothing.

    The nodes of the mask are divided into five parts, and each is judged by what was fitted on the others: the gain in
    log-likelihood must be above its standard error.
    """
    seen, nodes, y = finite(seen), nodes.cpu(), y.cpu()
    index, best, most = nodes.nonzero().squeeze(-1), idle(seen.size(-1)), 0.0
    log_p = on_nodes(out, y, index)[0].cpu()
    if len(index) < FOLDS:
        return best
    for fit in (gate, level):
        gains = torch.empty(len(index), dtype=torch.float64)
        fold = torch.arange(len(index)) % FOLDS
        for each in range(FOLDS):
            fitted, left = fit(out, y, index_to_mask(index[fold != each], size=len(y)), seen), index[fold == each]
            before = log_p[fold == each]
            after = fitted.calibrated(before, seen[left]).log_probs()
            gains[fold == each] = (after - before).gather(-1, y[left].unsqueeze(-1)).squeeze(-1)
        gain = float(gains.mean())
        if gain > max(most, float(gains.std(correction=0)) / len(index) ** 0.5):
            best, most = fit(out, y, nodes, seen), gain
    return best


def signals(out: Mixture, edge_index: Tensor) -> Tensor:
    """Return what the gate sees of each node of a mixture, [N, 5] in float64.

    The logarithms of the two largest probabilities, both experts' negentropies, and log(1 + degree).
    """
    many = degrees(edge_index.cpu(), len(out.weak)).double().log1p()

    def of(rows: slice) -> Tensor:
        some = out.rows(rows).cpu()
        log_p = some.log_probs().double()
        first = log_p.topk(2, dim=-1).values if log_p.size(-1) > 1 else log_p
        certain = [negentropy(probabilities(logits.double())) for logits in (some.weak, some.strong)]
        return torch.cat([first, torch.stack([*certain, many[rows]], dim=-1)], dim=-1)

    return piecewise(of, len(out.weak))
