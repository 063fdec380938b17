"""Ways to calibrate a whole prediction on nodes with labels.

A node's log-probabilities z [C] become z / T(v) + b, T > 0, and are normalised again. T is one number (Guo et al.,
2017, arXiv 1706.04599), one for each group of nodes, or chosen for each node by a gate that sees what the experts say
and its degree (the idea of GETS, Zhuang et al., 2024, arXiv 2410.09570): then b = 0, and the likeliest class stays.
Offsets b of the classes (Alexandari et al., 2020, arXiv 1901.06852) are for classes that are more or less frequent than
among the training labels, as where so many of each were labelled on purpose; they may make another class the likeliest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mowst.evaluation.calibration import finite, temperature
from mowst.evaluation.descent import Graded, descend
from mowst.evaluation.structure import degrees
from mowst.models import Logits, Mixture, Output, as_output, negentropy, piecewise, probabilities

STEP = math.log(2.0)
"""Of the gate's temperatures: half, once and twice the common one."""
FOLDS = 5
PULL = 1.0
"""Weight of the squared norm of the gate's numbers, against the sum over nodes of their cross-entropy in nats."""
PULL_OFFSETS = 10.0
"""The same of the offsets of classes."""
TOGETHER = 2**21
"""Numbers up to which subsets are fitted in one descent on a CPU, whose cache has no room for more."""


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
    return math.log(common) + tilted(inputs, weight)


def tilted(inputs: Tensor, weight: Tensor) -> Tensor:
    """Return by how much each node's log T is above the common one, [n, D + 1], [..., D + 1, 3] -> [..., n]."""
    steps = STEP * torch.arange(-1.0, 2.0, dtype=torch.float64, device=inputs.device)
    return (inputs @ weight).softmax(dim=-1) @ steps


