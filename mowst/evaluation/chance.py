"""Whether one output is better than another by more than chance, on nodes with labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mowst.evaluation.metrics import Score
from mowst.models import Output

MOST = 10_000
"""So many nodes say how far a score is left to chance."""


def surely(score: Score, y: Tensor, one: Output, other: Output, draws: int = 100) -> bool:
    """Tell whether `one` scores better than `other` by more than a standard error of the difference.

    For a score that is a mean over nodes the error is a formula. Any other one is drawn anew (the bootstrap; Efron,
    1979), with the same nodes for both; of more nodes than `MOST` a draw has so many, and the error shrinks with the
    root of their share.

    Args:
        score: of outputs.
        y: labels [n].
        one, other: outputs for these nodes.
        draws: of the bootstrap.
    """
    if (values := score.per_node(one, y)) is not None and (others := score.per_node(other, y)) is not None:
        gains = values - others
        return float(gains.mean()) > float(gains.std(correction=0)) / len(y) ** 0.5
    size, generator = min(len(y), MOST), torch.Generator().manual_seed(0)

    def gain(index: Tensor) -> float:
        return score(one.rows(index), y[index]) - score(other.rows(index), y[index])

    drawn = torch.tensor([gain(torch.randint(len(y), (size,), generator=generator).to(y.device)) for _ in range(draws)])
    drawn = drawn[~drawn.isnan()]  # an AUC has no value where a draw has no node of a class
    share = size / len(y)
    return len(drawn) > 1 and gain(torch.arange(len(y), device=y.device)) > float(drawn.std()) * share**0.5


def better_than(score: Score, y: Tensor, usual: Output, others: Sequence[Output]) -> int | None:
    """Return which other output scores best, of those that are better than the usual one by more than chance."""
    scores = [score(other, y) for other in others]
    usual_score = score(usual, y)
    for place in sorted(range(len(others)), key=lambda place: -scores[place]):
        if scores[place] > usual_score and surely(score, y, others[place], usual):
            return place
    return None
