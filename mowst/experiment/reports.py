"""`report.html` and `README.md`: read a run's folder, and write its page and its model card.

Graph and weights are not looked at, and no code is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from mowst.errors import InputError
from mowst.experiment.folder import CHOSEN, MODEL_CARD, PAGE, locked, marked, read_json, write_mark
from mowst.experiment.repeat import command_of
from mowst.experiment.unfinished import check_ended
from mowst.reporting import (
    Finished,
    comparison_page,
    is_card,
    latex,
    markdown,
    run_card,
    run_page,
    side_by_side,
    terminal,
)
from mowst.system import read_yaml, write_text

CONFIG, FIGURES = "config.yaml", "figures.json"
TABLES = {"table.md": markdown, "table.tex": latex}


def write_report(folder: Path) -> Path:
    """Write the report of a run into its folder, with its model card, and return its path.

    Raises:
        InputError: the folder holds no whole run, or cannot be written.
    """
    run = read_finished(folder)
    with said_of(folder):
        chosen = folder / CHOSEN if (folder / CHOSEN).is_file() else folder / CONFIG
        page, words = run_page(run), run_card(run, settings_in(chosen))
        write_text(folder / MODEL_CARD, words)
        write_text(folder / PAGE, page)
    return folder / PAGE


def rewrite_report(folder: Path) -> Path:
    """Write the report of a run and its model card again, and note that they are the run's.

    Raises:
        InputError: a run is writing there, or another file of such a name, which is nobody's, is there.
    """
    with locked(folder, made=False):
        result_in(folder)
        ours = marked(folder)
        for name in (PAGE, MODEL_CARD):
            if name not in ours.files and (folder / name).exists() and not is_card(folder / name):
                raise InputError(f"{folder / name}: was not written by the run; move it, or give --out another folder")
        write_report(folder)
        if ours.files and not {PAGE, MODEL_CARD} <= ours.files:
            write_mark(folder, ours._replace(files=ours.files | {PAGE, MODEL_CARD}))
    return folder / PAGE


def write_comparison(folders: Sequence[Path], out: Path, *, overwrite: bool) -> Path:
    """Write the page of several runs, or of one, and their tables as Markdown and LaTeX into a folder of its own.

    Raises:
        InputError: one of them holds no whole run, or the place is taken or cannot be written.
    """
    runs = read_all(folders)
    if marked(out).files:
        raise InputError(f"--out {out}: is the folder of a run; give another one")
    if not overwrite and (held := [name for name in (PAGE, *TABLES) if (out / name).exists()]):
        raise InputError(f"--out {out}: holds {', '.join(held)} already; give another folder, or --overwrite")
    with said_of(folders[0] if len(folders) == 1 else Path("the runs")):
        written = {PAGE: run_page(runs[0]) if len(runs) == 1 else comparison_page(runs)}
        found = list(side_by_side(runs))
        written |= {name: "\n".join(map(write, found)) for name, write in TABLES.items()}
    for name, text in written.items():
        write_text(out / name, text)
    return out


def tables_of(folders: Sequence[Path]) -> list[Table]:
    """Return the tables of several runs, for the terminal."""
    runs = read_all(folders)
    with said_of(Path("the runs")):
        return [terminal(grid) for grid in side_by_side(runs)]


def read_all(folders: Sequence[Path]) -> list[Finished]:
    """Read several runs; those whose folders have one name are told apart by their paths."""
    runs = [read_finished(folder) for folder in folders]
    names = [run.name for run in runs]
    paths = zip(runs, folders, strict=True)
    return [run._replace(name=str(folder)) if names.count(run.name) > 1 else run for run, folder in paths]


def read_finished(folder: Path) -> Finished:
    """Read what a run's folder tells of it.

    Raises:
        InputError: it holds no whole run, or a damaged one.
    """
    result = result_in(folder)
    config = settings_in(folder / CONFIG)
    with said_of(folder):
        seeds = [folder / f"seed-{int(seed)}" for seed in result["seeds"]]
        kept = all((seed / FIGURES).is_file() for seed in seeds)
        return Finished(
            name=folder.resolve().name,
            result=result,
            figures=[drawn_in(seed / FIGURES) for seed in seeds] if kept else [],
            histories=[validations_in(seed / "metrics.jsonl") for seed in seeds],
            config=(folder / CONFIG).read_text(encoding="utf-8"),
            command=command_of(config),
            signal=config["signal"],
        )


def result_in(folder: Path) -> dict[str, Any]:
    """Read the record of all seeds of a run.

    Raises:
        InputError: as `read_finished`.
    """
    if not (folder / "result.json").is_file():
        check_ended(folder)
        raise InputError(f"{folder}: no finished run (no result.json); give the folder that --out named")
    path = folder / "result.json"
    result = having(path, read_json(path), ())
    if "seed" in result:
        raise InputError(f"{folder}: is not the folder of a whole run; give the one above seed-0")
    return having(path, result, ("runs", "seeds", "scores"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON record a line."""
    with said_of(path):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def validations_in(path: Path) -> list[dict[str, Any]]:
    """Read the validations of a seed's models."""
    return [having(path, line, ("model", "phase", "epoch", "val")) for line in read_lines(path)]


def settings_in(path: Path) -> dict[str, Any]:
    """Read the configuration of a run as plain values."""
    return having(path, read_yaml("configuration", path), ("signal", "regime", "weak", "strong"))


def drawn_in(path: Path) -> dict[str, Any]:
    """Read what a seed kept for drawing."""
    return having(path, read_json(path), ("judged", "counts"))


def having(path: Path, found: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return what a file holds, which must be values by name, some of which must be there.

    Raises:
        InputError: it is something else.
    """
    lacks = [name for name in names if name not in found] if isinstance(found, dict) else ["values by name"]
    if lacks:
        raise InputError(f"{path}: is not as a run wrote it, or damaged: it has no {lacks[0]}")
    return dict(found)


@contextmanager
def said_of(folder: Path) -> Iterator[None]:
    """Say in a line that what a folder holds is not what a run wrote."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.filename}: {error.strerror}") from None
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__} {error}"
        raise InputError(f"{folder}: not the record of a run, or damaged: {reason}") from None
