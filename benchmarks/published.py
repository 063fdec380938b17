"""Students by the protocol of the published tables: what recipes of `graphkd` add to soft labels.

    python benchmarks/published.py --data_root data [--only "cora/*"] [--seeds 3] [--budget 3600] [--table]

Largest component, 20 nodes a class to train, 30 to validate, the rest to test, drawn anew by each seed; a SAGE teacher
(2 x 128) that averages a node with its neighbours, as the papers' does, on the whole graph; an MLP student (2 x 128)
that learns from the teacher alone, on all nodes, transductive. Training and options are the same on every graph
(`students.py`). A cell is a recipe on a graph and one JSON file in benchmarks/results/published, with a line for each
seed: what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from accuracy import cell as words
from students import Lesson, answers, case, features, load_graph, student
from torch import Tensor

from mowst.experiment.record import spread
from mowst.system import write_text

RESULTS = Path(__file__).parent / "results" / "published"
GRAPHS = ("cora", "photo", "pubmed", "computers")
NOSMOG = "glnn + sp(normalize=False, of=hidden, weight=0.1)"
STUDENTS = {
    "alone": None,
    "glnn": Lesson(),
    "glnn, rebalanced": Lesson(teacher="rebalanced"),
    "glnn, averaged": Lesson(teacher="averaged"),
    "glnn, rebalanced and averaged": Lesson(teacher="rebalanced and averaged"),
    "steady: glnn": Lesson(steady=True),
    "steady: glnn, rebalanced": Lesson(teacher="rebalanced", steady=True),
    "steady: glnn, rebalanced and averaged": Lesson(teacher="rebalanced and averaged", steady=True),
    "steady: averages, rebalanced": Lesson(given="averages", teacher="rebalanced", steady=True),
    "nkd": Lesson("nkd"),
    "dkd": Lesson("dkd(temperature=1)"),
    "ofa": Lesson("ofa"),
    "dualhead": Lesson("glnn + dualhead"),
    "dist": Lesson("dist"),
    "glnn + hint": Lesson("glnn + hint"),
    "krd": Lesson("krd"),
    "krd, power refitted": Lesson("krd(refit=True)"),
    "hgmd": Lesson("hgmd"),
    "hgmd, mixup": Lesson("hgmd(mixup=True)"),
    "ffg2m": Lesson("ffg2m"),
    "ffg2m, low alone": Lesson("ffg2m(high=0)"),
    "ffg2m, rebalanced": Lesson("ffg2m", teacher="rebalanced"),
    "ffg2m, low alone, rebalanced": Lesson("ffg2m(high=0)", teacher="rebalanced"),
    "glnn + vqgraph": Lesson("glnn + vqgraph"),
    "glnn + vqgraph, codebook in the teacher": Lesson("glnn + vqgraph", teacher="tokens"),
    "nosmog": Lesson(NOSMOG, "deepwalk", noise=True),
    "positions": Lesson(given="positions"),
    "positions, rebalanced": Lesson(given="positions", teacher="rebalanced"),
    "deepwalk": Lesson(given="deepwalk"),
    "deepwalk, rebalanced": Lesson(given="deepwalk", teacher="rebalanced"),
    "deepwalk, rebalanced and averaged": Lesson(given="deepwalk", teacher="rebalanced and averaged"),
    "deepwalk, veiled": Lesson(given="deepwalk", veiled=True),
    "deepwalk, veiled, rebalanced": Lesson(given="deepwalk", teacher="rebalanced", veiled=True),
    "deepwalk, veiled, averaged": Lesson(given="deepwalk", teacher="averaged", veiled=True),
    "deepwalk, veiled, rebalanced and averaged": Lesson(
        given="deepwalk", teacher="rebalanced and averaged", veiled=True
    ),
    "deepwalk, ffg2m": Lesson("ffg2m", "deepwalk"),
    "deepwalk, ffg2m, rebalanced": Lesson("ffg2m", "deepwalk", teacher="rebalanced"),
    "averages": Lesson(given="averages"),
    "averages, rebalanced": Lesson(given="averages", teacher="rebalanced"),
    "averages, ffg2m": Lesson("ffg2m", "averages"),
    "glnn + gld, global": Lesson("glnn + gld"),
    "glnn + gld, class": Lesson("glnn + gld(form=class)"),
    "glnn + gld, neighbourhood": Lesson("glnn + gld(form=neighbourhood)"),
    "glnn + gld, global, weight .1": Lesson("glnn + gld(weight=0.1)"),
    "glnn + gld, class, weight .1": Lesson("glnn + gld(form=class, weight=0.1)"),
    "glnn + gld, neighbourhood, weight .1": Lesson("glnn + gld(form=neighbourhood, weight=0.1)"),
    "nkd + gld, neighbourhood": Lesson("nkd + gld(form=neighbourhood)"),
}
TEACHERS = {
    "teacher": "teacher",
    "teacher, rebalanced": "rebalanced",
    "teacher, averaged": "averaged",
    "teacher, rebalanced and averaged": "rebalanced and averaged",
    "teacher with a codebook": "tokens",
}
BESIDE = {"nkd + gld, neighbourhood": "nkd"}  # otherwise glnn is what a recipe is compared with
THEIRS = {  # Yang et al. 2024, table 1: SAGE, MLP, GLNN, KRD, NOSMOG, VQGraph
    "cora": (80.6, 59.2, 80.3, 82.3, 83.0, 83.9),
    "photo": (90.9, 77.3, 92.0, 92.0, 93.4, 94.2),
    "pubmed": (75.6, 68.4, 75.6, 77.0, 77.3, 78.4),
    "computers": (82.8, 67.6, 82.7, 82.9, 84.0, 85.2),
}
Runs = dict[str, dict[str, float]]  # by seed: the scores in percent


def place(graph: str, name: str) -> Path:
    """Return the file of a cell."""
    letters = "".join(letter if letter.isalnum() else " " for letter in name)
    return RESULTS / graph / f"{'-'.join(letters.split())}.json"


def read(graph: str, name: str) -> Runs:
    """Return what was run of a cell, by seed."""
    path = place(graph, name)
    runs: Runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    return runs


def keep(graph: str, name: str, seed: int, scores: dict[str, float]) -> None:
    """Put a seed into its cell's file."""
    runs = {**read(graph, name), str(seed): scores}
    found = {"graph": graph, "student": name, "torch": torch.__version__, "python": platform.python_version()}
    write_text(place(graph, name), json.dumps({**found, "runs": runs}, indent=1) + "\n")


