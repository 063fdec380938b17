"""Distillation on real graphs: the GLNN protocol, every loss, and what it does to the mixture's routing.

    python benchmarks/distillation.py --data_root data [--only "cora/*"] [--budget 3600] [--table]

A cell is one experiment and one JSON file in benchmarks/results/distillation: what is there is not run again. Teachers
are trained once a graph and seed, into runs/teachers (`--teachers`), and read by every student from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import time
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accuracy import cell as words
from accuracy import put

import graphkd
from mowst import Config, ExpertConfig
from mowst.errors import InputError
from mowst.evaluation import pooled
from mowst.experiment import metric_of, run, run_seed
from mowst.experiment.record import spread
from mowst.models import Mixture, hard
from mowst.system import write_text
from mowst.training.distillation import TEACHES, parse, wanted

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "distillation"
CARDS = HERE / "cards"
GRAPHS = {
    "cora": {"dataset": str(CARDS / "cora-glnn.yaml")},
    "pubmed": {"dataset": str(CARDS / "pubmed-glnn.yaml")},
    "photo": {"dataset": "photo", "split": "per-class"},
    "actor": {"dataset": "actor"},
    "tolokers": {"dataset": "tolokers"},
}
SEEDS = {"cora": 10, "pubmed": 5}  # of teacher, student alone and soft labels; other graphs have FEW
LOSS_SEEDS = {"cora": 3}
FEW = 2
LONG = {"epochs": 300, "patience": 50, "eval_every": 1}  # Cora, and the GLNN protocol
SHORT = {"epochs": 150, "patience": 30, "eval_every": 2}
WIDE = {"hidden_channels": 128, "num_layers": 2, "norm": "none"}
TEACHER = Config(
    regime="solo", weak=ExpertConfig("sage", dropout=0.0, **WIDE), lr=0.01, weight_decay=5e-4, optimizer="adam"
)
STUDENT = {  # GLNN's own on its graphs: lr, weight decay, dropout
    "cora": (0.01, 0.005, 0.6),
    "pubmed": (0.005, 0.0, 0.4),
}
OTHER = (0.01, 5e-4, 0.5)
LOSSES = [
    *("kd", "glnn", "dkd", "nkd", "uskd", "standardized", "ofa", "dualhead"),
    *("gld", "gld(form=neighbourhood)", "lsp", "rkd", "krd", "gld+nkd"),
]
WEIGHTS = {"cora": (1, 10), "actor": (1, 10)}  # of a loss beside the labels; validation chooses
WEIGHT = (10,)  # elsewhere: what it chose on Cora for most losses
MIXTURE = Config(
    regime="joint",
    strong=ExpertConfig("sage"),
    weak=ExpertConfig("mlp"),
    baselines=False,
    pretrain="both",
    signal="loss",
    seeds=FEW,
    **SHORT,
)
SHARES = torch.linspace(0, 1, 51).tolist()
LESSON = "kd(temperature=1)"
THEIRS = {"cora": (78.78, 58.95, 79.39), "pubmed": (74.78, 66.79, 74.81)}  # their README's `tran` scores


def student(graph: str, **options: Any) -> Config:
    """Return the configuration of a student: an MLP in GLNN's size."""
    lr, decay, dropout = STUDENT.get(graph, OTHER)
    expert = ExpertConfig("mlp", dropout=dropout, **WIDE)
    plan = {"regime": "solo", "lr": lr, "weight_decay": decay, "optimizer": "adam", "seeds": LOSS_SEEDS.get(graph, FEW)}
    return Config(weak=expert, **plan, **GRAPHS[graph], **options)


def weighted(spec: str, weight: float) -> list[dict[str, Any]]:
    """Return the specification with this weight on each of its losses."""
    return [{**entry, "weight": weight} for entry in graphkd.parse(spec)]


def loss_cell(spec: str, weight: float) -> str:
    """Name the cell of a loss: gld(form=class) at weight 1 is gld-form-class-x1."""
    return f"{re.sub(r'[^a-z]+', '-', spec).strip('-')}-x{weight}"


