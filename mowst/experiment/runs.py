"""All seeds of an experiment: one after the other, or side by side in several processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mowst.data.own import card_of, card_text
from mowst.errors import InputError
from mowst.experiment.checkpoint import Saving, kept
from mowst.experiment.config import Config
from mowst.experiment.folder import CHOSEN, as_json, card_name, dump
from mowst.experiment.opening import Opened, basis
from mowst.experiment.record import seed_record, summary, write_seed
from mowst.experiment.reports import write_report
from mowst.experiment.searching import settled
from mowst.experiment.seed import run_seed, train_seed
from mowst.experiment.sharing import SharedGraph
from mowst.experiment.sizing import Sizing
from mowst.experiment.together import Together, run_together, takes_seeds
from mowst.system import Group, Settings, in_company, in_processes, write_text
from mowst.training import Hook, World


def run(
    config: Config,
    out: str | Path | None = None,
    *,
    hook: Hook | None = None,
    workers: int | Literal["auto"] = 1,
    devices: int = 1,
    settings: Settings | None = None,
    opened: Opened | None = None,
    done: Mapping[int, dict[str, Any]] | None = None,
    report: bool = True,
    saving: Saving | None = None,
    joined: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Run every seed of an experiment and return its result, the contents of `OUT/result.json`.

    Where the configuration asks for `best`, its candidates are tried first (`mowst.experiment.settled`).

    Args:
        config: the experiment.
        out: folder to write; none: nothing is written.
        hook: called with the record of every validation, with its seed and model.
        workers: processes that share the seeds, each with its share of the cores and of the GPUs. They are spawned:
            a script that asks for several must be guarded by `if __name__ == "__main__"`, and look for no GPU outside.
            `auto`: this one, and others with as many threads as it has as soon as it has trained for as long as they
            take to start, as far as there are CPUs and memory for them (`mowst.experiment.sizing`).
        devices: processes that train every seed together, each with its share of a step, on a device of its own. They
            are spawned, too, unless torchrun has started them: this one is the first then, and `mowst.system.follow` is
            what the others do.
        settings: process-wide settings of these processes.
        opened: the same experiment, if it is open already.
        done: records of seeds that need not be run again.
        report: whether `OUT/report.html` is written.
        saving: how often a seed that is trained is saved in `out`, from where the same call goes on; none: never.
        joined: called with the number of processes when, by `auto`, some join.

    Raises:
        InputError: the configuration or the data does not allow the run.
        FloatingPointError: training diverged.
    """
    if workers != "auto" and not (isinstance(workers, int) and workers >= 1):
        raise InputError(f"workers: must be a whole number from 1, or auto, got {workers!r}")
    records = dict(done or {})
    shared = SharedGraph(devices)
    config = settled(config, None if out is None else Path(out), saving=saving, shared=shared)
    left = [seed for seed in config.all_seeds if seed not in records]
    if devices > 1 and left:
        opened = opened or shared.open(config)
        if takes_seeds(opened.config, devices, len(left)):
            workers, devices = devices, 1
    if devices > 1 and (left or Group.here()):
        alike = config if opened is None else replace(config, batch=opened.config.batch)
        one = partial(run_and_record, config=alike, out=out, report=report, saving=saving)
        found = run_together(Together(alike, left, one), devices, settings, hook)
    elif workers == "auto" and len(left) > 1:
        opened = opened or shared.open(config)
        here = partial(run_and_record, config=config, out=out, opened=opened, report=report, saving=saving)
        there = partial(here, config=replace(config, batch=opened.config.batch), opened=None)
        found = in_company(here, there, left, Sizing.of(opened, joined), settings=settings, told=hook)
    elif workers != "auto" and min(workers, len(left)) > 1:
        # What PyG keeps of a graph once it is processed is there before several processes look for it.
        opened = opened or shared.open(config)
        alike = replace(config, batch=opened.config.batch)  # which each would choose by what is free then
        one = partial(run_and_record, config=alike, out=out, report=report, saving=saving)
        found = in_processes(workers, one, left, settings=settings, told=hook)
    else:
        opened = opened or (shared.open(config) if left else None)
        one = partial(run_and_record, config=config, out=out, opened=opened, report=report, saving=saving)
        found = [one(seed, hook) for seed in left]
    records |= dict(zip(left, found, strict=True))
    result = summary([records[seed] for seed in config.all_seeds])
    if out:
        write_run(Path(out), config, None if opened is None else opened.config, result)
        if report:
            try:
                write_report(Path(out))
            except InputError as error:  # the results are there, and worth more than their picture
                warnings.warn(f"report.html and README.md are not written: {error}", stacklevel=2)
    return result


def write_run(out: Path, config: Config, chosen: Config | None, result: dict[str, Any]) -> None:
    """Write what is of all seeds: the configuration, what was chosen for it, the card of an own graph, the result."""
    write_text(out / "config.yaml", dump(config))
    if chosen is not None and chosen not in (config, replace(config, batch="full")):
        write_text(out / CHOSEN, dump(chosen))
    if config.own:
        write_text(out / card_name(config), card_text(card_of(config.dataset, config.columns)))
    write_text(out / "result.json", as_json(result))


def run_and_record(
    seed: int,
    hook: Hook | None = None,
    *,
    config: Config,
    out: str | Path | None = None,
    opened: Opened | None = None,
    report: bool = True,
    saving: Saving | None = None,
) -> dict[str, Any]:
    """Run one seed and return its record, the contents of `OUT/seed-k/result.json`.

    Of processes that train it together, the first writes and has the record.
    """
    opened = opened or Opened(config)
    world = World(opened.fabric)
    if not (world.first or (out and saving)):
        train_seed(opened, seed)
        return {}
    if not out:
        return seed_record(opened.config, run_seed(config, seed, hook, opened=opened))
    folder = Path(out) / f"seed-{seed}"
    if saving is None:
        return write_seed(folder, opened.config, run_seed(config, seed, hook, opened=opened), figures=report)
    with kept(folder, lambda: basis(opened, seed), saving, world=world) as journal:
        if not world.first:
            train_seed(opened, seed, journal=journal)
            return {}
        done = run_seed(config, seed, hook, opened=opened, journal=journal)
        return write_seed(folder, opened.config, done, figures=report)
