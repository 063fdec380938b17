"""The epochs of a phase, looked at one by one, or several at a time.

Between two looks nobody waits for a number: losses, scores and the best state stay on the device that computes them.
What is told, kept and decided is bit for bit what it is with a look at every epoch: a stretch ends where patience
could, and one within which something ends the training (a loss that is no number, a hook that raises) is put back and
run again up to there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mowst.training.capture import captured
from mowst.training.moments import Lead, Moment, Work
from mowst.training.phases import Phase
from mowst.training.progress import Progress


class Seen(NamedTuple):
    """What an epoch came to."""

    loss: float
    """The mean over its steps."""
    score: float | None
    """None: it was not validated."""


class Epochs:
    """Runs the epochs of a phase.

    Args:
        phase: what is trained.
        here: where it stands, which it keeps up to date, the best state included.
        work: what an epoch consists of.
        tell: called with what a validated epoch came to, and its seconds; what it raises ends the training.
        every: epochs from one look to the next.
    """

    def __init__(self, phase: Phase, here: Progress, work: Work, tell: Callable[[Seen, float], None], every: int = 1):
        self.phase, self.here, self.work, self.tell = phase, here, work, tell
        self.every, self.begun = every, False
        self.lead: Lead | None = None
        self.unseen = work

    def due(self, epoch: int) -> bool:
        """Tell whether an epoch is validated."""
        return epoch % self.phase.eval_every == 0 or epoch == self.phase.epochs

    def free(self, most: int, asks: Callable[[int], bool]) -> int:
        """Return how many epochs may pass, at least one and at most so many, before anything has to be decided.

        Args:
            most: epochs.
            asks: whether somebody asks what an epoch came to.
        """
        begin, waited, count = self.here.epoch, self.here.waited, 0
        most = min(most, self.every) if self.begun else 1  # which also lets the optimiser make its state
        while count < most and begin + count < self.phase.epochs and waited < self.phase.patience:
            count += 1
            waited += self.phase.eval_every if self.due(begin + count) else 0
            if asks(begin + count):
                break
        return max(1, count)

    def forth(self, count: int, *, told: bool = True) -> None:
        """Run so many epochs, then look at what they came to.

        Raises:
            FloatingPointError: the loss or the score of one is not a number.
        """
        start = time.perf_counter()
        moment = Moment(self.here) if count > 1 else None
        seen = [self._seen()] if moment is None else self._ahead(count)
        if moment is not None and not all(math.isfinite(one.loss) and not _nan(one.score) for one in seen):
            moment.put_back()
            self.every = 1
            return
        self.begun, begin = True, self.here.epoch
        seconds = (time.perf_counter() - start) / count
        if moment is not None:
            self._take_lead(seen)
        try:
            for one in seen:
                self._count(one, at_once=moment is None)
                if told and one.score is not None:
                    self.tell(one, seconds)
        except BaseException:
            if moment is not None and (done := self.here.epoch - begin) < count:
                moment.put_back()
                self.forth(done, told=False)
            raise

    def _seen(self) -> Seen:
        """Run the next epoch, and look."""
        losses, score = self._run(self.work, self.here.epoch + 1, checked=True)
        return Seen(
            sum(map(float, losses)) / len(losses),
            None if score is None else checked_score(float(score), self.phase.name),
        )

    def _ahead(self, count: int) -> list[Seen]:
        """Run the next epochs, then look at all of them."""
        if self.lead is None:
            self.lead = Lead(self.here, always=self.phase.last)
            work = self.work._replace(judge=self.lead.judging(self.work.judge))
            self.unseen = captured(work, self.phase, self.here)
        self.lead.begin(self.here.best.score)
        epochs = range(self.here.epoch + 1, self.here.epoch + count + 1)
        found = [self._run(self.unseen, epoch, checked=False) for epoch in epochs]
        device = self.lead.score.device
        flat = [each.to(device, torch.float64) for losses, score in found for each in (*losses, *_there(score))]
        numbers = iter(torch.stack(flat).tolist())
        return [
            Seen(sum(next(numbers) for _ in losses) / len(losses), *[next(numbers) for _ in _there(score)] or [None])
            for losses, score in found
        ]

    def _run(self, work: Work, epoch: int, *, checked: bool) -> tuple[list[Tensor], Tensor | None]:
        """Run an epoch: the losses of its steps, and its score."""
        losses = work.train(epoch, [term.weight_at(epoch - 1) for term in self.phase.terms], checked)
        if self.here.average is not None:
            self.here.average.update()
        return losses, work.judge() if self.due(epoch) else None

    def _take_lead(self, seen: Sequence[Seen]) -> None:
        """Take the best state of a stretch, where it is better than that of before."""
        assert self.lead is not None
        scores = [one.score for one in seen if one.score is not None]
        if scores and (self.phase.last or max(scores) > self.here.best.score):
            self.lead.give()

    def _count(self, one: Seen, *, at_once: bool) -> None:
        """Take in what the next epoch came to."""
        here, best = self.here, self.here.best
        here.epoch += 1
        if one.score is None:
            return
        better = self.phase.last or one.score > best.score
        here.waited = 0 if better else here.waited + self.phase.eval_every
        if better and at_once:
            best.take(one.score, here.epoch, here.model, here.average)
        elif better:
            best.score, best.epoch = one.score, here.epoch


def checked_score(score: float, phase: str = "") -> float:
    """Return a validation score that is a number, in a phase of that name, if it is in one.

    Raises:
        FloatingPointError: it is none.
    """
    if math.isnan(score):
        when = f" in phase {phase!r}" if phase else ""
        why = "what the model says is none, as where lr is large, or a class has no node there"
        raise FloatingPointError(f"the validation score{when} is no number: {why}")
    return score


def _nan(score: float | None) -> bool:
    return score is not None and math.isnan(score)


def _there(score: Tensor | None) -> list[Tensor]:
    return [] if score is None else [score]
