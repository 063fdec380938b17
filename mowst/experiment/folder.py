"""The folder of a run: claimed before anything is trained, never shared, and read again.

    OUT/config.yaml  result.json  report.html         all seeds; chosen.yaml, with the experts that a preset chose
    OUT/README.md                                     a model card
    OUT/seed-0/      config.yaml  metrics.jsonl  result.json  figures.json  trust.json  predictions.npz
                     model.safetensors

Of a person's own graph there is a card, too, OUT/NAME.yaml, and how its columns became features, seed-0/columns.json.
Weights are safetensors, everything else is text or plain arrays. A hidden file says which entries a run wrote, so that
nothing else is ever replaced; another one is locked as long as a run writes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from filelock import FileLock, Timeout

from mowst.errors import InputError
from mowst.experiment.config import Config
from mowst.experiment.reading import config_of, parse, parser
from mowst.experiment.unfinished import check_ended, held_words
from mowst.reporting import GENERATED, is_card
from mowst.system import OF_A_RUN, check_type_of, finite, write_text

MARK, LOCK, CHOSEN, PAGE = OF_A_RUN, ".mowst.lock", "chosen.yaml", "report.html"
SEARCH = "search"  # folder that says how far a search for candidates is, as long as it goes on
NEW = ".mowst.new"
MODEL_CARD = "README.md"
LOGS = {"tensorboard", "wandb"}
"""Folders of loggers."""
COLUMNS = "columns.json"
"""How the columns of a person's own graph became features."""


class Mark(NamedTuple):
    """What a run says of itself in its folder."""

    config: str | None
    """Its configuration; none: there is no run."""
    files: set[str]
    """The entries that it wrote, or may write."""
    devices: int | None = None
    """That were asked for; none: nobody said."""


class Claimed(NamedTuple):
    """A folder that is a run's own."""

    folder: Path
    place: Path
    """Where to write: the folder, or one inside it whose contents take their place when the run is whole."""
    done: Mapping[int, dict[str, Any]]
    """Records of seeds that are there already, of the same run, which was stopped before its end."""
    devices: int | None = None
    """That were asked for when it began, or now."""


@contextmanager
def claim(
    out: str | None,
    config: Config,
    *,
    overwrite: bool = False,
    logger: str | None = None,
    devices: int | None = None,
) -> Iterator[Claimed]:
    """Give a run its folder, for itself alone.

    What another run left there gives way, if it may, when the new one is whole; a run of the same configuration that
    was stopped goes on. A folder that was made for nothing is taken away again.

    Args:
        out: the folder; none: a new one in runs/.
        config: of the run.
        overwrite: whether another run may be replaced.
        logger: name of the folder inside that a logger writes; none: there is none.
        devices: that are asked for; none: as many as before.

    Raises:
        InputError: the folder cannot be written, is in use, or holds what is not this run's.
    """
    folder = new_folder(config) if out is None else Path(out)
    with locked(folder, made=out is None):
        ours = marked(folder)
        seeds = {f"seed-{seed}" for seed in config.all_seeds}
        wanted = {"config.yaml", "result.json", CHOSEN, SEARCH, PAGE, MODEL_CARD} | seeds
        wanted |= {card_name(config)} if config.own else set()
        wanted |= ({logger} if logger else set()) | (ours.files & LOGS)
        if foreign := sorted(name for name in wanted - ours.files if (folder / name).exists()):
            raise InputError(f"--out {folder}: {', '.join(foreign)} there is no run's; give another folder")
        held = sorted(name for name in ours.files if (folder / name).exists())
        if held and (ours.config != dump(config) or "result.json" in held):
            if not overwrite:
                raise InputError(f"--out {folder}: {held_words(folder, ours.config, config)}, or --overwrite")
            with replacing(folder, held, config) as beside:
                yield Claimed(folder, beside, finished_seeds(beside, config))
            write_mark(folder, Mark(dump(config), wanted))
            return
        mark = Mark(dump(config), wanted, devices or ours.devices)
        write_mark(folder, mark)
        try:
            yield Claimed(folder, folder, finished_seeds(folder, config), mark.devices)
        finally:
            if not any((folder / name).exists() for name in wanted):
                (folder / MARK).unlink()


def card_name(config: Config) -> str:
    """Return what the card of a person's own graph is called in the folder of a run: by it, the graph has its name."""
    stem = Path(config.dataset).resolve().stem
    return "graph.yaml" if stem == "config" else f"{stem}.yaml"


