"""What is made of a teacher: one beyond its experts, one that knows how frequent classes are, one believed in part."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from graphkd.checks import alike, options
from graphkd.logit import log_probs
from graphkd.signals import Signals, believed, signals

LEAST_SHARE = 1e3
"""No class is rarer than e to minus this: its logarithm stays a number."""


class Extrapolation(NamedTuple):
    """A teacher beyond the strong expert, and how far beyond it went."""

    logits: Tensor  # [N, C]
    step: Tensor  # [N]; 0: the strong expert, -1: the weak one


def extrapolate(strong: Tensor, weak: Tensor, beta: float = 1.0, max_step: float = 3.0) -> Extrapolation:
    """Go on from the weak expert through the strong one (after AlignDistil, Zhang et al., 2025, arXiv:2503.02832).

    z* = z⁺ + a (z⁺ - z⁻), and a = min(β ‖p⁺ - p⁻‖₁, max_step): further where the graph changed the prediction more.
    Both are normalised first, which changes no probability and keeps a common offset from being multiplied. The
    distance is at most 2, so `max_step` = 3 binds for β above 1.5 alone. Left out: the paper's weight β / a of each
    token's loss, which makes little of the very nodes where the experts differ, and the 0.001 that it adds to a.
    """
    log_strong, log_weak = log_probs(strong.detach()), log_probs(weak.detach())
    distance = (log_strong.exp() - log_weak.exp()).abs().sum(-1)  # [N] in [0, 2]
    step = (beta * distance).clamp(max=max_step)
    return Extrapolation(log_strong + step.unsqueeze(-1) * (log_strong - log_weak), step)


class Extrapolated(nn.Module):
    """A teacher from a strong and a weak expert, see `extrapolate`; it amplifies the strong expert's errors as well."""

    search: ClassVar[dict[str, Any]] = {"beta": (0.25, 2.0, "log"), "max_step": (0.5, 3.0)}

    def __init__(self, beta: float = 1.0, max_step: float = 3.0):
        super().__init__()
        options(beta=beta, max_step=max_step)
        self.beta, self.max_step = beta, max_step

    def forward(self, strong: Signals, weak: Signals) -> Signals:
        """Return the teacher's signals: extrapolated logits, and the strong expert's hidden layers.

        Raises:
            ValueError: these are no signals of two models on the same nodes and classes, or no finite ones.
        """
        strong, weak = (believed(name, signals(name, it)) for name, it in (("strong", strong), ("weak", weak)))
        alike("extrapolated", strong=strong.logits, weak=weak.logits)
        logits = extrapolate(strong.logits, weak.logits, self.beta, self.max_step).logits
        return Signals(logits, strong.hidden, strong.reliability)


@torch.no_grad()
def rebalance(logits: Tensor, trained: Tensor | None = None, steps: int = 1) -> Tensor:
    """Let a teacher of balanced labels speak of nodes whose classes are not equally frequent, log-probabilities [N, C].

    20 labels a class teach that all classes are alike frequent, and nodes between two classes then go to the rarer one
    too often. Saerens et al. (2002, Neural Computation 14:21) have p'_c ∝ p_c π_c / τ_c, with τ the shares of the
    `trained` labels [C] (or their counts; by default equal) and π those of these nodes, which nobody knows: from π = τ,
    each of the `steps` takes the mean of p' for π, a step of expectation maximisation; no label is seen. By default one
    step, where theirs go on to the end: a teacher that is less sure than it is right (an average over neighbours, say)
    drifts to the frequent classes with each further one. `logits` are of all nodes that are to count. With steps=0
    nothing is changed.
    """
    log_p = log_probs(logits)
    shares = log_p.new_ones(log_p.size(1)) if trained is None else trained.to(log_p)
    log_trained = (shares / shares.sum()).log()
    log_shares, found = log_trained, log_p
    for _ in range(steps if len(log_p) else 0):
        log_shares = (found.logsumexp(0) - math.log(len(log_p))).clamp(min=-LEAST_SHARE)
        found = (log_p + log_shares - log_trained).log_softmax(-1)
    return found


@torch.no_grad()
def reliability(logits: Tensor, noisy_logits: Tensor, power: float = 1.0) -> Tensor:
    """Say how far a teacher's nodes can be believed (after KRD, Wu et al., 2023, arXiv:2306.05628), [N] in [0, 1].

    1 - (Δ / max Δ)^power with Δ the change of a prediction's entropy when noise N(0, 1) is added to the node
    features: `noisy_logits` are the teacher's, in evaluation mode, on those. All 1 where nothing changes. Compute
    it once, with the teacher's logits; the authors refit `power` to the student while it trains, here it is an option.
    """
    change = (_entropy(noisy_logits) - _entropy(logits)).abs()
    largest = change.max() if change.numel() else change.sum()
    return 1 - torch.where(largest > 0, change / largest, torch.zeros_like(change)).pow(power)


def _entropy(logits: Tensor) -> Tensor:
    log_p = log_probs(logits)
    return -(log_p.exp() * log_p).sum(-1)
