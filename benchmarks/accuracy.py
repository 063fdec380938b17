"""Accuracy of the experts alone, their average, Mowst and Mowst* on real graphs; writes the table of docs/results.md.

    python benchmarks/accuracy.py --data_root data [--only "cora/*"] [--budget 3600] [--table]

A cell is one experiment and one JSON file in benchmarks/results/accuracy: what is there is not run again. All plain
cells share one setting (below); `tuned` cells have the experts of configs/tuned-*.yaml and the default regime, and
`further` ones the regime that trains both experts on; the table says what else a cell was run with.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mowst.data import card
from mowst.experiment import Config, ExpertConfig, run
from mowst.experiment.reading import config_of, parse, parser
from mowst.models import ROLES
from mowst.system import Settings, folder, tune_process, write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "accuracy"
GRAPHS = [
    *("cora", "pubmed", "photo", "computers", "cs", "tolokers", "github", "facebook"),
    *("blogcatalog", "twitch-de", "amherst41", "actor", "digits-knn", "sbm"),
]
EXPERT = {"hidden_channels": 64, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm"}
PLAIN = Config(epochs=300, patience=50, rounds=3, seeds=3, weak=ExpertConfig("mlp", **EXPERT))
CAPS = "2 layers of 64, at most 300 epochs a phase, patience 50, at most 3 rounds of turns"
REGIMES = {"mowst-star": {"regime": "joint"}, "mowst": {"regime": "alternate", "baselines": False}}


def cells(root: str) -> dict[str, Config]:
    """Return every experiment by name: GRAPH/STRONG-METHOD, GRAPH/STRONG-tuned, or GRAPH/WEAK+STRONG-tuned."""
    found: dict[str, Config] = {}
    for graph in GRAPHS:
        for strong in ("gcn", "sage"):
            for name, options in REGIMES.items():
                expert = ExpertConfig(strong, **EXPERT)
                found[f"{graph}/{strong}-{name}"] = dataclasses.replace(PLAIN, dataset=graph, strong=expert, **options)
    for path in sorted(folder("configs").glob("tuned-*.yaml")):
        _, graph, strong = path.stem.split("-")
        tuned = config_of(parse(parser("run", ""), ["--precision", "bf16-mixed", "--config", str(path)]))
        found[f"{graph}/{strong}-tuned"] = tuned
        found[f"{graph}/{strong}-further"] = dataclasses.replace(tuned, regime="fine-tuned")
    return {name: dataclasses.replace(config, data_root=root) for name, config in found.items()}


def main() -> None:
    """Run the cells that are missing, then print the table and put it into docs/results.md."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--workers", type=int, default=1, help="processes that share the seeds of a cell")
    arguments.add_argument("--table", action="store_true", help="only write the table")
    given = arguments.parse_args()
    start = time.perf_counter()
    for name, config in cells(given.data_root).items():
        path = RESULTS / f"{name}.json"
        wanted = any(fnmatch(name, pattern) for pattern in given.only)
        if given.table or not wanted or path.exists() or time.perf_counter() - start > given.budget:
            continue
        print(f"{name} ...", flush=True)
        with tune_process():
            result = run(config, workers=given.workers, settings=Settings())
        settings = dataclasses.asdict(config)
        del settings["data_root"]
        write_text(path, json.dumps({**result, "config": settings}, indent=1) + "\n")
        print(f"{name}: {json.dumps(result['scores'])} {result['seconds']:.0f} s", flush=True)
    print(table := "\n".join(lines()))
    put(HERE.parent / "docs" / "results.md", "accuracy", table)


def lines() -> list[str]:
    """Return the table as Markdown, test scores in percent, best of a row and strong expert in bold."""
    heads = ["graph", "MLP", "strong", "alone", "average", "Mowst", "Mowst*", "confidence in the MLP (Mowst*)"]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph in GRAPHS:
        for strong in ("gcn", "sage"):
            star, turns = read(f"{graph}/{strong}-mowst-star"), read(f"{graph}/{strong}-mowst")
            if star is None:
                continue
            shown = [star["scores"]["weak"], star["scores"]["strong"], star["scores"]["average"]]
            shown += [turns["scores"]["mixture"] if turns else None, star["scores"]["mixture"]]
            weak, *rest = bold(shown)
            metric = " (AUC)" if card(graph).metric == "rocauc" else ""
            row = [f"{graph}{metric}", weak, strong, *rest, f"{star['confidence']['mean']:.2f}"]
            table.append("| " + " | ".join(row) + " |")
    table += [
        "",
        f"Test scores in percent, mean ± standard deviation over {PLAIN.seeds} seeds or masks; {CAPS}.",
    ]
    heads = ["graph", "weak", "alone", "strong", "alone", "average", "calibrated", "evidence", "fused", "routed"]
    heads += ["stacked on val"]
    table += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, found in tuned_results():
        graph, config = name.partition("/")[0], found["config"]
        weak, strong = (f"{e['kind']} {e['num_layers']} x {e['hidden_channels']}" for e in map(config.get, ROLES))
        strong += "".join(f", {config[key]}" for key in ("precision", "regime") if config[key] != getattr(PLAIN, key))
        strong += f", ema_decay {decay}" if (decay := config.get("ema_decay")) else ""
        strong += "" if found["device"] in ("auto", "cpu") else f", {found['device']}"
        ours = ["weak", "strong", "average", "calibrated", "evidence", "mixture", "routed"]
        by_val = ["stacked-on-val"]
        if config["regime"] != PLAIN.regime:  # validation nodes have chosen its threshold
            by_val.insert(0, ours.pop())
        alone, *rest = bold([found["scores"].get(each) for each in ours])
        rest += [cell(found["scores"].get(each)) for each in by_val]
        table.append("| " + " | ".join([f"{graph} ({len(found['seeds'])})", weak, alone, strong, *rest]) + " |")
    words = (
        "Experts as in `configs/tuned-*.yaml`, but for the width that is shown; seeds or masks in brackets. The "
        "default regime, where none is named, and the plain fusions, as in docs/gating.md; in bold the best of what is "
        "not fitted on validation nodes."
    )
    return [*table, "", words]


def tuned_results() -> list[tuple[str, dict[str, Any]]]:
    """Return the tuned cells that have been run."""
    paths = (path for kind in ("tuned", "further") for path in RESULTS.glob(f"*/*-{kind}*.json"))
    names = (str(path.relative_to(RESULTS))[:-5] for path in sorted(paths))
    return [(name, found) for name in names if (found := read(name)) is not None]


def read(name: str) -> dict[str, Any] | None:
    """Return a cell's result, if it has been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def bold(scores: list[dict[str, list[float]] | None]) -> list[str]:
    """Write scores, the highest mean in bold."""
    best = max(score["test"][0] for score in scores if score)
    return [cell(score, score is not None and score["test"][0] == best) for score in scores]


def cell(score: dict[str, list[float]] | None, best: bool = False) -> str:
    """Write one score."""
    if score is None:
        return "not run"
    words = f"{score['test'][0]:.2f} ± {score['test'][1]:.2f}"
    return f"**{words}**" if best else words


def put(page: Path, name: str, text: str) -> None:
    """Put a text between the page's marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.read_text().partition(begin)
    if found:
        write_text(page, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