def scores(logits: Tensor, data: Any) -> dict[str, float]:
    """Return the accuracies on validation and test nodes, in percent."""
    right = (logits.argmax(-1) == data.y).float()
    masks = {"val": data.val_mask, "test": data.test_mask}
    return {name: round(100 * float(right[mask].mean()), 3) for name, mask in masks.items()}


def run(graph: str, seed: int, names: list[str], given: argparse.Namespace, end: float) -> None:
    """Run the students of a graph and a seed, and keep what their teachers say."""
    lessons = {name: STUDENTS[name] for name in names}
    kinds = {"teacher", *(lesson.teacher for lesson in lessons.values() if lesson is not None)}
    walks = any(lesson is not None and lesson.given == "deepwalk" for lesson in lessons.values())
    data, folder = load_graph(graph, given.data_root, seed), given.teachers / f"{graph}-{seed}"
    of = case(data, seed, folder, kinds, given.teachers / f"{graph}-deepwalk.pt" if walks else None)
    for name, kind in TEACHERS.items():
        if kind in of.taught and str(seed) not in read(graph, name):
            keep(graph, name, seed, scores(of.taught[kind].logits, of.data))
    for name, lesson in lessons.items():
        start = time.process_time()
        if time.perf_counter() < end:
            logits = answers(student(of, lesson), features(of, "x" if lesson is None else lesson.given))
            seconds = round(time.process_time() - start, 1)
            keep(graph, name, seed, {**(found := scores(logits, of.data)), "seconds": seconds})
            print(f"{graph}/{name}, seed {seed}: {found}, {seconds} s", flush=True)


def table(seeds: int) -> list[str]:
    """Return the test scores of the cells that have all seeds, rows by recipe; in bold what validates best."""
    lines = [f"| | {' | '.join(GRAPHS)} |", "|---" * (len(GRAPHS) + 1) + "|"]
    shown = {graph: column(graph, seeds) for graph in GRAPHS}
    best = {
        graph: max((name for name in STUDENTS if name in found), key=lambda name: found[name]["val"][0], default="")
        for graph, found in shown.items()
    }
    for name in (*TEACHERS, *STUDENTS):
        cells = [words(shown[graph].get(name), name == best[graph]) for graph in GRAPHS]
        if any(cell != "not run" for cell in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    for index, name in enumerate(("SAGE", "MLP", "GLNN", "KRD", "NOSMOG", "VQGraph")):
        lines.append(f"| published: {name} | {' | '.join(f'{THEIRS[graph][index]:.1f}' for graph in GRAPHS)} |")
    return [*lines, "", f"Test accuracy in percent, mean ± standard deviation over {seeds} seeds."]


def column(graph: str, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return mean and deviation of a graph's cells that were run on all of the first seeds, by name."""
    found = {}
    for name in (*TEACHERS, *STUDENTS):
        runs = read(graph, name)
        first = [runs[str(seed)] for seed in range(seeds) if str(seed) in runs]
        if len(first) == seeds:
            columns = {split: [each[split] for each in first] for split in ("val", "test")}
            found[name] = {split: spread(each) for split, each in columns.items()}
    return found


def differences() -> list[str]:
    """Return what each recipe adds to the one it stands beside, seed by seed, with its standard error."""
    lines = [f"| | {' | '.join(GRAPHS)} |", "|---" * (len(GRAPHS) + 1) + "|"]
    for name in STUDENTS:
        cells = []
        for graph in GRAPHS:
            runs, plain = read(graph, name), read(graph, BESIDE.get(name, "glnn"))
            more = [runs[seed]["test"] - plain[seed]["test"] for seed in sorted(runs.keys() & plain.keys())]
            error = statistics.stdev(more) / len(more) ** 0.5 if len(more) > 1 else float("nan")
            cells.append(f"{statistics.fmean(more):+.2f} ± {error:.2f} ({len(more)})" if len(more) > 1 else "not run")
        if name != BESIDE.get(name, "glnn") and any(cell != "not run" for cell in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "Mean difference to `glnn` (`nkd + gld`: to `nkd`) ± its standard error, over (so many) seeds."]


def main() -> None:
    """Run the cells that are missing, seed by seed, then print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--teachers", type=Path, default=Path("runs/published"))
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--table", action="store_true", help="only print the tables")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    end = time.perf_counter() + given.budget
    for graph in () if given.table else GRAPHS:
        for seed in range(given.seeds):
            asked = [name for name in STUDENTS if any(fnmatch(f"{graph}/{name}", it) for it in given.only)]
            if (
                missing := [name for name in asked if str(seed) not in read(graph, name)]
            ) and time.perf_counter() < end:
                run(graph, seed, missing, given, end)
    print("\n".join([*table(given.seeds), "", *differences()]))


if __name__ == "__main__":
    main()
