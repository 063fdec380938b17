"""`--strong auto`: a panel of experts that differ in what matters, put together by what a graph is.

Nobody can tell from a graph's name which GNN is right for it. So the panel has one of each kind: a plain GCN without
batch norm, which serves few labels better, and one with it; GraphSAGE; both with skip connections and layer norm (Luo
et al., 2024, arXiv 2406.08993); boosted trees on averaged features; the labels around a node. Who is heard is fitted
on held-out nodes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch_geometric.data import Data

from mowst.experiment.building import classes_of
from mowst.experiment.config import AUTO, Config, ExpertConfig
from mowst.models import REDUCED, WIDEST

LARGEST = 3e7
"""Training nodes x columns x classes above which boosted trees take too long."""
PANEL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("gcn", {"norm": "none"}),
    ("gcn", {"norm": "batch_norm"}),
    ("sage", {}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 4}),
    ("sage-res", {"norm": "layer_norm", "num_layers": 3}),
    ("hop-trees", {}),
    ("neighbours", {}),
)
"""The members and in what they differ from the expert's configuration; they err at different nodes."""


def chosen(config: Config, data: Data) -> Config:
    """Return a configuration in which `auto` has become the panel that suits a graph; any other one as it is."""
    if config.strong.kind != AUTO:
        return config
    columns = 3 * (REDUCED if data.num_features > WIDEST else data.num_features)
    size = int(data.train_mask.sum()) * columns * classes_of(data)
    members = [(kind, differs) for kind, differs in PANEL if kind != "hop-trees" or size <= LARGEST]
    kinds, each = zip(*members, strict=True)
    strong: ExpertConfig = replace(config.strong, kind="+".join(kinds), each=list(each))
    return replace(config, strong=strong)
