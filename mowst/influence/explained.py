"""Which neighbours and features spoke for what an expert says of a node, by PyG's explainers.

Where an expert can be asked edge by edge, GNNExplainer (Ying et al., 2019, arXiv 1903.03894) learns a mask: how much of
each edge and of each feature, from 0 to 1, the answer needs. It is run on the nodes that the answer can see, whose
degrees stay those of the whole graph, and says who is a candidate. Trees and counts have no gradient, and averages that
were made beforehand no edges to mask: there each feature, and each direct neighbour, is one. Each candidate is left
out once, and they are put in the order of how far the log-odds of the class move, log p - log(1 - p): these move near
p = 1, too.

Left out means: a feature is 0 at all nodes (a column of a table: missing), a neighbour has no edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from mowst.errors import InputError
from mowst.kernels import Adjacency, Raw, Tabled, dense, neighbourhood, rows_of
from mowst.models import ROLES, Learner, Mowst, Neighbours, Panel, reads_of, run_module

EPOCHS = 200
"""Steps in which masks are learned."""
CANDIDATES, FEW = 3, 100
"""Times as many as are asked for, of those with the greatest mask, are left out one by one; of so many features all."""
LEAST = 1e-4
"""Nats below which nothing has moved but by rounding."""
MOST = 200
"""Neighbours that are left out one by one; of more, the first."""


class Column(NamedTuple):
    """What is looked at as one feature."""

    features: list[int]
    """Places among the features [N, F]."""
    raw: int | None = None
    """Place among the columns of the table that they were made of, where an expert sees that."""


class Felt(NamedTuple):
    """A neighbour or a feature that spoke."""

    place: int
    """Number of the node, or of the feature among those that were looked at."""
    mask: float | None
    """How much of it the answer needs, from 0 to 1; none: no mask was learned."""
    without: float
    """Probability of the predicted class when it is left out."""
    moved: float
    """Nats by which its log-odds change then; below 0: it spoke for the class."""
    direct: bool = True
    """Of a neighbour: an edge leads from it to the node."""


class Explained(NamedTuple):
    """What an expert's answer for a node rests on."""

    predicted: int
    """The class that the expert says."""
    probability: float
    neighbours: list[Felt]
    """The strongest first."""
    features: list[Felt]
    of: int
    """How many other nodes the answer can see."""


class Voice(NamedTuple):
    """An expert that answered."""

    expert: nn.Module
    name: str
    """Such as "the strong expert's sage"."""
    temperature: float = 1.0
    """By which its logits are divided."""


def voice_of(model: nn.Module, data: Data, node: int, role: str = "") -> Voice:
    """Return the expert that answered for a node: of a mixture that of a role, of a panel its loudest member there."""
    said, expert, temperature = "the expert", model, 1.0
    if isinstance(model, Mowst) and role:
        said, expert = f"the {role} expert", model.of(role)
        temperature = float(model.temperature[ROLES.index(role)])
    if not isinstance(expert, Panel):
        return Voice(expert, said, temperature)
    places = expert.active.nonzero().flatten().tolist()
    with torch.no_grad():
        logs = [expert.member(place, data.x, graph_of(data))[[node]].log_softmax(-1) for place in places]
        weights = expert.weights(torch.stack(logs), places)[:, 0]
    loudest = int(weights.argmax())
    place, share = places[loudest], float(weights[loudest] / weights.sum())
    name = f"{said}'s {expert.names[place]} ({share:.0%} of the weight of {len(places)} that are heard)"
    return Voice(expert.members[place], name, float(expert.temperature[place]))


