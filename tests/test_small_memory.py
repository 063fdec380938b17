"""Memory that is too small is a line wherever a graph is read, prepared, averaged, trained on or asked: what was asked
for, what there is, and what takes less."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from pathlib import Path
import psutil, torch
from mowst.data import open_graph
from mowst.experiment import Config, ExpertConfig, Opened, prepare
from mowst.experiment.asking import Query, asked
from mowst.kernels import neighbourhood
from mowst.models import OnDisk
from mowst.system import main
device = torch.device("cpu")
config = Config(dataset="tests.test_small_memory:wide", weak=ExpertConfig(kind="mlp"), strong=ExpertConfig(kind="sage"))
data = open_graph(config.dataset).of_seed(0)
ready = prepare(data, config, device)
opened = Opened(config)
bench = opened.bench(0)
trainer = bench.trainer("strong")
nodes = torch.arange(200_000)
query = Query("strong", bench.trainer("mixture").model.eval(), data, ready, None, [0, 1])

stages = {
    "read": lambda: open_graph(config.dataset),
    "prepare": lambda: Opened.seed(other, 0),
    "average": lambda: OnDisk(Path(sys.argv[1]), "k", ready.x, ready.adj_t).hop(1),
    "train": lambda: bench.train("strong"),
    "ask": lambda: asked(query, config, None),
    "draw": lambda: [ready.adj_t.thinned(neighbourhood(ready.adj_t.rows, nodes, (8, 8), None)) for _ in range(30)],
}
other = Opened.__new__(Opened)
vars(other).update(vars(opened) | {"_seeds": {}, "_prepared": None})
before = resource.getrlimit(resource.RLIMIT_AS)
for name, stage in stages.items():
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 16 * 2**20, before[1]))
    try:
        main(lambda _: stage())
    except SystemExit as end:
        resource.setrlimit(resource.RLIMIT_AS, before)
        print(name, end.code, file=sys.stderr)
    resource.setrlimit(resource.RLIMIT_AS, before)
"""

SAID = {
    "read": "to read tests.test_small_memory:wide",
    "prepare": "to prepare the graph",
    "average": "to average features over neighbours",
    "train": "",
    "ask": "to predict",
    "draw": "",
}


def wide():
    """Return a ring of 200,000 nodes with 64 features: 49 MiB."""
    import torch
    from torch_geometric.data import Data

    nodes = torch.arange(200_000)
    edges = torch.stack([nodes, nodes.roll(1)])
    return Data(x=torch.ones(len(nodes), 64), edge_index=torch.cat([edges, edges.flip(0)], 1), y=nodes % 2)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are of Linux")
def test_too_little_memory_is_a_line_at_every_stage(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 2 * len(SAID), done.stderr
    for said, (name, words) in zip(lines[::2], SAID.items(), strict=True):
        start = f"error: memory was too small {words}".rstrip()
        assert said.startswith(f"{start}: 0.0"), (name, said)
        assert "GiB are free; less is taken by" in said
    assert lines[1::2] == [f"{name} 2" for name in SAID]
