"""A graph and a configuration that go together: prepared once for all seeds, and tried before any training."""

from __future__ import annotations

import copy
import time
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch_geometric.data import Data

from mowst.data import MASKS, open_graph
from mowst.data.loading import Graph
from mowst.data.own import card_of
from mowst.errors import InputError
from mowst.experiment.batching import batched, check_batch
from mowst.experiment.bench import Bench
from mowst.experiment.building import (
    advise,
    build,
    classes_of,
    fabric_of,
    prepare,
    reason_of,
    say_unweighted,
    seeded,
)
from mowst.experiment.calibrated import calibrating
from mowst.experiment.choosing import chosen
from mowst.experiment.config import Config
from mowst.experiment.folder import dump
from mowst.experiment.identity import identity, own_version, signals_hash, text_hash
from mowst.experiment.nodes import without
from mowst.experiment.plan import Plan, planned, regime_of
from mowst.experiment.teachers import Teacher, read_teacher
from mowst.models import Mixture, Output
from mowst.system import needing, out_of_memory
from mowst.training import OBJECTIVES, Batch, Hook, Trainer, attached, held_batch, parse

PREPARES_LESS = (
    "leaving out --standardize and --normalize_features, which copy the features, by fewer --workers or --devices, and "
    "by a machine with more memory"
)
"""What takes less memory where a graph is prepared."""


class OneSeed(NamedTuple):
    """What one seed trains on."""

    data: Data
    """The graph with this seed's masks."""
    ready: Data
    """The same, prepared."""
    teacher: Teacher | None
    """From outside the run, if there is one."""


def graph_of(config: Config, device: torch.device) -> Graph:
    """Open the graph that a configuration names; where it is large, a device helps."""
    named = card_of(config.dataset, config.columns) if config.own else config.dataset
    return open_graph(named, config.data_root, split=config.split, device=device)