def cells(root: str, teachers: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return every experiment by name; the first of a graph is its teacher."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for graph, data in GRAPHS.items():
        many = {"seeds": SEEDS.get(graph, FEW), **(LONG if graph in THEIRS else SHORT)}
        pace = LONG if graph == "cora" else SHORT
        taught = {"teacher": str(teachers / graph), "baselines": False, **pace}
        experiments = {
            "teacher": dataclasses.replace(TEACHER, **data, **many),
            "alone": dataclasses.replace(student(graph), **many),
            "soft-labels": dataclasses.replace(
                student(graph, kd="glnn", objective="mowst.training.distillation:no_labels", **taught), **many
            ),
        }
        for spec in LOSSES:
            for weight in WEIGHTS.get(graph, WEIGHT):
                losses = weighted(spec, weight)
                free = not TEACHES & wanted(parse(losses))  # USKD would take a teacher's argmax for labels
                told = {**taught, "teacher": None} if free else taught
                experiments[loss_cell(spec, weight)] = student(graph, kd=losses, **told)
        for name, config in experiments.items():
            place = teachers / graph if name == "teacher" else None
            found[f"{graph}/{name}"] = partial(scores, dataclasses.replace(config, data_root=root), place)
        mixture = dataclasses.replace(MIXTURE, data_root=root, **data)
        found[f"{graph}/routing"] = partial(routing, mixture)
    return found


def scores(config: Config, out: Path | None) -> dict[str, Any]:
    """Run one experiment and return what is kept of it."""
    result = run(config, out)
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key not in ("data_root", "teacher")}
    settings["dataset"] = Path(config.dataset).stem
    kept = {key: result[key] for key in ("dataset", "metric", "scores", "seeds", "seconds", "versions", "threads")}
    return {**kept, "runs": [run["scores"] for run in result["runs"]], "config": settings}


def routing(config: Config) -> dict[str, Any]:
    """Compare a mixture with and without strong -> weak distillation, seed by seed."""
    lines = []
    for seed in config.all_seeds:
        plain, taught = (
            run_seed(each, seed) for each in (config, dataclasses.replace(config, teacher="strong", kd=LESSON))
        )
        out = plain.fitted["mixture"].output
        data, metric = plain.data, metric_of(plain.data)
        routed = (share_routed(out, data, share)[0].rows(data.val_mask) for share in SHARES)
        least = max(pooled(each, data.y[data.val_mask], metric) for each in routed)
        sides = {"without": out, "with": taught.fitted["mixture"].output}
        lines.append({name: saved(side, data, metric, least) for name, side in sides.items()})
    return {"runs": lines, "lesson": LESSON, "seeds": list(config.all_seeds)}


def share_routed(out: Mixture, data: Any, share: float) -> tuple[Mixture, float]:
    """Send the most confident nodes, this share of validation, to the weak expert; return it, and the share of test."""
    validation = out.confidence[data.val_mask].sort(descending=True).values
    count = round(share * len(validation))
    threshold = float(validation[count - 1]) if count else float("inf")
    return hard(out, threshold), float((out.confidence[data.test_mask] >= threshold).float().mean())


def saved(out: Mixture, data: Any, metric: Any, least: float) -> dict[str, float]:
    """Return the largest share of test nodes that need no GNN at a validation score of `least`, and scores there."""
    best = {"share": 0.0, "val": float("nan"), "test": float("nan")}
    for share in SHARES:
        routed, of_test = share_routed(out, data, share)
        val, test = (pooled(routed.rows(mask), data.y[mask], metric) for mask in (data.val_mask, data.test_mask))
        if val >= least - 1e-9 or share == 0:
            best = {"share": 100 * of_test, "val": 100 * val, "test": 100 * test}
    masks = {"pool": out, "weak": hard(out, -1.0)}
    whole = {
        name: 100 * pooled(side.rows(data.test_mask), data.y[data.test_mask], metric) for name, side in masks.items()
    }
    return {**best, **whole, "confidence": float(out.confidence[data.test_mask].mean()), "least": 100 * least}


def main() -> None:
    """Run the cells that are missing, then print the tables and put them into docs/results.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--teachers", type=Path, default=Path("runs/teachers"))
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--table", action="store_true", help="only write the tables")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    experiments = cells(given.data_root, given.teachers)
    for name, experiment in experiments.items():
        path, graph = RESULTS / f"{name}.json", name.split("/")[0]
        asked = any(fnmatch(name, pattern) for pattern in given.only)
        if given.table or not asked or path.exists() or time.perf_counter() - start > given.budget:
            continue
        if not (given.teachers / graph / "result.json").exists():
            write(f"{graph}/teacher", experiments[f"{graph}/teacher"])
        if not path.exists():
            write(name, experiment)
    print(table := "\n".join(tables()))
    put(HERE.parent / "docs" / "results.md", "distillation", table)


def write(name: str, experiment: Callable[[], dict[str, Any]]) -> None:
    """Run one cell; that a loss refuses the graph is a result too."""
    start = time.perf_counter()
    try:
        found = experiment()
    except InputError as error:
        if not str(error).startswith("kd: "):
            raise
        found = {"refused": str(error)}
    write_text(RESULTS / f"{name}.json", json.dumps(found, indent=1) + "\n")
    print(f"{name}: {json.dumps(found.get('scores', found))[:300]} {time.perf_counter() - start:.0f} s", flush=True)


def read(name: str) -> dict[str, Any] | None:
    """Return a cell's result, if it has been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def tables() -> list[str]:
    """Return the three tables as Markdown."""
    return [*glnn_table(), "", *loss_table(), "", *routing_table()]


