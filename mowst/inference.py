"""From a trained mixture to one prediction per node.

| name    | probabilities at a node                                                                    |
|---------|--------------------------------------------------------------------------------------------|
| pooled  | the pool of both experts (the default)                                                     |
| sampled | the weak expert's with probability c, else the strong one's (arXiv 2311.05185, algorithm 1) |
| routed  | the weak expert's where c >= threshold, else the strong one's                              |

`routed` needs the strong expert only at the nodes that the weak one leaves to it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mowst.confidence import probabilities
from mowst.metrics import predicted
from mowst.mixture import Mixture, Mowst
from mowst.names import Names


def pooled(out: Mixture, *, threshold: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Probabilities of the pool, [N, C]."""
    return predicted(out)


def sampled(out: Mixture, *, threshold: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Probabilities of one expert per node, drawn with the confidence, [N, C]."""
    return choose(out, torch.rand(out.confidence.shape, generator=generator).to(out.confidence.device) < out.confidence)


def routed(out: Mixture, *, threshold: float = 0.5, generator: torch.Generator | None = None) -> Tensor:
    """Probabilities of the weak expert where its confidence reaches the threshold, else of the strong one, [N, C]."""
    return choose(out, out.confidence >= threshold)


def choose(out: Mixture, weak: Tensor) -> Tensor:
    """Take the weak expert's probabilities where the mask [N] is true, the strong one's elsewhere, [N, C]."""
    return torch.where(weak.unsqueeze(-1), probabilities(out.weak), probabilities(out.strong))


Inference = Callable[..., Tensor]
INFERENCE = Names("inference", {"pooled": pooled, "sampled": sampled, "routed": routed})


@torch.no_grad()
def predict(
    model: Mowst,
    x: Tensor,
    edge_index: Tensor,
    *,
    nodes: Tensor | None = None,
    how: str | Inference = "pooled",
    threshold: float = 0.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Probabilities of a mixture in evaluation mode, [N, C], or `[n, C]` for the node ids in `nodes` `[n]`.

    The strong expert runs on the whole graph here, whatever the mode.
    """
    training = model.training
    out = model.eval()(x, edge_index)
    model.train(training)
    probs: Tensor = INFERENCE.lookup(how)(out, threshold=threshold, generator=generator)
    return probs if nodes is None else probs[nodes]
