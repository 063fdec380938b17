"""Sets of classes that hold the label of a node with a chance that is asked for: split conformal prediction.

A score says how little a class suits a node, [N, C]. Of n calibrating nodes that no model was fitted or selected on,
the threshold is the k-th smallest score of their labels, k = ceil((n + 1) (1 - alpha)); the set of a node is every
class whose score is at most that. If calibrating and asked nodes are exchangeable the set holds the label with a
chance of at least 1 - alpha, and of m nodes so many are covered as a beta-binomial draw of parameters k, n + 1 - k says
(Vovk, 2012, arXiv 1209.2673). For a GNN on one graph that holds where the calibrating nodes are a random part of the
nodes outside training, for nothing but the labels of others tells these from the nodes asked (Huang et al., 2023, arXiv
2305.14535). It does not hold where they are older than the nodes asked, or chosen otherwise.

With p the probabilities, u [N] uniform noise, and r(y) the rank of class y, from 1:

| name | score of class y                         | source                                      |
|------|------------------------------------------|---------------------------------------------|
| lac  | 1 - p_y                                  | Sadinle et al., 2019, arXiv 1609.00451      |
| aps  | sum of the p_k that are larger + u p_y   | Romano et al., 2020, arXiv 2006.02544       |
| raps | that + penalty max(0, r(y) - free)       | Angelopoulos et al., 2021, arXiv 2009.14193 |

`diffused` averages scores over the graph, which is as valid, for it looks at no label.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from mowst.errors import InputError
from mowst.evaluation.structure import degrees
from mowst.models import piecewise
from mowst.names import Names

Conformity = Callable[[Tensor, Tensor], Tensor]
"""`(probs [n, C], noise [n]) -> [n, C]`: how little each class suits a node."""

STREAM = 0x5E7
"""Keeps the noise apart from what else is drawn with a run's seed, such as its split, on which it must not depend."""


def lac(probs: Tensor, noise: Tensor) -> Tensor:
    """Score classes by what their probability lacks, [n, C] -> [n, C] in [0, 1]; the noise plays no part."""
    return 1 - probs


def aps(probs: Tensor, noise: Tensor) -> Tensor:
    """Score classes by the mass of those before them, [n, C] -> [n, C] in [0, 1]; noise [n] breaks it smoothly."""
    ranked, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ranked.cumsum(dim=-1) - ranked
    return torch.empty_like(probs).scatter_(-1, order, before + noise.unsqueeze(-1) * ranked)


def raps(probs: Tensor, noise: Tensor, *, penalty: float = 0.01, free: int = 1) -> Tensor:
    """Score classes as `aps` does, plus a penalty for each rank after the first `free`, [n, C] -> [n, C]."""
    order = probs.sort(dim=-1, descending=True, stable=True).indices
    late = (torch.arange(1, probs.size(-1) + 1) - free).clamp_min(0).to(probs)
    return aps(probs, noise) + penalty * torch.empty_like(probs).scatter_(-1, order, late.expand_as(probs))


CONFORMITY: Names[Conformity] = Names("conformity", {"lac": lac, "aps": aps, "raps": raps})


def diffused(
    scores: Tensor, edge_index: Tensor, share: float, alike: Tensor | None = None, of_alike: float = 0.0
) -> Tensor:
    """Average each node's scores with its neighbours', [N, C] -> [N, C].

    (1 - share - of_alike) own + share mean of the neighbours + of_alike mean of the nodes with like features: DAPS
    (Zargarbashi et al., ICML 2023) without the last part, SNAPS (Song et al., NeurIPS 2024, arXiv 2405.14303) with it.
    What a node has no neighbour for stays with its own scores.

    Args:
        scores: of every node.
        edge_index: [2, E].
        share: weight of the neighbours.
        alike: edges [2, K] from nodes with like features, as of `neighbours_by_features`.
        of_alike: their weight.
    """
    if not (share >= 0 and of_alike >= 0 and share + of_alike <= 1):
        raise InputError(f"diffusion: weights must not be negative, and at most 1 together; got {share} and {of_alike}")
    found, own = torch.zeros_like(scores), torch.full_like(scores[:, :1], 1 - share - of_alike)
    for edges, weight in ((edge_index, share), (alike, of_alike)):
        if edges is None or not weight:
            continue
        source, target = edges[:, edges[0] != edges[1]]
        around = scatter(scores[source], target, dim=0, dim_size=len(scores), reduce="mean")
        there = (degrees(edges, len(scores)) > 0).unsqueeze(-1)
        found = found + torch.where(there, weight * around, 0.0)
        own = own + torch.where(there, 0.0, weight)
    return found + own * scores


def neighbours_by_features(x: Tensor, k: int = 20, block: int = 1024) -> Tensor:
    """Edges [2, N k] from the k nodes whose features [N, F] have the largest cosine with a node's own."""
    unit = torch.nn.functional.normalize(x, dim=-1)
    found = []
    for rows in torch.split(torch.arange(len(x)), block):
        near = unit[rows] @ unit.T
        near[torch.arange(len(rows)), rows] = -math.inf
        found.append(near.topk(min(k, len(x) - 1), dim=-1).indices)
    source = torch.cat(found)
    return torch.stack([source.flatten(), torch.arange(len(x)).repeat_interleave(source.size(-1))])


