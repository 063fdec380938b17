"""What the command reaches with a dataset and no flag, and with `--preset fast`.

It writes the tables of docs/panel.md and of README.md.

    python benchmarks/default.py --data_root data [--only "cora/*"] [--budget 3600] [--table]
    python benchmarks/default.py --data_root data --presets best --budget_each 20m [--only "photo/*"]

A cell is one experiment and one JSON file in benchmarks/results/default: seeds that are there are not run again. One of
`best` is one graph, one seed and its own search (GRAPH-best.json, GRAPH-best-1.json and so on); if it is killed, the
same line goes on with it. The member of the panel that validation chooses is chosen anew for every seed, the weak
expert among them. `GRAPH-gcn.json` is the default of before there were presets, and is not run any more.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from accuracy import put

from mowst.experiment import Config, Saving, run, settled
from mowst.system import tune_process, write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "default"
GRAPHS = {
    "texas": 10,
    "cornell": 10,
    "reed98": 5,
    "cora": 5,
    "chameleon-filtered": 10,
    "squirrel-filtered": 10,
    "digits-knn": 5,
    "amherst41": 5,
    "actor": 10,
    "blogcatalog": 5,
    "photo": 3,
    "twitch-de": 3,
    "facebook": 3,
    "pubmed": 3,
    "dblp": 5,
    "github": 3,
    "tolokers": 3,
    "computers": 3,
    "cs": 3,
}
"""Graphs, the smallest first, and how many seeds: ten where ten splits are published, three where runs take minutes."""
PRESETS = "good", "fast"
GOALS = {"photo": (97.0, 1), "computers": (94.3, 1), "cs": (96.5, 1), "tolokers": (86.2, 3)}
"""Graphs that `best` is run on: what it is to reach with twenty minutes on two cores, and for how many seeds."""
OTHERS = {"mixture", "average", "stacked-on-val", "calibrated", "evidence", "routed", "sampled"} | {
    "largest-class",
    "label-propagation",
    "correct-and-smooth",
}


def main() -> None:
    """Run the cells that are missing, then print the table and put it into the docs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--presets", nargs="*", default=PRESETS, choices=[*PRESETS, "best"])
    arguments.add_argument("--budget_each", default="20m", help="for the candidates of a cell of best")
    arguments.add_argument("--runs", type=Path, default=Path("runs/default"), help="folder for cells of best underway")
    arguments.add_argument("--table", action="store_true", help="only write the table")
    given = arguments.parse_args()
    start = time.perf_counter()
    for path, config in cells(given):
        wanted = any(fnmatch(f"{config.dataset}/{config.preset}", pattern) for pattern in given.only)
        late = time.perf_counter() - start > given.budget
        done = {each["seed"]: each for each in json.loads(path.read_text())["runs"]} if path.exists() else {}
        if given.table or not wanted or set(config.all_seeds) <= done.keys() or late:
            continue
        with tune_process():
            result = searched(config, given.runs / path.stem) if config.preset == "best" else run(config, done=done)
        write_text(path, json.dumps(result) + "\n")
        print(f"{path.stem}: {json.dumps(result['scores']['mixture'])} {result['seconds']:.0f} s", flush=True)
    print(table := "\n".join(lines()))
    put(HERE.parent / "docs" / "panel.md", "panel", table)
    put(HERE.parent / "README.md", "default", "\n".join(short()))
    if reached := best_lines():
        print("\n".join(reached))
        put(HERE.parent / "docs" / "panel.md", "best", "\n".join(reached))


def cells(given: argparse.Namespace) -> Iterator[tuple[Path, Config]]:
    """Yield the file of each cell and its experiment."""
    for graph, seeds in GRAPHS.items():
        plain = Config(dataset=graph, data_root=given.data_root)
        for name in (name for name in PRESETS if name in given.presets):
            yield RESULTS / f"{graph}-{name}.json", replace(plain, preset=name, seeds=seeds)
    for graph, (_, seeds) in GOALS.items() if "best" in given.presets else ():
        plain = Config(dataset=graph, data_root=given.data_root, preset="best", budget=given.budget_each, seeds=1)
        for seed in range(seeds):
            path = RESULTS / (f"{graph}-best-{seed}.json" if seed else f"{graph}-best.json")
            yield path, replace(plain, first_seed=seed)


def searched(config: Config, folder: Path) -> dict[str, Any]:
    """Run an experiment that searches first, in a folder from which it goes on if it is killed.

    Returns: its result, with its budget and what the search said.
    """
    notes, start, said = folder / "said.json", time.perf_counter(), list[str]()
    folder.mkdir(parents=True, exist_ok=True)

    def told(line: str) -> None:
        print(f"{config.dataset}: {line}", flush=True)
        said.append(line)

    plain = settled(config, folder, told, Saving())
    if said:
        write_text(notes, json.dumps(said))
    result = run(plain, folder, saving=Saving(), report=False)
    print(f"{config.dataset}: {time.perf_counter() - start:.0f} s in all, since it was begun or taken up", flush=True)
    found = {**result, "budget": config.budget, "chosen": plain.strong.kind, "said": json.loads(notes.read_text())}
    shutil.rmtree(folder)
    return found


