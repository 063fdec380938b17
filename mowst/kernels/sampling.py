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

from mowst.kernels.drawn import ALL, LABOR, UNIFORM, Drawn, salted, uniform
from mowst.kernels.sparse import Rows


def induced(rows: Rows, nodes: Tensor) -> Drawn:
    """Return all entries among some distinct nodes [n]."""
    place = _nowhere(rows)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    target, entry, _ = _few(rows, nodes, ALL, None)
    source = place[rows.column[entry].long()]
    kept = source >= 0
    return Drawn(nodes, target[kept], source[kept], entry[kept], (len(nodes), len(nodes)))


class Picked(NamedTuple):
    """Entries drawn from some rows."""

    target: Tensor
    """[e] place of each one's row among those."""
    entry: Tensor
    """[e] place of the edge among the entries of the whole matrix."""
    times: Tensor | None = None
    """As of `Drawn`."""


def neighbourhood(
    rows: Rows, seeds: Tensor, fanouts: Sequence[int], generator: torch.Generator | None, kind: str = UNIFORM
) -> Drawn:
    """Draw the surroundings of distinct seeds [n]: so many neighbours of each node, hop by hop.

    A node is expanded once, where it is first met. Its neighbours are drawn

    - `uniform`: without replacement, as many as the fan-out says if there are more (Floyd's subset: Bentley & Floyd,
      1987, doi 10.1145/30401.315746);
    - `labor`: each with probability min(1, k / d), of d neighbours, if the number of its own, which all nodes of a hop
      look at, is below that; so there are k on average, and these are the same nodes more often (LABOR-0: Balin &
      Catalyurek, 2022, arXiv 2210.13339).

    Args:
        rows: entries by target.
        seeds: ids.
        fanouts: of each hop; `ALL` for all.
        generator: on the CPU.
        kind: a name of `KINDS`.
    """
    fast = compiled() if seeds.device.type == "cpu" and fanouts else None
    return (fast or in_torch)(rows, seeds, fanouts, generator, kind)


Drawing = Callable[[Rows, Tensor, Sequence[int], torch.Generator | None, str], Drawn]
"""What `neighbourhood` does."""


@cache
def compiled() -> Drawing | None:
    """Return the drawing that numba compiles, where it is installed."""
    if find_spec("numba") is None:
        return None
    from mowst.kernels.compiled import neighbourhood as fast

    return fast


def in_torch(
    rows: Rows, seeds: Tensor, fanouts: Sequence[int], generator: torch.Generator | None, kind: str = UNIFORM
) -> Drawn:
    """Draw a neighbourhood in plain torch, on any device."""
    place = _nowhere(rows)
    place[seeds] = torch.arange(len(seeds), device=seeds.device)
    front, base, count = seeds, 0, len(seeds)
    found, parts = [seeds], list[tuple[Tensor, Tensor, Tensor]]()
    times = list[Tensor]()
    for fanout in fanouts:
        target, entry, stands = KINDS[kind](rows, front, fanout, generator)
        source = rows.column[entry].long()
        place[source[place[source] < 0]] = MET
        new = (place == MET).nonzero().squeeze(-1)
        place[new] = torch.arange(count, count + len(new), device=new.device)
        parts.append((target + base, place[source], entry))
        times += [] if stands is None else [stands]
        found.append(new)
        front, base, count = new, count, count + len(new)
    none = (seeds[:0],) * 3
    target, source, entry = (torch.cat(each) for each in zip(none, *parts, strict=True))
    sizes = tuple(accumulate(map(len, found)))
    return Drawn(torch.cat(found), target, source, entry, sizes, torch.cat(times) if times else None)


MET = -2


def _nowhere(rows: Rows) -> Tensor:
    return torch.full((len(rows.start) - 1,), -1, dtype=torch.long, device=rows.start.device)


def _few(rows: Rows, nodes: Tensor, fanout: int, generator: torch.Generator | None) -> Picked:
    """Draw so many entries of each of some rows, uniformly."""
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
    return Picked(target, entry)


def _likely(rows: Rows, nodes: Tensor, fanout: int, generator: torch.Generator | None) -> Picked:
    """Draw each entry of some rows by itself, so many of a row on average, by the number of its column."""
    salt = salted(generator)
    target, entry, _ = _few(rows, nodes, ALL, None)
    degree = (rows.start[nodes + 1] - rows.start[nodes]).to(torch.float64)[target]
    few = degree if fanout == ALL else degree.clamp(max=fanout)
    kept = uniform(rows.column[entry].long(), salt) * degree < few
    return Picked(target[kept], entry[kept], (degree / few)[kept])


KINDS: dict[str, Callable[[Rows, Tensor, int, torch.Generator | None], Picked]] = {UNIFORM: _few, LABOR: _likely}
"""How neighbours are drawn, by name."""


def _subsets(sizes: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw so many distinct numbers below each size [n], uniformly, [count, n]."""
    draws = torch.rand(count, len(sizes), dtype=torch.float64, generator=generator).to(sizes.device)
    picked = torch.empty(count, len(sizes), dtype=torch.long, device=sizes.device)
    for each in range(count):
        top = sizes - count + each
        one = (draws[each] * (top + 1)).long()
        picked[each] = torch.where((picked[:each] == one).any(0), top, one)
    return picked
