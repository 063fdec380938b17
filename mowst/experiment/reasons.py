"""Which training labels spoke for a prediction of a run, by name; of a node of another graph, too."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.experiment.asking import Query
from mowst.experiment.config import Config
from mowst.experiment.plan import FINAL, schedule_of
from mowst.influence import why
from mowst.kernels import Adjacency, dense


class Reason(NamedTuple):
    """A training node that spoke for a prediction, or against it."""

    node: Hashable
    """What it is called."""
    label: Hashable
    """Its class, by name."""
    score: float
    """Nats by which its label raises the log-probability of the predicted class; below 0: it speaks against it."""


class Reasons(NamedTuple):
    """What a prediction rests on."""

    predicted: Hashable
    """The class, by name."""
    spoke: list[Reason]
    """The labels that moved it most, the strongest first."""
    of: int
    """How many training nodes there are."""
    standing: tuple[str, ...]
    """Parts of the model that can only be trained anew, such as trees: they count as they stand."""


def reasons_of(query: Query, home: Query, config: Config, node: int, *, k: int = 10) -> Reasons:
    """Return the k training nodes whose labels moved the prediction of a node most (`mowst.influence.why`).

    Args:
        query: the model, and the graph that the node is of.
        home: the same on the graph that it was trained on; the query itself, if that is the one.
        config: of the run, which says by what loss each expert was trained.
        node: number of the node in the query's graph.
        k: how many.

    Raises:
        InputError: the model has no last layer that is linear in its weights.
    """
    graph, place = home.ready, node
    if home is not query:
        graph, place = side_by_side(home.ready, query.ready), len(home.names) + node
    try:
        found = why(query.model, graph, place, k=k, weights=weights_of(config, query.name, graph))
    except InputError as error:
        raise InputError(f"--why: this run's {query.name} cannot be asked: {error}") from None
    names, labels = home.class_names, home.ready.y.cpu()[found.ids]
    each = zip(found.ids.tolist(), labels.tolist(), found.scores.tolist(), strict=True)
    spoke = [Reason(home.names[train], names[label], score) for train, label, score in each]
    return Reasons(names[found.predicted], spoke, int(home.ready.train_mask.sum()), found.standing)


def weights_of(config: Config, name: str, graph: Data) -> dict[str, Tensor]:
    """Return the weight of each label of a graph, [N], in the loss of each part of a model that weighs them, by part.

    Args:
        config: of the run.
        name: what the model is called there.
        graph: with `y` and `train_mask`.
    """
    schedule, shown = schedule_of(config, config.first_seed, name), graph.y.where(graph.train_mask, -1)
    parts = schedule.own if name in ("mixture", FINAL) else ("",)
    found = {part: schedule.of(part).label_weights(shown) for part in parts}
    return {part: weight for part, weight in found.items() if weight is not None}


def side_by_side(home: Data, other: Data) -> Data:
    """Put two prepared graphs into one without an edge between them; labels and training nodes are the first one's.

    Every node is predicted as it was in its own graph, so the labels of the first can be asked about the second.
    """
    x = torch.cat([dense(home.x), dense(other.x)])
    edge_index = torch.cat([home.edge_index, other.edge_index + len(home.x)], dim=1)
    weight = None
    if "edge_weight" in home or "edge_weight" in other:
        weight = torch.cat([weights(home), weights(other)]).to(x).cpu()
    adjacency = Adjacency.from_edge_index(edge_index.cpu(), len(x), weight).to(x.device)
    unknown = torch.full((len(other.x),), -1, dtype=home.y.dtype, device=x.device)
    train = torch.cat([home.train_mask, torch.zeros_like(unknown, dtype=torch.bool)])
    return Data(x=x, edge_index=edge_index, adj_t=adjacency, y=torch.cat([home.y, unknown]), train_mask=train)


def weights(graph: Data) -> Tensor:
    """Return the weight of each edge, [E]; 1 where the graph says none."""
    return graph.edge_weight if "edge_weight" in graph else torch.ones(graph.edge_index.size(1))