class Labelled(NamedTuple):
    """Nodes with labels, where calibration is fitted."""

    log_p: Tensor
    """Log-probabilities [n, C] in float64, where the output is."""
    y: Tensor
    """Labels [n], there."""
    seen: Tensor
    """Columns of these nodes, [n, D]."""
    mean: Tensor
    """[D], of the columns of all nodes."""
    deviation: Tensor
    """[D]."""

    @classmethod
    def of(cls, out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> Labelled:
        """Take the nodes of a mask, [N]; `seen` [N, D] is of all."""
        nodes, seen = nodes.cpu(), finite(seen)
        log_p = finite(as_output(out).rows(nodes).log_probs())
        deviation = seen.std(dim=0, correction=0).clamp_min(1e-9)
        return cls(log_p, y.cpu()[nodes].to(log_p.device), seen[nodes], seen.mean(dim=0), deviation)

    def some(self, kept: Tensor) -> Labelled:
        """Return those of a subset, [n]."""
        return self._replace(log_p=self.log_p[kept], y=self.y[kept], seen=self.seen[kept.cpu()])

    def commons(self, kept: Tensor) -> list[float]:
        """Return the common temperature of each of some subsets, [K, n]."""
        return [temperature(self.log_p[some], self.y[some]) for some in kept]

    def missing(self, kept: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return a function of log T [K, n] and offsets [K, C]: the cross-entropy, summed over subsets [K, n]."""
        room = self.log_p.new_empty(2, len(kept), *self.log_p.shape)
        right, shares = self.y.expand(len(kept), -1).unsqueeze(-1), kept.to(self.log_p).unsqueeze(-1)
        return lambda log_t, offsets: _missed(log_t, offsets, self.log_p, right, shares, room)[0]


Fit = Callable[[Labelled, Tensor], list[TemperatureGate]]
"""Fits a calibration to each of several subsets of the same nodes, [K, n], in one descent."""


def fitted(fit: Fit, on: Labelled, kept: Tensor) -> list[TemperatureGate]:
    """Fit to each of some subsets, [K, n]: in one descent where that is as fast, else to one after the other."""
    if on.log_p.device.type != "cpu" or kept.numel() * on.log_p.size(1) <= TOGETHER:
        return fit(on, kept)
    return [fit(part := on.some(each), whole(part))[0] for each in kept]


def gates(on: Labelled, kept: Tensor) -> list[TemperatureGate]:
    """Fit a gate over temperatures to each of some subsets: cross-entropy plus |W|^2, from the common temperature."""
    bases, missing = on.commons(kept), on.missing(kept)
    inputs = standardized(on.seen, on.mean, on.deviation).to(on.log_p.device)
    log_base, none = on.log_p.new_tensor(bases).log().unsqueeze(1), on.log_p.new_zeros(len(kept), on.log_p.size(1))
    weight = on.log_p.new_zeros(len(kept), inputs.size(1), 3, requires_grad=True)
    descend([weight], lambda: missing(log_base + tilted(inputs, weight), none) + PULL * (weight**2).sum())
    seen = on.mean.tolist(), on.deviation.tolist()
    return [TemperatureGate(base, each.tolist(), *seen) for base, each in zip(bases, weight, strict=True)]


def levels(on: Labelled, kept: Tensor) -> list[TemperatureGate]:
    """Fit offsets of classes to each of some subsets, after the common temperature: cross-entropy plus 10 |b|^2."""
    bases, missing = on.commons(kept), on.missing(kept)
    log_t = on.log_p.new_tensor(bases).log().unsqueeze(1).expand(-1, len(on.y))
    offsets = on.log_p.new_zeros(len(kept), on.log_p.size(1), requires_grad=True)
    descend([offsets], lambda: missing(log_t, offsets) + PULL_OFFSETS * (offsets**2).sum())
    plain = idle(on.seen.size(1))
    found = zip(bases, offsets, strict=True)
    return [plain._replace(common=base, offsets=each.tolist()) for base, each in found]


def whole(on: Labelled) -> Tensor:
    """Return the subset that has all of them, [1, n]."""
    return torch.ones(1, len(on.y), dtype=torch.bool, device=on.y.device)


def gate(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> TemperatureGate:
    """Fit a gate over temperatures on the nodes of a mask [N], from columns `seen` [N, D], as `gates` does."""
    return gates(on := Labelled.of(out, y, nodes, seen), whole(on))[0]


def level(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> TemperatureGate:
    """Fit an offset for each class on the nodes of a mask [N], as `levels` does; `seen` [N, D] only tells D."""
    return levels(on := Labelled.of(out, y, nodes, seen), whole(on))[0]


class _Missed(Graded):
    """Cross-entropy of log-probabilities [n, C] over T [K, n] plus offsets [K, C], by shares [K, n, 1] of the nodes.

    Its gradient is there with its value, and both are made in the same room, [2, K, n, C].
    """

    @staticmethod
    def forward(
        log_t: Tensor, offsets: Tensor, log_p: Tensor, right: Tensor, shares: Tensor, room: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scaled, said = room
        torch.mul(log_p, (-log_t).exp().unsqueeze(-1), out=scaled)
        torch.add(scaled, offsets.unsqueeze(1), out=said)
        said -= said.amax(2, keepdim=True)
        own = said.gather(2, right)
        total = said.exp_().sum(2, keepdim=True)
        missed = ((total.log() - own) * shares).sum()
        said.mul_(shares / total).scatter_add_(2, right, -shares)
        return missed, -scaled.mul_(said).sum(2), said.sum(1)


_missed: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Missed.apply


def idle(columns: int) -> TemperatureGate:
    """Return a gate that sees so many columns and changes nothing."""
    return TemperatureGate(1.0, [[0.0] * 3] * (columns + 1), [0.0] * columns, [1.0] * columns)


def surest(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> TemperatureGate:
    """Fit a gate, or offsets: the one that gains more, if it surely does where it was not fitted; else change nothing.

    The nodes of the mask are divided into five parts, and each is judged by what was fitted on the others: the gain in
    log-likelihood must be above its standard error.
    """
    on, best, most = Labelled.of(out, y, nodes, seen), idle(seen.size(-1)), 0.0
    if len(on.y) < FOLDS:
        return best
    fold = torch.arange(len(on.y), device=on.y.device) % FOLDS
    held = torch.stack([fold == each for each in range(FOLDS)])
    fits: tuple[Fit, ...] = gates, levels
    for fit in fits:
        *parts, final = fitted(fit, on, torch.cat([~held, whole(on)]))
        gains = torch.empty(len(on.y), dtype=torch.float64)
        for part, left in zip(parts, held.cpu(), strict=True):
            before, labels = on.log_p.cpu()[left], on.y.cpu()[left].unsqueeze(-1)
            after = part.calibrated(before, on.seen[left]).log_probs()
            gains[left] = (after - before).gather(-1, labels).squeeze(-1)
        gain = float(gains.mean())
        if gain > max(most, float(gains.std(correction=0)) / len(gains) ** 0.5):
            best, most = final, gain
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
