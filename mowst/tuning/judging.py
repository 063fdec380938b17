"""Configurations judged on fresh seeds: each is trained once, without a test node, and what it came to is kept.

    OUT/judged/CONFIGURATION-seed-3.pt      what it is worth by goal, its seconds, and the journal of its training

So a command that was stopped goes on, and what was judged is tested without being trained again: its phases are in the
journal. Once the result is there the journals, which hold weights, are left out.
"""

from __future__ import annotations

import hashlib
import io
import statistics
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from optuna import TrialPruned

from mowst.experiment import Bench, Config, Opened, claim, dump, judged_alone, planned, read_json, run, split_hash
from mowst.system import whole_file, write_text
from mowst.training import Hook, Journal
from mowst.tuning.goals import GOALS
from mowst.tuning.sharing import Shared
from mowst.tuning.trial import failures, trained

Told = Callable[[tuple[str, int, float | None]], None]
"""Called with the key of a configuration, the seed, and what it is worth there; none: it failed."""


def key_of(config: Config) -> str:
    """Return what tells configurations apart in what they are judged by."""
    alike = replace(config, seeds=1, first_seed=0, baselines=True, data_root="", device="auto")
    return hashlib.sha256(dump(alike).encode()).hexdigest()[:16]


class Kept:
    """What is kept of the trainings of one configuration.

    Args:
        folder: for all configurations; none: nothing is kept.
        config: the configuration.
    """

    def __init__(self, folder: Path | None, config: Config):
        self.folder, self.key = folder, key_of(config)

    def path(self, seed: int) -> Path | None:
        """Return the file of a seed."""
        return None if self.folder is None else self.folder / f"{self.key}-seed-{seed}.pt"

    def read(self, seed: int, now: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was kept of a seed; nothing if it is about another graph or device than now, if that is known."""
        path = self.path(seed)
        found = {} if path is None else read_kept(path)
        return found if now is None or found.get("about") == now else {}

    def write(self, seed: int, kept: dict[str, Any]) -> None:
        """Keep something of a seed."""
        if (path := self.path(seed)) is not None:
            write_kept(path, kept)


def about(opened: Opened, seed: int) -> dict[str, Any]:
    """Return on what a seed is trained: what is kept holds for that only."""
    return {"split": split_hash(opened.seed(seed).data), "device": opened.fabric.device.type}


@dataclass(frozen=True)
class Judge:
    """Judges configurations on fresh seeds, in any process."""

    goal: str
    """A name of `GOALS`, or a dotted path."""
    folder: Path | None = None
    """Where trainings are kept; none: nowhere."""
    shared: Shared = field(default_factory=Shared)
    """Holds the graph."""

    def __call__(self, config: Config, told: Told | None = None, hook: Hook | None = None) -> float | None:
        """Return the mean of a configuration over its seeds, without a look at a test label; nothing if it fails.

        Args:
            config: the configuration, on fresh seeds.
            told: called after each of them.
            hook: called with the record of every validation.
        """
        values, left = list[float](), self.left(config)
        for seed in config.all_seeds:
            value = None
            with suppress(TrialPruned), failures():
                value = self.once(config, seed, hook)
            if told and (seed in left or value is None):
                told((key_of(config), seed, value))
            if value is None:
                return None
            values.append(value)
        return statistics.fmean(values)

    def left(self, config: Config) -> list[int]:
        """Return the seeds on which a configuration is still to be judged."""
        kept = Kept(self.folder, config)
        return [seed for seed in config.all_seeds if self.goal not in kept.read(seed).get("values", {})]

    def once(self, config: Config, seed: int, hook: Hook | None = None) -> float:
        """Return what a configuration is worth on a seed, and train it for that if nobody has."""
        opened, kept = self.shared.open(config, judged_alone(config)), Kept(self.folder, config)
        now = about(opened, seed)
        held = kept.read(seed, now) or {"about": now, "values": {}, "seconds": {}, "journal": None}
        if self.goal in held["values"]:
            return float(held["values"][self.goal])
        journal, bench = Journal(), opened.bench(seed, hook)
        if held["journal"] is not None:
            journal.load_state_dict(held["journal"])
        bench.journal = journal
        value = float(GOALS.lookup(self.goal)(*trained(bench)))
        seconds = held["seconds"] or {name: [each.seconds, each.own_seconds] for name, each in bench.fitted.items()}
        values = held["values"] | {self.goal: value}
        kept.write(seed, {"about": now, "values": values, "seconds": seconds, "journal": journal.state_dict()})
        return value

    def tested(self, config: Config, out: Path, hook: Hook | None = None) -> dict[str, Any]:
        """Run a configuration that was judged, test nodes and all, and leave it as `OUT.yaml` and the run in `OUT`.

        A run of the same configuration that is there is taken as it is, or goes on.
        """
        held, result = out / "config.yaml", out / "result.json"
        if held.is_file() and result.is_file() and held.read_text() == dump(config):
            found: dict[str, Any] = read_json(result)
        else:
            with claim(str(out), config, overwrite=True) as claimed:
                first = self.shared.open(config, judged_alone(config), tried=True)
                opened = Replayed(first, config, Kept(self.folder, config))
                found = run(config, claimed.place, hook=hook, opened=opened, done=claimed.done)
        write_text(out.with_suffix(".yaml"), dump(config))
        return found


class Replayed(Opened):
    """An experiment whose judged models were trained before, on a graph without test nodes: they come as they are."""

    def __init__(self, first: Opened, config: Config, kept: Kept):
        vars(self).update(vars(first.again(config, planned(config), tried=True)))
        self.kept = kept

    def bench(self, seed: int, hook: Hook | None = None) -> Bench:
        """Return what trains the models of a seed that were not judged."""
        bench = super().bench(seed, hook)
        held = self.kept.read(seed, about(self, seed))
        if held.get("journal") is None:
            return bench
        bench.journal = Journal()
        bench.journal.load_state_dict(held["journal"])
        for name in judged_alone(self.config).models:
            bench.train(name)
        bench.journal = None
        for name, (whole, own) in held["seconds"].items():
            bench.fitted[name] = bench.fitted[name]._replace(seconds=whole, own_seconds=own)
        return bench


def lighten(folder: Path) -> None:
    """Leave the journals out of what is kept there."""
    for path in folder.glob("*-seed-*.pt"):
        held = read_kept(path)
        if held.get("journal") is not None:
            write_kept(path, {**held, "journal": None})


def read_kept(path: Path) -> dict[str, Any]:
    """Return what a file keeps; nothing if it is not there, or damaged: then it is trained again."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found if found.keys() == {"about", "values", "seconds", "journal"} else {}
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, EOFError, UnpicklingError):
        return {}


def write_kept(path: Path, kept: dict[str, Any]) -> None:
    """Write a file that is whole or not there."""
    stream = io.BytesIO()
    torch.save(kept, stream)
    with whole_file(path) as beside:
        beside.write_bytes(stream.getvalue())
