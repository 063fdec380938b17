"""What is trained in one go: the terms of a loss, and the phase that has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from graphkd import Scope, scope_of
from graphkd.contract import mean
from mowst.errors import InputError
from mowst.models import Output
from mowst.training.batches import Batch
from mowst.training.objectives import Loss


@runtime_checkable
class Watching(Protocol):
    """A loss that looks at hidden layers of an expert that it does not train."""

    def frozen_layers(self) -> tuple[Tensor, ...]:
        """Return them as they were when the expert was last run, one [N, H] a layer."""


class Term(NamedTuple):
    """One summand of the training loss."""

    loss: Loss
    """`(output, batch) -> [M]`; a scalar from a loss whose rows depend on each other. What it says of its `scope`
    (`graphkd.Scope`) decides which nodes have to be run for it."""
    weight: float | Callable[[int], float] = 1.0
    """A number, or a function of the phase's epoch (from 0)."""
    on: str = "train"
    """The nodes it is averaged over: "train" or "all"."""
    trains: str = ""
    """The submodule that learns from it: phases that leave it frozen leave the term out; "": any phase."""

    def weight_at(self, epoch: int) -> float:
        """Return the weight in an epoch of a phase, counted from 0."""
        return self.weight(epoch) if callable(self.weight) else self.weight

    def value(self, out: Output, batch: Batch) -> Tensor:
        """Average the loss over its nodes of a batch, without the weight."""
        values, index = self.loss(out, batch), batch.on[self.on]
        return values if values.dim() == 0 else mean(values if index is None else values[index])


@dataclass(frozen=True)
class Phase:
    """What is trained, on what, for how long."""

    name: str
    trains: tuple[str, ...]
    """Submodules by attribute name; `("",)` is the whole model."""
    terms: tuple[Term, ...]
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    lr: float = 0.01
    lrs: Mapping[str, float] = field(default_factory=dict)
    """Learning rates of single submodules where they differ from `lr`."""
    weight_decay: float = 5e-4
    epochs: int = 500
    patience: int = 100
    """Epochs without a better validation score after which the phase ends."""
    eval_every: int = 1
    ema_decay: float = 0.0
    """Decay of an exponential moving average of weights and buffers, which is what is validated and kept; 0: none.
    It grows to this over the first epochs (`mowst.training.progress.MovingAverage`)."""
    last: bool = False
    """Keep the last weights, whatever the validation score: the number of epochs is known from elsewhere."""

    def live(self) -> Phase:
        """Return the phase without the terms that nothing in it learns from."""
        everything = "" in self.trains
        return replace(self, terms=tuple(t for t in self.terms if everything or t.trains in ("", *self.trains)))

    def losses(self) -> list[nn.Module]:
        """Return the losses that are modules: they may have parameters of their own."""
        return [term.loss for term in self.terms if isinstance(term.loss, nn.Module)]

    def optimizer_of(self, parts: Sequence[nn.Module]) -> torch.optim.Optimizer:
        """Make the optimiser of what the phase trains: these parts, in the order of `trains`, and its losses.

        Raises:
            InputError: it refuses its arguments.
        """
        groups: list[dict[str, Any]] = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": self.lrs.get(name, self.lr)}
            for name, part in zip(self.trains, parts, strict=True)
        ]
        groups += [{"params": list(loss.parameters())} for loss in self.losses()]
        try:
            return self.optimizer(groups, lr=self.lr, weight_decay=self.weight_decay)
        except (TypeError, ValueError) as error:
            made = self.optimizer.func if isinstance(self.optimizer, partial) else self.optimizer
            raise InputError(f"optimizer {made.__name__}: {error}") from None

    @property
    def scope(self) -> Scope:
        """The widest scope of its losses."""
        order = list(Scope)
        return max((scope_of(term.loss) for term in self.terms), key=order.index, default=Scope.NODE)


def thawed(model: nn.Module, trains: Iterable[str], free: Iterable[nn.Parameter]) -> list[nn.Module]:
    """Return the parts of a model that train; of all parameters only what is free in them has a gradient."""
    model.eval().requires_grad_(False)
    parts = [model.get_submodule(name) for name in trains]
    inside = {id(parameter) for part in parts for parameter in part.parameters()}
    for parameter in free:
        parameter.requires_grad_(id(parameter) in inside)
    return parts
