"""What a CUDA device brings, in one command of at most eight minutes that prints one JSON object.

    python benchmarks/gpu.py [--only epochs products] [--out results.json]
    python benchmarks/gpu.py --tiny                 # the same on small graphs and on the CPU: it shows that it runs

Parts, in this order; one that fails leaves its error in its place, and one for which no time is left is left out:

- `tests`: tests/test_gpu*.py, with what could not be captured and why.
- `epochs`: milliseconds of an epoch (step, validation, bookkeeping), GCN 2 x 64: our trainer that looks at every epoch,
  at every tenth, and at every tenth of recorded ones, beside the loop by hand in PyG on `edge_index`.
- `steps`: milliseconds and peak GiB of a training step of GCN 3 x 256, ours in several precisions with and without
  measured products, beside PyG on torch CSR, at the sizes of ogbn-arxiv and ogbn-products; how long preparing takes.
- `products`: milliseconds of one sparse product, cuSPARSE beside the Triton kernel, by size, width and precision.
- `norms`: milliseconds and peak GiB of batch norm, ReLU and dropout, forward and backward, by torch, torch.compile and
  the Triton kernels, by size and precision; and of a step at the size of ogbn-arxiv with and without these.
- `attention`: milliseconds and peak GiB of one layer of attention, forward and backward, by products, by the Triton
  kernels, and PyG's on `edge_index`, at the size of ogbn-arxiv.
- `pairs`: seconds of a run of one pair at the sizes of ogbn-arxiv and Cora, of its training, and the share of the rest.
- `closing`: seconds of what a run does after training, at the size of ogbn-arxiv.
- `seeds`: seconds of a run of four seeds by processes; of twelve by one, and by as many as `auto` finds to pay.

Clocks are on the wall, and the device is waited for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import GCN
from torch_geometric.utils import to_torch_csr_tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.citation_like import citation_like
from benchmarks.gpu_attention import attention
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_norms import norms
from benchmarks.gpu_runs import closing, pairs
from benchmarks.speed_steps import PYG_GCN, training_step
from mowst.evaluation import accuracy, signal
from mowst.experiment import Config, run
from mowst.kernels import Adjacency, CudaGraphs, measuring, recording
from mowst.kernels.choosing import own_product
from mowst.models import expert
from mowst.training import Schedule, Trainer, solo

ROOT = Path(__file__).resolve().parent.parent
LIMIT, TESTS = 400.0, 200.0
"""Seconds after which no part is begun, and that the tests may take."""
PRODUCTS = 2_449_029, 61_859_140
"""Nodes of ogbn-products, and edges in one direction."""
PRECISIONS = {"32": "32-true", "tf32": "32-medium", "bf16": "bf16-mixed"}


def tests(bench: Bench) -> dict[str, Any]:
    """Run the tests that are for a GPU."""
    files = sorted(str(path) for path in (ROOT / "tests").glob("test_gpu*.py"))
    options = ["-m", "gpu", "-q", "-n", "0", "--tb=short", "--collect-only" if bench.tiny else "-s"]
    command = [sys.executable, "-m", "pytest", *files, *options]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=TESTS, check=False)
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, said = 124, late.stdout or b""
    lines = said.decode(errors="replace").splitlines()
    return {"code": code, "not captured": [line for line in lines if "not captured" in line], "end": lines[-80:]}


def epochs(bench: Bench) -> list[dict[str, Any]]:
    """Compare epochs of the trainer with one another, and with the loop by hand."""
    found = []
    for nodes in bench.sizes:
        data = bench.graph(nodes)
        ways: dict[str, Callable[[int], object]] = {
            "by hand, PyG, edge_index": partial(by_hand, data),
            "trainer, a look every epoch": partial(trained, bench, data, 1),
            "trainer, a look every 10": partial(trained, bench, data, 10),
            "trainer, captured": partial(trained, bench, data, None),
        }
        few, many = bench.lengths
        for name, way in ways.items():
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                way(few)
                short, long = (median(bench.seconds(partial(way, count)) for _ in range(3)) for count in (few, many))
            lines = sorted({str(each.message) for each in said if "not captured" in str(each.message)})
            found.append({"nodes": nodes, "way": name, "ms": 1e3 * (long - short) / (many - few), "said": lines})
    return found


def trained(bench: Bench, data: Data, every: int | None, count: int) -> None:
    """Train so many epochs with our trainer; recorded, where nothing is said of looks."""
    torch.manual_seed(0)
    model = expert("gcn", data.x.size(1), 40, hidden_channels=64, num_layers=2, dropout=0.5, norm="batch_norm")
    graphs = CudaGraphs() if every is None and bench.device.type == "cuda" else None
    with recording(graphs):
        score = signal("metric", accuracy)
        trainer = Trainer(model.to(bench.device), data, score, fabric=bench.fabric(), every=every)
        solo(trainer, Schedule(epochs=count, patience=count))


def by_hand(data: Data, count: int) -> None:
    """Train so many epochs as a PyG script does."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"dropout": 0.5, "norm": "batch_norm", "cached": True}
    model = GCN(data.x.size(1), 64, 2, 40, **options).to(data.x.device)
    optimizer, best = torch.optim.AdamW(model.parameters(), lr=0.01), -1.0
    for _ in range(count):
        model.train()
        optimizer.zero_grad()
        out = model(data.x, data.edge_index)
        F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            right = model(data.x, data.edge_index).argmax(-1)[data.val_mask] == data.y[data.val_mask]
        if (score := float(right.float().mean())) > best:
            best, _state = score, {name: value.clone() for name, value in model.state_dict().items()}


