"""What is said of a folder that holds a run, or a part of one, where a whole run or another place was meant."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import yaml

from mowst.errors import InputError
from mowst.experiment.config import Config
from mowst.experiment.repeat import flags_of
from mowst.system import OF_A_RUN


def check_ended(folder: Path) -> None:
    """Say of a folder without a result that it is not there, or that its run, or that of the folder above, did not end.

    Raises:
        InputError: so it is; the message says how the run goes on, and which seeds are there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give the one that --out of mowst.run named")
    for run in (folder, folder.parent):
        if (run / OF_A_RUN).exists() and not (run / "result.json").exists():
            done = sorted(str(path.parent) for path in run.glob("seed-*/result.json"))
            there = f"; already there: {', '.join(done)}" if done else ""
            raise InputError(f"{folder}: that run did not end; python -m mowst.run --resume {run} goes on{there}")


def held_words(folder: Path, held: str | None, config: Config) -> str:
    """Say what a run that a folder holds is, and what to give in its place: of one that did not end, what differs.

    Args:
        folder: of the run.
        held: its configuration, as YAML.
        config: of the run that was to go there.
    """
    if held is None or (folder / "result.json").exists():
        return "holds a run already; give another folder"
    differing = " ".join(
        f"{flag} {value}" for flag, value in flags_of(yaml.safe_load(held), dataclasses.asdict(config))
    )
    return f"holds a run that did not end, of {differing}; --resume {folder} goes on with it; else give another folder"
