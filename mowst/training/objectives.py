"""What is minimised: functions `(output, batch) -> [N]`, one number per node; the trainer alone masks and averages.

Notation: p, q the experts' probabilities, y the label, c the confidence, all per node; losses in nats.

| name         | per node                                 | source                                   |
|--------------|------------------------------------------|------------------------------------------|
| separate     | c · CE(p, y) + (1 - c) · CE(q, y)        | Mowst, arXiv 2311.05185, equation 1      |
| joint        | -log of the pool at y                    | Mowst*, same paper, equation 4           |
| joint-logits | CE of softmax(c z_weak + (1 - c) z_strong) | the authors' code, training only       |

-log is convex, so the joint objective of a linear pool never exceeds the separate one at the same weights. Nodes whose
label is -100 (not for this loss to see) give 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from mowst.models.mixture import Mixture, log_pool, log_probs
from mowst.names import Names

Loss = Callable[[Any, Data], Tensor]


def cross_entropy(logits: Tensor, batch: Data) -> Tensor:
    """-log softmax(logits) at the label, [N, C] -> [N]."""
    return F.nll_loss(log_probs(logits), batch.y, reduction="none", ignore_index=-100)


cross_entropy.node_wise = True  # type: ignore[attr-defined]


def weak_alone(out: Mixture, batch: Data) -> Tensor:
    """The weak expert's own loss, whatever the confidence, -> [N]."""
    return cross_entropy(out.weak, batch)


def separate(out: Mixture, batch: Data) -> Tensor:
    """Mowst: each expert's own loss, weighted by the confidence, -> [N]."""
    c = out.confidence
    return c * cross_entropy(out.weak, batch) + (1 - c) * cross_entropy(out.strong, batch)


def joint(out: Mixture, batch: Data) -> Tensor:
    """Mowst*: one loss on the pooled prediction, -> [N]."""
    return F.nll_loss(log_pool(out), batch.y, reduction="none", ignore_index=-100)


def joint_logits(out: Mixture, batch: Data) -> Tensor:
    """One loss on the confidence-weighted sum of logits, -> [N]."""
    c = out.confidence.unsqueeze(-1)
    return cross_entropy(c * out.weak.float() + (1 - c) * out.strong.float(), batch)


OBJECTIVES = Names("objective", {"separate": separate, "joint": joint, "joint-logits": joint_logits})
