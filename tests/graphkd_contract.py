"""What the tests of graphkd share: one small example, every loss in every form, and a loss from outside the package."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

import graphkd
from graphkd import DistillationLoss, Signals

SPECS = [
    "kd",
    "kd(temperature=2, direction=reverse)",
    "glnn",
    "dkd",
    "nkd",
    "nkd(temperature=2.5)",
    "uskd",
    "uskd(alpha=0, author_code=True)",
    "standardized",
    "standardized(dkd, temperature=1)",
    "standardized(nkd(gamma=1.0), temperature=1)",
    "ofa",
    "ofa(gamma_on=target)",
    "dualhead",
    "dualhead(center=True)",
    "gld(k=3)",
    "gld(k=3, feature=rms)",
    "gld(k=3, matching=sorted)",
    "gld(k=3, support=teacher)",
    "gld(k=3, of=standardized)",
    "gld(k=3, form=class)",
    "gld(k=3, form=neighbourhood)",
    "lsp(width=5)",
    "lsp(width=5, of=hidden)",
    "rkd",
    "rkd(pairs=edges)",
    "rkd(of=hidden)",
    "krd",
    "krd(refit=True, momentum=0)",
    "hgmd",
    "hgmd(mixup=True)",
    "ffg2m",
    "sp",
    "sp(normalize=False, of=hidden)",
    "dist",
    "hint",
    "vqgraph(size=4)",
    "tests.graphkd_contract.Outside(power=3)",  # found by its dotted path
]


class Outside(DistillationLoss):
    """A loss that the package has never heard of."""

    search = {"power": (1.0, 4.0)}  # noqa: RUF012

    def __init__(self, power: float = 2.0):
        super().__init__()
        self.power = power

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        return (student.logits.softmax(-1) - teacher.logits.softmax(-1)).abs().pow(self.power).sum(-1)


class Example(NamedTuple):
    student: Signals
    teacher: Signals
    target: Tensor  # -100 on every third node
    edge_index: Tensor  # symmetric, with a few self-loops

    def to(self, *args) -> Example:
        def move(value: Tensor) -> Tensor:
            return value.to(*args) if value.is_floating_point() else value.to(*(a for a in args if isinstance(a, str)))

        def signals(given: Signals) -> Signals:
            return Signals(move(given.logits), tuple(map(move, given.hidden)))

        return Example(signals(self.student), signals(self.teacher), move(self.target), move(self.edge_index))


def example(N: int = 12, C: int = 5, seed: int = 0, scale: float = 1.0) -> Example:
    draw = torch.Generator().manual_seed(seed)

    def signals(*sizes: int) -> Signals:
        logits, *hidden = (scale * torch.randn(N, size, generator=draw) for size in (C, *sizes))
        return Signals(logits, tuple(hidden))

    student, teacher = signals(4, 6), signals(7, 3)
    target = torch.randint(C, (N,), generator=draw)
    target[::3] = -100
    half = torch.randint(max(N, 1), (2, 2 * N), generator=draw)
    return Example(student, teacher, target, torch.cat([half, half.flip(0)], dim=1))


def loss_for(spec: str, like: Example) -> DistillationLoss:
    """Build one loss, with the parameters that this example's sizes ask for."""
    (weighted,) = graphkd.build(spec)
    torch.manual_seed(0)
    weighted.loss.prepare(like.student, like.teacher)
    return weighted.loss


def call(loss: DistillationLoss, given: Example) -> Tensor:
    return loss(given.student, given.teacher, target=given.target, edge_index=given.edge_index)


def rows(given: Example, chosen: Tensor) -> Example:
    """Take some rows (and no edges)."""
    return Example(
        graphkd.take(given.student, chosen),
        graphkd.take(given.teacher, chosen),
        given.target[chosen],
        given.edge_index[:, :0],
    )


def leaves(signals: Signals) -> list[Tensor]:
    """Make the tensors of the signals leaves with a gradient, and return them."""
    return [value.requires_grad_() for value in (signals.logits, *signals.hidden)]


def draw(N: int = 16, C: int = 6, scale: float = 2.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return student logits with a gradient, teacher logits and targets, in float64."""
    generator = torch.Generator().manual_seed(0)
    s, t = (scale * torch.randn(N, C, generator=generator, dtype=torch.float64) for _ in range(2))
    return s.requires_grad_(), t, torch.randint(C, (N,), generator=generator)


def gradient(value: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), of)[0]


def without(logits: Tensor, y: Tensor, T: float) -> Tensor:
    """Return the softmax over the classes other than the target, [N, C - 1], by a loop."""
    return torch.stack([torch.cat([z[:k], z[k + 1 :]]).div(T).softmax(-1) for z, k in zip(logits, y, strict=True)])
