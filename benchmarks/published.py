"""Students by the protocol of the published tables: what recipes of `graphkd` add to soft labels.

    python benchmarks/published.py --data_root data [--only "cora/*"] [--seeds 3] [--budget 3600] [--table]

Largest component, 20 nodes a class to train, 30 to validate, the rest to test, drawn anew by each seed; a SAGE teacher
(2 x 128) that averages a node with its neighbours, as the papers' does, on the whole graph; an MLP student (2 x 128)
that learns from the teacher alone, on all nodes, transductive. Training and options are the same on every graph. A cell
is one experiment and one JSON file in benchmarks/results/published: what is there is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from accuracy import cell as words
from distillation import CARDS, WIDE, scores

import graphkd
from mowst import Config, ExpertConfig
from mowst.system import write_text

RESULTS = Path(__file__).parent / "results" / "published"
GRAPHS = ("cora", "photo", "pubmed", "computers")
NO_LABELS = "mowst.training.distillation:no_labels"
PACE = {"epochs": 500, "patience": 50, "eval_every": 1, "signal": "loss"}
TEACHER = Config(  # as the project trains where labels are few: an L2 penalty, no norm; SAGE as DGL's "gcn" aggregator
    regime="solo",
    weak=ExpertConfig("sage", dropout=0.5, options={"root_weight": False}, **WIDE),
    lr=0.01,
    weight_decay=5e-3,
    optimizer="adam",
    **PACE,
)
STUDENT = {"lr": 0.01, "weight_decay": 5e-4}
MLP, AVERAGES = ExpertConfig("mlp", dropout=0.5, **WIDE), ExpertConfig("sign", dropout=0.5, **WIDE)
STUDENTS = {
    "glnn": (MLP, "glnn"),
    "krd": (MLP, "krd"),
    "krd, power refitted": (MLP, "krd(refit=True)"),
    "hgmd": (MLP, "hgmd"),
    "hgmd, mixup": (MLP, "hgmd(mixup=True)"),
    "ffg2m": (MLP, "ffg2m"),
    "glnn + vqgraph": (MLP, "glnn+vqgraph"),
    "ffg2m + vqgraph": (MLP, "ffg2m+vqgraph"),
    "averages, glnn": (AVERAGES, "glnn"),
    "averages, ffg2m": (AVERAGES, "ffg2m"),
}
THEIRS = {  # Yang et al. 2024, table 1: SAGE, MLP, GLNN, KRD, NOSMOG, VQGraph
    "cora": (80.6, 59.2, 80.3, 82.3, 83.0, 83.9),
    "photo": (90.9, 77.3, 92.0, 92.0, 93.4, 94.2),
    "pubmed": (75.6, 68.4, 75.6, 77.0, 77.3, 78.4),
    "computers": (82.8, 67.6, 82.7, 82.9, 84.0, 85.2),
}


def cells(root: str, teachers: Path, seeds: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return every experiment by name; the first of a graph is its teacher."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for graph in GRAPHS:
        data = {"dataset": str(CARDS / f"{graph}-published.yaml"), "data_root": root, "seeds": seeds}
        folder = teachers / f"{graph}-{seeds}"
        teacher = dataclasses.replace(TEACHER, **data)
        found[f"{graph}/teacher"] = partial(scores, teacher, folder)
        found[f"{graph}/alone"] = partial(scores, dataclasses.replace(teacher, weak=MLP), None)
        for name, (expert, spec) in STUDENTS.items():
            taught = {"kd": graphkd.parse(spec), "objective": NO_LABELS, "teacher": str(folder), "baselines": False}
            config = dataclasses.replace(teacher, weak=expert, **STUDENT, **taught)
            found[f"{graph}/{name}"] = partial(scores, config, None)
    return found


def place(name: str, seeds: int) -> Path:
    """Return the file of a cell."""
    words = "".join(letter if letter.isalnum() or letter == "/" else " " for letter in name)
    return RESULTS / f"{'-'.join(words.split())}-{seeds}.json"


def table(seeds: int) -> list[str]:
    """Return the test scores as Markdown, rows by recipe; in bold the student that validates best."""
    lines = [f"| | {' | '.join(GRAPHS)} |", "|---" * (len(GRAPHS) + 1) + "|"]
    shown = {graph: column(graph, seeds) for graph in GRAPHS}
    best = {
        graph: max((name for name in STUDENTS if name in found), key=lambda name: found[name]["val"][0], default="")
        for graph, found in shown.items()
    }
    for name in ("teacher", "alone", *STUDENTS):
        cells = [words(shown[graph].get(name), name == best[graph]) for graph in GRAPHS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for index, name in enumerate(("SAGE", "MLP", "GLNN", "KRD", "NOSMOG", "VQGraph")):
        lines.append(f"| published: {name} | {' | '.join(f'{THEIRS[graph][index]:.1f}' for graph in GRAPHS)} |")
    return [*lines, "", f"Test accuracy in percent, mean ± standard deviation over {seeds} seeds."]


def column(graph: str, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return the scores of a graph's cells that were run, by name."""
    found = {}
    for name in ("teacher", "alone", *STUDENTS):
        if (path := place(f"{graph}/{name}", seeds)).exists():
            scored = json.loads(path.read_text())["scores"]
            found[name] = scored["student" if "student" in scored else "weak"]
    return found


def main() -> None:
    """Run the cells that are missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--teachers", type=Path, default=Path("runs/published"))
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--table", action="store_true", help="only print the table")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    for name, experiment in cells(given.data_root, given.teachers, given.seeds).items():
        path = place(name, given.seeds)
        asked = any(fnmatch(name, pattern) for pattern in given.only)
        if given.table or not asked or path.exists() or time.perf_counter() - start > given.budget:
            continue
        found = experiment()
        write_text(path, json.dumps(found, indent=1) + "\n")
        print(f"{name}: {json.dumps(found.get('scores', found))[:200]}", flush=True)
    print("\n".join(table(given.seeds)))


if __name__ == "__main__":
    main()
