"""What a study seeks: numbers of a trained model, by name, each with its direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch_geometric.data import Data

from mowst.evaluation.metrics import pooled, rows
from mowst.experiment.record import parameters
from mowst.experiment.seed import Fitted, metric_of, routable
from mowst.models.mixture import Mixture, Mowst
from mowst.names import Names


@dataclass(frozen=True)
class Goal:
    """A number that a study seeks."""

    measure: Callable[[Fitted, Data], float]
    """`(what was trained, graph) -> number`; the graph has no test labels, and the model's name as `judged`."""
    direction: str = "maximize"

    def __call__(self, fitted: Fitted, data: Data) -> float:
        """Measure it."""
        return self.measure(fitted, data)


def validation_score(fitted: Fitted, data: Data) -> float:
    """Return the metric on validation nodes, in percent."""
    return 100 * pooled(rows(fitted.output, data.val_mask), data.y[data.val_mask], metric_of(data))


def strong_share(fitted: Fitted, data: Data) -> float:
    """Return the share of validation nodes that routing sends to the strong expert, in percent."""
    if not (isinstance(fitted.output, Mixture) and isinstance(fitted.model, Mowst)):
        return 100.0 * (data.judged == "strong")
    routed = routable(fitted.model, fitted.output, data)
    return 100 * float((routed.confidence[data.val_mask] < fitted.model.threshold).float().mean())


def size(fitted: Fitted, data: Data) -> float:
    """Return the number of trainable numbers."""
    return parameters(fitted.model)


GOALS = Names(
    "goals",
    {"metric": Goal(validation_score), "share": Goal(strong_share, "minimize"), "parameters": Goal(size, "minimize")},
)
"""By name, or the dotted path of a function with the same arguments and, if it is to be small, `direction`."""
