"""A graph opened once for all trials of a study."""

from __future__ import annotations

from typing import Any

from mowst.experiment import SharedGraph
from mowst.tuning.saving import Trials


class Shared(SharedGraph):
    """Opens experiments, those that read a graph alike on the same one; a process that it is sent to opens its own.

    Args:
        trials: where trials are saved while they are trained; by default nowhere.
    """

    def __init__(self, trials: Trials | None = None) -> None:
        super().__init__()
        self.trials = trials or Trials()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"first": None, "graph": None}