class Opened:
    """An experiment that can begin: what cannot work has been said.

    Args:
        config: the experiment; what of it is for the graph to decide is decided in `self.config`.
        plan: what of it is trained; by default what a run trains.
        fabric: device and precision, and the processes that train together; by default one device.
        devices: that a step is to be shared out among, here and later.
        graph: the one that the configuration names, if it is open already.

    Raises:
        InputError: the configuration and the graph do not go together.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan | None = None,
        *,
        fabric: Fabric | None = None,
        devices: int = 1,
        graph: Graph | None = None,
    ):
        start, self.fabric = time.perf_counter(), fabric or fabric_of(config)
        self.graph = graph or graph_of(config, self.fabric.device)
        self._split = cache(
            lambda seed: without(self.graph.of_seed(seed), config.forget, seed, validation=config.use_validation)
        )
        for seed in config.all_seeds if config.forget else ():
            self._split(seed)
        self._seeds: dict[int, OneSeed] = {}
        self._prepared: Data | None = None
        self._take(config, plan, devices)
        self._try()
        self.seconds = time.perf_counter() - start
        """That this took, beside reading the graph if it was open already."""

    def again(self, config: Config, plan: Plan | None = None, *, devices: int = 1, tried: bool = False) -> Opened:
        """Open another experiment on the same graph, as it is prepared here.

        Args:
            config: reads the graph, and a teacher from outside, as the one here does.
            plan, devices: as for `Opened`.
            tried: whether what cannot work has been said before.

        Raises:
            InputError: the configuration and the graph do not go together.
        """
        other = copy.copy(self)
        other._take(config, plan, devices)
        if not tried:
            other._try()
        return other

    def _take(self, config: Config, plan: Plan | None, devices: int) -> None:
        """Take a configuration, and decide what of it is for the graph to decide."""
        data, devices = self._split(config.first_seed), max(devices, self.fabric.world_size)
        self.config = batched(chosen(config, data), data, self.fabric.device, devices)
        check_batch(self.config, data, devices)
        self.plan = plan or planned(self.config)
        if plan is None:
            self.config.predictions.check(self.plan.written)

    def seed(self, seed: int) -> OneSeed:
        """Return what a seed trains on: everything but masks and teacher is shared with the other seeds."""
        if seed not in self._seeds:
            data = self._split(seed)
            if self._prepared is None:
                with needing("prepare the graph", PREPARES_LESS):
                    advise(self.config, data)
                    self._prepared = prepare(data, self.config, self.fabric.device)
            ready = copy.copy(self._prepared)
            for mask in MASKS:
                ready[mask] = data[mask].to(self.fabric.device)
            if (apart := calibrating(self.config, data.val_mask, seed)) is not None:
                ready.calibration_mask = apart.to(self.fabric.device)
                ready.val_mask = ready.val_mask & ~ready.calibration_mask
            teacher = read_teacher(self.config, seed, data, self.fabric)
            self._seeds[seed] = OneSeed(data, ready, teacher)
        return self._seeds[seed]

    def bench(self, seed: int, hook: Hook | None = None) -> Bench:
        """Return what trains the models of a seed."""
        one = self.seed(seed)
        signals = None if one.teacher is None else one.teacher.signals
        return Bench(self.config, self.plan, one.ready, seed, self.fabric, teacher=signals, hook=hook)

    def _try(self) -> None:
        """Build what is judged, and let it and its losses look at the graph once."""
        config, bench = self.config, self.bench(self.config.first_seed)
        one = self.seed(config.first_seed)
        with seeded(config.first_seed, self.fabric.device):
            if self.plan.teacher is not None:
                bench.teacher = bench.signals_of(bench.trainer(self.plan.teacher).model)
            if self.plan.judged != "mixture":  # which is all of it
                build(config, one.ready.num_features, classes_of(one.ready))
            trainer = bench.trainer(self.plan.judged)
            say_unweighted(trainer.model, one.data)
            if config.kd is not None:
                with attached(parse(config.kd), trainer, self.plan.learns, self.plan.taught_by):
                    pass
            if config.objective is not None and self.plan.judged not in ("weak", "strong"):
                try_objective(config, trainer)


def try_objective(config: Config, trainer: Trainer) -> None:
    """Evaluate the objective once on what a model that is not trained yet says, on every kind of batch it will meet.

    Raises:
        InputError: it fails, or does not return a number per node.
    """
    out, whole = trainer.output(), trainer.whole
    try_on(config, out, whole, "")
    if regime_of(config).holds_out:
        nodes = whole.train_mask.nonzero().squeeze(-1)[:2]
        try_on(
            config,
            out.rows(nodes).cpu(),
            held_batch(whole, nodes),
            " of held-out nodes alone, on which a gate is fitted",
        )


def try_on(config: Config, out: Output, batch: Batch, where: str) -> None:
    """Evaluate the objective once on a batch."""
    what = f"a {type(out).__name__}{where}" if isinstance(out, Mixture) else f"logits [N, C]{where}"
    try:
        with torch.no_grad():
            values = OBJECTIVES.lookup(config.objective)(out, batch)
    except Exception as error:  # of a third party's function: anything
        if out_of_memory(error):
            raise
        raise InputError(f"objective {config.objective}: fails on {what}: {reason_of(error)}") from None
    if not isinstance(values, Tensor) or values.shape not in (batch.y.shape, ()):
        said = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"objective {config.objective}: must return a number per node, [N], and returned {said}")


def basis(opened: Opened, seed: int) -> dict[str, Any]:
    """Return what the training of a seed depends on, beside the settings of the process."""
    one, device = opened.seed(seed), opened.fabric.device
    teacher = None if one.teacher is None else signals_hash(one.teacher.signals)
    return {
        "mowst": own_version(),
        "torch": version("torch"),
        "config_sha256": text_hash(dump(opened.config)),
        **identity(one.data),
        "teacher_sha256": teacher,
        "batch": opened.config.batch,
        "device": device.type,
        "devices": opened.fabric.world_size,
    }
