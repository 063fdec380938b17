"""A graph of the shape of ogbn-products, or a part of it, in the files that OGB keeps of a graph it has processed.

    python benchmarks/products_like.py --size 0.25 --root data/products-like     # then: --data_root data/products-like
    python benchmarks/products_like.py --measure --root data/products-like       # loads it in a process of its own

2,449,029 nodes, 61.9 million edges in both directions, 100 features, 47 classes, 8 % of the nodes to train, 2 % to
validate. Degrees are log-normal; two thirds of a node's edges stay in its class. Numbers are random: speed and memory
only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

NODES, EDGES, FEATURES, CLASSES = 2_449_029, 61_859_140, 100, 47


def made(size: float, seed: int = 0):
    """Return features, edges in both directions, and labels."""
    import numpy as np
    import torch
    from scipy.sparse import coo_array

    generator = np.random.default_rng(seed)
    nodes, edges = int(NODES * size), int(EDGES * size)
    y = np.sort(generator.integers(0, CLASSES, nodes))
    weight = generator.lognormal(0, 1.0, nodes)
    ends = np.repeat(np.arange(nodes, dtype=np.int32), generator.poisson(weight / weight.sum() * edges * 1.03))
    bounds = np.searchsorted(y, np.arange(CLASSES + 1))
    low, high = bounds[y[ends]], bounds[y[ends] + 1]
    inside = generator.random(len(ends), dtype=np.float32) < 2 / 3
    other = np.where(inside, low + (generator.random(len(ends)) * (high - low)).astype(np.int32), 0).astype(np.int32)
    other[~inside] = generator.integers(0, nodes, int((~inside).sum()), dtype=np.int32)
    kept = ends != other
    del low, high, inside
    half = coo_array((np.ones(int(kept.sum()), bool), (ends[kept], other[kept])), shape=(nodes, nodes)).tocsr()
    del ends, other, kept
    whole = half + half.T.tocsr()
    whole.sort_indices()
    edge_index = torch.empty(2, whole.nnz, dtype=torch.long)
    edge_index[0] = torch.arange(nodes).repeat_interleave(torch.from_numpy(np.diff(whole.indptr)).long())
    edge_index[1] = torch.from_numpy(whole.indices)
    torch.manual_seed(seed)
    x = torch.randn(nodes, FEATURES)
    x[:, :CLASSES] += 0.7 * torch.nn.functional.one_hot(torch.from_numpy(y), CLASSES)
    order = torch.randperm(nodes)  # as real ids do not say the class
    place = torch.empty_like(order)
    place[order] = torch.arange(nodes)
    edge_index = place[edge_index]
    edge_index = edge_index[:, torch.argsort(edge_index[0] * nodes + edge_index[1])]
    return x[order], edge_index, torch.from_numpy(y)[order]


def write(size: float, root: Path) -> None:
    """Leave what OGB has of a graph once it is processed."""
    import torch
    from torch_geometric.data import Data

    home = root / "OGB" / "ogbn_products"
    shutil.rmtree(home, ignore_errors=True)
    for folder in ("raw", "processed", "split/sales_ranking"):
        (home / folder).mkdir(parents=True)
    for name in ("edge", "node-feat", "node-label", "num-node-list", "num-edge-list"):
        (home / "raw" / f"{name}.csv.gz").touch()
    (home / "RELEASE_v1.txt").touch()
    x, edge_index, y = made(size)
    data = Data(num_nodes=len(x), edge_index=edge_index, x=x, y=y.view(-1, 1))
    torch.save((data, None), home / "processed" / "geometric_data_processed.pt")
    order, train, val = torch.randperm(len(x)), int(0.0803 * len(x)), int(0.0161 * len(x))
    parts = {"train": order[:train], "valid": order[train : train + val], "test": order[train + val :]}
    for name, ids in parts.items():
        text = "\n".join(map(str, ids.tolist())) + "\n"
        import gzip

        (home / "split" / "sales_ranking" / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), 1))
    print(f"{len(x):,} nodes, {edge_index.size(1):,} entries: {home}")


def loaded(root: Path, strong: str) -> None:
    """Load it, prepare it, and say how much that took."""
    from mowst.experiment import Config, ExpertConfig, Opened

    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    config = Config(dataset="ogbn-products", data_root=str(root), strong=ExpertConfig(kind=strong), device="cpu")
    opened = Opened.__new__(Opened)
    parts = opening(opened, config)
    after = resource.getrusage(resource.RUSAGE_SELF)
    data = parts["data"]
    entries, numbers = data.edge_index.size(1), data.x.numel()
    own = 4 * (entries + len(data.y) + numbers)
    print(
        json.dumps(
            {
                "nodes": len(data.y),
                "entries": entries,
                "own_gib": round(own / 2**30, 3),
                "before_gib": round(before.ru_maxrss / 2**20, 3),
                "peak_gib": round(after.ru_maxrss / 2**20, 3),
                "peak_times_own": round((after.ru_maxrss - before.ru_maxrss) * 1024 / own, 2),
                "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
                "seconds": round(time.perf_counter() - start, 1),
                **{key: value for key, value in parts.items() if key != "data"},
            }
        )
    )


def opening(opened, config):
    """Open a graph as a run does, up to the adjacency that its experts multiply by, with the peak after each step."""
    from mowst.data import open_graph
    from mowst.experiment import fabric_of, prepare

    peaks = {}

    def mark(name):
        peaks[name] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)

    fabric = fabric_of(config)
    graph = open_graph(config.dataset, config.data_root)
    mark("read")
    data = graph.of_seed(0)
    mark("checked")
    ready = prepare(data, config, fabric.device)
    mark("prepared")
    ready.adj_t.columns  # noqa: B018 - made when it is first asked for
    mark("transposed")
    ready.adj_t.averaging() if config.strong.kind == "sage" else ready.adj_t.gcn()
    mark("normalised")
    return {"data": data, "peaks_gib": peaks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=float, default=0.125)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--strong", default="sage")
    parser.add_argument("--code", default=os.getcwd(), help="Checkout whose code is measured.")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        loaded(options.root, options.strong)
    elif options.measure:
        command = [sys.executable, __file__, "--here", "--root", str(options.root), "--strong", options.strong]
        env = os.environ | {"PYTHONPATH": options.code, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=env)
    else:
        write(options.size, options.root)


if __name__ == "__main__":
    main()
