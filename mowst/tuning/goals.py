"""What a study seeks: numbers of a trained model, by name, each with its direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch_geometric.data import Data

from mowst.errors import InputError, unknown
from mowst.evaluation import pooled, routable
from mowst.experiment import Fitted, metric_of, parameters
from mowst.models import Mixture, Mowst
from mowst.names import Names, callable_only

DIRECTIONS = ("maximize", "minimize")


@runtime_checkable
class Directed(Protocol):
    """A function that says whether it is to be large or small."""

    direction: str


@dataclass(frozen=True)
class Goal:
    """A number that a study seeks."""

    measure: Callable[[Fitted, Data], float]
    """`(what was trained, graph) -> number`; the graph has no test labels."""
    direction: str = "maximize"

    def __post_init__(self) -> None:
        if not callable(self.measure):
            raise InputError(f"goal: must be a function (fitted, graph) -> number, got {type(self.measure).__name__}")
        if self.direction not in DIRECTIONS:
            raise unknown("goal: direction", self.direction, DIRECTIONS)

    def __call__(self, fitted: Fitted, data: Data) -> float:
        """Measure it."""
        return self.measure(fitted, data)

    @classmethod
    def of(cls, found: Any) -> Goal:
        """Take a function of one's own as a goal: to be large, unless its `direction` says otherwise."""
        if isinstance(found, cls):
            return found
        return cls(callable_only(found), found.direction if isinstance(found, Directed) else "maximize")


def validation_score(fitted: Fitted, data: Data) -> float:
    """Return the metric on validation nodes, in percent."""
    return 100 * pooled(fitted.output.rows(data.val_mask), data.y[data.val_mask], metric_of(data))


def strong_share(fitted: Fitted, data: Data) -> float:
    """Return the share of validation nodes that routing sends to the strong expert, in percent."""
    if not (isinstance(fitted.output, Mixture) and isinstance(fitted.model, Mowst)):
        return 100.0 * (fitted.name == "strong")
    routed = routable(fitted.model, fitted.output, data.x)
    return 100 * float((routed.confidence[data.val_mask] < fitted.model.threshold).float().mean())


def size(fitted: Fitted, data: Data) -> float:
    """Return the number of trainable numbers."""
    return parameters(fitted.model)


GOALS: Names[Goal] = Names(
    "goals",
    {"metric": Goal(validation_score), "share": Goal(strong_share, "minimize"), "parameters": Goal(size, "minimize")},
    adapt=Goal.of,
)
"""By name, or the dotted path of a function with the same arguments and, if it is to be small, `direction`."""
