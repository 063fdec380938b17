"""What whole runs cost on a CUDA device, and what they do when everything is trained: parts of `benchmarks/gpu.py`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch_geometric.data import Data

from benchmarks.citation_like import citation_like
from benchmarks.gpu_bench import Bench
from mowst.evaluation import Spread, fusion
from mowst.experiment import Config, run
from mowst.experiment.expert import ExpertConfig
from mowst.experiment.opening import Opened
from mowst.kernels import CudaGraphs, measuring, recording
from mowst.system import products_in

SMALL = 2_708
"""Nodes of Cora."""


def small() -> Data:
    """Draw a graph like ogbn-arxiv of the size of Cora."""
    return citation_like(SMALL)


def pairs(bench: Bench) -> list[dict[str, Any]]:
    """Time runs of one pair of experts, as a command does them: all of it, training, and the share of what comes after.

    Imports, reading and preparing are done before.
    """
    wide = {"hidden_channels": 256, "num_layers": 3, "norm": "batch_norm"}
    experts = {role: ExpertConfig(kind=kind, **wide) for role, kind in {"weak": "mlp", "strong": "gcn"}.items()}
    arxiv = "benchmarks.gpu_runs:small" if bench.tiny else "benchmarks.citation_like:citation_like"
    epochs = {"epochs": 3} if bench.tiny else {}
    found = []
    for dataset, options in ((arxiv, {"seeds": 1, **experts}), ("benchmarks.gpu_runs:small", {"seeds": 10})):
        config = Config(dataset=dataset, preset="fast", device=bench.device.type, **options, **epochs)
        opened = Opened(config)
        opened.seed(0)
        for captured in (False, True):
            graphs = CudaGraphs() if captured and bench.device.type == "cuda" else None
            result: dict[str, Any] = {}
            with products_in("auto"), measuring(captured), recording(graphs):
                took = bench.seconds(lambda: result.update(run(config, opened=opened)))  # noqa: B023
            training = result["seconds"]
            record = {"graph": dataset, "seeds": config.seeds, "captured and measured": captured, "s": took}
            found.append(record | {"training s": training, "rest": 1 - training / took})
    return found


def closing(bench: Bench) -> dict[str, float]:
    """Time what a run does with what its experts say."""
    data = bench.graph(bench.sizes[-1])
    torch.manual_seed(0)
    right = F.one_hot(data.y, 40).float()
    weak, strong = (scale * right * torch.rand_like(right[:, :1]) + torch.randn_like(right) for scale in (2, 3))
    nodes = data.val_mask.nonzero().squeeze(-1)
    spread = Spread(data.adj_t, data.y, data.train_mask)
    return {
        "stacked on val s": bench.seconds(lambda: fusion.stacked(weak, strong, data.y, nodes)),
        "label propagation s": bench.seconds(lambda: spread.labels(40)),
        "correct and smooth s": bench.seconds(lambda: spread.corrected(weak)),
    }