def read(graph: str, name: str) -> dict[str, Any] | None:
    """Return a cell, if it was run."""
    path = RESULTS / f"{graph}-{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def tested(found: dict[str, Any], names: list[str]) -> list[float]:
    """Return the test score, by seed, of the one of some models that validates best for that seed."""
    best = [max(names, key=lambda name: each["scores"][name]["val"]) for each in found["runs"]]
    return [each["scores"][name]["test"] for each, name in zip(found["runs"], best, strict=True)]


def spread(values: list[float]) -> str:
    """Return the mean and the sample deviation of some scores."""
    if not values:
        return ""
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0:.2f}"


def lines() -> list[str]:
    """Return the table as Markdown, test scores in percent."""
    heads = [
        "graph",
        "seeds",
        "mixture before",
        "best member by validation",
        "mixture",
        "gain",
        "s",
        "fast: GCN",
        "fast: mixture",
        "s",
    ]
    table, gains = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)], list[tuple[float, float]]()
    for graph in GRAPHS:
        good, fast, old = (read(graph, name) for name in (*PRESETS, "gcn"))
        if good is None:
            continue
        members = [name for name in good["runs"][0]["scores"] if name not in OTHERS]
        single, mixed = tested(good, members), tested(good, ["mixture"])
        before = [] if old is None else tested(old, ["mixture"])[: len(mixed)]
        gain = statistics.fmean(mixed) - statistics.fmean(single)
        gains.append((gain, statistics.fmean(mixed[: len(before)]) - statistics.fmean(before) if before else math.nan))
        quick = ["", "", ""]
        if fast is not None:
            pair = tested(fast, ["mixture"])
            quick = [spread(tested(fast, ["strong"])), spread(pair), f"{fast['seconds'] / len(pair):.0f}"]
        row = [graph, str(len(mixed)), spread(before), spread(single), spread(mixed), f"{gain:+.2f}"]
        row += [f"{good['seconds'] / len(mixed):.0f}", *quick]
        table.append("| " + " | ".join(row) + " |")
    if gains:
        over_member = statistics.fmean(gain for gain, _ in gains)
        over_before = statistics.fmean(gain for _, gain in gains if not math.isnan(gain))
        table += [
            "",
            f"Mean gain over the member that validation chooses {over_member:+.2f} (worst "
            f"{min(gains)[0]:+.2f}), over the mixture of before {over_before:+.2f}.",
        ]
    return table


def best_lines() -> list[str]:
    """Return a table of what `best` reaches, beside `good` on the same seeds; nothing where it was not run."""
    heads = [
        "graph",
        "seeds",
        "budget",
        "tried",
        "stopped",
        "kept",
        "best member by validation",
        "mixture",
        "`good`",
        "goal",
    ]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph, (goal, _) in GOALS.items():
        names = ["best", *(f"best-{seed}" for seed in range(1, 10))]
        found = [each for name in names if (each := read(graph, name)) is not None]
        if not found:
            continue
        seeds = [each["seeds"][0] for each in found]
        single = [
            value
            for each in found
            for value in tested(each, [name for name in each["runs"][0]["scores"] if name not in OTHERS])
        ]
        mixed = [value for each in found for value in tested(each, ["mixture"])]
        good = read(graph, "good")
        alike = [] if good is None else [each for each in good["runs"] if each["seed"] in seeds]
        ended, stopped = (
            statistics.fmean(sum(word in line for line in each["said"][1:]) for each in found)
            for word in ("validation nodes alone", "stopped after")
        )
        kept = statistics.fmean(len(each["chosen"].split("+")) for each in found)
        row = [
            graph,
            ", ".join(map(str, seeds)),
            found[0]["budget"],
            *(f"{count:.0f}" for count in (ended + stopped, stopped, kept)),
        ]
        row += [spread(single), spread(mixed), spread([each["scores"]["mixture"]["test"] for each in alike]), f"{goal}"]
        table.append("| " + " | ".join(row) + " |")
    return table if len(table) > 2 else []


def short() -> list[str]:
    """Return a table for who has not read anything yet: what the presets reach, and what their parts reach alone."""
    heads = ["graph", "MLP", "GCN", "the best of seven", "`--preset fast`", "`--preset good`"]
    table, seeds, gains = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)], set[int](), list[float]()
    for graph in GRAPHS:
        good, fast = (read(graph, name) for name in PRESETS)
        if good is None or fast is None:
            continue
        members = [name for name in good["runs"][0]["scores"] if name not in OTHERS]
        shown = [(fast, ["weak"]), (fast, ["strong"]), (good, members), (fast, ["mixture"]), (good, ["mixture"])]
        table.append("| " + " | ".join([graph, *(spread(tested(found, names)) for found, names in shown)]) + " |")
        seeds.add(len(good["runs"]))
        gains.append(statistics.fmean(tested(good, ["mixture"])) - statistics.fmean(tested(good, members)))
    if not gains:
        return table
    counted = " or ".join(map(str, sorted(seeds)))
    words = (
        f"Test scores in percent, mean ± standard deviation over {counted} seeds or published splits. The best of "
        f"seven is the one that validation nodes choose, anew for each seed. `good` is "
        f"{statistics.fmean(gains):+.2f} points from it on average, from {min(gains):+.2f} to {max(gains):+.2f}."
    )
    return [*table, "", words]


if __name__ == "__main__":
    main()
