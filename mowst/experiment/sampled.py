"""Validation on a fixed sample of the nodes, where all of them take long; how far its score may be off is said.

Training stops by the sample. What is reported in the end is of all validation nodes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.evaluation import Score, signal
from mowst.experiment.bench import metric_of
from mowst.experiment.config import Config
from mowst.experiment.nodes import drawn_of
from mowst.models import Output

GROUPS = 20
"""Of the jackknife of a score that is no mean."""


class Sampled(NamedTuple):
    """What a sample of the validation nodes says of all of them."""

    nodes: int
    of: int
    seed: int
    """That drew it."""
    score: float
    standard_error: float
    """Of the score, as an estimate of what all validation nodes would say."""

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: training stopped by {self.nodes:,} of {self.of:,} validation nodes, with a score of "
            f"{self.score:.4f} (standard error {self.standard_error:.4f})"
        )


def sampled_score(config: Config, seed: int, out: Output, ready: Data) -> Sampled | None:
    """Score an output on the sample that its training stopped by; none: it stopped by all validation nodes."""
    mask = drawn_of(ready.val_mask, config.eval_nodes, seed)
    nodes, total = int(mask.sum()), int(ready.val_mask.sum())
    if nodes == total:
        return None
    score, rows, y = signal(config.signal, metric_of(ready)), out.rows(mask), ready.y[mask]
    error = error_of(score, rows, y) * math.sqrt(1 - nodes / total)
    return Sampled(nodes, total, seed, score(rows, y), error)


def error_of(score: Score, out: Output, y: Tensor) -> float:
    """Return the standard error of a score of nodes in any order that were drawn from many.

    Of a mean it is the deviation of its values by the root of their number, of another score the delete-group jackknife
    (Kott, 2001, Journal of Official Statistics 17, 521-526).
    """
    if (values := score.per_node(out, y)) is not None:
        return float(values.double().std()) / math.sqrt(len(y))
    group = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).to(y.device) % GROUPS
    without = torch.tensor([score(out.rows(group != left), y[group != left]) for left in range(GROUPS)])
    return math.sqrt((GROUPS - 1) * float(without.double().var(correction=0)))
