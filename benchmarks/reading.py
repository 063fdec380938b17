"""How long a CSV graph takes to read, as a multiple of pandas' own `read_csv` on the same files.

    python benchmarks/reading.py [--edges 1000000] [--nodes 100000] [--turns 7] [--ids whole gaps text]

Files are written to a temporary folder: nodes with a label, eight columns of numbers of which three have gaps, two
categories and a date; edges with two ids. Both ways are taken in turns, each in processor time of one thread, which a
busy machine hardly changes; the medians are divided. Prints a table and writes results/reading.json.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from mowst.data.own import graph_of_files

IDS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "whole": lambda places: places,
    "gaps": lambda places: 7 * places + 10_003,
    "text": lambda places: np.char.add("person-", places.astype(str)),
}


def write(folder: Path, nodes: int, edges: int, ids: str) -> None:
    """Write a graph."""
    draw, named = np.random.default_rng(0), IDS[ids](np.arange(nodes))
    columns: dict[str, Any] = {"id": named, "label": draw.choice(["tea", "coffee", "milk", "water"], nodes)}
    for place in range(8):
        values = draw.normal(size=nodes).round(4)
        columns[f"number {place}"] = np.where(draw.random(nodes) < 0.1 * (place < 3), np.nan, values)
    columns |= {f"town {place}": draw.choice(["Rome", "Oslo", "Lima", "Pune"], nodes) for place in range(2)}
    columns["joined"] = pd.to_datetime("2015-01-01") + pd.to_timedelta(draw.integers(0, 3000, nodes), unit="D")
    pd.DataFrame(columns).to_csv(folder / "nodes.csv", index=False)
    ends = draw.integers(0, nodes, (2, edges))
    pd.DataFrame({"source": named[ends[0]], "target": named[ends[1]]}).to_csv(folder / "edges.csv", index=False)


def by_pandas(folder: Path) -> None:
    """Read the tables alone."""
    for name in ("nodes.csv", "edges.csv"):
        pd.read_csv(folder / name)


def by_mowst(folder: Path) -> None:
    """Read the graph."""
    graph_of_files(str(folder), label="label")


def seconds(read: Callable[[Path], None], folder: Path) -> float:
    """Return the processor time that a way takes."""
    gc.collect()
    begun = time.process_time()
    read(folder)
    return time.process_time() - begun


def measured(nodes: int, edges: int, ids: str, turns: int) -> dict[str, Any]:
    """Return the medians of both ways, and their ratio."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write(folder, nodes, edges, ids)
        ways = {"pandas": by_pandas, "mowst": by_mowst}
        times = {name: list[float]() for name in ways}
        for turn in range(turns + 1):  # the first imports what is needed, and fills the cache of files
            for name, read in ways.items():
                took = seconds(read, folder)
                times[name] += [took] * (turn > 0)
    found = {name: statistics.median(each) for name, each in times.items()}
    ratios = [ours / theirs for ours, theirs in zip(times["mowst"], times["pandas"], strict=True)]
    return {
        "ids": ids, "nodes": nodes, "edges": edges, **found,
        "ratio": found["mowst"] / found["pandas"], "least": min(ratios), "most": max(ratios),
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, default=1_000_000)
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--ids", nargs="+", choices=IDS, default=list(IDS))
    given = parser.parse_args()
    found = [measured(given.nodes, given.edges, ids, given.turns) for ids in given.ids]
    print("| ids | nodes | edges | pandas, s | mowst, s | ratio | from | to |\n|---|---|---|---|---|---|---|---|")
    for each in found:
        numbers = (f"{each[key]:.2f}" for key in ("pandas", "mowst", "ratio", "least", "most"))
        print(f"| {each['ids']} | {each['nodes']:,} | {each['edges']:,} | {' | '.join(numbers)} |")
    versions = {"pandas": pd.__version__, "numpy": np.__version__}
    path = Path(__file__).parent / "results" / "reading.json"
    path.write_text(json.dumps({"rows": found, "versions": versions}, indent=2) + "\n")


if __name__ == "__main__":
    main()
