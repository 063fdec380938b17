"""Scores by phase and epoch for programs that draw them while a run trains: TensorBoard, Weights & Biases.

Both are optional. A run's events lie in its own folder, OUT/tensorboard/seed-0 or OUT/wandb; nothing is sent anywhere
unless the environment says so (WANDB_MODE=online).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from mowst.errors import InputError, unknown
from mowst.experiment.config import Config
from mowst.training import Hook, epochs_between

SCORES = ("val", "best", "loss")
"""What of a validation is logged, where it is there."""


class Log(Protocol):
    """Where the scores of one seed go."""

    def log(self, scores: Mapping[str, float], epoch: int) -> None:
        """Take the scores of one validation."""

    def close(self) -> None:
        """Write what is left."""


class Events:
    """TensorBoard's, written by Lightning Fabric's logger."""

    def __init__(self, place: Path, seed: int, config: Config):
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        self.logger = TensorBoardLogger(place / "tensorboard", f"seed-{seed}", "")

    def log(self, scores: Mapping[str, float], epoch: int) -> None:
        """Take the scores of one validation."""
        self.logger.log_metrics(dict(scores), epoch)

    def close(self) -> None:
        """Write what is left."""
        self.logger.finalize("success")


class Wandb:
    """A run of Weights & Biases, which stays on this machine unless WANDB_MODE says otherwise."""

    def __init__(self, place: Path, seed: int, config: Config):
        import wandb

        self.run = wandb.init(
            project="mowst",
            group=place.resolve().name,
            name=f"{place.resolve().name} seed {seed}",
            dir=str(place),
            config=dataclasses.asdict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run.define_metric("*", step_metric="epoch")

    def log(self, scores: Mapping[str, float], epoch: int) -> None:
        """Take the scores of one validation."""
        self.run.log({**scores, "epoch": epoch})

    def close(self) -> None:
        """Write what is left."""
        self.run.finish()


LOGGERS: dict[str, Callable[[Path, int, Config], Log]] = {"tensorboard": Events, "wandb": Wandb}
"""By the name of the package that each needs, which is that of the folder it writes, too."""


def check_logger(name: str | None) -> None:
    """See that a logger's package is installed.

    Raises:
        InputError: it is not, or there is no such logger.
    """
    if name is None:
        return
    if name not in LOGGERS:
        raise unknown("logger", name, LOGGERS)
    if find_spec(name) is None:
        raise InputError(f"--logger {name}: is not installed: pip install {name}, or leave the flag out")


class Followed:
    """Hands the record of every validation to a logger, a log for each seed, and then on. It is a trainer's hook.

    Epochs are counted on through the phases of a model, as the learning curves of the report have them.

    Args:
        hook: is told afterwards.
        name: of the logger; none: nothing is logged.
        place: folder of the run.
        config: of the run.
    """

    def __init__(self, hook: Hook, name: str | None, place: Path, config: Config):
        check_logger(name)
        self.hook, self.name, self.place, self.config = hook, name, place, config
        self.logs: dict[int, Log] = {}
        self.last: dict[tuple[int, str], dict[str, Any]] = {}
        self.epochs: dict[tuple[int, str], int] = {}

    def __call__(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        if self.name is not None:
            self.log(line)
        self.hook(line)

    def log(self, line: dict[str, Any]) -> None:
        """Log the scores of one validation, such as `mixture/joint/val`."""
        seed, model = who = line["seed"], line["model"]
        if seed not in self.logs:
            self.logs[seed] = LOGGERS[str(self.name)](self.place, seed, self.config)
        self.epochs[who] = self.epochs.get(who, 0) + epochs_between(self.last.get(who), line)
        self.last[who] = line
        where = f"{model}/{line['phase']}".replace(" ", "-")
        scores = {f"{where}/{name}": float(line[name]) for name in SCORES if line.get(name) is not None}
        self.logs[seed].log(scores, self.epochs[who])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for log in self.logs.values():
            log.close()
