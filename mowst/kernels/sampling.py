"""Some entries of a sparse matrix: all among some rows, or a few drawn from each row on the way out from some of them.

An entry (i, j) is the edge j -> i, so a row holds a node's neighbours, from which messages come. In plain torch, on any
device; random numbers come from a generator on the CPU, so that a seed means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from mowst.kernels.sparse import Rows

ALL = -1
"""As a fan-out: every neighbour."""


class Drawn(NamedTuple):
    """Some nodes of a graph and some of the edges among them."""

    nodes: Tensor
    """[n] distinct ids in the whole graph; those that were asked for come first."""
    target: Tensor
    """[e] place of each edge's target among the nodes."""
    source: Tensor
    """[e] likewise of its source."""
    entry: Tensor
    """[e] place of the edge among the entries of the whole matrix."""
    sizes: tuple[int, ...]
    """How many of the nodes are within 0, 1, ... hops of those that were asked for."""

    @property
    def expanded(self) -> int:
        """How many of the nodes, which come first, have had their neighbours drawn; all that were given."""
        return self.sizes[max(0, len(self.sizes) - 2)]


def induced(rows: Rows, nodes: Tensor) -> Drawn:
    """Return all entries among some distinct nodes [n]."""
    place = _nowhere(rows)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    target, entry = _few(rows, nodes, ALL, None)
    source = place[rows.column[entry].long()]
    kept = source >= 0
    return Drawn(nodes, target[kept], source[kept], entry[kept], (len(nodes),))


def neighbourhood(rows: Rows, seeds: Tensor, fanouts: Sequence[int], generator: torch.Generator | None) -> Drawn:
    """Draw the surroundings of distinct seeds [n]: of each node at most so many neighbours, hop by hop.

    Neighbours are drawn uniformly without replacement (Floyd's subset: Bentley & Floyd, 1987, doi
    10.1145/30401.315746); a node is expanded once, where it is first met.

    Args:
        rows: entries by target.
        seeds: ids.
        fanouts: of each hop; `ALL` for all.
        generator: on the CPU.
    """
    fast = compiled() if seeds.device.type == "cpu" and fanouts else None
    return (fast or in_torch)(rows, seeds, fanouts, generator)


Draws = Callable[[Rows, Tensor, Sequence[int], torch.Generator | None], Drawn]
"""What `neighbourhood` does."""


@cache
def compiled() -> Draws | None:
    """Return the drawing that numba compiles, where it is installed."""
    if find_spec("numba") is None:
        return None
    from mowst.kernels.compiled import neighbourhood as fast

    return fast


def in_torch(rows: Rows, seeds: Tensor, fanouts: Sequence[int], generator: torch.Generator | None) -> Drawn:
    """Draw a neighbourhood in plain torch, on any device."""
    place = _nowhere(rows)
    place[seeds] = torch.arange(len(seeds), device=seeds.device)
    front, base, count = seeds, 0, len(seeds)
    found, targets, sources, entries = [seeds], list[Tensor](), list[Tensor](), list[Tensor]()
    for fanout in fanouts:
        target, entry = _few(rows, front, fanout, generator)
        source = rows.column[entry].long()
        place[source[place[source] < 0]] = MET
        new = (place == MET).nonzero().squeeze(-1)
        place[new] = torch.arange(count, count + len(new), device=new.device)
        targets.append(target + base)
        sources.append(place[source])
        entries.append(entry)
        found.append(new)
        front, base, count = new, count, count + len(new)
    target, source, entry = (torch.cat([seeds[:0], *each]) for each in (targets, sources, entries))
    return Drawn(torch.cat(found), target, source, entry, tuple(accumulate(map(len, found))))


MET = -2


def _nowhere(rows: Rows) -> Tensor:
    return torch.full((len(rows.start) - 1,), -1, dtype=torch.long, device=rows.start.device)


def _few(rows: Rows, nodes: Tensor, fanout: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Draw entries of some rows: the place of each one's row among the nodes, and its own among all entries."""
    start = rows.start[nodes].long()
    degree = rows.start[nodes + 1].long() - start
    take = degree if fanout == ALL else degree.clamp(max=fanout)
    first, total = take.cumsum(0) - take, int(take.sum())
    target = torch.arange(len(nodes), device=nodes.device).repeat_interleave(take, output_size=total)
    entry = torch.arange(total, device=nodes.device) + (start - first)[target]
    many = (degree > take).nonzero().squeeze(-1)
    if len(many) and fanout:
        picked = _subsets(degree[many], fanout, generator)
        for each in range(fanout):
            entry[first[many] + each] = start[many] + picked[each]
    return target, entry


def _subsets(sizes: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw so many distinct numbers below each size [n], uniformly, [count, n]."""
    draws = torch.rand(count, len(sizes), dtype=torch.float64, generator=generator).to(sizes.device)
    picked = torch.empty(count, len(sizes), dtype=torch.long, device=sizes.device)
    for each in range(count):
        top = sizes - count + each
        one = (draws[each] * (top + 1)).long()
        picked[each] = torch.where((picked[:each] == one).any(0), top, one)
    return picked