def explain(voice: Voice, data: Data, node: int, columns: Sequence[Column] | None = None, k: int = 10) -> Explained:
    """Return the neighbours and features that speak most for what an expert says of a node.

    Args:
        voice: the expert, in evaluation mode; random numbers come from torch's generator.
        data: features `x` [N, F] and all edges, `edge_index`, or `adj_t` as a graph is prepared.
        node: number of the node.
        columns: what is looked at as one feature each where features are left out; by default each for itself.
        k: how many of each.

    Raises:
        InputError: there is no such node.
    """
    if not 0 <= node < len(data.x):
        raise InputError(f"node {node}: must be from 0 to {len(data.x) - 1}")
    ask = Ask(voice, data.x, graph_of(data), node)
    masks = Masks() if isinstance(voice.expert, Learner) else ask.masked()
    if columns is None or masks.features is not None:
        columns = [Column([place]) for place in range(data.x.size(1))]
    features = ask.left_out_features(list(columns), masks.features, k)
    neighbours = ask.left_out_neighbours(masks.neighbours, k)
    return Explained(ask.predicted, ask.probability, neighbours, features, len(ask.nodes) - 1)


def graph_of(data: Data) -> Adjacency:
    """Return the edges of a graph, prepared."""
    if "adj_t" in data:
        prepared: Adjacency = data.adj_t
        return prepared
    return Adjacency.from_edge_index(data.edge_index, len(data.x), data.get("edge_weight"))


class Masks(NamedTuple):
    """What GNNExplainer learned; none: it cannot be asked."""

    features: Tensor | None = None
    """[F]"""
    neighbours: Tensor | None = None
    """[N], the node itself 0."""


