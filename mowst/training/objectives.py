"""What is minimised: values `(output, batch) -> [N]`, one number per node; the trainer alone masks and averages.

Notation: p, q the experts' probabilities, y the label, c the confidence, all per node; losses in nats.

| name         | per node                                 | source                                   |
|--------------|------------------------------------------|------------------------------------------|
| separate     | c · CE(p, y) + (1 - c) · CE(q, y)        | Mowst, arXiv 2311.05185, equation 1      |
| joint        | -log of the pool at y                    | Mowst*, same paper, equation 4           |
| joint-logits | CE of softmax(c z_weak + (1 - c) z_strong) | the authors' code, training only       |

-log is convex, so the joint objective of a linear pool never exceeds the separate one at the same weights. `separate`
and `joint-logits` know no scale, so that a logarithmic pool goes with `joint` alone. Nodes whose label is -100 (not for
this loss to see) give 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from graphkd import Scope, scope_of
from graphkd.contract import UNLABELLED
from mowst.models import Logits, Mixture, Output
from mowst.names import Names, callable_only
from mowst.training.batches import Batch

Loss = Callable[[Any, Batch], Tensor]
"""`(output, batch) -> [M]`, or a scalar from a loss whose rows depend on each other (`graphkd.Scope`)."""


@dataclass(frozen=True)
class Objective:
    """A loss, and what is known of it."""

    per_node: Loss
    """`(output, batch) -> [M]`."""
    scope: Scope = Scope.ALL
    """Whose outputs and labels decide a node's number."""
    any_pool: bool = True
    """Whether it means the scale of a logarithmic pool."""

    def __call__(self, out: Output, batch: Batch) -> Tensor:
        """Return the loss of each node, [M]."""
        return self.per_node(out, batch)

    @classmethod
    def of(cls, found: Any) -> Objective:
        """Take a function of one's own as an objective."""
        return found if isinstance(found, cls) else cls(callable_only(found), scope_of(found))


def minus_log_likelihood(out: Output, batch: Batch) -> Tensor:
    """-log of the prediction at the label: the cross-entropy of an expert alone, Mowst* of a mixture, -> [M]."""
    return F.nll_loss(out.log_probs(), batch.y, reduction="none", ignore_index=UNLABELLED)


def each_expert(out: Mixture, batch: Batch) -> Tensor:
    """Mowst: each expert's own loss, weighted by the confidence, -> [M]."""
    c = out.confidence
    return c * cross_entropy(out.of("weak"), batch) + (1 - c) * cross_entropy(out.of("strong"), batch)


def pooled_logits(out: Mixture, batch: Batch) -> Tensor:
    """One loss on the confidence-weighted sum of logits, -> [M]."""
    c = out.confidence.unsqueeze(-1)
    return cross_entropy(Logits(c * out.weak.float() + (1 - c) * out.strong.float()), batch)


def balance(y: Tensor) -> Tensor:
    """Return the weight of each class, [C], by which all classes that labels [N] show count alike (`balanced`)."""
    count = y[y >= 0].bincount()
    return count.sum() / (count.count_nonzero() * count.clamp_min(1))


def balanced(loss: Loss, y: Tensor) -> Objective:
    """Weigh a loss so that every class counts as much as any other: a node of class c by n / (C n_c).

    There are n labels of C classes, n_c of class c (scikit-learn's `class_weight="balanced"`, after King and Zeng,
    2001). The weights of all labels have mean one, so that the mean over a whole graph is what torch's `weight=` gives.

    Args:
        loss: numbers per node, [M].
        y: labels [N], below 0 where none is to be seen.
    """
    weight = balance(y)

    def per_node(out: Any, batch: Batch) -> Tensor:
        return loss(out, batch) * weight[batch.y.clamp_min(0)]  # without a label there is nothing to weigh

    return Objective(per_node, scope_of(loss))


cross_entropy = Objective(minus_log_likelihood, Scope.NODE)
weak_alone = Objective(lambda out, batch: cross_entropy(out.of("weak"), batch), Scope.NODE)
"""The weak expert's own loss, whatever the confidence."""
separate = Objective(each_expert, Scope.NODE, any_pool=False)
joint = cross_entropy
joint_logits = Objective(pooled_logits, Scope.NODE, any_pool=False)
OBJECTIVES: Names[Objective] = Names(
    "objective", {"separate": separate, "joint": joint, "joint-logits": joint_logits}, adapt=Objective.of
)