def new_folder(config: Config) -> Path:
    """Make a folder of its own in runs/, named by graph and time."""
    name = f"runs/{Path(config.dataset).stem.lower()}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 10_000):
        folder = Path(name if number == 1 else f"{name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(folder, error) from None
        return folder
    raise InputError(f"--out {name}: there are too many of this name; give a folder")


@contextmanager
def locked(folder: Path, *, made: bool) -> Iterator[None]:
    """Make a folder if need be, and hold its lock; if it was made for nothing, take it away."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        if folder.is_file():
            raise InputError(f"--out {folder}: is a file; give a folder")
        made = made or not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        tempfile.TemporaryFile(dir=folder).close()
    except Timeout:
        raise InputError(f"--out {folder}: another run is writing there; give another folder") from None
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if made:
            with suppress(OSError):  # not empty: all is well
                folder.rmdir()


def unwritable(folder: Path, error: OSError) -> InputError:
    """Return the error for a folder that cannot be written."""
    return InputError(f"--out {folder}: cannot be written ({error.strerror}); give another folder")


def marked(folder: Path) -> Mark:
    """Return what is to be known of the run that is in a folder.

    Raises:
        InputError: the mark is damaged.
    """
    path = folder / MARK
    if path.exists():
        found = read_json(path)
        try:
            check_type_of("files", found["files"], list[str])
            check_type_of("devices", found.get("devices"), int | None)
            files = {name for name in found["files"] if name == Path(name).name}
            return Mark(found["config"], files, found.get("devices"))
        except (InputError, TypeError, KeyError):
            raise InputError(f"{path}: not the mark of a run, or damaged; give another folder") from None
    try:  # a run of the library, or of before there were marks
        record = json.loads((folder / "result.json").read_text())
        files = {"config.yaml", "result.json", *(f"seed-{seed}" for seed in record["seeds"])}
        with suppress(OSError, UnicodeError):
            if GENERATED in (folder / PAGE).read_text(encoding="utf-8"):
                files.add(PAGE)
        files |= {MODEL_CARD} if is_card(folder / MODEL_CARD) else set()
        if {"dataset", "scores", "runs"} <= record.keys():
            return Mark((folder / "config.yaml").read_text(), files)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Mark(None, set())


def write_mark(folder: Path, mark: Mark) -> None:
    """Say which entries of a folder are a run's, and of which configuration."""
    write_text(folder / MARK, json.dumps(mark._asdict() | {"files": sorted(mark.files)}, indent=2) + "\n")


def begun(folder: Path) -> Iterator[Path]:
    """Yield what a folder holds of a run that was stopped: a search, seeds."""
    yield from (*folder.glob(SEARCH), *folder.glob("seed-*"))


@contextmanager
def replacing(folder: Path, held: list[str], config: Config) -> Iterator[Path]:
    """Give a hidden folder inside, whose entries take the place of those that a run left when they are all there.

    One that was stopped is there still when the same run is asked for again; one that had not begun is taken away.
    """
    beside, aside = folder / NEW, folder / f"{NEW}.before"
    if beside.exists() and marked(beside).config != dump(config):
        shutil.rmtree(beside)
    beside.mkdir(exist_ok=True)
    write_mark(beside, Mark(dump(config), set()))
    try:
        yield beside
    except BaseException:
        if not any(begun(beside)):
            shutil.rmtree(beside)
        raise
    (beside / MARK).unlink()
    new = list(beside.iterdir())
    aside.mkdir(exist_ok=True)
    for name in held:
        os.replace(folder / name, aside / name)
    try:
        for path in new:
            os.replace(path, folder / path.name)
    except BaseException:
        for name in held:
            os.replace(aside / name, folder / name)
        raise
    finally:
        shutil.rmtree(aside)
        shutil.rmtree(beside)


def finished_seeds(folder: Path, config: Config) -> dict[int, dict[str, Any]]:
    """Return the records of the seeds that a folder holds."""
    paths = {seed: folder / f"seed-{seed}" / "result.json" for seed in config.all_seeds}
    found = {seed: read_json(path) for seed, path in paths.items() if path.exists()}
    for seed, record in found.items():
        if not isinstance(record, dict) or record.get("seed") != seed or "scores" not in record:
            raise InputError(f"{paths[seed]}: not the record of seed {seed}, or damaged; take the folder away")
    return found


def as_json(record: Any) -> str:
    """Write a record as JSON, where what is not a number, or infinite, is null."""
    return json.dumps(finite(record), indent=2, allow_nan=False) + "\n"


def dump(config: Config) -> str:
    """Return a configuration as YAML that `--config` takes."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def read_json(path: Path) -> Any:
    """Read a JSON file that a run wrote."""
    if not path.exists():
        check_ended(path.parent)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not the record of a run: {error}") from None


def read_config(folder: Path) -> Config:
    """Read the configuration that a run folder holds."""
    path = folder / "config.yaml"
    if not path.is_file():
        check_ended(folder)
        raise InputError(f"{folder}: not a run of one seed (no config.yaml); give OUT/seed-0")
    try:
        return config_of(parse(parser("run", ""), ["--config", str(path)]))
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}") from None
