"""The mixture of a weak and a strong expert (Mowst; Zeng et al., ICLR 2024, arXiv 2311.05185).

Notation: p, q the two experts' probabilities `[N, C]`, c the confidence `[N]`, s the scale `[N]`.
Without a scale the mixture is the linear pool c p + (1 - c) q. With one it is the logarithmic pool
softmax(s (c log p + (1 - c) log q)): s = 1 is a weighted geometric mean, s = 2 at c = 1/2 the product p q, which is
Bayes' rule for independent evidence.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mowst.errors import InputError
from mowst.kernels.adjacency import suited
from mowst.kernels.sparse_features import suited_features
from mowst.models.gates import Gated

EXPERTS = ("weak", "strong")


class Mixture(NamedTuple):
    """The one output of the model; loss, metric, routing and report are plain functions of it."""

    weak: Tensor
    """[N, C] logits of the weak expert."""
    strong: Tensor
    """[N, C] logits of the strong expert."""
    confidence: Tensor
    """[N] in [0, 1]: the weak expert's share of the weight."""
    scale: Tensor | None = None
    """[N] > 0: total weight of a logarithmic pool; none: linear pool."""


def log_probs(logits: Tensor) -> Tensor:
    """Log-softmax over the classes in at least float32, [N, C] -> [N, C] in nats."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)


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


def weigh(gate: nn.Module, weak: Tensor, x: Tensor, strong: Tensor | None) -> Gated:
    """Ask the gate; one that says nothing of `needs_strong` sees the weak expert alone.

    Raises:
        InputError: it answers something else than `Gated`.
    """
    said = gate(weak, x, strong) if getattr(gate, "needs_strong", False) else gate(weak, x)
    if not isinstance(said, Gated):
        raise InputError(f"gate {type(gate).__name__}: must return mowst.models.gates.Gated, not {type(said).__name__}")
    return said


class Mowst(nn.Module):
    """A weak expert, a strong expert, and a gate that says how far to trust the weak one at each node.

    Args:
        weak, strong: modules `(x, edge_index) -> logits [N, C]`.
        gate: module `(weak_logits, x, strong_logits=None) -> Gated` (`mowst.models.gates`).
        router: a gate that sees the weak expert alone, asked where nodes are given to one expert and `gate` needs both.

    `temperature [2]` divides the logits of the weak and of the strong expert; 1 until something calibrates them
    (`mowst.evaluation.calibration`). Where each node is given to one expert, the weak one gets those whose confidence reaches
    `threshold`: 1/2, for which a router is fitted, until something chooses another; infinite, or not a number: it
    gets none.
    """

    takes_adjacency = True
    takes_sparse_features = True

    temperature: Tensor
    threshold: Tensor

    def __init__(self, weak: nn.Module, strong: nn.Module, gate: nn.Module, router: nn.Module | None = None):
        super().__init__()
        self.weak, self.strong, self.gate, self.router = weak, strong, gate, router
        self.register_buffer("temperature", torch.ones(2))
        self.register_buffer("threshold", torch.tensor(0.5))

    def expert(self, name: str, x: Tensor, edge_index: Tensor) -> Tensor:
        """Calibrated logits of the `weak` or the `strong` expert, [N, C]."""
        logits: Tensor = run_module(getattr(self, name), x, edge_index)
        return logits / self.temperature[EXPERTS.index(name)]

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        *,
        weak: Tensor | None = None,
        strong: Tensor | None = None,
        gated: Gated | None = None,
    ) -> Mixture:
        """[N, F], [2, E] -> `Mixture`. Calibrated logits `[N, C]` or a `Gated` handed in are not computed again."""
        if weak is None:
            weak = self.expert("weak", x, edge_index)
        if strong is None:
            strong = self.expert("strong", x, edge_index)
        if gated is None:
            gated = weigh(self.gate, weak, x, strong)
        return Mixture(weak, strong, *gated)

    def edgeless(self, given: Collection[str]) -> bool:
        """Whether no edge is looked at once the experts named in `given` are handed in."""
        return all(name in given or not getattr(getattr(self, name), "sees_edges", True) for name in EXPERTS)

    @torch.no_grad()
    def constants(self, x: Tensor, edge_index: Tensor, trains: Collection[str]) -> dict[str, Tensor | Gated]:
        """Return what cannot change while only the parts named in `trains` do: keyword arguments for `forward`."""
        frozen: dict[str, Tensor | Gated] = {
            name: self.expert(name, x, edge_index) for name in EXPERTS if name not in trains
        }
        sees = {"weak", "gate", "strong"} if getattr(self.gate, "needs_strong", False) else {"weak", "gate"}
        if not sees & set(trains):
            frozen["gated"] = weigh(self.gate, frozen["weak"], x, frozen.get("strong"))  # type: ignore[arg-type]
        return frozen


def run_module(module: nn.Module, x: Tensor, edge_index: Tensor, **options: Any) -> Any:
    """Call a module with the features and the graph in the fastest form that it can take."""
    return module(suited_features(module, x), suited(module, edge_index), **options)
