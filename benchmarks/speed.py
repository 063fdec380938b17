"""What the fast paths bring, beside a PyG script that does the same.

    python benchmarks/speed.py [--only step product] [--threads 1] [--turns 5]

Every row runs in two processes of its own, one with the settings of the command line programs
(`mowst.system.process`) and one without, and all variants of a row take turns, so that a noisy neighbour disturbs all
alike. Printed per variant and setting: the median time, and the median over the turns of its ratio to the row's first
variant, without the settings (`faster`) and with the same ones (`faster_same_setting`).
With one thread it is processor time that is measured, which a busy machine hardly changes; with more, the clock on the
wall. One JSON file per row goes to `benchmarks/results/speed/`.

A row is a function that builds its graph and returns its variants, name -> step, in `speed_steps.py` or
`speed_mixture.py`; add it to their `ROWS`. A step may return counts, which are recorded beside its time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import speed_mixture, speed_steps
from mowst.experiment import Config, run
from mowst.experiment.config import PRECISIONS
from mowst.system import tune_process

RESULTS = Path(__file__).parent / "results" / "speed"
SETTINGS = {"plain": {"enabled": False}, "tuned": {}, "lean": {"keep_memory": False}}
TIMED = ("plain", "tuned")
Step = Callable[[], object]

ROWS: dict[str, Callable[[], dict[str, Step]]] = {**speed_steps.ROWS, **speed_mixture.ROWS}
MEMORY_ROWS = {"step-memory": "step", "step-full-size-memory": "step-full-size"}
"""Peak memory of a row's variants, each in a fresh process."""
ACCURACY_ROWS = {"bf16-accuracy": ("cora", "photo", "amherst41")}
"""Test accuracy of bf16-mixed beside float32, five seeds."""


class Worker:
    """A process that has built one row and runs a step whenever a line on its standard input names one."""

    def __init__(self, row: str, setting: str, threads: int):
        command = [sys.executable, __file__, "--work", row, "--setting", setting, "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        built = json.loads(self._read())
        if isinstance(built, str):
            raise speed_mixture.NotRun(built)
        self.variants: list[str] = built

    def __call__(self, variant: str) -> dict[str, float]:
        """Run a step: its milliseconds, and the growth of the process's peak memory in MB since the row was built."""
        assert self.process.stdin is not None
        print(variant, file=self.process.stdin, flush=True)
        return json.loads(self._read())

    def close(self) -> None:
        self.process.communicate()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker died with code {self.process.wait()}")
        return line


def work(row: str, setting: str, threads: int) -> None:
    """Serve the steps of one row, in a process of its own."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message="Sparse")
    clock = time.process_time if threads == 1 else time.perf_counter
    with tune_process(**SETTINGS[setting]):
        try:
            steps = ROWS[row]()
        except speed_mixture.NotRun as error:
            print(json.dumps(str(error)), flush=True)
            return
        print(json.dumps(list(steps)), flush=True)
        built = peak_memory()
        for line in sys.stdin:
            start = clock()
            found = steps[line.strip()]()
            elapsed = 1e3 * (clock() - start)
            counts = found if isinstance(found, dict) else {}
            print(json.dumps({"ms": elapsed, "mb": peak_memory() - built, **counts}), flush=True)


def peak_memory() -> float:
    """Return the largest resident size this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)


def measure_time(row: str, turns: int, threads: int) -> list[dict[str, Any]]:
    """Run all variants of a row in turns, with and without the process-wide settings; the first turn does not count."""
    workers = {setting: Worker(row, setting, threads) for setting in TIMED}
    variants = workers["plain"].variants
    times: dict[tuple[str, str], list[float]] = {}
    counts: dict[tuple[str, str], dict[str, float]] = {}
    for _ in range(turns + 1):
        for setting, worker in workers.items():
            for variant in variants:
                said = worker(variant)
                times.setdefault((variant, setting), []).append(said.pop("ms"))
                counts[variant, setting] = {name: value for name, value in said.items() if name != "mb"}
    for worker in workers.values():
        worker.close()
    baseline = times[variants[0], "plain"][1:]
    return [
        {
            "variant": variant,
            "setting": setting,
            "ms": median(spent[1:]),
            "range": [min(spent[1:]), max(spent[1:])],
            "faster": median(b / s for b, s in zip(baseline, spent[1:], strict=True)),
            "faster_same_setting": median(
                b / s for b, s in zip(times[variants[0], setting][1:], spent[1:], strict=True)
            ),
            **counts[variant, setting],
        }
        for (variant, setting), spent in times.items()
    ]


