"""Which part of the default brings what: the parts of `--preset good`, put on one after another, and taken out singly.

It writes two tables of docs/panel.md, and a third of what `good` costs.

    python benchmarks/ablation.py --data_root data [--only "cora/*" "texas/0"] [--budget 3600] [--table]
    python benchmarks/ablation.py --data_root data --steps chosen gnns trees good

A cell is one graph and one seed, and one JSON file in benchmarks/results/ablation: steps that are there are not run
again. The members of `good` are trained alone once for all steps, as an expert alone is the same whatever else is
trained (`mowst.experiment.Bench.train`); twins, panel and gate are each step's own. What the pair of `fast` reaches is
taken from benchmarks/results/default. Seconds are of the processor: give it one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from accuracy import put
from default import HERE, read

from mowst.experiment import Bench, Config, Opened, planned
from mowst.experiment.choosing import Candidates, composed
from mowst.experiment.plan import name_of, seats_of
from mowst.experiment.record import environment, parameters
from mowst.experiment.scoring import scores_of
from mowst.models import ROLES, parts_of
from mowst.system import tune_process, write_text

RESULTS = HERE / "results" / "ablation"
GRAPHS = [
    *("texas", "cornell", "digits-knn", "chameleon-filtered", "squirrel-filtered", "reed98", "amherst41"),
    *("dblp", "blogcatalog", "cora", "actor", "twitch-de", "photo", "tolokers"),
]
"""Those on which a seed takes least, first."""
SEEDS = 3
NO_GNN = "hop-trees", "neighbours"
DEEP = "gcn-res", "sage-res"


class Known(NamedTuple):
    """What is known once the members of `good` are trained alone."""

    names: list[str]
    """Of the members of its panel."""
    val: dict[str, float]
    """What each scores on validation nodes alone."""


class Step(NamedTuple):
    """What one model of a cell is made of."""

    title: str
    members: Callable[[Known], list[str]]
    """Those of `good` that its strong expert is made of."""
    rehearsals: int = 1


def without(*left_out: str) -> Callable[[Known], list[str]]:
    """Return what leaves out some members."""
    return lambda known: [name for name in known.names if name not in left_out]


def best_gnn(known: Known) -> list[str]:
    """Return the GNN that validates best, the first of several that are equally good."""
    return [max(without(*NO_GNN)(known), key=known.val.__getitem__)]


STEPS = {
    "chosen": Step("MLP + the GNN that validates best (4)", best_gnn),
    "gnns": Step("a panel of five GNNs (1)", without(*NO_GNN)),
    "trees": Step("+ boosted trees (2)", without("neighbours")),
    "good": Step("+ labels of neighbours (3): `good`", without()),
    "crossed": Step("+ twins on every fold (5)", without(), rehearsals=5),
}
"""Each has what the one before has, and something more; in brackets the part it is."""
TAKEN_OUT = {
    "no-trees": Step("boosted trees", without("hop-trees")),
    "no-depth": Step("`gcn-res` and `sage-res`", without(*DEEP)),
    "no-norm": Step("the GCN with batch norm", without("gcn 2")),
}
"""Each is `good` without something."""
ALL = {**STEPS, **TAKEN_OUT}


class Timed(Bench):
    """A bench whose seconds are of the processor, not of the clock on the wall: other work takes none of them."""

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that its seconds are of."""
        return time.process_time


