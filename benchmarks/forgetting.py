"""How near a default run that forgot one training label in ten is to one that was trained without them.

    python benchmarks/forgetting.py --data_root data [--only cora texas] [--budget 1200] [--table]

It writes the table of docs/trust.md. A cell is one graph, one seed, and one JSON file in benchmarks/results/forgetting:
what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import put

from mowst import forget, load
from mowst.experiment import Config, run
from mowst.system import tune_process, write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "forgetting"
GRAPHS = ["texas", "cora", "amherst41", "actor", "photo"]
HOWS = "retrain", "steps", "last"


def main() -> None:
    """Run the cells that are missing, then print the table and put it into the docs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--only", nargs="*", default=GRAPHS)
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--table", action="store_true", help="only write the table")
    given = arguments.parse_args()
    start = time.perf_counter()
    for graph in given.only:
        path = RESULTS / f"{graph}.json"
        if given.table or path.exists() or time.perf_counter() - start > given.budget:
            continue
        with tune_process(), tempfile.TemporaryDirectory() as place:
            found = cell(Config(dataset=graph, data_root=given.data_root, seeds=1), Path(place))
        write_text(path, json.dumps(found, indent=1) + "\n")
        print(f"{graph}: {time.perf_counter() - start:.0f} s", flush=True)
    print(text := "\n".join(table()))
    put(HERE.parent / "docs" / "trust.md", "forgetting", text)


def cell(config: Config, place: Path) -> dict[str, Any]:
    """Train a run, and let it forget in every way."""
    run(config, place / "run", report=False)
    nodes, found = drawn(config), dict[str, Any]()
    for how in HOWS:
        forget(place / "run", nodes, place / how, how=how)
        result = json.loads((place / how / "result.json").read_text())
        found[how] = {"scores": result["scores"]["mixture"], "forgotten": result["forgotten"]}
    return found


def drawn(config: Config) -> list[int]:
    """Draw one training node in ten, and never the last one of a class."""
    data = load(config.dataset, config.data_root)
    train = data.train_mask.nonzero().squeeze(-1)
    order = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(1))].tolist()
    left, nodes = data.y[train].bincount(), list[int]()
    for node in order:
        if len(nodes) < max(1, len(train) // 10) and left[data.y[node]] > 1:
            nodes.append(node)
            left[data.y[node]] -= 1
    return nodes


def table() -> list[str]:
    """Return the table as lines of Markdown."""
    heads = [
        "graph",
        "labels",
        "way",
        "s",
        "forgotten: nats",
        "kept: nats",
        "others: nats",
        "told apart",
        "test accuracy",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph in GRAPHS:
        if not (path := RESULTS / f"{graph}.json").exists():
            continue
        found = json.loads(path.read_text())
        count = len(found["retrain"]["forgotten"]["nodes"])
        before = found["retrain"]["forgotten"]["measured"]
        lines.append(
            row([graph, f"{count:,}", "none"], None, before["kl"]["before"], before["membership"]["before"], None)
        )
        for how, each in found.items():
            measured, score = each["forgotten"]["measured"], each["scores"]["test"][0]
            taken = each["forgotten"]["seconds"]
            lines.append(row(["", "", how], taken, measured["kl"]["after"], measured["membership"]["after"], score))
    return lines


def row(named: list[str], seconds: float | None, kl: dict[str, float], area: float, score: float | None) -> str:
    """Return a line of the table."""
    numbers = [f"{kl[where]:.3f}" for where in ("forgotten", "kept", "other")]
    ends = ["" if value is None else f"{value:.1f}" for value in (seconds, score)]
    return "| " + " | ".join([*named, ends[0], *numbers, f"{area:.2f}", ends[1]]) + " |"


if __name__ == "__main__":
    main()
