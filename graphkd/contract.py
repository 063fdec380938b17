"""What every distillation loss is: signals of two models in, one number per node out.

The base class deals once with what every loss must get right: the teacher is constant, mathematics runs in at
least float32 whatever autocast says, a missing label becomes the teacher's argmax, no rows give a zero with a gradient.
A loss then states its formula in `compute`, and in class attributes what it needs.
"""

from __future__ import annotations

import inspect
import warnings
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch_geometric.utils import subgraph

UNLABELLED = -100
"""The label of a node whose label is not to be seen."""


class Scope(Enum):
    """Whose signals decide a node's share of a loss; what a trainer may leave out follows from it."""

    NODE = "node"
    """The node's own alone: the loss is [N], and of some rows what it is of all, at these rows."""
    EDGES = "edges"
    """Its own and those of the nodes with an edge into it: [N]."""
    ALL = "all"
    """Those of all rows that are given: a scalar, or [N] of which nothing is known."""


@runtime_checkable
class Scoped(Protocol):
    """A loss that says its scope."""

    scope: Scope


def scope_of(loss: Any) -> Scope:
    """Return the scope of a loss, any callable; of one that says nothing, the widest."""
    return loss.scope if isinstance(loss, Scoped) else Scope.ALL


class Signals(NamedTuple):
    """What a loss may see of one model: its logits, its hidden layers, and how far each node can be believed."""

    logits: Tensor  # [N, C]
    hidden: tuple[Tensor, ...] = ()  # one [N, H] a layer
    reliability: Tensor | None = None  # [N] in [0, 1], of a teacher: see `teacher.reliability`


class DistillationLoss(nn.Module):
    """A loss on the signals of a student and (unless it is teacher-free) a teacher.

    Subclasses implement `compute`, and say the `scope` of the result. `needs` names what a call must provide, of
    "teacher", "target", "hidden" (the student's), "teacher_hidden" and "edge_index"; `wants` what is used where it is
    given. `search` gives a range for constructor parameters: (low, high), (low, high, "log") or a list of choices.
    """

    scope: Scope = Scope.NODE  # ALL: rows depend on each other; the result is a scalar over the rows given
    needs: frozenset[str] = frozenset({"teacher"})
    wants: frozenset[str] = frozenset()
    search: ClassVar[dict[str, Any]] = {}
    synonyms: ClassVar[set[str]] = set()  # further short names, for the catalogue
    binary: ClassVar[str] = ""  # what is lost with fewer than three classes, in words; said once

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def prepare(self, student: Signals, teacher: Signals | None = None) -> None:
        """Create parameters whose sizes the signals decide; call it before the optimiser is built. Default: none."""

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return [N], or a scalar of scope ALL, from float32 or float64 signals; what is not in `needs` may be None."""
        raise NotImplementedError

    def forward(
        self,
        student: Signals,
        teacher: Signals | None = None,
        *,
        target: Tensor | None = None,  # [N] classes, -100 where there is no label
        edge_index: Tensor | None = None,  # [2, E], messages from row 0 to row 1
    ) -> Tensor:
        """Return the loss of each node in nats or as the loss says, [N], or a scalar with scope ALL."""
        if teacher is not None:
            teacher = _map(teacher, lambda value: full(value).detach())
        student = _map(student, full)
        if "target" in self.needs:
            target = fill_target(target, teacher)
        self._check(student, teacher, target, edge_index)
        rows = student.logits.size(0)
        if rows == 0:
            nothing = sum((h.sum() for h in student.hidden), student.logits.sum()) * 0
            return nothing if self.scope is Scope.ALL else student.logits.sum(-1) + nothing
        with torch.autocast(student.logits.device.type, enabled=False):
            value = self.compute(student, teacher, target, edge_index)  # type: ignore[arg-type]
        if value.shape != (() if self.scope is Scope.ALL else (rows,)):
            raise ValueError(
                f"{self}: returned shape {list(value.shape)} for {rows} rows; "
                "one number per row is expected, or a scalar where its scope is ALL"
            )
        return value

    def _check(
        self, student: Signals, teacher: Signals | None, target: Tensor | None, edge_index: Tensor | None
    ) -> None:
        given = {
            "teacher": teacher is not None,
            "target": target is not None,
            "hidden": bool(student.hidden),
            "teacher_hidden": teacher is not None and bool(teacher.hidden),
            "edge_index": edge_index is not None,
        }
        if missing := sorted(name for name in self.needs if not given[name]):
            raise ValueError(f"{type(self).__name__} needs {', '.join(missing)}, which this call did not give")
        N, C = student.logits.shape
        if teacher is not None and teacher.logits.shape != (N, C):
            raise ValueError(
                f"{type(self).__name__}: the student's logits are {[N, C]}, the teacher's {list(teacher.logits.shape)}"
            )
        if target is not None and target.device.type == "cpu" and N and int(target.max()) >= C:
            raise ValueError(f"{type(self).__name__}: label {int(target.max())} with {C} classes")
        if C < 3 and self.binary:
            self.warn_once(f"{type(self).__name__} with {C} classes: {self.binary}")

    def extra_repr(self) -> str:
        """Show the options, as a specification would."""
        held = {**self._modules, **vars(self)}
        options = ((name, held.get(name)) for name in inspect.signature(type(self)).parameters)
        return ", ".join(f"{key}={value}" for key, value in options if isinstance(value, str | int | float))

    def warn_once(self, message: str) -> None:
        """Warn, the first time this loss says so."""
        if message not in self._said:
            self._said.add(message)
            warnings.warn(message, stacklevel=2)


def full(value: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 where it is that already."""
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def fill_target(target: Tensor | None, teacher: Signals | None) -> Tensor | None:
    """Return classes [N]: the label where there is one, the teacher's argmax (if any) where it is -100."""
    if teacher is None:
        return target
    guess = teacher.logits.argmax(-1) if teacher.logits.numel() else teacher.logits.new_zeros(0, dtype=torch.long)
    return guess if target is None else torch.where(target < 0, guess, target)


