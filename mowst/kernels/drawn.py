"""What is drawn from a graph, and random numbers that belong to nodes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ALL = -1
"""As a fan-out: every neighbour."""
UNIFORM, LABOR = "uniform", "labor"
STIRS = ((30, 34, 0xBF58476D1CE4E5B9 - 2**64), (27, 37, 0x94D049BB133111EB - 2**64), (31, 33, 1))
STEP = 0x9E3779B97F4A7C15 - 2**64
"""What splitmix64 stirs numbers with (Steele et al., 2014, doi 10.1145/2660193.2660195), as signed numbers."""


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
    """How many of the nodes are within 0, 1, ... hops of those that were asked for, as far as any were drawn."""
    times: Tensor | None = None
    """[e] for how many edges into its target each one stands; none: those there stand for all, in equal shares."""

    @property
    def expanded(self) -> int:
        """How many of the nodes, which come first, have had their neighbours drawn."""
        return self.sizes[-2] if len(self.sizes) > 1 else 0


def salted(generator: torch.Generator | None) -> int:
    """Draw the number that makes the numbers of one hop others than those of the next."""
    return int(torch.randint(2**62, (), generator=generator))


def uniform(numbers: Tensor, salt: int) -> Tensor:
    """Return a random number in [0, 1) for each whole one, [n] -> [n] in float64: the same for the same one."""
    z = numbers * STEP + salt
    for shift, left, factor in STIRS:
        z = (z ^ ((z >> shift) & (2**left - 1))) * factor
    return ((z >> 11) & (2**53 - 1)).to(torch.float64) * 2.0**-53
