"""`python -m mowst.run`: train a mixture of a weak and a strong expert, and each alone, on a graph by name."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import PositiveInt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mowst.data import load
from mowst.errors import InputError
from mowst.evaluation.diagnosis import sentences
from mowst.experiment.building import build, classes_of, fabric_of
from mowst.experiment.config import Config
from mowst.experiment.record import dump, seed_record, summary, write_seed, write_text
from mowst.experiment.seed import Hook, opened, run_seed
from mowst.experiment import reading as cli
from mowst.reporting.table import benefit_table, catalogue_table, confidence_line, scores_table
from mowst.system.process import Settings, float32_products, tune_process
from mowst.system.workers import in_processes

PURPOSE = """Train a mixture of a weak and a strong expert on a graph by name, compare it with each expert alone, and
leave a folder with scores, predictions and weights."""


def run(
    config: Config,
    out: str | Path | None = None,
    *,
    hook: Hook | None = None,
    workers: int = 1,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Run every seed of an experiment and return its result, the contents of `OUT/result.json`.

    Args:
        config: the experiment.
        out: folder to write; none: nothing is written.
        hook: called with the record of every validation, with its seed and model.
        workers: processes that share the seeds, each with its share of the cores and of the GPUs. They are spawned:
            a script that asks for several must be guarded by `if __name__ == "__main__"`, and look for no GPU outside.
        settings: process-wide settings of these processes.

    Raises:
        InputError: the configuration or the data does not allow the run.
        FloatingPointError: training diverged.
    """
    one = partial(run_and_record, config=config, out=out)
    if min(workers, config.seeds) > 1:
        # What PyG keeps of a graph once it is processed is there before several processes look for it.
        load(config.dataset, config.data_root, split=config.split, seed=config.first_seed)
        records = in_processes(workers, one, config.all_seeds, settings=settings, told=hook)
    else:
        records = [one(seed, hook) for seed in config.all_seeds]
    result = summary(records)
    if out:
        write_text(Path(out) / "config.yaml", dump(config))
        write_text(Path(out) / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def run_and_record(
    seed: int, hook: Hook | None = None, *, config: Config, out: str | Path | None = None
) -> dict[str, Any]:
    """Run one seed and return its record, the contents of `OUT/seed-k/result.json`."""
    done = run_seed(config, seed, hook)
    return write_seed(Path(out) / f"seed-{seed}", config, done) if out else seed_record(config, done)


class Display:
    """Shows where training is: a bar on a terminal, a line per finished phase elsewhere. It is a trainer's hook.

    Args:
        console: to print on.
        epochs: of a phase at most.
        mixed: whether seeds train side by side, so that their records come mixed.
    """

    def __init__(self, console: Console, epochs: int, *, mixed: bool = False):
        self.console, self.epochs, self.mixed = console, epochs, mixed
        self.last: dict[int, dict[str, Any]] = {}
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("loading", total=epochs)

    def __call__(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        place = line["seed"] if self.mixed else 0
        before = self.last.get(place)
        if before and self.name(line) != self.name(before):
            self.phase_ended(before)
        self.last[place] = line
        words = f"{self.name(line)}, validation {line['val']:.4f}, best {line['best']:.4f}"
        self.bar.update(self.task, description=words, completed=line["epoch"])

    def name(self, line: dict[str, Any]) -> str:
        """Name a phase for people."""
        return f"seed {line['seed']}, {line['model']}, {line['phase']}"

    def phase_ended(self, line: dict[str, Any]) -> None:
        """Print what a phase came to."""
        self.console.print(f"{self.name(line)}: {line['epoch']} epochs, best {line['best']:.4f}")

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        for line in self.last.values():
            self.phase_ended(line)
        self.bar.stop()


@contextmanager
def free_folder(out: str | None, config: Config, *, overwrite: bool) -> Iterator[Path]:
    """Give the folder to write; a run that is there already gives way when the new one is whole.

    Raises:
        InputError: the folder is a file, or holds a run that may not be overwritten.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    folder = Path(out or f"runs/{Path(config.dataset).stem.lower()}-{stamp}")
    try:
        if folder.is_file():
            raise InputError(f"--out {folder}: is a file; give a folder")
        folder.mkdir(parents=True, exist_ok=True)
        held = [*folder.glob("seed-*"), *folder.glob("result.json")]
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); give another folder") from None
    if not held:
        try:
            yield folder
        finally:
            with suppress(OSError):  # not empty: all is well
                folder.rmdir()
        return
    if not overwrite:
        raise InputError(f"--out {folder}: holds a run already; give another folder, or --overwrite to replace it")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        yield Path(beside)
        for old in held:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for new in Path(beside).iterdir():
            os.replace(new, folder / new.name)


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run, print the table."""
    parser = cli.parser("run", PURPOSE)
    parser.add_argument("--out", type=str | None, default=None, help="Folder to write; by default runs/DATASET-TIME.")
    cli.add_switch(parser, "--overwrite", False, "Replace a run that OUT holds.")
    cli.add_switch(parser, "--fast", True, "Process-wide settings for speed (mowst.system.process).")
    cli.add_switch(parser, "--keep_memory", True, "Whether --fast keeps freed memory, for a peak up to twice as high.")
    matmul = "Precision of float32 products, on a CUDA device only: highest, high (TF32), or medium (bfloat16)."
    parser.add_argument("--matmul", type=Literal["highest", "high", "medium"], default="highest", help=matmul)
    workers = "Processes that share the seeds, each with its share of the cores and, of several GPUs, one."
    parser.add_argument("--workers", type=PositiveInt, default=1, help=workers)
    parser.add_argument("--quiet", action="store_true", help="Print the results only.")
    parser.add_argument("--list", action="store_true", help="List the graphs by name and exit.")
    parsed = cli.parse(parser, arguments)
    config = cli.config_of(parsed)
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    if parsed.list:
        console.print(catalogue_table(config.data_root))
        return 0
    products = float32_products(parsed.matmul, fabric_of(config).device)
    data = load(config.dataset, config.data_root, split=config.split, seed=config.first_seed)
    if mismatch := getattr(data, "count_mismatch", None):
        console.print(f"note: {mismatch}")
    build(config, data.num_features, classes_of(data))  # what cannot be built is said before anything is written
    for seed in config.all_seeds if config.kd is not None else ():
        opened(config, seed, fabric_of(config))
    settings = Settings(parsed.fast, parsed.keep_memory, parsed.matmul)
    place = free_folder(parsed.out, config, overwrite=parsed.overwrite)
    cli.say_idle(config, sys.argv[1:] if arguments is None else arguments)
    shown = Display(Console(quiet=parsed.quiet, stderr=True), config.epochs, mixed=parsed.workers > 1)
    with tune_process(parsed.fast, keep_memory=parsed.keep_memory), products, shown as display, place as out:
        result = run(config, out, hook=display, workers=parsed.workers, settings=settings)
    console.print(scores_table(result))
    console.print(confidence_line(result))
    if "diagnosis" in result:
        console.print(benefit_table(result))
        console.print(" ".join(sentences(result)))
    console.print(f"written to {parsed.out or out}")
    return 0


if __name__ == "__main__":
    cli.main(command)
