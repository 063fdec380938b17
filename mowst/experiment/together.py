"""Seeds that several devices train together, one seed after the other: each takes its share of every step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from mowst.errors import InputError
from mowst.experiment.building import fabric_of
from mowst.experiment.config import Config
from mowst.experiment.opening import Opened
from mowst.system import Group, Settings, in_ranks, lead
from mowst.training import Hook

Records = list[dict[str, Any]]


class Together:
    """What every process of a group does: open the experiment on its own device, and run seeds.

    Args:
        config: the experiment, with batches that are chosen.
        seeds: to run.
        one: runs one, `(seed, hook, *, opened) -> record`; picklable.
    """

    def __init__(self, config: Config, seeds: Sequence[int], one: Callable[..., dict[str, Any]]):
        self.config, self.seeds, self.one = config, list(seeds), one

    def __call__(self, group: Group, hook: Hook | None) -> Records:
        """Return the records of the seeds, which the first process has."""
        opened = Opened(self.config, fabric=fabric_of(self.config, group)) if self.seeds else None
        return [self.one(seed, hook, opened=opened) for seed in self.seeds]


def run_together(work: Together, devices: int, settings: Settings | None, hook: Hook | None) -> Records:
    """Let so many devices work together, in processes that torchrun has started, or in new ones."""
    group = Group.here()
    found: Records = (
        in_ranks(devices, work, settings=settings, told=hook)
        if group is None
        else lead(group, work, settings=settings, told=hook)
    )
    return found


def devices_here(asked: int | None, before: int | None = None) -> int:
    """Return how many devices train together: as many as are asked for, or as torchrun has started processes.

    Args:
        asked: by the command line; none: as many as `before`.
        before: that the run which goes on has had; none: none goes on, or nothing of it is there.

    Raises:
        InputError: that differs.
    """
    group = Group.here()
    if group is None:
        return asked or before or 1
    if before not in (None, group.size):
        raise InputError(
            f"devices: {before} have trained this run so far, and torchrun has started {group.size} processes; start "
            f"{before}, or train it anew in another folder"
        )
    if asked not in (None, group.local_size):
        raise InputError(f"devices: torchrun has started {group.local_size} processes here, --devices says {asked}")
    return group.size


def takes_seeds(config: Config, devices: int, seeds: int) -> bool:
    """Tell whether devices take a seed each, since a step on the whole graph is not divided; a line says so.

    Raises:
        InputError: there is one seed alone, or torchrun has started the processes.
    """
    if devices == 1 or config.batch != "full":
        return False
    divided = f"--batch parts({devices}) or neighbors(15,10) is"
    if Group.here() is not None:
        raise InputError(
            f"devices: a step on the whole graph is not divided among {devices}; {divided}; without torchrun, "
            f"--workers {devices} shares out the seeds"
        )
    if seeds < 2:
        raise InputError(
            f"devices: a step on the whole graph is not divided among {devices}, and there is one seed; {divided}"
        )
    warnings.warn(
        f"devices: a step on the whole graph is not divided: each takes a seed, as with --workers; {divided}",
        stacklevel=2,
    )
    return True
