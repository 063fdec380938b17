"""Successive halving (Jamieson and Talwalkar, 2016, arXiv 1502.07943): who is worth being trained on.

After a sixteenth, an eighth, and a quarter of the epochs that a candidate may take, its best validation score so far is
compared with what those of the same pace before it had reached there: one with a smaller learning rate or averaged
weights is behind at first, and none the worse for it. One that is not among the best third may be stopped. Each is
compared when it gets there, and not when all have (Li et al., 2018, arXiv 1810.05934, whose rule this is; Optuna's
`SuccessiveHalvingPruner`): so none has to wait, and those that go on are trained as if there were no rungs.

Another draw of one that is heard stands where that one stood, so that at the last rung its rank says nothing any more:
it may be stopped there anyway.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mowst.training import Schedule

SHARES = 1 / 16, 1 / 8, 1 / 4
REDUCTION = 3
"""One of so many goes on."""


Pace = tuple[str, float, float]
"""Optimiser, learning rate, decay of averaged weights."""


class Rungs:
    """What candidates had reached at each rung, by their pace."""

    def __init__(self) -> None:
        self.by_pace: dict[Pace | None, tuple[list[float], ...]] = {}
        self.epochs: tuple[int, ...] = ()
        self.every = 1
        self.pace: Pace | None = None
        self.again = False

    @property
    def reached(self) -> tuple[list[float], ...]:
        """What those of the present pace had reached, a list for each rung."""
        return self.by_pace.setdefault(self.pace, tuple([] for _ in SHARES))

    def begin(self, schedule: Schedule, *, again: bool = False) -> None:
        """Say at which pace the next candidate is trained; one before the first of them meets no rung.

        Args:
            schedule: its pace.
            again: whether it is another draw of a candidate that is heard.
        """
        self.again = again
        self.pace = schedule.optimizer, schedule.lr, schedule.ema_decay
        self.epochs = tuple(math.ceil(share * schedule.epochs) for share in SHARES)
        self.every = schedule.eval_every

    def stands(self, epoch: int) -> bool:
        """Tell whether an epoch stands at a rung."""
        return any(first <= epoch < first + self.every for first in self.epochs)

    def passes(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a candidate with this record stands at no rung, or is among the best where that counts."""
        for epoch, reached in zip(self.epochs, self.reached, strict=False):
            if epoch <= record["epoch"] < epoch + self.every:
                known = self.again and epoch == self.epochs[-1]
                return not known and among_best(record["best"], reached)
        return True

    def end(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Take in what the candidate had reached at the rungs that it came to, by the records of its validations."""
        for epoch, reached in zip(self.epochs, self.reached, strict=False):
            reached += [line["best"] for line in history if epoch <= line["epoch"] < epoch + self.every]


def among_best(score: float, others: Sequence[float]) -> bool:
    """Tell whether a score is among the best third of all, or, of fewer than three, the best."""
    return sum(other > score for other in others) < max(1, (len(others) + 1) // REDUCTION)
