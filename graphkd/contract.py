"""What every distillation loss is: signals of two models in, one number per node out.

The base class deals once with what every loss must get right: the teacher is constant, mathematics runs in at
least float32 whatever autocast says, a missing label becomes the teacher's argmax, no rows give a zero with a gradient.
A loss then states its formula in `compute`, and in class attributes what it needs.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch_geometric.utils import subgraph

from graphkd import checks
from graphkd.checks import full
from graphkd.signals import UNLABELLED as UNLABELLED
from graphkd.signals import Signals, believed, filled, mapped, signals, taken


class Scope(Enum):
    """Whose signals decide a node's share of a loss; what a trainer may leave out follows from it."""

    NODE = "node"
    """The node's own alone: the loss is [N], and of some rows what it is of all, at these rows."""
    EDGES = "edges"
    """Its own and those of the nodes with an edge into it: [N]."""
    ALL = "all"
    """Those of all rows that are given: a scalar, or [N] of which nothing is known."""

    @classmethod
    def _missing_(cls, value: Any) -> None:
        raise ValueError(f"scope must be one of {', '.join(each.value for each in cls)}, got {checks.shown(value)}")


@runtime_checkable
class Scoped(Protocol):
    """A loss that says its scope."""

    scope: Scope


def scope_of(loss: Any) -> Scope:
    """Return the scope of a loss, any callable; of one that says nothing, the widest.

    Raises:
        ValueError: it says something else than a `Scope`.
    """
    if not isinstance(loss, Scoped):
        return Scope.ALL
    if not isinstance(loss.scope, Scope):
        raise ValueError(f"scope of {checks.shown(loss)} must be a graphkd.Scope, got {checks.shown(loss.scope)}")
    return loss.scope


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
    found: ClassVar[str] = ""  # what `prepare` finds in the teacher, which must be trained by then and whole, in words

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def prepare(self, student: Signals, teacher: Signals | None = None) -> None:
        """Create parameters whose sizes the signals decide; call it before the optimiser is built. Default: none."""

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return [N], or a scalar of scope ALL, from float32 or float64 signals; what is not in `needs` may be None."""
        raise NotImplementedError(f"{type(self).__name__} states no formula: implement compute")

    def forward(
        self,
        student: Signals | Tensor,
        teacher: Signals | Tensor | None = None,
        *,
        target: Tensor | None = None,  # [N] classes, -100 where there is no label
        edge_index: Tensor | None = None,  # [2, E], messages from row 0 to row 1
    ) -> Tensor:
        """Return the loss of each node in nats or as the loss says, [N], or a scalar with scope ALL.

        Logits [N, C] alone are taken for `Signals` of nothing else.

        Raises:
            ValueError: an argument is missing, or is not what its comment here or in `Signals` says.
        """
        given = self._read(student, teacher, target, edge_index)
        student = given.student
        rows = student.logits.size(0)
        if rows == 0:
            nothing = sum((h.sum() for h in student.hidden), student.logits.sum()) * 0
            return nothing if self.scope is Scope.ALL else student.logits.sum(-1) + nothing
        with torch.autocast(student.logits.device.type, enabled=False):
            value = self.compute(*given)  # type: ignore[arg-type]
        if not isinstance(value, Tensor) or value.shape != (() if self.scope is Scope.ALL else (rows,)):
            returned = f"shape {list(value.shape)}" if isinstance(value, Tensor) else checks.shown(value)
            raise ValueError(
                f"{self}: returned {returned} for {rows} rows; "
                "one number per row is expected, or a scalar where its scope is ALL"
            )
        return value

    def _read(
        self,
        student: Signals | Tensor,
        teacher: Signals | Tensor | None,
        target: Tensor | None,
        edge_index: Tensor | None,
    ) -> Given:
        """Check what a call was given, and return it as `compute` expects it."""
        name = type(self).__name__
        student = signals(f"{name}: student", student)
        teacher = None if teacher is None else signals(f"{name}: teacher", teacher)
        self._check_needs(student, teacher, target, edge_index)
        N, C = student.logits.shape
        if target is not None:
            target = checks.classes(f"{name}: target", target, N, C)
            checks.together(name, student=student.logits, target=target)
        if edge_index is not None and "edge_index" in self.needs | self.wants:
            edge_index = checks.nodes(f"{name}: edge_index", edge_index, 2, N)
            checks.together(name, student=student.logits, edge_index=edge_index)
        if teacher is not None:
            checks.alike(name, student=student.logits, teacher=teacher.logits)
            teacher = believed(f"{name}: teacher", teacher, "teacher_hidden" in self.needs | self.wants)
        if C < 3 and self.binary:
            self.warn_once(f"{name} with {C} classes: {self.binary}")
        target = filled(target, teacher) if "target" in self.needs else target
        return Given(mapped(student, full), teacher, target, edge_index)

    def _check_needs(
        self, student: Signals, teacher: Signals | None, target: Tensor | None, edge_index: Tensor | None
    ) -> None:
        given = {
            "teacher": teacher is not None,
            "target": target is not None or teacher is not None,  # its argmax
            "hidden": bool(student.hidden),
            "teacher_hidden": teacher is not None and bool(teacher.hidden),
            "edge_index": edge_index is not None,
        }
        if missing := sorted(name for name in self.needs if not given[name]):
            raise ValueError(f"{type(self).__name__} needs {', '.join(missing)}, which this call did not give")

    def extra_repr(self) -> str:
        """Show the options, as a specification would."""
        held = {**self._modules, **vars(self)}
        options = ((name, held.get(name)) for name in inspect.signature(type(self)).parameters)
        return ", ".join(f"{key}={value}" for key, value in options if isinstance(value, str | int | float))

    def warn_once(self, message: str) -> None:
        """Warn, the first time this loss says so."""
        self.notice(message, lambda: message)

    def notice(self, about: str, finding: Callable[[], str]) -> None:
        """Warn of what is found about something, the first time that it is not "", where numbers are looked at."""
        if checks.looking() and about not in self._said and (found := finding()):
            self._said.add(about)
            warnings.warn(found, stacklevel=2)


class Given(NamedTuple):
    """What a loss computes from, checked."""

    student: Signals
    teacher: Signals | None
    target: Tensor | None
    edge_index: Tensor | None


def on_rows(
    loss: DistillationLoss,
    rows: Tensor,  # boolean mask [N]
    student: Signals | Tensor,
    teacher: Signals | Tensor | None = None,
    *,
    target: Tensor | None = None,
    edge_index: Tensor | None = None,
) -> Tensor:
    """Reduce a loss to a scalar over some nodes: the mean of their rows, or what one of scope ALL says of them alone.

    A loss of scope EDGES sees the whole neighbourhood of each of these nodes; one of scope ALL sees the subgraph
    between them.

    Raises:
        ValueError: the mask is none (numbers 0 and 1 are not), or the loss cannot use the rest.
    """
    if not (isinstance(loss, Scoped) and callable(loss)) or isinstance(loss, type):
        raise ValueError(f"loss must be a DistillationLoss, such as graphkd.KD(), got {checks.shown(loss)}")
    logits = signals("student", student).logits
    N, C = logits.shape
    rows = checks.mask("rows", rows, N).to(logits.device)
    if scope_of(loss) is Scope.EDGES:
        return mean(loss(student, teacher, target=target, edge_index=edge_index)[rows])
    if edge_index is not None:
        edge_index = checks.nodes("edge_index", edge_index, 2, N)
        checks.together("on_rows", student=logits, edge_index=edge_index)
        edge_index, _ = subgraph(rows, edge_index, relabel_nodes=True, num_nodes=N)
    if target is not None:
        target = checks.classes("target", target, N, C)
        checks.together("on_rows", student=logits, target=target)
    value = loss(
        taken("student", student, rows),
        None if teacher is None else taken("teacher", teacher, rows),
        target=None if target is None else target[rows],
        edge_index=edge_index,
    )
    return value if loss.scope is Scope.ALL else mean(value)


def mean(value: Tensor) -> Tensor:
    """Average, with 0 (and a gradient) for nothing."""
    return value.mean() if value.numel() else value.sum()
