"""Block models in which it is known whom to ask at each node; for the docs.

    python -m benchmarks.blocks [--seeds 3]

The oracle asks the MLP where neighbours are useless or, if there are none such, where features are useful, and else the
GNN. AUC: how well the router's confidence, and the MLP's share of the fused gate, tell those nodes from the others.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy import HERE, put
from mowst.data import sbm
from mowst.evaluation import accuracy, routable
from mowst.experiment import Bench, Config, ExpertConfig, fabric_of, planned, prepare
from mowst.models import ROLES
from mowst.system import tune_process

WIDTH: dict[str, Any] = {"hidden_channels": 32, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm"}
CONFIG = Config(epochs=100, patience=50, weak=ExpertConfig("mlp", **WIDTH), strong=ExpertConfig("gcn", **WIDTH))
MODELS: dict[str, dict[str, float]] = {
    "features useless at half of the nodes": {
        "useless_features": 0.5,
        "useless_edges": 0.0,
        "signal": 3.2,
        "homophily": 0.6,
        "degree": 8.0,
    },
    "neighbours useless at half, strong features": {"useless_features": 0.0, "useless_edges": 0.5, "signal": 3.0},
    "neighbours useless at half, weak features": {"useless_features": 0.0, "useless_edges": 0.5, "signal": 2.0},
    "features useless at 40 %, neighbours at 40 %": {"useless_features": 0.4, "useless_edges": 0.4},
}


def measure(settings: dict[str, float], seed: int) -> dict[str, float]:
    """Train both experts and the mixture on one draw of a block model; test scores and AUC, in percent."""
    data, fabric = sbm(seed, **settings), fabric_of(CONFIG)
    ready, test = prepare(data, CONFIG, fabric.device), data.test_mask
    bench = Bench(CONFIG, planned(CONFIG), ready, seed, fabric)
    alone, mixture = {part: bench.train(part) for part in ROLES}, bench.train("mixture")
    for_weak = data.edges_useless if settings["useless_edges"] else ~data.feature_useless
    right = {part: (alone[part].output.scores().argmax(-1) == data.y).float() for part in ROLES}
    router = routable(mixture.model, mixture.output, ready.x).confidence  # type: ignore[arg-type]
    pool = mixture.output.confidence  # type: ignore[union-attr]
    return {
        **{part: 100 * float(right[part][test].mean()) for part in ROLES},
        "mixture": 100 * accuracy(mixture.output.probs()[test], data.y[test]),
        "oracle": 100 * float(torch.where(for_weak, right["weak"], right["strong"])[test].mean()),
        "AUC, router": 100 * roc_auc_score(for_weak[test], router[test]),
        "AUC, fused": 100 * roc_auc_score(for_weak[test], pool[test]),
    }


def main() -> None:
    """Measure every model and put the table into the docs."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    given = arguments.parse_args()
    rows = []
    with tune_process():
        for name, settings in MODELS.items():
            found = [measure(settings, seed) for seed in range(given.seeds)]
            rows.append([name, *(f"{statistics.fmean(each[key] for each in found):.1f}" for key in found[0])])
    heads = ["block model", "MLP", "GNN", "mixture", "oracle", "AUC of the router", "AUC of the fused gate"]
    table = ["| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    print("\n".join(table))
    put(HERE.parent / "docs" / "gating.md", "blocks", "\n".join(table))


if __name__ == "__main__":
    main()
