"""Start many runs at once on a graph that is not prepared yet, and see that each leaves a whole result of its own.

    python benchmarks/starts.py --count 200 --at-once 8

They share the data root and the folder that they are started in. Half of them let the program name their folder
(runs/GRAPH-TIME), the others have a name of their own. Beside them one in eight asks for a name that another one has,
too: of these two exactly one may have it, and the other must be refused. `--processes` are programs of their own, the
others forks of one that has imported everything, which are quicker, so that more of them meet. Exit code 1 if a result
is lost, shared or not whole.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

NODES = 400
ARRAYS, TEXTS = (
    ("model.safetensors", "predictions.npz"),
    ("config.yaml", "metrics.jsonl", "figures.json", "result.json", "trust.json"),
)
LINE = "--dataset twitch-pt --data-root data --seeds 1 --epochs 2 --patience 2 --regime joint --no-baselines --quiet"


class Start(NamedTuple):
    """One run, as it is asked for."""

    number: int
    out: str | None
    own: bool
    """Whether it is a program of its own, not a fork."""

    @property
    def arguments(self) -> list[str]:
        """The command line; the learning rate says whose a result is."""
        mine = ["--lr", f"{0.01 + self.number * 1e-6:.6f}"]
        return [*LINE.split(), *mine, *(() if self.out is None else ("--out", self.out))]


class Found(NamedTuple):
    """What many starts left."""

    codes: Counter[int]
    said: list[str]
    """What those that failed said, one line each."""
    wrong: list[str]
    """What must not be."""


def raw_files(place: Path) -> None:
    """Write the raw files of a small Twitch graph, as PyG reads them."""
    raw = place / "Twitch" / "PT" / "raw"
    raw.mkdir(parents=True)
    rows = np.arange(NODES)
    edges = np.stack([rows, np.roll(rows, 1)], 1)
    np.savez(raw / "PT.npz", features=np.eye(NODES), target=rows % 2, edges=edges)


def planned(count: int, processes: int) -> list[Start]:
    """Return the starts: every other one names a folder, and right behind some comes one that asks for the same."""
    outs: list[str | None] = []
    for number in range(count):
        outs += [f"runs/own-{number}" if number % 2 else None]
        outs += [outs[-1]] * (number % 8 == 3)
    return [Start(number, out, number < processes) for number, out in enumerate(outs)]


def begin(start: Start, place: Path) -> int:
    """Start a run in a folder; return the process."""
    said = place / f"said-{start.number}"
    if start.own:
        command = [sys.executable, "-m", "mowst.run", *start.arguments]
        with said.open("wb") as file:
            return subprocess.Popen(command, cwd=place, stdin=subprocess.DEVNULL, stdout=file, stderr=file).pid
    if (child := os.fork()) == 0:
        code = 70
        try:
            os.chdir(place)
            for stream in (1, 2):
                os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            code = as_program(start.arguments)
        finally:
            os._exit(code)
    return child


def as_program(arguments: Sequence[str]) -> int:
    """Run the command as a program does; return its exit code."""
    from mowst.run import command
    from mowst.system.main import main

    try:
        main(command, arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def import_all() -> None:
    """Import what a run needs, so that forks need not, by a run on a graph of another name."""
    from mowst.run import command

    with tempfile.TemporaryDirectory() as place:
        line = "--dataset karate --seeds 1 --epochs 1 --regime joint --no-baselines --quiet --no-fast --out"
        before, away = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        sys.stdout.flush()
        os.dup2(away, 1)
        command([*line.split(), f"{place}/out"])
        sys.stdout.flush()
        os.dup2(before, 1)


def started(count: int, at_once: int, processes: int, place: Path) -> Found:
    """Start so many runs, some at a time, in a folder of theirs, and look at what they leave."""
    raw_files(place / "data")
    if processes < count:
        import_all()
    waiting, running, codes = planned(count, processes), dict[int, Start](), dict[int, int]()
    starts = list(waiting)
    while waiting or running:
        while waiting and len(running) < at_once:
            start = waiting.pop(0)
            running[begin(start, place)] = start
        pid, status = os.wait()
        if (ended := running.pop(pid, None)) is not None:
            codes[ended.number] = os.waitstatus_to_exitcode(status)
    failed = [number for number, code in codes.items() if code]
    said = [(place / f"said-{number}").read_text().strip() for number in failed]
    return Found(Counter(codes.values()), said, faults(starts, codes, place))


def faults(starts: list[Start], codes: dict[int, int], place: Path) -> list[str]:
    """Return everything that is wrong with what many starts left."""
    wrong = [f"start {number} ended with {code}" for number, code in codes.items() if code not in (0, 2)]
    asked = Counter(start.out for start in starts if start.out)
    results: Counter[int] = Counter()
    for folder in sorted(place.glob("runs/*")):
        wrong += [f"{folder.name}: {fault}" for fault in unsound(folder)]
        if (folder / "result.json").exists():
            results[number_of(folder)] += 1
    for start in starts:
        name = f"start {start.number} ({start.out or 'no --out'})"
        if codes[start.number] == 0 and results[start.number] != 1:
            wrong.append(f"{name}: ended with 0 and left {results[start.number]} results")
        if codes[start.number] == 2:
            said = (place / f"said-{start.number}").read_text().splitlines()
            if start.out is None or asked[start.out] == 1:
                wrong.append(f"{name}: was refused: {said}")
            elif not said or not any(
                words in said[-1] for words in ("another run is writing", "holds a run", "is in use")
            ):
                wrong.append(f"{name}: was refused for another reason: {said}")
    for out, times in asked.items():
        had = sum(codes[start.number] == 0 for start in starts if start.out == out)
        if had != 1:
            wrong.append(f"--out {out}: asked for {times} times, {had} had it")
    return wrong + left_over(place)


def number_of(folder: Path) -> int:
    """Return whose result a folder holds."""
    config = (folder / "config.yaml").read_text()
    rate = next(line for line in config.splitlines() if line.startswith("lr:"))
    return round((float(rate.partition(":")[2]) - 0.01) / 1e-6)


def unsound(folder: Path) -> list[str]:
    """Return what a folder lacks, or has too much."""
    own = (f"seed-0/{name}" for name in (*ARRAYS, *TEXTS))
    wanted = {"README.md", "chosen.yaml", "config.yaml", "report.html", "result.json", ".mowst.json", "seed-0", *own}
    held = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    wrong = [f"lacks {name}" for name in sorted(wanted - held)] + [f"holds {name}" for name in sorted(held - wanted)]
    if not wrong:
        record = json.loads((folder / "result.json").read_text())
        own = json.loads((folder / "seed-0/result.json").read_text())
        with np.load(folder / "seed-0/predictions.npz") as arrays:
            shape = arrays["mixture"].shape
        same = (folder / "chosen.yaml").read_text() == (folder / "seed-0/config.yaml").read_text()
        whole = shape == (NODES, 2) and record["seeds"] == [0] and own["seed"] == 0
        wrong += ["is of two runs"] * (not same) + ["is not whole"] * (not whole)
    return wrong


def left_over(place: Path) -> list[str]:
    """Return what should not be there beside results: what is half done, of a graph or of a run."""
    prepared = {path.name for path in (place / "data/Twitch/PT/processed").iterdir()}
    wrong = [] if "data.pt" in prepared else ["the graph is not prepared"]
    known = {"data", "runs"} | {path.name for path in place.glob("said-*")}
    return wrong + [f"{path.name} is left over" for path in place.iterdir() if path.name not in known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="Number of runs that must leave a result.")
    parser.add_argument("--at-once", type=int, default=8, help="How many run at a time.")
    parser.add_argument("--processes", type=int, default=24, help="How many are programs of their own, the first ones.")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # so that a process that has run something can be forked
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        found = started(asked.count, asked.at_once, asked.processes, Path(place))
    print(f"{found.codes.total()} starts, {asked.at_once} at once, in {time.monotonic() - began:.0f} s")
    print(f"exit codes: {dict(found.codes)}")
    for line, times in Counter(line.rpartition(": ")[2] for line in found.said).most_common(8):
        print(f"  {times} x {line}")
    for line in found.wrong:
        print(f"WRONG: {line}")
    print(f"{found.codes[0]} results of {asked.count} that there must be, {len(found.wrong)} faults")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
