"""What a prediction is worth that may also say "I do not know": risk, coverage, and the confidence to answer from.

Nodes are answered from the most to the least confident; risk is the share of answers that are wrong, and the area
under it, over the share answered, is the mean of the risk over k = 1 ... n answers (AURC; Geifman & El-Yaniv, 2017,
arXiv 1705.08500). The excess over the oracle, which knows what is wrong and answers that last, is what confidence
leaves to be had (Geifman et al., 2019, arXiv 1805.08206). Nodes of one confidence are taken in every order alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mowst.errors import InputError

ANSWERED = (0.8, 0.9, 0.95)
DOUBT = 0.1
"""Chance with which the risk of the answers may be above what was asked for."""
STEPS = 20
"""Thresholds that may be tried."""


class Answers(NamedTuple):
    """How well confidence tells right predictions from wrong ones."""

    nodes: int
    area: float
    """Under the risk over the share answered, in [0, 1]; 0 is best."""
    excess: float
    """Of the area over that of an oracle."""
    accuracy: dict[str, float]
    """Share that is right among the most confident nodes, by the share answered."""
    oracle: dict[str, float]
    """The same for the oracle."""
    correctness: float
    """Mean Distributional Correctness Score without an answer "I do not know", in [-1, 1]."""


def answers(probs: Tensor, y: Tensor, guess: Tensor | None = None) -> Answers:
    """Measure how well the probability of the predicted class tells right from wrong on nodes with labels.

    Args:
        probs: [n, C].
        y: [n].
        guess: the predicted classes [n]; none: the likeliest.
    """
    guess = probs.argmax(dim=-1) if guess is None else guess
    confidence = probs.gather(-1, guess.unsqueeze(-1)).squeeze(-1)
    right = (guess == y).double()
    if not len(y):
        none = dict.fromkeys(map(str, ANSWERED), math.nan)
        return Answers(0, math.nan, math.nan, none, none, math.nan)
    alone = torch.cat([probs, torch.zeros_like(probs[:, :1])], dim=-1)
    return Answers(
        nodes=len(y),
        area=area(confidence, right),
        excess=area(confidence, right) - area(right, right),
        accuracy={str(share): accuracy_at(confidence, right, share) for share in ANSWERED},
        oracle={str(share): accuracy_at(right, right, share) for share in ANSWERED},
        correctness=float(distributional_correctness(alone, y).mean()),
    )


def risks(confidence: Tensor, right: Tensor) -> Tensor:
    """Expected share of wrong answers among the k most confident, [n], [n] -> [n]; the order of equals is random."""
    _, place, counts = torch.unique(confidence.double(), return_inverse=True, return_counts=True)
    wrong = torch.zeros(len(counts), dtype=torch.float64).index_add(0, place, 1 - right.double()) / counts
    ranked = wrong[place][confidence.argsort(descending=True, stable=True)]
    return ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)


def area(confidence: Tensor, right: Tensor) -> float:
    """Area under the risk over the share answered, of confidences [n] of predictions right or not, [n] -> [0, 1]."""
    return float(risks(confidence, right).mean())


def accuracy_at(confidence: Tensor, right: Tensor, share: float) -> float:
    """Share that is right among the most confident `share` of the nodes, rounded up to whole ones, -> [0, 1]."""
    if not 0 < share <= 1:
        raise InputError(f"share answered: must be above 0 and at most 1, got {share}")
    return 1 - float(risks(confidence, right)[math.ceil(share * len(right) - 1e-9) - 1])


def distributional_correctness(probs: Tensor, y: Tensor, *, credit: float = 1.0, loss: float = 1.0) -> Tensor:
    """Distributional Correctness Score of each node (Burns, 2025, arXiv 2510.04302), [n, C + 1], [n] -> [n].

    (credit p_y - loss sum of the other classes' p) (1 - p_last): mass on the right class counts, mass on a wrong one
    costs, and mass on the last column, "I do not know", brings the score towards 0. It is no proper score, for it is
    best at certainty: nothing may be trained, stopped or selected by it.
    """
    right = probs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    unknown = probs[:, -1]
    return (credit * right - loss * (1 - right - unknown).clamp_min(0)) * (1 - unknown)


def extended(probs: Tensor, given: Tensor) -> Tensor:
    """Add the column "I do not know": 1 where no answer is given, [n, C] and bool [n] -> [n, C + 1]."""
    silent = (~given).to(probs.dtype).unsqueeze(-1)
    return torch.cat([probs * (1 - silent), silent], dim=-1)


def answers_from(confidence: Tensor, right: Tensor, others: Tensor, risk: float, doubt: float = DOUBT) -> float:
    """Return the confidence to answer from, so that at most a share `risk` of the answers is wrong.

    Thresholds are tried at which so many of the `others` are answered: the smallest share that leaves `fewest_answers`
    of the nodes to be expected, then 5 % more at a time. One holds where so few wrong answers have a chance of at most
    `doubt` under a risk of `risk` (the binomial test); the last that holds before one does not is returned, and
    infinity, no answer at all, if the first does not. If nodes are drawn alike and independently, and nothing was
    fitted or selected on these, then with a chance of at least 1 - doubt over them the risk of later answers is at most
    `risk` (testing in a fixed sequence; Angelopoulos et al., 2021, arXiv 2110.01052).

    Args:
        confidence: of the nodes that calibrate, [n].
        right: whether each is right, [n].
        others: confidence of other nodes, [m], from which the thresholds are taken; no label of theirs is needed.
        risk: in (0, 1).
        doubt: chance that it does not hold.

    Raises:
        InputError: there are too few nodes to show it.
    """
    from scipy.stats import binom

    if not 0 < risk < 1:
        raise InputError(f"abstain_risk: must be above 0 and below 1, got {risk}")
    if len(right) < (needed := fewest_answers(risk, doubt)):
        raise InputError(f"abstain_risk {risk}: needs {needed} nodes that calibrate, and there are {len(right)}")
    ranked, found = others.double().sort().values, math.inf
    for share in range(math.ceil(STEPS * needed / len(right)), STEPS + 1):
        threshold = float(ranked[len(ranked) * (STEPS - share) // STEPS])
        taken = confidence.double() >= threshold
        wrong = int((1 - right[taken]).sum())
        if binom.cdf(wrong, int(taken.sum()), risk) > doubt:
            break
        found = threshold
    return found


def fewest_answers(risk: float, doubt: float = DOUBT) -> int:
    """Return how many nodes show that at most a share `risk` is wrong: twice what it takes if every answer is right."""
    return 2 * math.ceil(math.log(doubt) / math.log1p(-risk))
