"""How the losses of `graphkd` become terms of the training loss.

The student is the trainer's model, or one expert of its mixture. The teacher is the other expert, whose logits are
constant or detached, or frozen signals that the trainer was given: a batch carries their rows (`Batch.teacher`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

import graphkd
from graphkd import DistillationLoss, Scope, Signals, Weighted, checks, on_rows
from graphkd.hidden import Hidden
from mowst.errors import InputError
from mowst.kernels import Tabled, dense
from mowst.models import Mowst, Output, as_output, reads_of, run_module
from mowst.training.batches import Batch
from mowst.training.objectives import Objective
from mowst.training.phases import Term
from mowst.training.trainer import Trainer

TEACHES = frozenset({"teacher", "teacher_hidden"})
"""What a loss says it needs if it cannot do without a teacher."""


def parse(kd: str | Sequence[Any]) -> tuple[Weighted, ...]:
    """Return the weighted losses of a specification; raise `InputError` where it is wrong."""
    try:
        return graphkd.build(kd)
    except ValueError as error:
        raise InputError(f"kd: {error}") from None


def wanted(losses: Sequence[Weighted]) -> frozenset[str]:
    """Return everything that some of the losses need, or use where it is given."""
    return frozenset().union(*(weighted.loss.needs | weighted.loss.wants for weighted in losses))


no_labels = Objective(lambda out, batch: out.of("").values.sum(-1) * 0, Scope.NODE)
"""Learn nothing from labels, [N] zeros: the objective of a student that only listens to its teacher."""


class Distill(nn.Module):
    """A distillation loss as a term's loss, `(output, batch) -> [N]`, or a scalar for one of scope ALL.

    Labels outside the training mask are -100 in the batch; a loss that needs a target takes the teacher's argmax there.

    Args:
        loss: a loss of `graphkd`, or any module with its contract.
        student: the expert of a mixture that learns, "weak" or "strong"; "": the output is the student's logits.
        teacher: the expert of the mixture that teaches; "": the signals that the batch carries, if there are any.
        on: the nodes that a loss of scope ALL sees, "all" or "train"; of another one the term chooses the rows.
        model: where the hidden layers are seen, for a loss that needs them.
    """

    def __init__(
        self,
        loss: DistillationLoss,
        student: str = "",
        teacher: str = "",
        *,
        on: str = "all",
        model: nn.Module | None = None,
    ):
        super().__init__()
        self.loss, self.student, self.teacher, self.on = loss, student, teacher, on
        self.scope, self.tried = loss.scope, False
        uses = loss.needs | loss.wants
        self.hidden = Hidden(model.get_submodule(student)) if model is not None and "hidden" in uses else None
        seen = model is not None and teacher and "teacher_hidden" in uses
        self.teacher_hidden = Hidden(model.get_submodule(teacher)) if model is not None and seen else None

    def signals(self, out: Output, batch: Batch) -> tuple[Signals, Signals | None]:
        """Return what the loss may see of the student and of the teacher."""
        student = Signals(out.of(self.student).values, layers(self.hidden))
        if not self.teacher:
            return student, batch.teacher
        hidden = self.frozen_layers() if batch.known.strong is None else batch.known.layers
        return student, Signals(out.of(self.teacher).values, hidden)

    def frozen_layers(self) -> tuple[Tensor, ...]:
        """Return the teacher's hidden layers of its latest run."""
        return layers(self.teacher_hidden)

    def prepare(self, out: Output, batch: Batch, whole: Signals | None) -> None:
        """Let the loss create its parameters on the student's device; `whole` is what an outside teacher says of all.

        Raises:
            InputError: what it finds in a teacher is to be found in one that is not trained yet.
        """
        if self.loss.found and self.teacher:
            raise InputError(
                f"its {self.loss.found} are found in a teacher that is trained already; give --teacher RUN, or the "
                "regime solo, whose teacher is trained first"
            )
        student, teacher = self.signals(out, batch)
        self.loss.prepare(student, whole if self.loss.found else teacher)
        self.loss.to(batch.y.device)

    def forward(self, out: Output, batch: Batch) -> Tensor:
        """Compute the loss of every node, [N], or of all at once; numbers are looked at in the first call alone."""
        try:
            with checks.known() if self.tried else nullcontext():
                found = self._loss(out, batch)
            self.tried = True
            return found
        except InputError:
            raise
        except ValueError as error:  # as graphkd says what it cannot use
            raise InputError(f"kd: {error}") from None

    def _loss(self, out: Output, batch: Batch) -> Tensor:
        student, teacher = self.signals(out, batch)
        seen = batch.on[self.on] if self.scope is Scope.ALL else None
        if seen is not None:
            rows = index_to_mask(seen, len(batch.y))
            return on_rows(self.loss, rows, student, teacher, target=batch.y, edge_index=batch.edge_index)
        edges = None if self.scope is Scope.NODE else batch.edge_index
        return self.loss(student, teacher, target=batch.y, edge_index=edges)

    def close(self) -> None:
        """Take the hooks off the model."""
        for hidden in (self.hidden, self.teacher_hidden):
            if hidden is not None:
                hidden.close()


def layers(hidden: Hidden | None) -> tuple[Tensor, ...]:
    """Return the hidden layers that were seen, if any were looked at."""
    return () if hidden is None else hidden.layers


@torch.no_grad()
def observe(model: nn.Module, data: Data, wants: frozenset[str] = frozenset()) -> Signals:
    """Return the signals of a trained model on a prepared graph: of `wants`, "teacher_hidden" and "reliability" cost.

    A mixture speaks with its pool, and its hidden layers are the strong expert's. The noise behind the reliabilities is
    drawn from torch's generator.
    """
    model.eval()
    reads = reads_of(model)
    seen = Hidden(model.strong if isinstance(model, Mowst) else model) if "teacher_hidden" in wants else None

    def said(x: Tensor) -> Tensor:
        return as_output(run_module(model, reads, x, data.adj_t)).of("").values

    logits = said(data.x)
    hidden, reliability = layers(seen), None
    if seen is not None:
        seen.close()
    if "reliability" in wants:
        noisy = dense(data.x) + torch.randn(data.x.shape).to(data.x.device)
        noisy = data.x.beside(noisy) if isinstance(data.x, Tabled) else noisy
        reliability = graphkd.reliability(logits, said(noisy))
    return Signals(logits, hidden, reliability)


@contextmanager
def attached(
    losses: Sequence[Weighted], trainer: Trainer, student: str = "", teacher: str = ""
) -> Iterator[tuple[Term, ...]]:
    """Give the terms of these losses for a trainer; inside the block the losses see the model's hidden layers.

    The losses' parameters are created, and each loss is tried once on what the model says now.

    Raises:
        InputError: a loss cannot work with this student, teacher or graph.
    """
    distills = [Distill(each.loss, student, teacher, on=each.on, model=trainer.model) for each in losses]
    try:
        for weighted, distill in zip(losses, distills, strict=True):
            try:
                out, batch = trainer.glimpse(distill.scope, [weighted.on])
                distill.prepare(out, batch, trainer.whole.teacher)
                with torch.no_grad():
                    distill(out, batch)
            except ValueError as error:
                raise InputError(f"kd: {weighted.name}: {str(error).removeprefix(f'{weighted.name}: ')}") from None
        yield tuple(
            Term(distill, each.weight_at, each.on, student) for each, distill in zip(losses, distills, strict=True)
        )
    finally:
        for distill in distills:
            distill.close()