def drawn(bench: Bench, nodes: int, edges: int, features: int = 100) -> Data:
    """Draw a graph on the device, with so many edges in each direction."""
    torch.manual_seed(0)
    one = torch.randint(nodes, (2, edges), device=bench.device)
    y = torch.randint(40, (nodes,), device=bench.device)
    return Data(x=torch.randn(nodes, features, device=bench.device), y=y, edge_index=torch.cat([one, one.flip(0)], 1))


def graphs_of(bench: Bench) -> dict[str, Callable[[], Data]]:
    """Return how the two graphs are made."""
    nodes, edges = (400, 1_000) if bench.tiny else PRODUCTS
    return {"arxiv": partial(citation_like, bench.sizes[-1]), "products": partial(drawn, bench, nodes, edges)}


def steps(bench: Bench) -> list[dict[str, Any]]:
    """Compare training steps."""
    found = []
    for name, make in graphs_of(bench).items():
        data = make().to(bench.device)
        nodes, x, y, held = data.num_nodes, data.x, data.y, list[Adjacency]()
        held.append(Adjacency.from_edge_index(data.edge_index[:, :2], nodes))  # which warms up
        took = bench.seconds(lambda: held.append(Adjacency.from_edge_index(data.edge_index, nodes)))  # noqa: B023
        normal = bench.seconds(held[-1].gcn)
        found.append({"graph": name, "adjacency s": took, "normalised s": normal})
        ways: list[tuple[str, bool]] = [(each, False) for each in PRECISIONS] + [("32", True), ("bf16", True)]
        for precision, measured in ways:
            adjacency = Adjacency.from_edge_index(data.edge_index, nodes)
            with measuring(measured):
                step = training_step(x, y, adjacency, PRECISIONS[precision])
                memory, took = bench.peak(step), bench.ms(step)
            widths = {f"{kind}": own is not None for kind, own in adjacency.gcn().rows.own.items()}
            record = {"graph": name, "way": f"ours, {precision}", "measured": measured, "own": widths}
            found.append(record | {"ms": took, "GiB": memory})
        del adjacency, held[:]
        edges, weight = gcn_norm(data.edge_index, num_nodes=nodes)
        csr = to_torch_csr_tensor(edges, weight, (nodes, nodes))
        del edges, weight
        step = training_step(x, y, csr, kind=PYG_GCN, normalize=False)
        memory, took = bench.peak(step), bench.ms(step)
        found.append({"graph": name, "way": "PyG, torch CSR, 32", "ms": took, "GiB": memory})
        del csr, step
    return found


def products(bench: Bench) -> list[dict[str, Any]]:
    """Compare sparse products."""
    found, own = list[dict[str, Any]](), own_product()
    for name, make in graphs_of(bench).items():
        data = make().to(bench.device)
        matrix = Adjacency.from_edge_index(data.edge_index, data.num_nodes).gcn()
        for width in (40, 64, 128, 256):
            for dtype in (torch.float32, torch.bfloat16):
                x = torch.randn(data.num_nodes, width, device=bench.device).to(dtype)
                for side, rows in {"forward": matrix.rows, "backward": matrix.columns}.items():
                    record = {"graph": name, "width": width, "dtype": str(dtype), "side": side}
                    record["torch ms"] = bench.ms(partial(rows._by_torch, x))
                    if own is not None and bench.device.type == "cuda":
                        record["own ms"] = bench.ms(partial(own, rows.start, rows.column, rows.value, x))
                    found.append(record)
    return found


def seeds(bench: Bench) -> list[dict[str, Any]]:
    """Time a run of several seeds, one after the other and side by side."""
    config = Config(dataset="sbm", preset="fast", seeds=4, epochs=3 if bench.tiny else 100, device=bench.device.type)
    counts = (1,) if bench.tiny else (1, 2, 4)
    found = [{"workers": count, "s": bench.seconds(partial(run, config, workers=count))} for count in counts]
    longer, threads = config if bench.tiny else replace(config, seeds=12, epochs=300), torch.get_num_threads()
    torch.set_num_threads(1)  # so that CPUs are left for processes that join
    for workers in (1, "auto"):
        start, joined = time.perf_counter(), list[int]()
        run(longer, workers=workers, joined=joined.append)
        found += [{"seeds": longer.seeds, "workers": workers, "s": time.perf_counter() - start, "joined": joined}]
    torch.set_num_threads(threads)
    return found


PARTS: dict[str, Callable[[Bench], Any]] = {
    each.__name__: each for each in (tests, epochs, products, steps, norms, attention, pairs, closing, seeds)
}


def main() -> None:
    """Run the parts, and print what they found."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    arguments.add_argument("--out", type=Path, help="where it is written after every part, too")
    arguments.add_argument("--tiny", action="store_true")
    given = arguments.parse_args()
    start, bench = time.perf_counter(), Bench(tiny=given.tiny)
    name = "CPU" if given.tiny else torch.cuda.get_device_name()
    found: dict[str, Any] = {"device": name, "torch": torch.__version__}
    for part in given.only:
        if time.perf_counter() - start > LIMIT:
            found[part] = "no time was left"
            continue
        begun = time.perf_counter()
        try:
            found[part] = PARTS[part](bench)
        except Exception:  # one part that fails is no reason to lose the others
            found[part] = {"failed": traceback.format_exc()[-2000:]}
        found[f"{part} took s"] = round(time.perf_counter() - begun, 1)
        if given.out is not None:
            given.out.write_text(json.dumps(found, indent=1))
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
