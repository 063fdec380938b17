"""Which nodes are run now: batches, and the feeds that cut them from a graph.

A `Batch` is some nodes with everything that a model or a loss needs of them: features, the graph among them, labels,
their ids in the whole, which of them a term of the loss is averaged over, and their rows of all that is frozen. The
whole graph is one, too. A `Feed` says, epoch by epoch, which batches are run: `Whole` runs the whole graph, or the
nodes with a label alone where no other node could change the loss. Neither trainer nor regimes nor losses know which.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from graphkd import Scope, Signals, take
from graphkd.contract import UNLABELLED
from mowst.errors import InputError
from mowst.kernels import Adjacency, Around, Drawn, rows_of, written_by_torch_alone
from mowst.models import Known
from mowst.training.world import Share


def hide(y: Tensor, seen: Tensor) -> Tensor:
    """Return labels [N] that are -100 (not to be seen) outside the mask [N]."""
    return y.masked_fill(~seen, UNLABELLED)


@dataclass(frozen=True)
class Batch:
    """Nodes that are run together."""

    data: Data
    """Their `x, y, train_mask`, and whatever columns the graph brings along; `edge_index` where edges are looked at."""
    graph: Tensor
    """The edges among them: a prepared `Adjacency`, or a plain `edge_index` [2, E]."""
    on: Mapping[str, Tensor | None]
    """Places [n] in the batch of the nodes that a term is averaged over, by what it is `on`; none: all of them."""
    nodes: Tensor | None = None
    """Ids [M] in the whole; none: all nodes, in order."""
    seeds: Tensor | None = None
    """Places of the nodes that are asked for, where others are there for their sake; none: all are."""
    known: Known = field(default_factory=Known)
    """Rows of what frozen parts of the model say."""
    teacher: Signals | None = None
    """Rows of the signals of a frozen teacher from outside the model."""

    @classmethod
    def of(cls, data: Data, teacher: Signals | None = None) -> Batch:
        """Return a whole graph as a batch, whose labels outside the training mask are hidden.

        Args:
            data: graph with `x, edge_index, y, train_mask`, and its adjacency `adj_t` if it was prepared.
            teacher: signals of all nodes.
        """
        graph = data.adj_t if "adj_t" in data else data.edge_index
        teacher = None if teacher is None else signals_on(teacher, data.y.device)
        return cls(data, graph, {}, teacher=teacher).trained_on(data.train_mask.nonzero().squeeze(-1))

    @property
    def x(self) -> Tensor:
        """Features [M, F]."""
        return self.data.x

    @property
    def y(self) -> Tensor:
        """Labels [M], -100 where a label is not to be seen."""
        return self.data.y

    @property
    def train_mask(self) -> Tensor:
        """Training nodes, [M] bool."""
        return self.data.train_mask

    @property
    def edge_index(self) -> Tensor:
        """Source and target of each edge, [2, E]."""
        return self.data.edge_index

    def count_on(self, on: str) -> int:
        """Return over how many nodes a term is averaged, by what it is `on`."""
        index = self.on[on]
        return len(self.y) if index is None else len(index)

    def of_seeds(self, said: Any) -> Any:
        """Return the rows of the nodes that are asked for, of what was said of all."""
        return said if self.seeds is None else said.rows(self.seeds)

    def trained_on(self, nodes: Tensor, y: Tensor | None = None) -> Batch:
        """Return a whole graph of which the labels of some nodes [n] alone are seen, and trained on.

        Args:
            nodes: ids.
            y: labels [N], where these nodes have others than are seen now.
        """
        data = copy.copy(self.data)
        data.train_mask = index_to_mask(nodes, len(self.y))
        data.y = hide(self.y if y is None else y, data.train_mask)
        return replace(self, data=data, on={"train": nodes, "all": None})

    def alone(self, nodes: Tensor) -> Batch:
        """Return some nodes [n] of a whole graph without its edges."""
        columns = {key: self.data[key] for key in self.data.node_attrs() if key not in ("x", "adj_t")}
        columns = {key: value[nodes] for key, value in columns.items() if isinstance(value, Tensor)}
        return replace(
            self,
            data=Data(x=rows_of(self.x, nodes), **columns),
            on={"train": None, "all": None},
            nodes=nodes,
            known=self.known.rows(nodes),
            teacher=None if self.teacher is None else take(self.teacher, nodes),
        )

    def among(self, nodes: Tensor, seeds: int) -> Batch:
        """Return some distinct nodes [n] of a whole prepared graph with the edges among them.

        Degrees stay those of the whole graph (`Adjacency.within`). The first `seeds` of the nodes are asked for, and
        what a term is averaged over is among these.
        """
        assert isinstance(self.graph, Adjacency), "the graph must be prepared"
        return self.alone(nodes).around(self.graph.within(nodes), seeds)

    def drawn(self, drawn: Drawn, seeds: int) -> Batch:
        """Return some nodes of a whole prepared graph with some of the edges among them (`Adjacency.thinned`).

        Where the first act of a model is to average dense features, or to add them up, no neighbour is missing there:
        these products, [N, F], are the whole graph's.
        """
        assert isinstance(self.graph, Adjacency), "the graph must be prepared"
        part = self.alone(drawn.nodes)
        features = (part.x, self.x) if self.keeps_products else None
        return part.around(self.graph.thinned(drawn, features), seeds)

    def ringed(self, drawn: Drawn) -> Batch:
        """Return the nodes of a whole prepared graph that were asked for; what is around them goes with the graph.

        So a model says of them alone what it says, each layer being run for the nodes that later ones look at
        (`mowst.models.run_module`). What stands for what is as in `drawn`.
        """
        assert isinstance(self.graph, Adjacency), "the graph must be prepared"
        x, seeds = rows_of(self.x, drawn.nodes), drawn.nodes[: drawn.sizes[0]]
        features = (x, self.x) if self.keeps_products else None
        graph, part = self.graph.thinned(drawn, features, Around(x, drawn.sizes)), self.alone(seeds)
        return replace(part, graph=graph, on={"train": part.train_mask.nonzero().squeeze(-1), "all": None})

    @property
    def keeps_products(self) -> bool:
        """Whether products of the graph with the features are kept: these are dense, and torch alone writes there."""
        return type(self.x) is Tensor and self.x.layout == torch.strided and written_by_torch_alone(self.x)

    def around(self, graph: Adjacency, seeds: int) -> Batch:
        """Return these nodes [n] with a graph of them; the first `seeds` of them are asked for."""
        self.data.edge_index = graph.edge_index
        first = torch.arange(seeds, device=self.y.device)
        on = {"train": self.train_mask[:seeds].nonzero().squeeze(-1), "all": first}
        return replace(self, graph=graph, on=on, seeds=first)


def signals_on(signals: Signals, device: torch.device) -> Signals:
    """Return signals on another device."""
    reliability = None if signals.reliability is None else signals.reliability.to(device)
    return Signals(signals.logits.to(device), tuple(layer.to(device) for layer in signals.hidden), reliability)


class Needs(NamedTuple):
    """What a phase of training needs of its batches."""

    hops: int | None
    """From how many edges away anything is read by what is run; none: not known."""
    scope: Scope
    """The widest scope of its losses."""
    on: frozenset[str]
    """The nodes that its losses are averaged over: "train", "all"."""
    share: Share = Share()
    """Which part of every step is asked for."""
    seeds_alone: bool = False
    """Whether nothing but the nodes that a loss is averaged over is asked of what is run, by `run_module`."""
    looked_up: bool = False
    """Whether what is run begins with products of the graph with its features, and reads no others at the last hop
    (`mowst.models.Reads.spares_a_hop`)."""

    @property
    def edges(self) -> bool:
        """Whether the model or a loss looks at edges."""
        return self.hops != 0 or self.scope is not Scope.NODE

    @property
    def labelled_alone(self) -> bool:
        """Whether no node without a label could change the loss."""
        return not self.edges and self.on == {"train"}


class Feed(Protocol):
    """Says which batches of a whole graph are run; it keeps nothing of the graph."""

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        """Return a function from an epoch of a phase (from 1) to its batches; each is one step, or a share of it.

        Every node that a term is averaged over is in one batch of an epoch, with all that it needs around it: of one
        of the shares, where there are several. All of these have as many batches.
        """

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        """Return batches whose seeds, one after the other, are the nodes [n] asked for (none: all in order).

        They may be gone through again and again. `hops` says from how many edges away anything is read.
        """


UNDIVIDED = (
    "devices: a step on the whole graph is not divided among {0}; take --batch parts({0}) or neighbors(15,10), or "
    "--workers {0} to share out the seeds"
)


class Whole:
    """The whole graph in every step; nodes with a label alone, where no other could change the loss.

    So it is for a model that looks at no edge. Batch norm then sees the nodes with a label alone, in every phase, which
    serves an MLP better where these are few.
    """

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        """Return one batch an epoch.

        Raises:
            InputError: a share of it is asked for.
        """
        if needs.share.size > 1:
            raise InputError(UNDIVIDED.format(needs.share.size))
        labelled = whole.on["train"]
        rows = needs.labelled_alone and labelled is not None and len(labelled) > 1
        batches = (whole.alone(labelled) if rows and labelled is not None else whole,)
        return lambda epoch: batches

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        """Return the whole graph, or the nodes alone where no edge is looked at."""
        if nodes is None:
            return (whole,)
        return (whole.alone(nodes),) if hops == 0 else (replace(whole, seeds=nodes),)