def take(signals: Signals, rows: Tensor) -> Signals:
    """Return the signals of some nodes: a boolean mask [N] or indices."""
    return _map(signals, lambda value: value[rows])


def on_rows(
    loss: DistillationLoss,
    rows: Tensor,  # boolean mask [N]
    student: Signals,
    teacher: Signals | None = None,
    *,
    target: Tensor | None = None,
    edge_index: Tensor | None = None,
) -> Tensor:
    """Reduce a loss to a scalar over some nodes: the mean of their rows, or what one of scope ALL says of them alone.

    A loss of scope EDGES sees the whole neighbourhood of each of these nodes; one of scope ALL sees the subgraph
    between them.
    """
    if loss.scope is Scope.EDGES:
        return mean(loss(student, teacher, target=target, edge_index=edge_index)[rows])
    if edge_index is not None:
        edge_index, _ = subgraph(rows, edge_index, relabel_nodes=True, num_nodes=rows.size(0))
    value = loss(
        take(student, rows),
        None if teacher is None else take(teacher, rows),
        target=None if target is None else target[rows],
        edge_index=edge_index,
    )
    return value if loss.scope is Scope.ALL else mean(value)


def mean(value: Tensor) -> Tensor:
    """Average, with 0 (and a gradient) for nothing."""
    return value.mean() if value.numel() else value.sum()


def positive(**values: float) -> None:
    """Refuse, by name, a number that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def choose(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse, naming the choices, a value that is not one of them."""
    if value not in choices:
        raise ValueError(f"{name}: unknown {value!r}; choose from {', '.join(choices)}")


def _map(signals: Signals, change: Any) -> Signals:
    reliability = None if signals.reliability is None else change(signals.reliability)
    return Signals(change(signals.logits), tuple(change(h) for h in signals.hidden), reliability)
