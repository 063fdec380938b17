"""How far GLD's closed form is from the Gromov-Wasserstein cost that it stands for: proven bounds, and an estimate.

For two graphs A, B [k, k] and uniform weights the (squared-loss) cost of a coupling T [k, k] of their nodes is
Σ (A_ij - B_lm)² T_il T_jm; the Gromov-Wasserstein cost is its minimum, which is hard to find.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Certificate(NamedTuple):
    """What a matching proves about the (squared-loss) Gromov-Wasserstein cost of two graphs."""

    lower: Tensor  # W₂² of the node features
    upper: Tensor  # the cost of the matching itself
    gap: Tensor  # upper - lower: how far off the closed form may be


def node_features(graph: Tensor, feature: str = "mean") -> Tensor:
    """Compress a graph [C, C] to a number a node, [C]: the mean of its row, or the root of its mean square."""
    if feature == "mean":
        return graph.mean(-1)
    return graph.square().mean(-1).clamp(min=torch.finfo(graph.dtype).tiny).sqrt()


def certificate(first: Tensor, second: Tensor, feature: str = "mean", matching: str = "sorted") -> Certificate:
    """Bracket the Gromov-Wasserstein cost of two graphs [k, k], uniform weights: lower <= GW <= upper.

    The lower bound holds for every coupling (Jensen; for "rms" Mémoli's first bound). The upper one is the cost of
    matching nodes in the order of their features ("sorted"), or each class with itself ("identity"). For "mean" and
    "sorted" the gap is the mean over i of Var_j (A_ij - B_π(i)π(j)).
    """
    f, g = node_features(first, feature), node_features(second, feature)
    i, j = f.argsort(stable=True), g.argsort(stable=True)
    lower = (f[i] - g[j]).square().mean()
    if matching == "identity":
        i = j = torch.arange(len(f), device=f.device)
    upper = (first[i][:, i] - second[j][:, j]).square().mean()
    return Certificate(lower, upper, upper - lower)


@torch.no_grad()
def gromov_wasserstein(
    first: Tensor, second: Tensor, epsilon: float = 0.01, steps: int = 100, sinkhorn_steps: int = 1000
) -> Tensor:
    """Estimate the Gromov-Wasserstein cost of two graphs [k, k], [l, l] by entropic couplings, a scalar.

    Each step solves, by Sinkhorn's iteration, the transport problem of the cost's gradient at the coupling of before
    (Peyré et al., 2016, ICML), with entropy weighed by `epsilon` times the largest entry of the first one; it begins
    where nothing is known. The result is the cost, without entropy, of the coupling reached: of a local optimum, and so
    not below the true cost but for the error of its marginals. Graphs are of classes: this takes O(steps k³).
    """
    a, b = first.double(), second.double()
    p, q = a.new_full((len(a),), 1 / len(a)), b.new_full((len(b),), 1 / len(b))
    squares = (a.square() @ p).unsqueeze(1) + (b.square() @ q).unsqueeze(0)
    coupling = torch.outer(p, q)
    slope = 2 * (squares - 2 * a @ coupling @ b.t())
    regular = epsilon * slope.abs().max().clamp(min=torch.finfo(slope.dtype).tiny)
    for _ in range(steps):
        coupling, before = _transport(slope / regular, p, q, sinkhorn_steps), coupling
        slope = 2 * (squares - 2 * a @ coupling @ b.t())
        if (coupling - before).abs().max() < 1e-10:
            break
    return (slope / 2 * coupling).sum().to(first.dtype)


def _transport(cost: Tensor, p: Tensor, q: Tensor, steps: int) -> Tensor:
    """Return the coupling of p and q that minimises <cost, T> - H(T), by Sinkhorn's iteration on logarithms."""
    right = torch.zeros_like(q)
    for _ in range(steps):
        left = p.log() - (right - cost).logsumexp(1)
        right, before = q.log() - (left.unsqueeze(1) - cost).logsumexp(0), right
        if (right - before).abs().max() < 1e-10:
            break
    return (left.unsqueeze(1) + right - cost).exp()
