"""Which experts stand behind the strong one where nobody names any: presets, by what a graph is.

Nobody can tell from a graph's name which GNN is right for it. So `good` trains one expert of each kind, which err at
different nodes: a GCN without batch norm and one with it, GraphSAGE, both with skip connections and layer norm (Luo et
al., 2024, arXiv 2406.08993), boosted trees on averaged features, the labels around a node. Who is heard is for
validation and held-out nodes to say (`mowst.training.panels`). `fast` is a GCN; `best` goes on where `good` ends, with
wider, deeper and attentive experts, some of them on rows of features that sum to one, or with classes weighed alike, as
far as a budget of time lasts (`mowst.experiment.searching`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import takewhile
from typing import Any

from torch_geometric.data import Data

from mowst.data.uneven import are_bags
from mowst.experiment.building import classes_of
from mowst.experiment.config import Config, has_candidates
from mowst.experiment.expert import AUTO
from mowst.models import EXPERTS, REDUCED, WIDEST, Learner

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
ROWS: dict[str, Any] = {"unit_rows": True}
"""For bags of words alone (`mowst.data.uneven.are_bags`)."""
ALIKE: dict[str, Any] = {"class_weight": "balanced"}
"""Where classes are unequal alone."""
UNEQUAL = 3.0
"""How many times as many training nodes the largest class has as the smallest where that is worth a try."""
LONG: Candidates = (
    *PANEL,
    ("gat-res", {"norm": "layer_norm", "options": NO_SKIPS, **ROWS, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 4, "hidden_channels": 128, "dropout": 0.2, "pace": SLOW}),
    ("gat", {"norm": "none"}),
    ("gat-res", {"norm": "layer_norm", "num_layers": 3, **ROWS, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 2, "hidden_channels": 256, "dropout": 0.3, "pace": SLOW}),
    ("mlp", {"hidden_channels": 256, "dropout": 0.7}),
    ("sage", ALIKE),
    ("gat", {"norm": "batch_norm", "pace": {"ema_decay": 0.98}}),
    ("gat-res", {"norm": "layer_norm", "options": NO_SKIPS, "pace": SLOW}),
    ("sage-res", {"norm": "layer_norm", "num_layers": 4, "hidden_channels": 128, "dropout": 0.2, "pace": SLOW}),
    ("gcn-res", {"norm": "batch_norm", "num_layers": 3, "hidden_channels": 256}),
    (
        "gcn-res",
        {"norm": "layer_norm", "num_layers": 3, "hidden_channels": 256, "options": NO_SKIPS, **ROWS, "pace": SLOW},
    ),
    ("gcn", {"norm": "batch_norm", "pace": {"ema_decay": 0.98}}),
    ("sage", {"norm": "layer_norm", "hidden_channels": 256, "dropout": 0.7}),
    ("gat-res", {"norm": "layer_norm", "num_layers": 4, "hidden_channels": 128, "dropout": 0.2, "pace": SLOW}),
    ("sign", {"hidden_channels": 128}),
    ("gat-res", {"norm": "layer_norm", "num_layers": 3, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 3, "hidden_channels": 256, "options": NO_SKIPS, "pace": SLOW}),
    ("gcn-res", {"norm": "layer_norm", "num_layers": 4, **ALIKE}),
    ("sage-res", {"norm": "batch_norm", "num_layers": 4, "hidden_channels": 128, "options": IN_FRONT, "pace": SLOW}),
    ("gcn-res", {"norm": "batch_norm", "num_layers": 4, "hidden_channels": 128, "options": IN_FRONT, "pace": SLOW}),
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
    beside = set(config.weak.members) if len(config.weak.members) > 1 else set()  # a panel already has these
    unsuited = senseless(config, data)
    norm = config.strong.norm
    if int(data.train_mask.sum()) < FEW * classes_of(data):
        norm = "none"
        usual = (config.optimizer, config.weight_decay) == (Config.optimizer, Config.weight_decay)
        config = replace(config, **HELD_BACK) if usual else config
    return composed(
        config,
        tuple(
            (kind, {"norm": norm, **differs} if takes_norm(kind) else differs)
            for kind, differs in candidates
            if not (kind in beside or unsuited(kind, differs))
        ),
    )


def of_good(candidates: Candidates) -> int:
    """Count the first of some candidates that `good` trains, too, whatever their norm is by default."""
    known = [(kind, own(differs)) for kind, differs in PRESETS["good"]]
    return len(list(takewhile(lambda each: (each[0], own(each[1])) in known, candidates)))


def own(differs: dict[str, Any]) -> dict[str, Any]:
    """Leave out the norm, and that classes are not weighed, which the list does not say."""
    return {key: value for key, value in differs.items() if key != "norm" and (key, value) != ("class_weight", "none")}


def senseless(config: Config, data: Data) -> Callable[[str, dict[str, Any]], bool]:
    """Return what tells of a candidate whether it takes too long on a graph, or can bring nothing there."""
    columns = 3 * (REDUCED if data.num_features > WIDEST else data.num_features)
    labels = data.y[data.train_mask]
    averaged = 3 * data.num_nodes * data.num_features
    too_large = {"hop-trees": len(labels) * columns * classes_of(data) > LARGEST, "sign": averaged > MOST_AVERAGED}

    @cache
    def without(field: str) -> bool:
        if field == "unit_rows":
            return config.normalize_features or config.standardize or not are_bags(data.x)
        counts = labels.bincount()
        return field == "class_weight" and int(counts.max()) < UNEQUAL * int(counts[counts > 0].min())

    return lambda kind, differs: too_large.get(kind, False) or any(map(without, differs))


def learns(kind: str) -> bool:
    """Tell whether an expert learns by itself, as trees and neighbours do."""
    made = EXPERTS.lookup(kind)
    made = made.func if isinstance(made, partial) else made
    return isinstance(made, type) and issubclass(made, Learner)


def takes_norm(kind: str) -> bool:
    """Tell whether an expert has a norm: trees and neighbours have none."""
    parameters = inspect.signature(EXPERTS.lookup(kind)).parameters
    return "norm" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def paired(config: Config) -> Config:
    """Return a configuration in which `auto` has become one GCN, whatever the graph."""
    return config if config.strong.kind != AUTO else composed(config, PAIR)


def composed(config: Config, candidates: Candidates) -> Config:
    """Return a configuration whose strong expert is these: a panel, or the only one.

    Classes that are weighed for the strong expert are so for those that are trained by gradients alone.
    """
    if config.strong.class_weight != "none":
        plain = {"class_weight": "none"}
        candidates = tuple((kind, plain | differs if learns(kind) else differs) for kind, differs in candidates)
    kinds, each = zip(*candidates, strict=True)
    if len(kinds) == 1:
        return replace(config, strong=replace(config.strong, kind=kinds[0], each=[], **each[0]))
    return replace(config, strong=replace(config.strong, kind="+".join(kinds), each=list(each)))
