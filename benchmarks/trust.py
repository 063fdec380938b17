"""How far the default mixture's predictions can be trusted, on real graphs; writes the tables of docs/trust.md.

    python benchmarks/trust.py --data_root data [--only cora texas] [--budget 1200] [--table]

A cell is one graph and one seed, and one JSON file in benchmarks/results/trust: what is there is not run again. Sets
are calibrated anew a hundred times on half of the test nodes (at most 1,000) and measured on the others, here only: a
run calibrates on a part of its validation nodes.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from accuracy import put
from torch import Tensor

from mowst.evaluation import (
    CONFORMITY,
    abstention,
    belief,
    diffused,
    routable,
    tempering,
    threshold_for,
    thresholds_for,
)
from mowst.experiment import Bench, Config, Opened, run_seed
from mowst.influence import LastLayer, read_out, why
from mowst.system import tune_process, write_text

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "trust"
GRAPHS = ["texas", "cornell", "amherst41", "cora", "actor", "blogcatalog", "photo", "twitch-de", "pubmed"]
GRAPHS += ["computers", "cs"]
WAYS = {
    "strong": "GNN",
    "pool": "mixture",
    "common": "one T",
    "routes": "T by route",
    "gate": "gate over T",
    "level": "T and offsets",
    "sure": "either, if surely better",
}
NO_GNN = {"weak", "hop-trees", "trees", "neighbours"}
COVERAGE, DRAWS, DIFFUSION = 0.9, 100, 0.5


def main() -> None:
    """Run the cells that are missing, then print the tables and put them into the docs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--only", nargs="*", default=GRAPHS)
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--table", action="store_true", help="only write the tables")
    given = arguments.parse_args()
    start = time.perf_counter()
    for graph in given.only:
        config = Config(dataset=graph, data_root=given.data_root, seeds=given.seeds)
        for seed in config.all_seeds:
            path = RESULTS / f"{graph}-{seed}.json"
            if given.table or path.exists() or time.perf_counter() - start > given.budget:
                continue
            with tune_process():
                found = cell(config, seed)
            write_text(path, json.dumps(found, indent=1) + "\n")
            print(f"{graph}/{seed}: {found['seconds']:.0f} s", flush=True)
    for name, table in tables().items():
        print(text := "\n".join(table))
        put(HERE.parent / "docs" / "trust.md", name, text)


def cell(config: Config, seed: int) -> dict[str, Any]:
    """Train one seed and measure everything there is to measure."""
    start = time.perf_counter()
    opened = Opened(config)
    run, ready = run_seed(config, seed, opened=opened), opened.seed(seed).ready
    model, out = run.fitted["mixture"].model, run.fitted["mixture"].output
    with torch.no_grad():
        weak = routable(model, out, ready.x).confidence >= model.threshold
    alone = {name: each.output.values for name, each in run.fitted.items() if name != "mixture"}
    best = gnn_of(alone, run.scores)
    found = {"gnn": best} | figures(out, {"strong": alone[best], "gcn": alone["gcn"]}, weak, ready, seed)
    found["influence"] = timed(model, ready) | flips(opened, seed, best)
    return found | {"seconds": time.perf_counter() - start}


def gnn_of(alone: dict[str, Tensor], scores: dict[str, Any]) -> str:
    """Return the name of the GNN that validates best among the experts trained alone."""
    return max([name for name in alone if name.split()[0] not in NO_GNN], key=lambda name: scores[name]["val"])


def figures(out: Any, others: dict[str, Tensor], weak: Tensor, ready: Any, seed: int) -> dict[str, Any]:
    """Measure calibration, sets and answers of a mixture's output, beside those of others' logits.

    Args:
        out: what the mixture says of all nodes.
        others: logits [N, C] of `strong`, the GNN that validates best, and of `gcn`.
        weak: mask [N] of the nodes that are routed to the weak expert.
        ready: the graph.
        seed: of the draws.
    """
    said = {name: values.double().log_softmax(-1) for name, values in others.items()}
    said["pool"] = out.log_probs().double()
    pool, val, test, y = said["pool"], ready.val_mask, ready.test_mask, ready.y
    seen = tempering.signals(out, ready.edge_index)
    temperatures = {
        "common": tempering.common(pool, y, val),
        "routes": tempering.by_group(pool, y, val, weak.long()),
    }
    said |= {name: tempering.tempered(pool, each).log_probs() for name, each in temperatures.items()}
    for name, fit in {"gate": tempering.gate, "level": tempering.level, "sure": tempering.surest}.items():
        said[name] = fit(pool, y, val, seen).calibrated(pool, seen).log_probs()
    return {
        "test_nodes": int(test.sum()),
        "classes": pool.size(-1),
        "calibration": {name: belief(log_p[test], y[test])._asdict() for name, log_p in said.items()},
        "sets": {name: sets(said[name].exp(), ready, weak, seed) for name in (*others, "pool", "sure")},
        "answers": {
            name: abstention.answers(said[name][test].exp(), y[test], said[who][test].argmax(dim=-1))._asdict()
            for name, who in ({name: name for name in (*others, "pool")} | {"sure": "pool"}).items()
        },
    }


