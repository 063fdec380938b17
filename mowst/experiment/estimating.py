"""From a graph to a trained mixture with all it needs, and from that to what it says of another graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures

from mowst.data import check, check_form
from mowst.data.assembling import own_of
from mowst.data.given import Scale, asked, class_names_of, taken
from mowst.data.labels import labels
from mowst.data.splits import shipped_masks
from mowst.errors import InputError, some
from mowst.evaluation import Metric, pooled
from mowst.experiment.bench import Bench, Fitted, metric_of
from mowst.experiment.building import advise, classes_of, fabric_of, prepare, say_unweighted
from mowst.experiment.choosing import chosen
from mowst.experiment.config import Config
from mowst.experiment.plan import judged_alone, planned
from mowst.experiment.searching import searches, tried
from mowst.experiment.whole import Whole
from mowst.inference import exported
from mowst.kernels import dense
from mowst.models import Mowst
from mowst.system import check_type_of


def trained(asked_for: Config, data: Data, seed: int) -> Whole:
    """Train the mixture of a configuration on a graph; labels of other than training and validation nodes are not read.

    Of the preset `best` candidates are tried first, for as long as `budget` says (`mowst.experiment.searching`).

    Raises:
        InputError: the graph is not fit for it (`mowst.data.check`).
        FloatingPointError: training diverged.
    """
    graph = taken(data)
    graph.train_mask, graph.val_mask, graph.test_mask = shipped_masks(graph, seed)
    if (metric := data.get("metric")) is not None:
        check_type_of("metric", metric, str | Metric)
        graph.metric = metric
    check(graph)
    advise(asked_for, graph)
    scale = Scale.of(graph.x) if asked_for.standardize else None
    config = chosen(asked_for, graph)
    fabric = fabric_of(config)
    ready = prepare(graph, config, fabric.device, scale)
    if searches(asked_for):
        config = tried(Bench(config, planned(replace(config, mixture=True)), ready, seed, fabric))
    bench = Bench(config, judged_alone(config), ready, seed, fabric)
    fitted = bench.train("mixture")
    model = (bench.final() if config.use_validation else fitted).model
    assert isinstance(model, Mowst)
    own, names = own_of(data), graph.class_names if "class_names" in graph else list(range(classes_of(graph)))
    numbers = "class_names" not in data and all(isinstance(name, int) for name in names)
    say_unweighted(model, graph)
    return Whole(
        model=model,
        config=config,
        seed=seed,
        features=graph.num_features,
        classes=[*names] if numbers else list(range(len(names))),
        class_names=[*names],
        fitted=None if own is None else own.fitted,
        scale=scale,
        history=fitted.history,
        about=about(data, ready, fitted),
    )


def about(data: Data, ready: Data, fitted: Fitted) -> dict[str, Any]:
    """Return what a model card says of the graph, and how good the mixture is on validation nodes, in percent."""
    metric, name, val = ready.get("metric", "accuracy"), data.get("name"), ready.val_mask
    found: dict[str, Any] = {"dataset": name} if isinstance(name, str) else {}
    found |= {"nodes": ready.num_nodes, "edges": ready.num_edges}
    found |= {part: int(ready[f"{part}_mask"].sum()) for part in ("train", "val", "test")}
    score = 100 * pooled(fitted.output.rows(val), ready.y[val], metric_of(ready)) if bool(val.any()) else None
    return found | {"metric": metric if isinstance(metric, str) else "metric", "validation": score}


def graph_like(whole: Whole, data: Data) -> Data:
    """Return the features and edges of a graph that is like the one a mixture was trained on; labels are not read.

    Raises:
        InputError: the graph is unsound, or has other features, columns or class names.
    """
    graph = asked(data)
    check_form(graph)
    if graph.num_features != whole.features:
        raise InputError(f"x: has {graph.num_features} features, the classifier was fitted on {whole.features}")
    theirs, own = class_names_of(data), own_of(data)
    if theirs and theirs != whole.class_names:
        raise InputError(
            f"class_names: the graph's are {some(theirs)}, the classifier was fitted on {some(whole.class_names)}; "
            "give class_names=classifier.class_names to from_networkx, like=classifier.like to read"
        )
    if own is not None and own.fitted != whole.fitted:
        raise InputError(
            "x: columns became features otherwise than in the graph that the classifier was fitted on; give "
            "like=classifier.like to mowst.data.read or from_tables"
        )
    return graph


def asked_of(whole: Whole, data: Data, ask: Callable[..., Any]) -> Any:
    """Let `ask(model, x, graph)` ask a mixture of a graph that is like its first one.

    Raises:
        InputError: as `graph_like`.
    """
    graph, fabric = graph_like(whole, data), fabric_of(whole.config)
    ready = prepare(graph, whole.config, fabric.device, whole.scale)
    with torch.no_grad(), fabric.autocast():
        return ask(whole.model, ready.x, ready.adj_t)


def columns_of_labels(whole: Whole, data: Data) -> Tensor:
    """Return for the label of each node the column of the probabilities that is its class, -1 for none, [N].

    Raises:
        InputError: the graph has no labels, or unsound ones.
    """
    if data.get("y") is None:
        raise InputError("y: the data has none to compare with")
    mine, given = whole.class_names, class_names_of(data)
    known = mine == list(range(len(mine))) or given is not None
    found = labels(data.y, len(mine) if known else None, names=given)
    names = found.names or given or list(range(int(found.y.max()) + 1))
    place = {name: column for column, name in enumerate(mine)}
    return torch.tensor([*(place.get(name, -1) for name in names), -1])[found.y]


class Features(nn.Module):
    """What a configuration does to the features of a graph before they are seen, [N, F] -> [N, F]."""

    def __init__(self, whole: Whole):
        super().__init__()
        self.standardize, self.normalize = whole.scale is not None, whole.config.normalize_features
        scale = whole.scale or Scale(torch.zeros(0), torch.ones(0))
        self.register_buffer("mean", scale.mean)
        self.register_buffer("deviation", scale.deviation)

    def forward(self, x: Tensor) -> Tensor:
        """Do it."""
        if self.standardize:
            x = Scale(self.get_buffer("mean"), self.get_buffer("deviation")).standardized(x)
        return NormalizeFeatures()(Data(x=x)).x if self.normalize else x


def exported_whole(whole: Whole, data: Data) -> ExportedProgram:
    """Export a mixture with what is done to features first (`mowst.inference.exported`); the graph is to try it on.

    Raises:
        InputError: an expert cannot be exported, or the graph has weights of edges, which are no part of it.
    """
    graph, device = graph_like(whole, data), fabric_of(whole.config).device
    if "edge_weight" in graph:
        raise InputError("edge_weight: is no part of what is exported; take it from the data first")
    x = dense(graph.x).to(device, torch.get_default_dtype())
    return exported(whole.model, x, graph.edge_index.to(device), Features(whole).to(device))
