"""A graph opened once for all configurations that read it alike: of a search and its run, or of a study."""

from __future__ import annotations

from dataclasses import fields

from mowst.data.loading import Graph
from mowst.experiment.config import Config
from mowst.experiment.opening import Opened
from mowst.experiment.plan import Plan
from mowst.experiment.without_edges import has_no_edges

OWN = {
    *("weak", "strong", "gate", "regime", "objective", "pretrain", "use_validation", "folds", "rehearsals"),
    *("mixture", "baselines", "optimizer", "lr", "gate_lr", "weight_decay", "epochs", "patience", "rounds"),
    *("eval_every", "eval_nodes", "ema_decay", "signal", "batch", "seeds", "first_seed"),
}
"""Fields that say how models are trained, and nothing of the graph, its preparation, or a teacher from outside."""


class SharedGraph:
    """Opens experiments, those that read a graph alike on the same one.

    Args:
        devices: that a step is to be shared out among.
        graph: that of the first experiment, if it is open already.
    """

    def __init__(self, devices: int = 1, graph: Graph | None = None) -> None:
        self.devices, self.graph = devices, graph
        self.first: Opened | None = None

    def open(self, config: Config, plan: Plan | None = None, *, tried: bool = False) -> Opened:
        """Open an experiment.

        Args:
            config, plan: as for `Opened`.
            tried: whether what cannot work has been said before.

        Raises:
            InputError: the configuration and the graph do not go together.
        """
        if self.first is not None and alike(self.first.config, config):
            return self.first.again(config, plan, devices=self.devices, tried=tried)
        self.first = None  # the graph of before gives its memory back first
        graph, self.graph = self.graph, None
        self.first = Opened(config, plan, devices=self.devices, graph=graph)
        return self.first


def alike(one: Config, other: Config) -> bool:
    """Tell whether two configurations read a graph, and a teacher from outside, alike."""
    names = [entry.name for entry in fields(one) if entry.name not in OWN]
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and has_no_edges(one) == has_no_edges(other)  # without edges features bring their averages along
