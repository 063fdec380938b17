"""Batches against the whole graph: scores, CPU seconds, memory. One cell is one JSON; what is there is not run again.

    python benchmarks/scale.py accuracy --data_root data                  # Photo and GitHub, or --graphs
    python benchmarks/scale.py step --root data/products-like --size 0.125     # a graph of benchmarks/products_like.py
    python benchmarks/scale.py draw --root data/products-like --size 0.125     # neighbours alone, in torch and compiled
    python benchmarks/scale.py table

Accuracy: Mowst in its default regime, an MLP and SAGE of 2 x 64, at most 100 epochs, patience 30. A step: SAGE of
3 x 128, one epoch over the training nodes and one validation on the whole graph, in a process of its own. One thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "scale"
LAYERS = {"hidden_channels": 64, "num_layers": 2}
BATCHES = ("full", "parts(10)", "neighbors(15,10)")


def path_of(*words: object) -> Path:
    """Return where a cell is kept."""
    name = "-".join(str(word) for word in words)
    return RESULTS / (name.replace("(", "-").replace(")", "").replace(",", "-") + ".json")


def cell(path: Path, work) -> dict:
    """Run a cell, unless its result is there."""
    if not path.exists():
        found = work()
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(found, indent=2) + "\n")
        os.replace(beside, path)
        print(f"{path.stem}: {found}", flush=True)
    return json.loads(path.read_text())


def trained(graph: str, batch: str, seed: int, root: str) -> dict:
    """Train a mixture and say what it reached."""
    from mowst.experiment import Config, ExpertConfig, run

    config = Config(
        dataset=graph,
        data_root=root,
        weak=ExpertConfig(kind="mlp", **LAYERS),
        strong=ExpertConfig(kind="sage", **LAYERS),
        batch=batch,
        epochs=100,
        patience=30,
        seeds=1,
        first_seed=seed,
        device="cpu",
    )
    start = time.process_time()
    result = run(config)
    scores = {name: score["test"][0] for name, score in result["scores"].items()}
    return {"test": scores, "cpu_seconds": round(time.process_time() - start, 1), "epochs": result["runs"][0]["epochs"]}


def stepped(root: str, batch: str) -> dict:
    """Run one epoch and one validation, and say what they took; before them one epoch that nobody measures."""
    import torch

    from mowst.data import open_graph
    from mowst.evaluation import accuracy, signal
    from mowst.experiment import Config, ExpertConfig, fabric_of, prepare
    from mowst.experiment.batching import estimated
    from mowst.models import expert
    from mowst.training import Phase, Term, Trainer, cross_entropy, feed_of

    layers = {"hidden_channels": 128, "num_layers": 3}
    config = Config(dataset="ogbn-products", data_root=root, strong=ExpertConfig(kind="sage", **layers), device="cpu")
    data = open_graph(config.dataset, root).of_seed(0)
    ready = prepare(data, config, fabric_of(config).device)
    ready.adj_t.averaging()
    ready.adj_t.averaging().columns  # noqa: B018 - made when it is first asked for
    loaded, torch_seed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, torch.manual_seed(0)
    del torch_seed
    model = expert("sage", data.num_features, int(data.num_classes), norm="batch_norm", dropout=0.5, **layers)
    trainer = Trainer(model, ready, signal("metric", accuracy), feed=feed_of(batch))
    times: list[float] = []

    def watch(line: dict) -> None:
        times.append(time.process_time())

    trainer.hook = watch
    trainer.fit(Phase("step", ("",), (Term(cross_entropy),), epochs=2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    need = estimated(config, data)
    return {
        "nodes": len(data.y),
        "training_nodes": int(data.train_mask.sum()),
        "loaded_gib": round(loaded / 2**20, 2),
        "peak_gib": round(peak / 2**20, 2),
        "estimate_of_step_gib": round(need.step / 2**30, 2),
        "cpu_seconds_of_epoch_and_validation": round(times[1] - times[0], 1),
        "microseconds_per_node": round((times[1] - times[0]) / len(data.y) * 1e6, 1),
    }


def drawing(root: str, fanouts: tuple[int, ...], kind: str, rounds: int = 8) -> dict:
    """Draw the neighbourhoods of batches of 1,024 training nodes, and say how many nodes a CPU second is enough for."""
    import torch

    from mowst.data import open_graph
    from mowst.kernels import Adjacency
    from mowst.kernels.sampling import compiled, in_torch

    data = open_graph("ogbn-products", root).of_seed(0)
    rows = Adjacency.from_edge_index(data.edge_index, data.num_nodes).rows
    train = data.train_mask.nonzero().squeeze(-1)
    found = {"nodes": data.num_nodes, "fanouts": list(fanouts), "kind": kind}
    for name, draw in {"torch": in_torch, "numba": compiled()}.items():
        if draw is None:
            continue
        seconds, sizes = [], []
        for number in range(rounds + 1):
            generator = torch.Generator().manual_seed(number)
            seeds = train[torch.randperm(len(train), generator=generator)[:1024]]
            start = time.process_time()
            sizes.append(len(draw(rows, seeds, fanouts, generator, kind).nodes))
            seconds.append(time.process_time() - start)
        found[f"{name}_seeds_per_cpu_second"] = round(1024 / statistics.median(seconds[1:]))  # the first one compiles
        found["nodes_of_a_batch"] = round(statistics.fmean(sizes))
    return found


def table() -> str:
    """Put the cells that are there into a table."""
    lines = ["| graph | batch | seeds | mixture | strong expert | CPU s |", "|---|---|---|---|---|---|"]
    found: dict[tuple[str, str], list[dict]] = {}
    for path in sorted(RESULTS.glob("accuracy-*.json")):
        held = json.loads(path.read_text())
        found.setdefault((held["graph"], held["batch"]), []).append(held)
    for (graph, batch), cells in found.items():
        spread = [
            f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
            for values in ([each["test"][name] for each in cells] for name in ("mixture", "strong"))
        ]
        seconds = statistics.fmean(each["cpu_seconds"] for each in cells)
        lines.append(f"| {graph} | `{batch}` | {len(cells)} | {spread[0]} | {spread[1]} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["accuracy", "step", "draw", "table"])
    parser.add_argument("--graphs", nargs="+", default=["photo", "github"])
    parser.add_argument("--batches", nargs="+", default=BATCHES)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data_root", default="data")
    parser.add_argument("--root", help="Where benchmarks/products_like.py has put a graph.")
    parser.add_argument("--size", default="0.125", help="How large that is, for the cell's name.")
    parser.add_argument("--fanouts", type=int, nargs="+", default=[15, 10, 5])
    parser.add_argument("--kind", default="uniform", choices=["uniform", "labor"], help="How neighbours are drawn.")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(stepped(options.root, options.here)))
        return
    import torch

    torch.set_num_threads(1)
    if options.what == "accuracy":
        for graph in options.graphs:
            for seed in range(options.seeds):
                for batch in options.batches:
                    known = {"graph": graph, "batch": batch, "seed": seed}
                    path = path_of("accuracy", graph, batch, seed)
                    cell(path, lambda k=known: k | trained(k["graph"], k["batch"], k["seed"], options.data_root))
    if options.what == "draw":
        fanouts = tuple(options.fanouts)
        kind = () if options.kind == "uniform" else (options.kind,)
        cell(path_of("draw", options.size, *fanouts, *kind), lambda: drawing(options.root, fanouts, options.kind))
    if options.what == "step":
        for batch in options.batches:
            command = [sys.executable, __file__, "step", "--root", options.root, "--here", batch]

            def work(command=command, batch=batch) -> dict:
                env = os.environ | {"OMP_NUM_THREADS": "1"}
                said = subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout
                return {"size": float(options.size), "batch": batch} | json.loads(said.splitlines()[-1])

            cell(path_of("step", options.size, batch), work)
    print(table())


if __name__ == "__main__":
    main()
