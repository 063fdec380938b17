"""Batches of a graph that is too large to be trained on at once: its nodes in random parts, or drawn neighbourhoods.

    full                    the whole graph in every step
    parts(10)               ten steps an epoch: the nodes in ten random parts, each with the edges inside it
    neighbors(15,10,5)      1,024 nodes a step, with 15 neighbours of each, 10 of each of these, 5 of each of these;
                            neighbors(15,10,size=512): 512 nodes a step; kind=labor: so many on average, of which nodes
                            of a batch share more; by=pyg: PyG's own sampler draws
    hops                    1,024 nodes a step (hops(size=512): 512), for experts that look at single nodes, and at
                            averages of the features over hops, which are made once and lie on disk

Which nodes come together follows from the seed and the number of the epoch alone, so that training can go on anywhere,
and which neighbours are drawn from these and the number of the batch.
An edge stands for those into its node that were left out, too (`Adjacency.thinned`). What looks at no edge is run on
rows. Validation, and what frozen experts say, come from the whole graph, without gradients: one layer after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mowst.errors import InputError
from mowst.kernels import OURS, SAMPLERS, UNIFORM, Adjacency, Draws, induced
from mowst.training.batches import Batch, Needs, Whole

SIZE = 1024
"""Nodes that a batch of neighbourhoods is for."""
AT_ONCE = 32_768
"""Nodes that are judged at a time where they come without edges."""


@dataclass(frozen=True)
class Parts:
    """The nodes in random parts, anew in every epoch; training nodes are spread evenly.

    It is the random partition of PyG's `RandomNodeLoader`.
    """

    count: int
    """Of parts."""
    seed: int = 0

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        """Return as many batches an epoch as there are parts.

        Raises:
            InputError: there are more parts than training nodes, or they cannot be shared out.
        """
        train, share = labelled(whole), needs.share
        check_share(share.size, self.count, len(train))
        if self.count > len(train):
            raise InputError(f"batch: parts({self.count}): there are {len(train)} training nodes; take fewer parts")

        def batches(epoch: int) -> Iterator[Batch]:
            generator = numbered(self.seed, epoch)
            parts = groups(whole, needs, self.count // share.size, generator, each=share.size)
            for nodes in share.turns(parts):
                if needs.edges:
                    yield whole.drawn(induced(graph_of(whole).rows, nodes), len(nodes))
                else:
                    yield rows(whole, nodes)

        return batches

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        """Return the whole graph, or the nodes alone where no edge is looked at."""
        return Whole().asked(whole, hops, nodes)


@dataclass(frozen=True)
class Neighbours:
    """Nodes with some of their neighbours (Hamilton et al., 2017, arXiv 1706.02216)."""

    fanouts: tuple[int, ...]
    """Neighbours of a node, by hop; -1: all of them."""
    size: int = SIZE
    """Nodes that a batch is for."""
    seed: int = 0
    kind: str = UNIFORM
    """How they are drawn, a name of `mowst.kernels.KINDS`."""
    by: str = OURS
    """Who draws them, a name of `mowst.kernels.SAMPLERS`."""

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        """Return the batches that each node is in once that a loss is averaged over.

        Raises:
            InputError: what is trained reaches further than there are fan-outs, or nobody knows how far; or there are
                more shares than training nodes; or who is to draw cannot.
        """
        share, train = needs.share, len(labelled(whole))
        check_share(share.size, share.size, train)
        hops = needs.hops if needs.hops != 0 else 1  # a loss may look at edges where the model does not
        if needs.edges and hops is None:
            raise InputError(
                "batch: neighbors: how far this model reaches is not known; take --batch parts(10) or full"
            )
        if needs.edges and (hops or 0) > len(self.fanouts):
            raise InputError(
                f"batch: neighbors has {len(self.fanouts)} fan-outs, and the model reaches {hops} hops; give {hops}"
            )
        total = train if needs.on == {"train"} else len(whole.y)
        count = max(1, min(-(-total // self.size), train // share.size))
        looked_up = needs.looked_up and whole.keeps_products  # no neighbour is read there whose features are not known
        fanouts = self.fanouts[: (hops or 0) - looked_up]
        sampler = self.sampler(graph_of(whole), fanouts) if needs.edges else None

        def batches(epoch: int) -> Iterator[Batch]:
            generator = numbered(self.seed, epoch)
            together = groups(whole, needs, count, generator, only_train=needs.on == {"train"})
            for number, seeds in enumerate(map(share.of, together)):
                if sampler is None:
                    yield rows(whole, seeds)
                else:
                    own = numbered(self.seed, epoch, number * share.size + share.rank + 1)
                    drawn = sampler.draw(seeds, own)
                    yield whole.ringed(drawn) if needs.seeds_alone else whole.drawn(drawn, len(seeds))

        return (lambda epoch: ahead(batches(epoch))) if sampler is not None and sampler.beside else batches

    def sampler(self, graph: Adjacency, fanouts: tuple[int, ...]) -> Draws:
        """Return who draws; of no hop there is nothing to draw."""
        return SAMPLERS[self.by if fanouts else OURS](graph, len(graph), fanouts, kind=self.kind)

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        """Return the whole graph, or the nodes alone where no edge is looked at."""
        return Whole().asked(whole, hops, nodes)


@dataclass(frozen=True)
class Hops:
    """Nodes without edges, some at a time, also where they are judged: what a node sees of others is in its features.

    These bring their averages over hops along (`mowst.kernels.Averaged`), which an expert reads of the nodes it is run
    on.
    """

    size: int = SIZE
    """Nodes of a batch."""
    seed: int = 0

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        """Return the batches that each node is in once that a loss is averaged over.

        Raises:
            InputError: what is trained, or a loss, looks at edges.
        """
        if needs.edges:
            what = "the model" if needs.hops != 0 else "a loss"
            raise InputError(f"batch: hops: {what} looks at edges; take --batch parts(10) or full")
        only_train = needs.on == {"train"}
        total = len(labelled(whole)) if only_train else len(whole.y)
        count = max(1, min(-(-total // self.size), len(labelled(whole))))

        def batches(epoch: int) -> Iterator[Batch]:
            generator = numbered(self.seed, epoch)
            for nodes in groups(whole, needs, count, generator, only_train=only_train):
                yield rows(whole, nodes)

        return batches

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        """Return the nodes without edges, so many at a time that their averages are little."""
        nodes = torch.arange(len(whole.y), device=whole.y.device) if nodes is None else nodes
        return Cut(whole, nodes)


class Cut:
    """Nodes [n] of a whole graph without edges, some at a time; it may be gone through again and again."""

    def __init__(self, whole: Batch, nodes: Tensor):
        self.whole, self.nodes = whole, nodes

    def __iter__(self) -> Iterator[Batch]:
        return (self.whole.alone(nodes) for nodes in torch.split(self.nodes, AT_ONCE))


def labelled(whole: Batch) -> Tensor:
    """Return the training nodes of a whole graph."""
    train = whole.on["train"]
    assert train is not None
    return train


def graph_of(whole: Batch) -> Adjacency:
    """Return the adjacency of a whole prepared graph."""
    assert isinstance(whole.graph, Adjacency), "the graph must be prepared"
    return whole.graph


def rows(whole: Batch, nodes: Tensor) -> Batch:
    """Return some nodes without edges, of which the training nodes count as such."""
    part = whole.alone(nodes)
    return replace(part, on={"train": part.train_mask.nonzero().squeeze(-1), "all": None})


def check_share(size: int, count: int, train: int) -> None:
    """Refuse to share out so many parts among devices where that leaves one without a part, or without training nodes.

    Raises:
        InputError: so it would.
    """
    if count % size:
        fit = size * max(1, round(count / size))
        raise InputError(f"batch: parts({count}): {size} devices take {size} parts a step; take parts({fit})")
    if size > 1 and train < 2 * size:
        raise InputError(f"devices: {size} are too many for {train} training nodes: each needs 2; take fewer")


def numbered(seed: int, epoch: int, batch: int = 0) -> torch.Generator:
    """Return the generator of an epoch, or of one of its batches, counted from 1."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch + batch * 1_000_000_007) % 2**63)


