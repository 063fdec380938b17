"""Which experts stand behind the strong one where nobody names any: presets, by what a graph is.

Nobody can tell from a graph's name which GNN is right for it. So `good` trains one expert of each kind, which err at
different nodes: a GCN without batch norm and one with it, GraphSAGE, both with skip connections and layer norm (Luo et
al., 2024, arXiv 2406.08993), boosted trees on averaged features, the labels around a node. Who is heard is for
validation and held-out nodes to say (`mowst.training.panels`). `fast` is a GCN; `best` goes on where `good` ends, with
wider, deeper and attentive experts, as far as a budget of time lasts (`mowst.experiment.searching`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch_geometric.data import Data

from mowst.experiment.building import classes_of
from mowst.experiment.config import Config, has_candidates
from mowst.experiment.expert import AUTO
from mowst.models import REDUCED, WIDEST

LARGEST = 3e7
"""Training nodes x columns x classes above which boosted trees take too long."""
MOST_AVERAGED = 3e8
"""Nodes x columns x hops above which an MLP on averages, which are dense, takes too much memory."""
FEW = 50
"""Training nodes a class below which batch norm does more harm than good to a GNN, and weights must be held back."""
HELD_BACK: dict[str, Any] = {"optimizer": "adam", "weight_decay": 5e-3}
"""Training where labels are few, unless the configuration has another optimiser or decay than by default: an L2
penalty, which is felt in every step (decoupled decay of the same size is not)."""

Candidates = tuple[tuple[str, dict[str, Any]], ...]
"""Experts in their order, and in what they differ from the strong expert's configuration."""
PAIR: Candidates = (("gcn", {}),)
PANEL: Candidates = (
    ("gcn", {"norm": "none"}),
    ("gcn", {"norm": "batch_norm"}),
    ("sage", {}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 4}),
    ("sage-res", {"norm": "layer_norm", "num_layers": 3}),
    ("hop-trees", {}),
    ("neighbours", {}),
)
NO_SKIPS, IN_FRONT = {"residual": False}, {"pre_linear": True}
SLOW: dict[str, Any] = {"lr": 0.003, "ema_decay": 0.9}
"""The pace of wide and deep experts."""
LONG: Candidates = (
    *PANEL,
    ("gat", {"norm": "none"}),
    ("gat", {"norm": "batch_norm", "pace": {"ema_decay": 0.98}}),
    ("gcn", {"norm": "batch_norm", "pace": {"ema_decay": 0.98}}),
    ("gat-res", {"norm": "layer_norm", "options": NO_SKIPS, "pace": SLOW}),
    ("sage-res", {"norm": "layer_norm", "num_layers": 4, "hidden_channels": 128, "dropout": 0.2, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 4, "hidden_channels": 128, "dropout": 0.2, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 2, "hidden_channels": 256, "dropout": 0.3, "pace": SLOW}),
    ("mlp", {"hidden_channels": 256, "dropout": 0.7}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 3, "hidden_channels": 256, "options": NO_SKIPS, "pace": SLOW}),
    ("sage", {"norm": "layer_norm", "hidden_channels": 256, "dropout": 0.7}),
    ("sage-res", {"norm": "batch_norm", "num_layers": 4, "hidden_channels": 128, "options": IN_FRONT, "pace": SLOW}),
    ("gcn-res", {"norm": "batch_norm", "num_layers": 4, "hidden_channels": 128, "options": IN_FRONT, "pace": SLOW}),
    ("gat-res", {"norm": "layer_norm", "num_layers": 3, "pace": SLOW}),
    ("gcn-res", {"norm": "batch_norm", "num_layers": 3, "hidden_channels": 256}),
    ("sign", {"hidden_channels": 128}),
    ("gat-res", {"norm": "layer_norm", "num_layers": 4, "hidden_channels": 128, "dropout": 0.2, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 6, "hidden_channels": 256, "pace": SLOW}),
)
PRESETS: dict[str, Candidates] = {"fast": PAIR, "good": PANEL, "best": LONG}


def chosen(config: Config, data: Data) -> Config:
    """Return a configuration in which `auto` has become the experts that suit a graph; any other one as it is.

    Where there are no candidates to choose among (`has_candidates`), that is one GCN.
    """
    if config.strong.kind != AUTO:
        return config
    candidates = PRESETS[config.preset] if has_candidates(config) else PAIR
    columns = 3 * (REDUCED if data.num_features > WIDEST else data.num_features)
    trained, classes = int(data.train_mask.sum()), classes_of(data)
    averaged = 3 * data.num_nodes * data.num_features
    too_large = {"hop-trees": trained * columns * classes > LARGEST, "sign": averaged > MOST_AVERAGED}
    beside = set(config.weak.members) if len(config.weak.members) > 1 else set()  # a panel already has these
    norm = config.strong.norm
    if trained < FEW * classes:
        norm = "none"
        usual = (config.optimizer, config.weight_decay) == (Config.optimizer, Config.weight_decay)
        config = replace(config, **HELD_BACK) if usual else config
    return composed(
        config,
        tuple(
            (kind, {"norm": norm, **differs})
            for kind, differs in candidates
            if not (too_large.get(kind, False) or kind in beside)
        ),
    )


def paired(config: Config) -> Config:
    """Return a configuration in which `auto` has become one GCN, whatever the graph."""
    return config if config.strong.kind != AUTO else composed(config, PAIR)


def composed(config: Config, candidates: Candidates) -> Config:
    """Return a configuration whose strong expert is these: a panel, or the only one."""
    kinds, each = zip(*candidates, strict=True)
    if len(kinds) == 1:
        return replace(config, strong=replace(config.strong, kind=kinds[0], each=[], **each[0]))
    return replace(config, strong=replace(config.strong, kind="+".join(kinds), each=list(each)))