def sets(probs: Tensor, ready: Any, weak: Tensor, seed: int) -> dict[str, Any]:
    """Calibrate sets on a part of the test nodes and measure them on the rest, a hundred times."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(len(probs), generator=generator, dtype=torch.float64)
    nodes, y, route = ready.test_mask.nonzero().squeeze(-1), ready.y, weak.long()
    count = min(1000, len(nodes) // 2)
    found: dict[str, Any] = {}
    for name in CONFORMITY.names:
        for share in (0.0, DIFFUSION):
            scores = diffused(CONFORMITY.lookup(name)(probs, noise), ready.edge_index, share)
            own = scores.gather(-1, y.clamp_min(0).unsqueeze(-1)).squeeze(-1)
            rows = []
            for _ in range(DRAWS):
                drawn = nodes[torch.randperm(len(nodes), generator=generator)]
                fit, asked = drawn[:count], drawn[count:]
                limit = threshold_for(own[fit], COVERAGE)
                by_route = thresholds_for(own[fit], route[fit], 2, COVERAGE)[route]
                row = {"coverage": (own[asked] <= limit), "size": (scores[asked] <= limit).sum(-1)}
                for part, role in enumerate(("strong", "weak")):
                    if int((route[fit] == part).sum()) >= 200:
                        there = asked[route[asked] == part]
                        row[f"coverage_{role}"] = own[there] <= by_route[there]
                rows.append({key: float(value.double().mean()) for key, value in row.items()})
            keys = {key for row in rows for key in row}
            kept = {key: [row[key] for row in rows if key in row] for key in sorted(keys)}
            means = {key: statistics.fmean(values) for key, values in kept.items() if len(values) > DRAWS / 2}
            found[f"{name}+graph" if share else name] = means
    return found


def timed(model: Any, ready: Any) -> dict[str, Any]:
    """Time the answer for one node, in seconds of one core."""
    node, found = int(ready.test_mask.nonzero()[0]), dict[str, Any]()
    for through in ("last", "network"):
        start = time.process_time()
        try:
            why(model, ready, node, through=through)
            found[through] = time.process_time() - start
        except ValueError as error:
            found[through] = str(error)
    return found


def flips(opened: Opened, seed: int, name: str) -> dict[str, float]:
    """Look for flipped labels with a GNN, by name, that is trained on them."""
    ready = copy.copy(opened.seed(seed).ready)
    train, generator = ready.train_mask.nonzero().squeeze(-1), torch.Generator().manual_seed(seed)
    flipped = torch.zeros(len(train), dtype=torch.bool)
    flipped[torch.randperm(len(train), generator=generator)[: max(1, len(train) // 10)]] = True
    classes = int(ready.y.max()) + 1
    ready.y = ready.y.clone()
    ready.y[train[flipped]] = (ready.y[train[flipped]] + 1) % classes
    trained = Bench(opened.config, opened.plan, ready, seed, opened.fabric).train(name).model
    doubts = LastLayer(read_out(trained, ready.x, ready.adj_t), ready.y, ready.train_mask, classes).doubts()
    from sklearn.metrics import average_precision_score

    share = float(flipped.double().mean())
    return {"flipped": share, "found": float(average_precision_score(flipped.numpy(), doubts.numpy()))}


def read() -> dict[str, list[dict[str, Any]]]:
    """Return the cells that were run, by graph."""
    found = {
        graph: [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{graph}-*.json"))] for graph in GRAPHS
    }
    return {graph: cells for graph, cells in found.items() if cells}


def mean(cells: list[dict[str, Any]], *keys: str) -> float:
    """Average a number over the seeds that have it."""
    values = []
    for each in cells:
        value: Any = each
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float):
            values.append(float(value))
    return statistics.fmean(values) if values else float("nan")


def debiased(cells: list[dict[str, Any]], way: str) -> float:
    """Return the root of the mean unbiased square of the calibration error."""
    return max(mean(cells, "calibration", way, "square"), 0.0) ** 0.5  # of what was not measured: not a number


def tables() -> dict[str, list[str]]:
    """Return every table as lines of Markdown, by name."""
    return {
        "calibration": calibration(read()),
        "sets": coverage(read()),
        "sizes": sizes(read()),
        "answers": answered(read()),
    }


def calibration(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Calibration error and likelihood of every way."""
    heads = ["graph", "seeds", "test nodes", *(f"{name}: error" for name in WAYS.values())]
    heads += [f"{name}: NLL" for name in WAYS.values()]
    table, large = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)], []
    for graph, each in cells.items():
        errors = [debiased(each, way) for way in WAYS]
        likely = [mean(each, "calibration", way, "nll") for way in WAYS]
        if mean(each, "test_nodes") >= 1000:
            large.append((errors, likely))
        row = [graph, str(len(each)), f"{mean(each, 'test_nodes'):,.0f}"]
        row += [f"{100 * error:.1f}" for error in errors] + [f"{value:.3f}" for value in likely]
        table.append("| " + " | ".join(row).replace("nan", "-") + " |")
    if large:
        columns = [statistics.fmean(column) for column in zip(*(errors for errors, _ in large), strict=True)]
        row = ["mean of those with 1,000 test nodes", "", "", *(f"{100 * column:.1f}" for column in columns)]
        columns = [statistics.fmean(column) for column in zip(*(likely for _, likely in large), strict=True)]
        row += [f"{column:.3f}" for column in columns]
        table.append("| " + " | ".join(row).replace("nan", "-") + " |")
    return table