def main() -> None:
    """Run the cells that are missing, then print the tables and put them into the docs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--steps", nargs="*", default=list(ALL), choices=list(ALL), help="that a cell is to have")
    arguments.add_argument("--table", action="store_true", help="only write the tables")
    given = arguments.parse_args()
    start = time.perf_counter()
    for path, config in cells(given.data_root):
        wanted = any(fnmatch(f"{config.dataset}/{config.first_seed}", pattern) for pattern in given.only)
        late = time.perf_counter() - start > given.budget
        known = json.loads(path.read_text()) if path.exists() else {"steps": {}}
        left = [name for name in given.steps if name not in known["steps"]]
        if given.table or not wanted or not left or late:
            continue
        with tune_process():
            found = measured(config, left)
        found["steps"] = known["steps"] | found["steps"]
        write_text(path, json.dumps(found) + "\n")
        print(f"{path.stem}: { ({name: round(step['test'], 2) for name, step in found['steps'].items()}) }", flush=True)
    on, out, cost = ("\n".join(table) for table in (steps(), taken_out(), costs()))
    print("\n\n".join([on, out, cost]))
    put(HERE.parent / "docs" / "panel.md", "ablation", on)
    put(HERE.parent / "docs" / "panel.md", "taken-out", out)
    put(HERE.parent / "docs" / "panel.md", "cost", cost)


def cells(root: str) -> Iterator[tuple[Path, Config]]:
    """Yield the file of each cell and the experiment whose parts are looked at."""
    for graph in GRAPHS:
        for seed in range(SEEDS):
            yield RESULTS / f"{graph}-{seed}.json", Config(dataset=graph, data_root=root, seeds=1, first_seed=seed)


def measured(config: Config, names: Sequence[str]) -> dict[str, Any]:
    """Train the members of an experiment's panel alone, then some steps on top of them."""
    opened, seed = Opened(config), config.first_seed
    listed = dict(zip(opened.config.strong.members, candidates(opened.config), strict=True))
    alone = Timed(opened.config, opened.plan, opened.seed(seed).ready, seed, opened.fabric)
    members = ["weak", *listed]
    scores = scores_of({name: alone.train(name) for name in members}, alone.ready).scores
    found = {
        name: scores[name]
        | {
            "seconds": alone.fitted[name].own_seconds,
            "parameters": parameters(alone.fitted[name].model),
            "epochs": alone.fitted[name].history[-1]["epoch"],
            "improved": improved(alone.fitted[name].history),
        }
        for name in members
    }
    known = Known(list(listed), {name: scores[name]["val"] for name in listed})
    done = {name: built(alone, ALL[name], known, listed) for name in names}
    about = {"dataset": config.dataset, "seed": seed, "members": found, "steps": done}
    return about | environment(opened.config, opened.fabric.device)