def ahead(batches: Iterable[Batch], count: int = 1) -> Iterator[Batch]:
    """Go through batches that a thread of their own makes, so many ahead of the one that is trained on."""
    made = iter(batches)
    with ThreadPoolExecutor(1, "batches") as thread:
        coming = deque(thread.submit(next, made, None) for _ in range(count))
        while (batch := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, made, None))
            yield batch


def groups(
    whole: Batch, needs: Needs, steps: int, generator: torch.Generator, *, each: int = 1, only_train: bool = False
) -> Iterator[Tensor]:
    """Divide the nodes at random; every group has its share of the training nodes, which come first.

    Where no other node could change the loss, or if asked for, training nodes alone are divided.

    Args:
        whole, needs: what is divided, for what.
        steps: of an epoch, or fewer.
        generator: of the epoch.
        each: groups of a step.
        only_train: whether to divide training nodes alone.
    """
    train = labelled(whole)
    order = train[torch.randperm(len(train), generator=generator).to(train.device)]
    if needs.labelled_alone:
        steps = max(1, min(steps, len(train) // (2 * needs.share.size)))  # batch norm needs two rows
    count = steps * each
    if needs.labelled_alone or only_train:
        yield from order.tensor_split(count)
        return
    rest = (~whole.train_mask).nonzero().squeeze(-1)
    rest = rest[torch.randperm(len(rest), generator=generator).to(rest.device)]
    for ours, others in zip(order.tensor_split(count), rest.tensor_split(count), strict=True):
        yield torch.cat([ours.sort().values, others.sort().values])  # rows are read from memory in order