def measure_memory(row: str, threads: int) -> list[dict[str, Any]]:
    """Return how much two steps of each variant add to the peak memory of a process that has only built the row."""
    results: list[dict[str, Any]] = []
    for setting in SETTINGS:
        for variant in _variants(row, setting, threads):
            worker = Worker(row, setting, threads)
            worker(variant)
            results.append({"variant": variant, "setting": setting, "mb": worker(variant)["mb"]})
            worker.close()
    return [{**result, "share": result["mb"] / max(results[0]["mb"], 1e-9)} for result in results]


def measure_accuracy(graphs: Sequence[str], threads: int, seeds: int = 5) -> list[dict[str, Any]]:
    """Train a GCN on each graph in each precision, five seeds: mean test accuracy in percent."""
    torch.set_num_threads(threads)
    common: dict[str, Any] = {"data_root": os.environ["SPEED_DATA_ROOT"], "seeds": seeds, "mixture": False}
    results: list[dict[str, Any]] = []
    for name in graphs:
        speed_mixture.graph(name)
        for precision in PRECISIONS:
            scores = run(Config(dataset=name, precision=precision, patience=50, epochs=200, **common))["scores"]
            mean, deviation = scores["strong"]["test"]
            results.append({"variant": name, "setting": precision, "test": mean, "deviation": deviation})
    return results


def _variants(row: str, setting: str, threads: int) -> list[str]:
    worker = Worker(row, setting, threads)
    worker.close()
    return worker.variants


def report(row: str, results: list[dict[str, Any]], threads: int) -> None:
    """Print a row and write its JSON file."""
    print(f"\n{row}")
    for result in results:
        cells = [f"{key} {value:,.2f}" for key, value in result.items() if isinstance(value, float)]
        cells += [
            f"[{low:,.1f} to {high:,.1f}]" for low, high in [result.get("range", (math.nan, math.nan))] if low == low
        ]
        print(f"  {result['setting']:6} {result['variant']:32}", *cells)
    record: dict[str, Any] = {"row": row, "machine": machine(), "threads": threads, "results": results}
    if row == "scaling":
        record["exponent"] = exponent(results)
        print(f"  time grows as size to the power {record['exponent']:.2f}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{row}-{threads}-threads.json").write_text(json.dumps(record, indent=2) + "\n")


def exponent(results: list[dict[str, Any]]) -> float:
    """Fit log time to log size over the tuned runs."""
    points = [(math.log(int(r["variant"])), math.log(r["ms"])) for r in results if r["setting"] == "tuned"]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def machine() -> str:
    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model[0] if model else platform.processor()}, {os.cpu_count()} cores, {gpu}, torch {torch.__version__}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


EVERY = [*ROWS, *MEMORY_ROWS, *ACCURACY_ROWS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=EVERY, default=EVERY)
    parser.add_argument("--turns", type=int, default=5, help="counted steps of each variant")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data_root", default=os.environ.get("SPEED_DATA_ROOT", "data"), help="folder of real graphs")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--setting", choices=SETTINGS, default="plain", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["SPEED_DATA_ROOT"] = options.data_root  # for the workers
    if options.work:
        work(options.work, options.setting, options.threads)
        return
    print(f"{machine()}, {options.threads} threads")
    for row in options.only:
        try:
            run_row(row, options.turns, options.threads)
        except speed_mixture.NotRun as reason:
            print(f"\n{row}\n  not run: {reason}")


def run_row(row: str, turns: int, threads: int) -> None:
    if row.endswith("cuda") and not torch.cuda.is_available():
        raise speed_mixture.NotRun("no CUDA device")
    if row in MEMORY_ROWS:
        report(row, measure_memory(MEMORY_ROWS[row], threads), threads)
    elif row in ACCURACY_ROWS:
        report(row, measure_accuracy(ACCURACY_ROWS[row], threads), threads)
    else:
        report(row, measure_time(row, turns, threads), threads)


if __name__ == "__main__":
    main()
