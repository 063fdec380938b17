"""A training step and a validation that are recorded once in a phase, and then done again.

What is recorded takes no time of Python. Whether it does the same is tried: two epochs of it are compared with two that
are not recorded, from the same state and the same random numbers. Where they differ, or something cannot be recorded
(a module that waits for the device), the phase goes on without, and a line says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from mowst.kernels import Recorder, recorder
from mowst.training.moments import Moment, Work
from mowst.training.phases import Phase
from mowst.training.progress import Progress

WORTH = 20
"""Epochs that a phase has left at least for it to pay."""
TRIED = 2
"""Epochs that are compared: the second has the weights that the first leaves."""
CLOSE, ALIKE = 1e-3, 0.5
"""How far losses and scores may be apart, relatively or in all, and what parameters have become, as a share of their
change: where a gradient is rounding alone, as of a bias before a norm, so is what an optimiser makes of it."""


class DiffersError(RuntimeError):
    """What was recorded does something else."""


def captured(work: Work, phase: Phase, here: Progress) -> Work:
    """Return the same work, recorded if somebody records (`mowst.kernels.recording`) and it can be."""
    record = recorder()
    if record is None or not work.again or phase.epochs - here.epoch < WORTH:
        return work
    moment = Moment(here)
    try:
        return recorded(work, phase, here, record)
    except Exception as error:  # whatever a third party's module raises: what is wrong without, too, is raised there
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        warnings.warn(f"phase {phase.name}: epochs are not captured, which goes on without: {why}", stacklevel=2)
        return work
    finally:
        moment.put_back()


def recorded(work: Work, phase: Phase, here: Progress, record: Recorder) -> Work:
    """Record a step and a validation, and try them; where the phase stands then is no matter.

    Raises:
        DiffersError: they do something else.
        RuntimeError: they cannot be recorded.
    """
    device = next(here.model.parameters()).device
    scales = [torch.zeros((), dtype=torch.float64, device=device) for _ in phase.terms]
    loss, score = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(2))

    def step() -> None:
        (one,) = work.train(here.epoch, scales, False)
        loss.copy_(one)

    def judge() -> None:
        score.copy_(work.judge())

    def work_of(step: Callable[[], None], judge: Callable[[], None]) -> Work:
        def train(epoch: int, weights: Sequence[float | Tensor], checked: bool) -> list[Tensor]:
            for scale, weight in zip(scales, weights, strict=True):
                scale.fill_(weight)
            step()
            return [loss.clone()]

        def judged() -> Tensor:
            judge()
            return score.clone()

        return Work(train, judged, again=True)

    moment, before = Moment(here), _parameters(here)
    plain = _tried(work_of(step, judge), phase, here)
    moment.put_back()
    with capturable(here.optimizer):
        again = work_of(record(step), record(judge))
    moment.put_back()
    found = _tried(again, phase, here)
    _compare(found, plain, before)
    return again


Tried = tuple[Tensor, list[Tensor]]


def _tried(work: Work, phase: Phase, here: Progress) -> Tried:
    """Return the losses and scores of the next epochs, and what parameters have become."""
    numbers = []
    for epoch in range(here.epoch + 1, here.epoch + TRIED + 1):
        numbers += work.train(epoch, [term.weight_at(epoch - 1) for term in phase.terms], False)
        numbers.append(work.judge())
    return torch.stack(numbers), _parameters(here)


def _parameters(here: Progress) -> list[Tensor]:
    """Copy what is trained."""
    assert here.optimizer is not None
    return [each.detach().clone() for group in here.optimizer.param_groups for each in group["params"]]


def _compare(found: Tried, plain: Tried, before: Sequence[Tensor]) -> None:
    """Compare what was recorded with what was not.

    Raises:
        DiffersError: they differ.
    """
    if not torch.allclose(found[0], plain[0], rtol=CLOSE, atol=CLOSE, equal_nan=True):
        raise DiffersError(f"losses and scores are {found[0].tolist()} where they were {plain[0].tolist()}")
    apart = sum(float((one - other).double().square().sum()) for one, other in zip(found[1], plain[1], strict=True))
    moved = sum(float((one - first).double().square().sum()) for one, first in zip(plain[1], before, strict=True))
    if not apart <= ALIKE**2 * moved:
        raise DiffersError(f"parameters are {apart**0.5:.2g} apart after a change of {moved**0.5:.2g}")


@contextmanager
def capturable(optimizer: torch.optim.Optimizer | None) -> Iterator[None]:
    """Let an optimiser be recorded that asks to be told so; it goes on as before."""
    assert optimizer is not None
    groups = [group for group in optimizer.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    try:
        for group in groups:
            group["capturable"] = True
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*capturable", category=UserWarning)
            yield
    finally:
        for group, was in zip(groups, before, strict=True):
            group["capturable"] = was
