"""Ways to calibrate a whole prediction on nodes with labels, none of which can change the predicted class.

A node's log-probabilities z [C] become z / T(v), T > 0, and are normalised again. T is one number (Guo et al., 2017,
arXiv 1706.04599), one for each group of nodes, or chosen for each node by a gate that sees what the experts say and its
degree (the idea of GETS, Zhuang et al., 2024, arXiv 2410.09570).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mowst.evaluation.calibration import finite, temperature
from mowst.models import Logits, Output, as_output

STEP = math.log(2.0)
"""Of the gate's temperatures: half, once and twice the common one."""
PULL = 1.0
"""Weight of the squared norm of the gate's numbers, against the sum over nodes of their cross-entropy in nats."""


def tempered(out: Output | Tensor, temperatures: Tensor | float) -> Logits:
    """Divide log-probabilities by temperatures, one for all or [n], and return them as logits [n, C]."""
    log_p = finite(as_output(out).log_probs())
    divisors = torch.as_tensor(temperatures, dtype=log_p.dtype)
    return Logits(log_p / (divisors if divisors.dim() == 0 else divisors.unsqueeze(-1)))


def common(out: Output | Tensor, y: Tensor, nodes: Tensor) -> float:
    """Fit one temperature on some nodes: mask [n] with labels [n] there."""
    return temperature(as_output(out).log_probs()[nodes], y[nodes])


def by_group(out: Output | Tensor, y: Tensor, nodes: Tensor, group: Tensor) -> Tensor:
    """Fit a temperature for each group on the nodes of a mask [n] that are in it; `group` [n] numbers them -> [n].

    A group without such a node keeps 1.
    """
    log_p = as_output(out).log_probs()
    temperatures = torch.ones(len(y), dtype=torch.float64)
    for each in torch.unique(group).tolist():
        inside = group == each
        temperatures[inside] = temperature(log_p[nodes & inside], y[nodes & inside])
    return temperatures


def gated(out: Output | Tensor, y: Tensor, nodes: Tensor, seen: Tensor) -> Tensor:
    """Fit a gate over three temperatures on the nodes of a mask [n], and return each node's temperature, [n].

    log T(v) = log T + sum_m softmax(W s(v) + b)_m t_m with T the common temperature, t = (-log 2, 0, log 2), and s(v)
    the standardised columns of `seen` [n, D]. Minimises the cross-entropy plus |W|^2 + |b|^2, by L-BFGS.
    """
    log_p = finite(as_output(out).log_probs())
    nodes, labels = nodes.cpu(), y.cpu()[nodes.cpu()]
    seen = finite(seen)
    inputs = (seen - seen.mean(dim=0)) / seen.std(dim=0).clamp_min(1e-9)
    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=-1)
    steps = STEP * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    base = math.log(common(log_p, y.cpu(), nodes))
    weight = torch.zeros(inputs.size(-1), 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def log_temperatures(rows: Tensor) -> Tensor:
        return base + (rows @ weight).softmax(dim=-1) @ steps

    def closure() -> Tensor:
        optimizer.zero_grad()
        divided = log_p[nodes] / log_temperatures(inputs[nodes]).exp().unsqueeze(-1)
        loss = F.cross_entropy(divided, labels, reduction="sum") + PULL * (weight**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return log_temperatures(inputs).exp().detach()
