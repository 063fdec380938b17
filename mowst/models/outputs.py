"""What a model says: logits of an expert on its own, or a mixture of two. Everything else is a function of it.

Notation: p, q the weak and the strong expert's probabilities [N, C], c the confidence [N], s the scale [N].
Without a scale a mixture is the linear pool c p + (1 - c) q. With one it is the logarithmic pool
softmax(s (c log p + (1 - c) log q)): s = 1 is a weighted geometric mean, s = 2 at c = 1/2 the product p q, which is
Bayes' rule for independent evidence.

`Logits` and `Mixture` answer the same three questions: `log_probs()` of the prediction, the same for some `rows`, and
what `of` one expert says alone.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from graphkd.logit import log_probs

__all__ = [
    "ROLES",
    "Gated",
    "Logits",
    "Mixture",
    "Output",
    "as_output",
    "hard",
    "log_pool",
    "log_probs",
    "probabilities",
]

ROLES = ("weak", "strong")
"""The two experts of a mixture by the part they play."""


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes in at least float32, [N, C] -> [N, C]."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1)


class Gated(NamedTuple):
    """What a gate answers."""

    confidence: Tensor
    """[N] in [0, 1]: the weak expert's share of the weight."""
    scale: Tensor | None = None
    """[N] > 0: total weight of a logarithmic pool; none: linear pool."""

    def rows(self, index: Tensor | slice) -> Gated:
        """Return the same for some nodes: ids [n], a mask [N], or a slice."""
        return Gated(self.confidence[index], None if self.scale is None else self.scale[index])


class Logits(NamedTuple):
    """The output of an expert on its own."""

    values: Tensor
    """[N, C]."""

    def log_probs(self) -> Tensor:
        """Log-probabilities of the prediction, [N, C] in nats."""
        return log_probs(self.values)

    def probs(self) -> Tensor:
        """Probabilities of the prediction, [N, C]."""
        return probabilities(self.values)

    def scores(self) -> Tensor:
        """Numbers [N, C] whose largest in a row is the predicted class."""
        return self.values

    def rows(self, index: Tensor | slice) -> Self:
        """Return the output for some nodes: ids [n], a mask [N], or a slice."""
        return type(self)(self.values[index])

    def cpu(self) -> Logits:
        """Return the output on the CPU."""
        return Logits(self.values.cpu())

    def of(self, role: str) -> Logits:
        """Return itself; there is no part to ask for."""
        assert not role, f"an expert on its own has no {role} part"
        return self


class Mixture(NamedTuple):
    """The output of a mixture; loss, metric, routing and report are plain functions of it."""

    weak: Tensor
    """[N, C] logits of the weak expert."""
    strong: Tensor
    """[N, C] logits of the strong expert."""
    confidence: Tensor
    """[N] in [0, 1]: the weak expert's share of the weight."""
    scale: Tensor | None = None
    """[N] > 0: total weight of a logarithmic pool; none: linear pool."""

    def log_probs(self) -> Tensor:
        """Log-probabilities of the pool, [N, C] in nats."""
        return log_pool(self)

    def probs(self) -> Tensor:
        """Probabilities of the pool, [N, C]."""
        return log_pool(self).exp()

    def scores(self) -> Tensor:
        """Numbers [N, C] whose largest in a row is the predicted class."""
        return log_pool(self)

    def rows(self, index: Tensor | slice) -> Mixture:
        """Return the output for some nodes: ids [n], a mask [N], or a slice."""
        scale = None if self.scale is None else self.scale[index]
        return Mixture(self.weak[index], self.strong[index], self.confidence[index], scale)

    def cpu(self) -> Mixture:
        """Return the output on the CPU."""
        scale = None if self.scale is None else self.scale.cpu()
        return Mixture(self.weak.cpu(), self.strong.cpu(), self.confidence.cpu(), scale)

    def of(self, role: str) -> Logits:
        """Return what the `weak` or the `strong` expert says alone; with "", the logarithm of the pool."""
        return Logits({"weak": self.weak, "strong": self.strong}[role] if role else log_pool(self))


Output = Mixture | Logits
"""What a model gives."""


def as_output(said: Tensor | Output) -> Output:
    """Return what a module said as an output: plain logits [N, C] get their name."""
    return Logits(said) if isinstance(said, Tensor) else said


def log_pool(out: Mixture) -> Tensor:
    """Log-probabilities of the pool, [N, C] in nats; value and gradient are finite for confidences of 0 and 1."""
    weak, strong = log_probs(out.weak), log_probs(out.strong)
    c = out.confidence.to(weak.dtype).unsqueeze(-1)
    if out.scale is not None:
        return (out.scale.unsqueeze(-1) * (c * weak + (1 - c) * strong)).log_softmax(dim=-1)
    tiny = torch.finfo(weak.dtype).tiny
    return torch.logaddexp(c.clamp_min(tiny).log() + weak, (1 - c).clamp_min(tiny).log() + strong)


def hard(out: Mixture, threshold: float = 0.5) -> Mixture:
    """Round the confidence: each node goes to one expert, to the weak one from the threshold on."""
    return Mixture(out.weak, out.strong, (out.confidence >= threshold).to(out.confidence.dtype))
