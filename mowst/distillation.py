"""How a `graphkd` loss becomes a term of the training loss.

The teacher is frozen logits that ride on the graph as a node attribute, `teacher_logits [N, C]`, so device moves and
loaders treat them like any feature.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import DistillationLoss, Signals
from mowst.metrics import Output
from mowst.mixture import Mixture


def whole(out: Output) -> Tensor:
    """Take a model's only logits as the student, [N, C]."""
    assert not isinstance(out, Mixture), "name the expert that is the student: weak_student or strong_student"
    return out


def weak_student(out: Output) -> Tensor:
    """Take a mixture's weak logits as the student, [N, C]."""
    return out.weak if isinstance(out, Mixture) else out


def strong_student(out: Output) -> Tensor:
    """Take a mixture's strong logits as the student, [N, C]."""
    return out.strong if isinstance(out, Mixture) else out


class Distill(nn.Module):
    """A distillation loss as a term's loss, `(output, batch) -> [N]`, or a scalar for a coupled one.

    Labels outside the training mask are -100 in the batch; a loss that needs a target takes the teacher's argmax there.

    Args:
        loss: a loss of `graphkd`, or any module with its contract.
        student: picks the student's logits from the model's output.
        teacher: name of the node attribute with the teacher's logits [N, C].
    """

    def __init__(
        self, loss: DistillationLoss, student: Callable[[Output], Tensor] = whole, teacher: str = "teacher_logits"
    ):
        super().__init__()
        self.loss, self.student, self.teacher = loss, student, teacher

    def forward(self, out: Output, batch: Data) -> Tensor:
        """Compute the loss of every node, [N], or of all at once."""
        teacher = Signals(batch[self.teacher]) if self.teacher in batch else None
        return self.loss(Signals(self.student(out)), teacher, target=batch.y, edge_index=batch.edge_index)
