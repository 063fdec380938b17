"""Our drawing of neighbours for PyG's loaders, and PyG's drawing for our batches.

A `NeighbourSampler` is what PyG's `NodeLoader` asks for, and needs none of PyG's extensions:

    loader = NodeLoader(data, NeighbourSampler(data.edge_index, data.num_nodes, (15, 10)), input_nodes=data.train_mask,
                        batch_size=1024, shuffle=True)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
import torch_geometric.typing
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.sampler import BaseSampler, NeighborSampler, NodeSamplerInput, SamplerOutput

from mowst.errors import InputError, unknown
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.drawn import ALL, UNIFORM, Drawn
from mowst.kernels.sampling import KINDS, neighbourhood


class Draws(Protocol):
    """Draws the surroundings of nodes."""

    beside: bool
    """Whether it may do so in a thread beside the training, whose random numbers are its own then."""

    def draw(self, seeds: Tensor, generator: torch.Generator) -> Drawn:
        """Draw what is around distinct nodes [n]; what is drawn follows from the generator."""


class NeighbourSampler(BaseSampler):
    """Draw of each node at most so many neighbours, hop by hop, uniformly without replacement.

    What is drawn follows from the seed, the `epoch` and the nodes asked for, not from the worker or the rank that
    draws. Set `epoch` before each one, so that nodes that come together again have other neighbours.

    Args:
        edge_index: source and target of each edge, [2, E], or an `Adjacency`; messages go from source to target.
        num_nodes: N.
        fanouts: neighbours of a node, by hop; -1: all of them.
        kind: "uniform", or "labor" (`mowst.kernels.neighbourhood`), which draws so many on average, and of which each
            edge of a node with d neighbours stands for max(1, d / k) of them.
        seed: of the numbers that are drawn.

    Raises:
        InputError: an edge names no node, a fan-out is no number of neighbours, or the kind is unknown.
    """

    beside = True

    @staticmethod
    def check(kind: str) -> None:
        """Refuse a kind that is unknown."""
        if kind not in KINDS:
            raise unknown("kind", kind, KINDS)

    def __init__(
        self, edge_index: Tensor, num_nodes: int, fanouts: Sequence[int], *, kind: str = UNIFORM, seed: int = 0
    ):
        if any(fanout < 1 and fanout != ALL for fanout in fanouts):
            raise InputError(f"fanouts: must be numbers of neighbours, or -1 for all, got {tuple(fanouts)}")
        self.check(kind)
        if not isinstance(edge_index, Adjacency):
            edge_index = Adjacency.from_edge_index(edge_index, num_nodes)
        self.graph = edge_index
        self.fanouts, self.kind, self.seed, self.epoch = tuple(fanouts), kind, seed, 0

    @cached_property
    def edge_permutation(self) -> Tensor:
        """Place among the edges given of each entry of the graph, [E], as PyG's loaders ask for it."""
        source, target = self.graph.edge_index
        return torch.argsort(target * len(self.graph) + source, stable=True)

    def draw(self, seeds: Tensor, generator: torch.Generator) -> Drawn:
        """Draw what is around distinct nodes [n]; what is drawn follows from the generator."""
        return neighbourhood(self.graph.rows, seeds, self.fanouts, generator, self.kind)

    def sample_from_nodes(self, index: NodeSamplerInput, **kwargs: Any) -> SamplerOutput:
        """Draw what is around distinct nodes, as PyG's loaders ask for it.

        Raises:
            InputError: a node comes twice.
        """
        seeds = index.node.to(torch.long)
        if len(seeds.unique()) != len(seeds):
            raise InputError("input_nodes: a batch has a node twice; give each node once")
        words = f"{self.seed} {self.epoch} {seeds.tolist()}".encode()
        number = int.from_bytes(hashlib.blake2b(words, digest_size=7).digest(), "big")
        drawn = self.draw(seeds, torch.Generator().manual_seed(number))
        first = torch.searchsorted(drawn.target, torch.tensor(drawn.sizes))  # edges into nodes of nearer hops
        return SamplerOutput(
            node=drawn.nodes,
            row=drawn.source,
            col=drawn.target,
            edge=drawn.entry,
            num_sampled_nodes=torch.tensor([0, *drawn.sizes]).diff().tolist(),
            num_sampled_edges=torch.cat([torch.zeros(1, dtype=torch.long), first[:-1]]).diff().tolist(),
            metadata=(index.input_id, index.time),
        )

    def sample_from_edges(self, *args: Any, **kwargs: Any) -> SamplerOutput:
        """Refuse: an edge is no node."""
        raise InputError("NeighbourSampler: draws around nodes, not around edges; take NodeLoader")


class ByPyG:
    """Draw as PyG's own sampler does, where pyg-lib or torch-sparse is installed.

    Args:
        graph, num_nodes, fanouts: as of a `NeighbourSampler`.
        kind: "uniform".

    Raises:
        InputError: neither is installed, or it draws in no such way.
    """

    beside = False

    @staticmethod
    def check(kind: str) -> None:
        """Refuse what it does not draw, and to draw without what it draws with."""
        if kind != UNIFORM:
            raise InputError(f"batch: neighbors(by=pyg) draws uniformly; leave by=pyg out for kind={kind}")
        if not (torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE):
            raise InputError("batch: neighbors(by=pyg) needs pyg-lib or torch-sparse, which are not installed")

    def __init__(self, graph: Adjacency, num_nodes: int, fanouts: Sequence[int], *, kind: str = UNIFORM):
        self.check(kind)
        target, source = graph.rows.entries()
        data = Data(edge_index=torch.stack([source, target]), num_nodes=num_nodes)
        self.sampler, self.hops = NeighborSampler(data, num_neighbors=list(fanouts), is_sorted=True), len(fanouts)

    def draw(self, seeds: Tensor, generator: torch.Generator) -> Drawn:
        """Draw what is around distinct nodes [n]; torch's own generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            out = self.sampler.sample_from_nodes(NodeSamplerInput(None, seeds))
        return drawn_by(torch.stack([out.row, out.col]), out.node, len(seeds), self.hops, out.edge)


def drawn_by(edge_index: Tensor, nodes: Tensor, seeds: int, hops: int, edge: Tensor | None = None) -> Drawn:
    """Return what somebody else has drawn around so many of some nodes [n], which come first.

    Every sampler numbers nodes in the order in which edges lead to them, so how far they are follows from the edges.

    Args:
        edge_index: places of the source and of the target of each edge among the nodes, [2, e].
        nodes: ids.
        seeds: how many of them were asked for.
        hops: how often it was drawn.
        edge: place of each edge in the whole graph, [e], where somebody asks for it.
    """
    source, target = edge_index
    sizes = [seeds]
    for _ in range(hops):
        near = source[target < sizes[-1]]
        sizes.append(max(sizes[-1], 1 + int(near.max()) if len(near) else 0))
    return Drawn(nodes, target, source, torch.empty_like(target) if edge is None else edge, tuple(sizes))


OURS, PYG = "mowst", "pyg"
SAMPLERS: dict[str, type[NeighbourSampler] | type[ByPyG]] = {OURS: NeighbourSampler, PYG: ByPyG}
"""Who draws neighbours for a batch of ours, by name."""
