"""A graph opened once for all configurations of a study."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from mowst.experiment import Config, Opened, Plan, batched, has_no_edges
from mowst.tuning.saving import Trials

OWN = {
    *(
        "weak",
        "strong",
        "gate",
        "regime",
        "objective",
        "pretrain",
        "use_validation",
        "folds",
        "rehearsals",
        "mixture",
        "baselines",
    ),
    *(
        "optimizer",
        "lr",
        "gate_lr",
        "weight_decay",
        "epochs",
        "patience",
        "rounds",
        "eval_every",
        "eval_nodes",
        "ema_decay",
        "signal",
        "batch",
    ),
    *("seeds", "first_seed"),
}
"""Fields that say how models are trained, and nothing of the graph, its preparation, or a teacher from outside."""


class Another(Opened):
    """An experiment on a graph that is open for one that reads it alike.

    Args:
        first: that one.
        config, plan: as for `Opened`.
        tried: whether what cannot work has been said before.
    """

    def __init__(self, first: Opened, config: Config, plan: Plan, *, tried: bool = False):
        vars(self).update(vars(first))
        self.plan = plan
        self.config = batched(config, self.seed(config.first_seed).data, self.fabric.device)
        if not tried:
            self._try(self.seed(config.first_seed))


class Shared:
    """Opens experiments, those that read a graph alike on the same one; a process that it is sent to opens its own.

    Args:
        trials: where trials are saved while they are trained; by default nowhere.
    """

    def __init__(self, trials: Trials | None = None) -> None:
        self.trials = trials or Trials()
        self.first: Opened | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"trials": self.trials, "first": None}

    def open(self, config: Config, plan: Plan, *, tried: bool = False) -> Opened:
        """Open an experiment.

        Raises:
            InputError: the configuration and the graph do not go together.
        """
        if self.first is not None and alike(self.first.config, config):
            return Another(self.first, config, plan, tried=tried)
        self.first = None  # the graph of before gives its memory back first
        self.first = Opened(config, plan)
        return self.first


def alike(one: Config, other: Config) -> bool:
    """Tell whether two configurations read a graph, and a teacher from outside, alike."""
    names = [entry.name for entry in fields(one) if entry.name not in OWN]
    same = all(getattr(one, name) == getattr(other, name) for name in names)
    return same and has_no_edges(one) == has_no_edges(other)  # without edges features bring their averages along
