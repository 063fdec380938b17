"""How a study is made, as a person says it: checked before anything else happens, and read without Optuna."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mowst.errors import InputError, unknown
from mowst.experiment import Checked, setting

LONGEST = 512
"""Characters of a study's name that every database takes."""


@dataclass(frozen=True)
class Plan(Checked):
    """How a study is made."""

    study: str = "study.log"
    """Where it is kept: a journal file, a database URL, or grpc://host:port of an Optuna proxy."""
    name: str = "mowst"
    """Its name there, for a storage that holds several."""
    trials: int = setting(30, at_least=1, below=10**7)
    """Number of trials, pruned ones too, with which the study shall end, whoever has run them."""
    workers: int = setting(1, at_least=1, below=1000)
    """Processes of this machine that work on it; the same command elsewhere is one more."""
    goals: list[str] = field(default_factory=lambda: ["metric"])
    """What is sought: metric (on validation nodes), share (sent to the strong expert), parameters, or dotted paths."""
    sampler: str = "tpe"
    """Sampler by Optuna's name (tpe, random, gp, cmaes, nsgaii, ...), a dotted path, or hub:PACKAGE:CLASS."""
    sampler_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the sampler."""
    pruner: str | None = None
    """percentile (stops a trial that would be in the last quarter of those that came to an end), median, hyperband,
    none, or a dotted path; by default percentile with one goal and none with several."""
    pruner_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the pruner."""
    seed: int = setting(0, at_least=0, below=2**32)
    """Seed of the sampler."""
    silence: float = setting(60.0, at_least=1, below=10**7)
    """Seconds without a sign of life after which a worker counts as killed."""
    timeout: float | None = None
    """Seconds after which no trial is begun."""
    fast: bool = True
    """Whether the command, and each of several workers, use process-wide settings for speed (mowst.system.process)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.name.isprintable() and 0 < len(self.name) <= LONGEST):
            raise InputError(f"name: must be a word, of at most {LONGEST} characters, got {self.name[:80]!r}")
        if self.timeout is not None and not 0 <= self.timeout < math.inf:
            raise InputError(f"timeout: must be a number of seconds from 0, or left out, got {self.timeout!r}")
        self._check_goals()
        self._check_drawing()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Plan:
        """Return a plan of some fields; one that is unknown is said."""
        names = [entry.name for entry in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("plan", name, names)
        return cls(**given)

    def _check_goals(self) -> None:
        from mowst.tuning.goals import GOALS

        if not self.goals:
            raise InputError(f"goals: there is none; choose from {', '.join(GOALS.names)}, or give package.module:name")
        for place, goal in enumerate(self.goals):
            GOALS.lookup(goal)
            if goal in self.goals[:place]:
                raise InputError(f"goals: {goal!r} is there twice; name each once")
        if len(self.goals) > 1 and self.prunes_by != "none":
            raise InputError(f"pruner {self.pruner}: Optuna prunes by a single goal, and there are {len(self.goals)}")

    def _check_drawing(self) -> None:
        from mowst.tuning.sampling import make_pruner, make_sampler

        make_sampler(self.sampler, self.seed, self.sampler_options)
        make_pruner(self.prunes_by, 1, self.pruner_options)

    @property
    def prunes_by(self) -> str:
        """The pruner's name."""
        return self.pruner or ("percentile" if len(self.goals) == 1 else "none")

    @property
    def file(self) -> Path | None:
        """The file that holds it; none: an address."""
        return None if "://" in self.study else Path(self.study)
