"""Where trials stand that are being trained: a folder beside the study, from which a retry of a killed one goes on.

    study-trials/trial-7-CONFIGURATION/seed-0/checkpoint.safetensors

A retry draws the same parameters, so that its folder is the one of the trial that was killed; it goes when the trial
has come to its end, pruned or not. A worker on another machine that does not see it begins the trial anew, and so does
one that finds the first worker alive there, asleep perhaps: a folder belongs to one process at a time.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from optuna.trial import BaseTrial, Trial

from mowst.errors import InputError
from mowst.experiment import Beside, Checkpoint, Config, Opened, Saving, basis, dump, kept
from mowst.system.files import said_of
from mowst.training import Journal
from mowst.tuning.plan import Plan

LOCK = ".mowst.lock"


@dataclass(frozen=True)
class Trials:
    """The folder of the trials of a study."""

    folder: Path | None = None
    """None: nothing is saved."""
    saving: Saving = field(default_factory=Saving)
    """How often."""

    @classmethod
    def of(cls, plan: Plan) -> Trials:
        """Return the folder beside a study's file; of an address, one in the working directory."""
        stem = Path(plan.name).name if plan.file is None else plan.file.with_suffix("") if plan.file.name else ""
        return cls(Path(f"{stem}-trials"), Saving(conditions={"fast": plan.fast}))

    @contextmanager
    def claimed(self, trial: BaseTrial, config: Config) -> Iterator[Path | None]:
        """Give a trial its folder, for this process alone, and take it away when the trial has come to its end.

        None: nothing is saved, because there is no folder, or a process that still lives has it.

        Raises:
            InputError: it cannot be written.
        """
        place = self._place(trial, config)
        if place is None or self.folder is None:
            yield None
            return
        lock = FileLock(place / LOCK, timeout=0)
        with said_of(place):
            place.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout, FileNotFoundError):  # another one has it, or is just taking it away
                lock.acquire()
        if not lock.is_locked:
            yield None
            return
        try:
            yield place
        except Exception:  # it has come to an end, unlike one that somebody stops
            shutil.rmtree(place, ignore_errors=True)
            raise
        else:
            shutil.rmtree(place, ignore_errors=True)
        finally:
            (place / LOCK).unlink(missing_ok=True)
            lock.release()
            for folder in (place, self.folder):
                with suppress(OSError):  # something is saved there
                    folder.rmdir()

    def _place(self, trial: BaseTrial, config: Config) -> Path | None:
        """Return the folder of a trial, which a retry of it has, too."""
        if self.folder is None or not isinstance(trial, Trial):
            return None
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        first = frozen.system_attrs.get("failed_trial", trial.number)
        return self.folder / f"trial-{first}-{hashlib.sha256(dump(config).encode()).hexdigest()[:12]}"

    @contextmanager
    def going_on(self, place: Path | None, opened: Opened, seed: int, beside: Beside) -> Iterator[Journal | None]:
        """Give the journal of a seed of a trial, which stands where the trial was killed; none: nothing is saved.

        Args:
            place: of the trial.
            opened: its experiment.
            seed: one of its.
            beside: what else is saved and put back.

        Raises:
            InputError: it cannot be saved.
        """
        folder = None if place is None else place / f"seed-{seed}"
        if folder is None:
            yield None
            return

        def about() -> dict[str, Any]:
            return basis(opened, seed)

        held = Checkpoint(folder, about, self.saving)
        try:
            held.read()
        except InputError:  # of another version, or damaged: the trial is worth less than a person's look at it
            held.path.unlink(missing_ok=True)
        with kept(folder, about, self.saving, beside) as journal:
            yield journal