def improved(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return the epochs after which an expert validated better than ever before, and how well, in percent."""
    best = [(int(line["epoch"]), round(100 * line["best"], 6)) for line in history]
    return [best[0], *(now for before, now in itertools.pairwise(best) if now[1] > before[1])]


def candidates(config: Config) -> Candidates:
    """Return the members of a configuration's strong expert, and in what each differs."""
    return tuple(zip(config.strong.kind.split("+"), config.strong.each, strict=True))


def built(alone: Bench, step: Step, known: Known, listed: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Train what a step has beside its members alone, and score its mixture."""
    names = step.members(known)
    config = composed(replace(alone.config, rehearsals=step.rehearsals), tuple(listed[name] for name in names))
    bench = Timed(config, planned(config), alone.ready, alone.seed, alone.fabric)
    called = {"weak": "weak"} | dict(zip(seats_of(config, "strong") or ["strong"], names, strict=True))
    bench.fitted = {here: alone.fitted[name]._replace(name=here) for here, name in called.items()}
    mixture = bench.train("mixture")
    heard = [called[name_of(config, part)] for part in parts_of(mixture.model, ROLES, heard=True)]
    scores = scores_of({"mixture": mixture}, alone.ready).scores
    return {**scores["mixture"], "routed": scores["routed"]["test"], "heard": heard, "seconds": mixture.own_seconds}


def finished() -> dict[str, list[dict[str, Any]]]:
    """Return the cells of each graph, by seed, where all seeds were run."""
    found = dict[str, list[dict[str, Any]]]()
    for graph in GRAPHS:
        paths = [RESULTS / f"{graph}-{seed}.json" for seed in range(SEEDS)]
        if all(path.exists() for path in paths):
            found[graph] = [json.loads(path.read_text()) for path in paths]
    return found


def scores_of_steps(graph: str, cells_of: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return the test scores of every step that all cells of a graph have, by seed; `pair` is what `fast` reaches."""
    fast = read(graph, "fast")
    assert fast is not None
    pair = {run["seed"]: run["scores"]["mixture"]["test"] for run in fast["runs"]}
    names = [name for name in ALL if all(name in cell["steps"] for cell in cells_of)]
    scores = {name: [cell["steps"][name]["test"] for cell in cells_of] for name in names}
    return {"pair": [pair[cell["seed"]] for cell in cells_of], **scores}


def gain(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the mean of paired differences, and its standard error: what a paired t-test divides."""
    differences = [later - earlier for earlier, later in zip(before, after, strict=True)]
    return statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5


def compared(graphs: Mapping[str, Mapping[str, Sequence[float]]], before: str, after: str) -> list[str]:
    """Write a step's gain over another one: by graph, where both were run, and of all of these."""
    gains = {graph: gain(of[before], of[after]) for graph, of in graphs.items() if {before, after} <= of.keys()}
    words = [f"{gains[graph][0]:+.2f} ± {gains[graph][1]:.2f}" if graph in gains else "not run" for graph in graphs]
    means = [mean for mean, _ in gains.values()]
    up, down = (sum(sign * mean > error for mean, error in gains.values()) for sign in (1, -1))
    return [*words, f"{statistics.fmean(means):+.2f} ({min(means):+.2f}), {up} up, {down} down" if means else ""]


def rows(heads: Sequence[str], columns: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as Markdown, given by its columns."""
    body = zip(*columns, strict=True)
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(row)} |" for row in body)]


def steps() -> list[str]:
    """Return the table of the parts put on one after another: test scores, and each one's gain over the one before."""
    graphs = {graph: scores_of_steps(graph, found) for graph, found in finished().items()}

    def means(name: str) -> list[str]:
        return [*(f"{statistics.fmean(of[name]):.2f}" if name in of else "" for of in graphs.values()), ""]

    heads, columns = ["graph", "`fast`: MLP + GCN"], [[*graphs, "all"], means("pair")]
    for before, name in itertools.pairwise(["pair", *STEPS]):
        heads += [STEPS[name].title, "gain"]
        columns += [means(name), compared(graphs, before, name)]
    return rows([*heads, "`good` over `fast`"], [*columns, compared(graphs, "pair", "good")])


def taken_out() -> list[str]:
    """Return the table of `good` without one of its parts: how far it is above that."""
    graphs = {graph: scores_of_steps(graph, found) for graph, found in finished().items()}
    lacks = {name: step.title for name, step in TAKEN_OUT.items()} | {"trees": "labels of neighbours"}
    return rows(["graph", *lacks.values()], [[*graphs, "all"], *(compared(graphs, name, "good") for name in lacks)])


def costs() -> list[str]:
    """Return the table of what `good` costs, in processor seconds and in trainings of one of its GNNs."""
    heads = ["graph", "s a seed", "twins among them", "largest GNN", "slowest GNN", "GNN that validates best", "which"]
    body = list[list[str]]()
    for graph, found in finished().items():
        bills = [bill(cell) for cell in found]
        mean = {key: statistics.fmean(each[key] for each in bills) for key in bills[0]}
        ratios = [f"{mean['good'] / mean[key]:.1f}" for key in ("largest", "slowest", "best")]
        which = ", ".join(best_gnn(known_of(cell))[0] for cell in found)
        body.append([graph, f"{mean['good']:.1f}", f"{mean['twins']:.1f}", *ratios, which])
    return rows(heads, list(zip(*body, strict=True)))


def known_of(cell: Mapping[str, Any]) -> Known:
    """Return what a cell's members are called, and how they validate."""
    members = {name: each for name, each in cell["members"].items() if name != "weak"}
    return Known(list(members), {name: each["val"] for name, each in members.items()})


def bill(cell: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of a cell: of `good` in all, of its twins, panel and gate, and of single GNNs."""
    members, known = cell["members"], known_of(cell)
    gnns = [members[name] for name in without(*NO_GNN)(known)]
    twins = cell["steps"]["good"]["seconds"]
    return {
        "good": sum(each["seconds"] for each in members.values()) + twins,
        "twins": twins,
        "largest": max(gnns, key=lambda each: each["parameters"])["seconds"],
        "slowest": max(each["seconds"] for each in gnns),
        "best": members[best_gnn(known)[0]]["seconds"],
    }


if __name__ == "__main__":
    main()