def coverage(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Coverage of the mixture's sets, by score, and for either route."""
    names = [f"{name}{graph}" for name in CONFORMITY.names for graph in ("", "+graph")]
    heads = ["graph", *names, "aps: weak route", "aps: strong route"]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph, each in cells.items():
        row = [graph, *(f"{100 * mean(each, 'sets', 'sure', name, 'coverage'):.1f}" for name in names)]
        for role in ("weak", "strong"):
            value = 100 * mean(each, "sets", "sure", "aps", f"coverage_{role}")
            row.append("too few" if value != value else f"{value:.1f}")
        table.append("| " + " | ".join(row) + " |")
    return table


def sizes(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Mean size of the mixture's sets, beside those of the GNN alone and of a GCN."""
    names = [f"{name}{graph}" for name in CONFORMITY.names for graph in ("", "+graph")]
    heads = ["graph", "lac: GNN", "GCN", "mixture", "less than GNN", "than GCN"]
    heads += [f"{name}: mixture (GNN)" for name in names[1:]]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph, each in cells.items():
        found = {way: [mean(each, "sets", way, name, "size") for name in names] for way in ("strong", "gcn", "sure")}
        alone, gcn, pool = (values[0] for values in found.values())
        row = [graph, *(f"{size:.2f}" for size in (alone, gcn, pool))]
        row += [f"{100 * (1 - pool / size):.1f} %" for size in (alone, gcn)]
        rest = zip(found["sure"][1:], found["strong"][1:], strict=True)
        row += [f"{size:.2f} ({other:.2f})" for size, other in rest]
        table.append("| " + " | ".join(row).replace("nan %", "-").replace("nan", "-") + " |")
    return table


def answered(cells: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Accuracy by share answered, and what influence costs and finds."""
    heads = ["graph", "100 % answered", "90 %", "oracle's 90 %", "of the way", "at most", "area", "excess"]
    heads += ["correctness", "last layer, s", "network, s", "flipped found", "chance"]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph, each in cells.items():
        whole = mean(each, "calibration", "pool", "accuracy")
        some, best = (mean(each, "answers", "sure", kind, "0.9") for kind in ("accuracy", "oracle"))
        row = [graph, *(f"{100 * value:.1f}" for value in (whole, some, best))]
        row.append(f"{(some - whole) / (best - whole):.2f}" if best > whole else "-")
        row.append(f"{1 - 1 / (mean(each, 'classes') * whole):.2f}")
        row += [f"{mean(each, 'answers', 'sure', name):.3f}" for name in ("area", "excess", "correctness")]
        values = [mean(each, "influence", name) for name in ("last", "network", "found", "flipped")]
        row += ["-" if value != value else f"{value:.2f}" for value in values]
        table.append("| " + " | ".join(row) + " |")
    return table


if __name__ == "__main__":
    main()