def place(n: int, coverage: float) -> int:
    """Return k: the threshold is the k-th smallest of n scores; above n: there are too few of them."""
    return math.ceil((n + 1) * coverage - 1e-9)


def fewest(coverage: float) -> int:
    """Return how many calibrating nodes a coverage in (0, 1) needs at least: ceil(coverage / (1 - coverage)).

    Raises:
        InputError: it is none.
    """
    if not 0 < coverage < 1:
        raise InputError(f"coverage: must be above 0 and below 1, got {coverage}")
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def threshold_for(scores: Tensor, coverage: float) -> float:
    """Return the score up to which classes are in a set, from the scores [n] of the labels of calibrating nodes.

    Raises:
        InputError: there are fewer of them than the coverage needs.
    """
    if len(scores) < fewest(coverage):
        raise InputError(
            f"coverage {coverage}: needs {fewest(coverage)} calibrating nodes, and there are {len(scores)}"
        )
    return float(scores.sort().values[place(len(scores), coverage) - 1])


def thresholds_for(scores: Tensor, group: Tensor, count: int, coverage: float) -> Tensor:
    """Return a threshold for each of `count` groups of nodes [n], each by itself (Mondrian) -> [count].

    A group with fewer nodes than the coverage needs has an infinite one: every class is in its sets.
    """
    parts = [scores[group == each] for each in range(count)]
    few = fewest(coverage)
    return torch.tensor([threshold_for(part, coverage) if len(part) >= few else math.inf for part in parts]).to(scores)


def law(n: int, m: int, coverage: float) -> Any:
    """Return the distribution of how many of m nodes are covered, over draws of n calibrating and m asked nodes.

    It is exact for scores without ties (Vovk, 2012): a frozen distribution of `scipy.stats`.
    """
    from scipy.stats import betabinom

    k = place(n, coverage)
    return betabinom(m, k, n + 1 - k)


def measured(sets: Tensor, y: Tensor) -> dict[str, float]:
    """Count nodes with labels [n], and measure their sets [n, C]: share with the label, mean size, share empty."""
    if not len(y):
        return {"nodes": 0, "coverage": math.nan, "size": math.nan, "empty": math.nan}
    sizes = sets.sum(dim=-1).double()
    held = sets.gather(-1, y.unsqueeze(-1)).double()
    return {
        "nodes": len(y),
        "coverage": float(held.mean()),
        "size": float(sizes.mean()),
        "empty": float((sizes == 0).double().mean()),
    }


@dataclass(frozen=True)
class SetRule:
    """How to tell the set of a node; what `fit` returns, and what a run's folder keeps."""

    coverage: float
    score: str
    """A name of `CONFORMITY`."""
    diffusion: float
    """Weight of the neighbours' scores."""
    seed: int
    """Of the noise, which is a node's own."""
    thresholds: tuple[float, ...]
    """One for all nodes, or one for each group; infinite where there were too few calibrating nodes."""

    def scores(self, probs: Tensor, edge_index: Tensor) -> Tensor:
        """Score every class of every node, from probabilities of all nodes [N, C] and edges [2, E] -> [N, C]."""
        generator = torch.Generator().manual_seed(self.seed ^ STREAM)
        noise, score = torch.rand(len(probs), generator=generator, dtype=torch.float64), CONFORMITY.lookup(self.score)
        found = piecewise(lambda rows: score(probs[rows].cpu().double(), noise[rows]), len(probs))
        return diffused(found, edge_index.cpu(), self.diffusion) if self.diffusion else found

    def sets(self, probs: Tensor, edge_index: Tensor, group: Tensor | None = None) -> Tensor:
        """Return which classes are in each node's set, [N, C] bool.

        Args:
            probs: of every node of the graph, [N, C].
            edge_index: [2, E].
            group: which threshold is a node's, [N]; needed where there are several.
        """
        if group is None:
            assert len(self.thresholds) == 1, "the thresholds are for groups"
            group = torch.zeros(len(probs), dtype=torch.long)
        limits = torch.tensor(self.thresholds, dtype=torch.float64)[group.cpu()]
        scores = self.scores(probs, edge_index)
        return piecewise(lambda rows: scores[rows] <= limits[rows].unsqueeze(-1), len(scores))

    def fit(self, probs: Tensor, edge_index: Tensor, y: Tensor, nodes: Tensor, group: Tensor | None = None) -> SetRule:
        """Return the rule with thresholds from the labels [N] of calibrating nodes, a mask [N].

        Args:
            probs, edge_index: as in `sets`.
            y: labels; only those of the calibrating nodes are looked at.
            nodes: calibrating nodes, on which nothing else was fitted or selected.
            group: 0 or 1, such as the expert that a node is routed to, [N]: each has its own threshold.

        Raises:
            InputError: there are too few calibrating nodes.
        """
        nodes = nodes.cpu()
        own = self.scores(probs, edge_index)[nodes].gather(-1, y.cpu()[nodes].unsqueeze(-1)).squeeze(-1)
        if group is None:
            return replace(self, thresholds=(threshold_for(own, self.coverage),))
        found = thresholds_for(own, group.cpu()[nodes], 2, self.coverage)
        return replace(self, thresholds=tuple(found.tolist()))