class Ask:
    """An expert's answer for one node, and what the answer can see."""

    def __init__(self, voice: Voice, x: Tensor, graph: Adjacency, node: int):
        self.expert, self.temperature, self.reads = voice.expert, voice.temperature, reads_of(voice.expert)
        self.x, self.graph, self.node = x, graph, node
        seed = torch.tensor([node], device=graph.device)
        if self.reads.hops == 0:
            self.nodes = seed
        elif self.reads.hops is None:
            others = torch.arange(len(x), device=seed.device)
            self.nodes = torch.cat([seed, others[others != node]])
        else:
            self.nodes = neighbourhood(graph.rows, seed, [-1] * self.reads.hops, None).nodes
        self.part, self.seen = graph.within(self.nodes), rows_of(x, self.nodes)
        logits = self.said(x, graph, node)
        self.predicted = int(logits.argmax())
        self.odds, self.probability = self.odds_in(logits), float(logits.softmax(-1)[self.predicted])

    @torch.no_grad()
    def said(self, x: Tensor, graph: Any, node: int) -> Tensor:
        """Return the calibrated logits of a node, [C]."""
        found: Tensor = run_module(self.expert, self.reads, x, graph)
        return found[node].float() / self.temperature

    def odds_in(self, logits: Tensor) -> float:
        """Return the log-odds of the class that was predicted, from logits [C]."""
        others = torch.arange(len(logits), device=logits.device) != self.predicted
        return float(logits[self.predicted] - logits[others].logsumexp(0))

    def without(self, place: int, mask: Tensor | None, x: Tensor, graph: Any, node: int) -> Felt:
        """Return what is said of a node on another graph or other features, from which something was left out."""
        logits = self.said(x, graph, node)
        share = None if mask is None else float(mask[place])
        return Felt(place, share, float(logits.softmax(-1)[self.predicted]), self.odds_in(logits) - self.odds)

    def masked(self) -> Masks:
        """Learn masks of edges and features where the expert can be asked edge by edge, else of features alone."""
        from torch_geometric.explain import Explainer, GNNExplainer, ModelConfig

        part, exact = self.part, self.graph.rows.value is None or self.reads.normalised
        by_edge = exact and any(isinstance(layer, MessagePassing) for layer in self.expert.modules())
        subject = Subject(self.expert, part if self.reads.normalised or not by_edge else None).eval()  # it is left so
        edges = part.edge_index if by_edge else torch.empty(2, 0, dtype=torch.long, device=part.device)
        explainer = Explainer(
            subject,
            GNNExplainer(epochs=EPOCHS),
            explanation_type="model",
            node_mask_type="common_attributes",
            edge_mask_type="object" if by_edge and edges.size(1) else None,
            model_config=ModelConfig(mode="multiclass_classification", task_level="node", return_type="raw"),
        )
        asks = [parameter for parameter in self.expert.parameters() if parameter.requires_grad]
        for parameter in asks:
            parameter.requires_grad_(False)
        try:
            found = explainer(dense(self.seen), edges, index=0)
        finally:
            for parameter in asks:
                parameter.requires_grad_(True)
        if not by_edge:
            return Masks(found.node_mask[0])
        places = torch.zeros(len(self.nodes), device=edges.device)
        if "edge_mask" in found:
            places = places.scatter_reduce(0, edges[0], found.edge_mask.float(), "amax")
        every = places.new_zeros(len(self.x)).index_copy(0, self.nodes, places)
        every[self.node] = 0
        return Masks(found.node_mask[0], every)

    def left_out_features(self, columns: list[Column], mask: Tensor | None, k: int) -> list[Felt]:
        """Return the features without which the answer changes most, of those with the greatest mask, or of all."""
        if isinstance(self.expert, Neighbours):  # it looks at no feature, but knows its graph by them
            return []
        asked = range(len(columns)) if mask is None or len(columns) <= FEW else strongest(mask, CANDIDATES * k)
        cut = ((place, without_column(self.seen, columns[place])) for place in asked)
        return self.moved([self.without(place, mask, x, self.part, 0) for place, x in cut], k)

    def left_out_neighbours(self, mask: Tensor | None, k: int) -> list[Felt]:
        """Return the neighbours likewise; without a mask, of the direct ones."""
        edges, weight = self.graph.edge_index, self.graph.edge_weight
        direct = torch.unique(edges[0, (edges[1] == self.node) & (edges[0] != self.node)]).tolist()
        if self.reads.hops == 0:
            return []
        found = []
        asked = direct[:MOST]
        if mask is not None:  # where an answer is sure its masks say little, so those beside it are always asked
            asked = [direct[at] for at in strongest(mask[direct], CANDIDATES * k)]
            asked += [place for place in strongest(mask, k) if place not in asked]
        for place in asked:
            kept = (edges != place).all(dim=0)
            graph = Adjacency.from_edge_index(edges[:, kept], len(self.x), None if weight is None else weight[kept])
            found.append(self.without(place, mask, self.x, graph, self.node)._replace(direct=place in direct))
        return self.moved(found, k)

    def moved(self, found: list[Felt], k: int) -> list[Felt]:
        """Return those without which the log-odds are others, the greatest difference first."""
        apart = [each for each in found if abs(each.moved) > LEAST]
        return sorted(apart, key=lambda each: -abs(each.moved))[:k]


class Subject(nn.Module):
    """An expert as PyG's explainers call it.

    Args:
        expert: whose layers are masked.
        graph: is asked in place of the edges that it is called with, whose order it has; none: those are.
    """

    def __init__(self, expert: nn.Module, graph: Adjacency | None):
        super().__init__()
        self.expert, self.reads, self.graph = expert, reads_of(expert), graph

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, F], [2, E] -> [N, C]."""
        found: Tensor = run_module(self.expert, self.reads, x, edge_index if self.graph is None else self.graph)
        return found


def strongest(mask: Tensor, k: int) -> list[int]:
    """Return the places of the k greatest numbers of a mask that are above 0, the greatest first."""
    order = mask.argsort(descending=True, stable=True)[:k].tolist()
    return [place for place in order if float(mask[place]) > 0]


def without_column(x: Tensor, column: Column) -> Tensor:
    """Return features [n, F] of which a column is 0 everywhere; where they have a table, it is missing there."""
    raw = x.raw if isinstance(x, Tabled) else None
    plain = dense(x).clone()
    plain[:, column.features] = 0
    if raw is None:
        return plain
    values = raw.values.clone()
    if column.raw is not None:
        values[:, column.raw] = torch.nan
    return Tabled(plain, Raw(values, raw.categories))