def glnn_table() -> list[str]:
    """Return the GLNN protocol beside what its authors report."""
    table = ["| `tran` | seeds | SAGE | MLP | MLP, soft labels only | theirs |", "|---|---|---|---|---|---|"]
    for graph in THEIRS:
        teacher, alone, soft = (read(f"{graph}/{name}") for name in ("teacher", "alone", "soft-labels"))
        if teacher and alone and soft:
            shown = (teacher["scores"]["weak"], alone["scores"]["weak"], soft["scores"]["student"])
            theirs = " / ".join(f"{score:.2f}" for score in THEIRS[graph])
            cells = " | ".join(words(score) for score in shown)
            table.append(f"| {graph} | {len(teacher['seeds'])} | {cells} | {theirs} |")
    return table


Scores = dict[str, list[float]]  # by split: [mean, deviation]


def loss_table() -> list[str]:
    """Return the test score of every loss on every graph; weight and the best student, in bold, by validation."""
    columns = [column(graph) for graph in GRAPHS]
    names = ["teacher (SAGE)", "student without", *LOSSES]
    heads = [f"{graph}{' (AUC)' if graph == 'tolokers' else ''}" for graph in GRAPHS]
    table = ["| | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    for name in names:
        shown = []
        for by_name in columns:
            students = {key: score["val"][0] for key, score in by_name.items() if score and key != names[0]}
            best = max(students, key=students.__getitem__, default="")
            refused = name in by_name and by_name[name] is None
            shown.append("refused" if refused else words(by_name.get(name), name == best))
        table.append(f"| {name if name in names[:2] else f'`{name}`'} | " + " | ".join(shown) + " |")
    return [
        *table,
        "",
        "Test scores in percent, mean ± standard deviation over the first seeds (3 on Cora, else 2); 2 x 128, "
        "full batch; Cora, and on PubMed the teacher and the student without, at most 300 epochs, patience 50, the "
        "rest 150 and 30. Labels count once, the loss 10 times; on Cora and Actor 1 or 10, as validation chooses. "
        "Every loss with its defaults. In bold the student with the best validation score. Photo has 20 nodes a class "
        "to train and 30 to validate.",
    ]


def column(graph: str) -> dict[str, Scores | None]:
    """Return the scores of the first seeds by row; None where the loss refused."""
    found: dict[str, Scores | None] = {}
    for row, cell in (("teacher (SAGE)", "teacher"), ("student without", "alone")):
        if result := read(f"{graph}/{cell}"):
            first = [each["weak"] for each in result["runs"][: LOSS_SEEDS.get(graph, FEW)]]
            found[row] = {split: spread([each[split] for each in first]) for split in ("val", "test")}
    for spec in LOSSES:
        weights = WEIGHTS.get(graph, WEIGHT)
        tried = [result for weight in weights if (result := read(f"{graph}/{loss_cell(spec, weight)}"))]
        if len(tried) == len(weights):
            done = [result["scores"]["student"] for result in tried if "scores" in result]
            found[spec] = max(done, key=lambda score: score["val"][0]) if done else None
    return found


def routing_table() -> list[str]:
    """Return how many nodes need no GNN with and without strong -> weak distillation."""
    heads = [
        "graph",
        "validation score",
        "to the MLP without",
        "with",
        "test score without",
        "with",
        "MLP without",
        "with",
    ]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph in GRAPHS:
        if found := read(f"{graph}/routing"):

            def mean(side: str, key: str, runs: list[dict[str, Any]] = found["runs"]) -> float:
                return statistics.fmean(run[side][key] for run in runs)

            sides = [[mean(side, key) for side in ("without", "with")] for key in ("share", "test", "weak")]
            share, test, weak = ([f"{value:.1f}" for value in pair] for pair in sides)
            shown = [f"{mean('without', 'least'):.1f}", *(f"{value} %" for value in share), *test, *weak]
            table.append(f"| {graph} | " + " | ".join(shown) + " |")
    return [
        *table,
        "",
        "Mowst\\* with an MLP and SAGE (2 x 64), both pre-trained, stopped on validation likelihood, with and without "
        f'`--teacher strong --kd "{LESSON}"`, {FEW} seeds: the largest share of test nodes that confidence may send to '
        "the MLP so that the validation score is not below the best that any share gives without distillation (first "
        "column), the test score there, and the MLP's on all nodes.",
    ]


if __name__ == "__main__":
    main()
