"""A graph of the shape of ogbn-products or ogbn-papers100M, or a part of it, in the files that OGB keeps of a graph.

    python benchmarks/products_like.py --size 0.25 --root data/products-like     # then: --data_root data/products-like
    python benchmarks/products_like.py --measure --root data/products-like       # loads it in a process of its own
    python benchmarks/products_like.py --shape papers --size 0.01 --root data/papers-like      # and --measure, --hops

Products: 2,449,029 nodes, 61.9 million edges in both directions, 100 features, 47 classes, 8 % of the nodes to train,
2 % to validate. Papers: 111,059,956 nodes, 1,616 million directed edges, 128 features, 172 classes, 1.4 % of the nodes
with a label. Degrees are log-normal; two thirds of a node's edges stay in its class. Edges come in order of their
source. Numbers are random: speed and memory only.

Memory is told apart as Linux does: what is a process's own (anonymous), and what is mapped from files, whose pages the
system shares among processes and takes back when it needs them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple


class Shape(NamedTuple):
    """How large a graph is, and where OGB has it."""

    name: str
    nodes: int
    edges: int
    both: bool
    """Whether every edge is there in both directions."""
    features: int
    classes: int
    train: float
    val: float
    labelled: float
    """Shares of the nodes."""
    raw: tuple[str, ...]
    split: str


TABLES = tuple(f"{name}.csv.gz" for name in ("edge", "node-feat", "node-label", "num-node-list", "num-edge-list"))
SHAPES = {
    "products": Shape(
        "ogbn-products", 2_449_029, 61_859_140, True, 100, 47, 0.0803, 0.0161, 1.0, TABLES, "sales_ranking"
    ),
    "papers": Shape(
        "ogbn-papers100M",
        111_059_956,
        1_615_685_872,
        False,
        128,
        172,
        0.0109,
        0.0011,
        0.0139,
        ("data.npz", "node-label.npz"),
        "time",
    ),
}


def made(shape: Shape, size: float, seed: int = 0):
    """Return features, edges in order of their source, and labels, numbered so that no id says the class."""
    import numpy as np
    import torch
    from scipy.sparse import coo_array

    generator = np.random.default_rng(seed)
    nodes, edges = int(shape.nodes * size), int(shape.edges * size)
    y = np.sort(generator.integers(0, shape.classes, nodes))
    weight = generator.lognormal(0, 1.0, nodes)
    ends = np.repeat(np.arange(nodes, dtype=np.int32), generator.poisson(weight / weight.sum() * edges * 1.03))
    bounds = np.searchsorted(y, np.arange(shape.classes + 1)).astype(np.int32)
    other = np.empty_like(ends)
    for part in np.array_split(np.arange(len(ends), dtype=np.int32), max(1, len(ends) // 2**22)):
        low, high = bounds[y[ends[part]]], bounds[y[ends[part]] + 1]
        inside = generator.random(len(part), dtype=np.float32) < 2 / 3
        near = low + (generator.random(len(part)) * (high - low)).astype(np.int32)
        other[part] = np.where(inside, near, generator.integers(0, nodes, len(part), dtype=np.int32))
    torch.manual_seed(seed)
    order = torch.randperm(nodes)
    place = torch.empty(nodes, dtype=torch.int32)
    place[order] = torch.arange(nodes, dtype=torch.int32)
    kept = ends != other
    ends, other = place.numpy()[ends[kept]], place.numpy()[other[kept]]
    whole = coo_array((np.ones(len(ends), bool), (ends, other)), shape=(nodes, nodes)).tocsr()
    del ends, other, kept
    if shape.both:
        whole = whole + whole.T.tocsr()
    whole.sort_indices()
    edge_index = torch.empty(2, whole.nnz, dtype=torch.long)
    edge_index[0] = torch.arange(nodes, dtype=torch.int32).repeat_interleave(torch.from_numpy(np.diff(whole.indptr)))
    edge_index[1] = torch.from_numpy(whole.indices)
    del whole
    y = torch.from_numpy(y)[order]
    x = torch.randn(nodes, shape.features)
    x[torch.arange(nodes), y % shape.features] += 0.7
    return x, edge_index, y


def write(shape: Shape, size: float, root: Path) -> None:
    """Leave what OGB has of a graph once it is processed."""
    import torch
    from torch_geometric.data import Data

    home = root / "OGB" / shape.name.replace("-", "_")
    shutil.rmtree(home, ignore_errors=True)
    split = home / "split" / shape.split
    for folder in (home / "raw", home / "processed", split):
        folder.mkdir(parents=True)
    for name in shape.raw:
        (home / "raw" / name).touch()
    (home / "RELEASE_v1.txt").touch()
    x, edge_index, y = made(shape, size)
    order, train, val = torch.randperm(len(x)), int(shape.train * len(x)), int(shape.val * len(x))
    known = int(shape.labelled * len(x))
    if known < len(x):
        y = y.float().index_fill_(0, order[known:], torch.nan)
    data = Data(num_nodes=len(x), edge_index=edge_index, x=x, y=y.view(-1, 1))
    torch.save((data, None), home / "processed" / "geometric_data_processed.pt")
    parts = {"train": order[:train], "valid": order[train : train + val], "test": order[train + val : known]}
    for name, ids in parts.items():
        text = "\n".join(map(str, ids.tolist())) + "\n"
        (split / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), 1))
    print(f"{len(x):,} nodes, {edge_index.size(1):,} entries: {home}")


class Watch(threading.Thread):
    """Notes the largest memory that this process has had, of its own and mapped from files, in GiB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.mapped = 0.0
        self.start()

    def look(self) -> dict[str, float]:
        """Look at it now, and return the largest so far."""
        lines = Path("/proc/self/status").read_text().splitlines()
        held = {
            name: int(words.split()[0]) / 2**20
            for name, words in (line.split(":", 1) for line in lines)
            if "Rss" in name
        }
        self.own, self.mapped = max(self.own, held["RssAnon"]), max(self.mapped, held["RssFile"] + held["RssShmem"])
        return {
            "own_gib": round(self.own, 3),
            "mapped_gib": round(self.mapped, 3),
            "resident_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        }

    def run(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            time.sleep(0.01)


def loaded(root: Path, shape: Shape, strong: str, hops: bool) -> dict:
    """Load a graph as a run does, up to the adjacency that its experts multiply by, and say how much that took."""
    from mowst.data import open_graph
    from mowst.experiment import Config, ExpertConfig, fabric_of, prepare
    from mowst.experiment.building import advise

    watch, peaks, start = Watch(), {}, time.process_time()
    config = Config(
        dataset=shape.name,
        data_root=str(root),
        strong=ExpertConfig(kind="sign" if hops else strong),
        batch="hops" if hops else "auto",
        device="cpu",
    )
    fabric = fabric_of(config)
    seconds = {}

    def mark(name: str) -> None:
        peaks[name], seconds[name] = watch.look(), round(time.process_time() - start, 1)

    mark("program")
    graph = open_graph(config.dataset, config.data_root)
    mark("read")
    data = graph.of_seed(0)
    mark("checked")
    advise(config, data)
    mark("looked at")
    ready = prepare(data, config, fabric.device)
    mark("prepared")
    if hops:
        ready.x.hop(1)
        mark("averaged")
    else:
        ready.adj_t.columns  # noqa: B018 - made when it is first asked for
        mark("transposed")
        ready.adj_t.averaging() if strong == "sage" else ready.adj_t.gcn()
        mark("normalised")
    entries = data.edge_index.size(1)
    size = 4 * (entries + len(data.y) + data.x.numel()) / 2**30
    return {
        "nodes": len(data.y),
        "entries": entries,
        "size_gib": round(size, 3),
        **watch.look(),
        "own_times": round((watch.own - peaks["program"]["own_gib"]) / size, 2),
        "resident_times": round((watch.look()["resident_gib"] - peaks["program"]["resident_gib"]) / size, 2),
        "cpu_seconds": seconds,
        "peaks": peaks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="products")
    parser.add_argument("--size", type=float, default=0.125)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--strong", default="sage")
    parser.add_argument("--hops", action="store_true", help="Average the features over one hop, on the disk.")
    parser.add_argument("--code", default=os.getcwd(), help="Checkout whose code is measured.")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    if options.here:
        print(json.dumps(loaded(options.root, shape, options.strong, options.hops)))
    elif options.measure:
        command = [sys.executable, __file__, "--here", *sys.argv[1:]]
        env = os.environ | {"PYTHONPATH": options.code, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=env)
    else:
        write(shape, options.size, options.root)


if __name__ == "__main__":
    main()
