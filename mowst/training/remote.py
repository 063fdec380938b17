"""Batches of a graph that lies elsewhere: who holds its features and edges draws neighbours and brings both.

`OnCuGraph` is for graphs beyond one host's memory: cugraph-pyg (26.10, on CUDA devices) with its features and edges
spread over the memory of many by WholeGraph. It is written against what is documented of it, and was tested with a
double of it: it has not been run.

    trainer = Trainer(model, data, score, fabric=fabric, feed=Remote(OnCuGraph(features, graph, degree), (10, 10, 5)))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import Scope
from mowst.errors import InputError
from mowst.kernels import Brought, drawn_by
from mowst.training.batches import Batch, Needs
from mowst.training.feeds import SIZE, labelled, numbered


class Holder(Protocol):
    """Holds a graph without weights of edges, and without loops."""

    degree: Tensor
    """[N] edges into each node."""

    def features(self, nodes: Tensor) -> Tensor:
        """Return features of nodes [n], [n, F]."""

    def around(self, nodes: Tensor, fanouts: Sequence[int], size: int) -> Iterable[Data]:
        """Return what is around nodes [n], so many of them at a time in their order, as PyG's loaders do.

        That is `x`, `edge_index`, `n_id`, and the `batch_size` of those asked for, which come first.
        """


@dataclass(frozen=True)
class OnCuGraph:
    """A graph in the stores of cugraph-pyg, whose `NeighborLoader` draws.

    Args:
        feature_store, graph_store: `cugraph_pyg.data.FeatureStore` and `GraphStore` of one kind of nodes and of edges.
        degree: [N] edges into each node.
        group, attribute: under which names the features lie in their store.
    """

    feature_store: Any
    graph_store: Any
    degree: Tensor
    group: str = "node"
    attribute: str = "x"

    def features(self, nodes: Tensor) -> Tensor:
        """Return features of nodes [n], [n, F]."""
        found: Tensor = self.feature_store.get_tensor(group_name=self.group, attr_name=self.attribute, index=nodes)
        return found

    def around(self, nodes: Tensor, fanouts: Sequence[int], size: int) -> Iterable[Data]:
        """Return what is around nodes [n], so many of them at a time in their order.

        Raises:
            InputError: cugraph-pyg is not installed.
        """
        try:
            from cugraph_pyg.loader import NeighborLoader
        except ImportError as error:
            raise InputError(f"cugraph-pyg is not installed, or finds no CUDA device: {error}") from None
        stores = (self.feature_store, self.graph_store)
        loader: Iterable[Data] = NeighborLoader(
            stores, num_neighbors=list(fanouts), input_nodes=nodes, batch_size=size, shuffle=False
        )
        return loader


@dataclass(frozen=True)
class Remote:
    """Neighbourhoods that their holder draws; of the graph itself labels and masks are here.

    The data of the trainer have `y` and masks [N], features [N, 0] and no edges. What is judged, and what frozen
    experts say, comes from drawn neighbourhoods, too.
    """

    holder: Holder
    fanouts: tuple[int, ...]
    """Neighbours of a node, by hop; -1: all of them."""
    judged: tuple[int, ...] = ()
    """The same where nodes are judged; none: the same as in training."""
    size: int = SIZE
    seed: int = 0

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        """Return the batches that each node is in once that a loss is averaged over.

        Raises:
            InputError: what is trained, or a loss, looks at more than the nodes themselves and what is around them.
        """
        hops = self._within(needs.hops)
        if needs.scope is not Scope.NODE or not needs.seeds_alone:
            raise InputError("batch: of a graph that lies elsewhere a loss sees the outputs of single nodes alone")
        nodes = labelled(whole) if needs.on == {"train"} else torch.arange(len(whole.y), device=whole.y.device)
        size = _alike(self.size, -(-len(nodes) // needs.share.size))

        def batches(epoch: int) -> Iterator[Batch]:
            order = torch.randperm(len(nodes), generator=numbered(self.seed, epoch)).to(nodes.device)
            return self._brought(whole, needs.share.of(nodes[order]), self.fanouts[:hops], size)

        return batches

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        """Return batches whose seeds, one after the other, are the nodes asked for."""
        within = self._within(hops)
        nodes = torch.arange(len(whole.y), device=whole.y.device) if nodes is None else nodes
        return _Again(lambda: self._brought(whole, nodes, (self.judged or self.fanouts)[:within], self.size))

    def _within(self, hops: int | None) -> int:
        """Return how many hops are to be drawn, if there are as many fan-outs."""
        given = min(len(self.fanouts), len(self.judged or self.fanouts))
        if hops is None or hops > given:
            raise InputError(f"batch: the model reaches {hops or 'nobody knows how many'} hops; give as many fan-outs")
        return hops

    def _brought(self, whole: Batch, nodes: Tensor, fanouts: Sequence[int], size: int) -> Iterator[Batch]:
        """Make batches of what the holder brings; of no hop they are rows."""
        if not fanouts:
            for some in torch.split(nodes, size):
                yield self._with(whole, some, self.holder.features(some))
            return
        for found in self.holder.around(nodes, fanouts, size):
            drawn = drawn_by(found.edge_index, found.n_id, int(found.batch_size), len(fanouts))
            part = self._with(whole, found.n_id[: drawn.sizes[0]], found.x[: drawn.sizes[0]])
            yield replace(part, graph=Brought.of(drawn, self.holder.degree[found.n_id], found.x))

    def _with(self, whole: Batch, nodes: Tensor, x: Tensor) -> Batch:
        part = whole.alone(nodes)
        part.data.x = x
        return replace(part, on={"train": part.train_mask.nonzero().squeeze(-1), "all": None})


class _Again:
    """Batches that are made anew whenever they are gone through."""

    def __init__(self, make: Callable[[], Iterator[Batch]]):
        self.make = make

    def __iter__(self) -> Iterator[Batch]:
        return self.make()


def _alike(size: int, longest: int) -> int:
    """Return so many nodes of a batch, or some more, that shares of `longest` and of one node less have as many."""
    while longest > 1 and (longest - 1) % size == 0 and size < longest:
        size += 1
    return size
