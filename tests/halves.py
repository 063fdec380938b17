"""A feed of one's own: the nodes in two random halves, each with its complete neighbourhood of two hops."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph

from mowst.training import Batch, Needs


class Halves:
    """Two steps an epoch, of half of the nodes each; validation in two halves, too.

    Args:
        hops: of the neighbourhood; a model that reaches further, or of which nothing is known, cannot be trained so.
    """

    def __init__(self, hops: int = 2):
        self.hops, self.seen = hops, list[Batch]()

    def training(self, whole: Batch, needs: Needs) -> Callable[[int], Iterable[Batch]]:
        train = whole.on["train"]
        nodes = train if train is not None and needs.on == {"train"} else torch.arange(len(whole.y))

        def batches(epoch: int) -> Iterator[Batch]:
            order = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(epoch))
            return (self.around(whole, half, needs.hops, needs.edges) for half in nodes[order].chunk(2))

        return batches

    def asked(self, whole: Batch, hops: int | None, nodes: Tensor | None) -> Iterable[Batch]:
        nodes = torch.arange(len(whole.y)) if nodes is None else nodes
        return [self.around(whole, half, hops, hops != 0) for half in nodes.chunk(2)]

    def around(self, whole: Batch, seeds: Tensor, hops: int | None, edges: bool) -> Batch:
        assert hops is not None, "a model of which nothing is known"
        assert hops <= self.hops, "a model that reaches too far"
        if not edges:
            part = whole.alone(seeds)
            batch = replace(part, on={"train": part.train_mask.nonzero().squeeze(-1), "all": None})
        else:
            near, *_ = k_hop_subgraph(seeds, self.hops, whole.edge_index, num_nodes=len(whole.y))
            others = near[~torch.isin(near, seeds)]
            batch = whole.among(torch.cat([seeds, others]), len(seeds))
        self.seen.append(batch)
        return batch
