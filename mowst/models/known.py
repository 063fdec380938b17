"""What is known of a model's answer before it is run, because training does not change it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from mowst.models.outputs import Gated


class Known(NamedTuple):
    """What is known already of what a model says; the rest of it is still to be run."""

    weak: Tensor | None = None
    """[N, C] calibrated logits of the weak expert."""
    strong: Tensor | None = None
    """[N, C] calibrated logits of the strong expert."""
    gated: Gated | None = None
    layers: tuple[Tensor, ...] = ()
    """The strong expert's hidden layers, [N, H] each, where a loss looks at them."""
    averaged: tuple[Tensor, ...] = ()
    """Features averaged over 1 and more hops, [N, F] each, of an expert that is run on them alone."""

    def rows(self, index: Tensor) -> Known:
        """Return the same for some nodes: ids [n] or a mask [N]."""
        weak, strong = (None if logits is None else logits[index] for logits in (self.weak, self.strong))
        gated = None if self.gated is None else self.gated.rows(index)
        layers, averaged = (tuple(each[index] for each in held) for held in (self.layers, self.averaged))
        return Known(weak, strong, gated, layers, averaged)

    def given(self) -> dict[str, Any]:
        """Return what is there, as keyword arguments of the model's call."""
        said = {"weak": self.weak, "strong": self.strong, "gated": self.gated, "averaged": self.averaged or None}
        return {name: value for name, value in said.items() if value is not None}


@runtime_checkable
class InParts(Protocol):
    """A model of which something stays as it is while it trains: frozen parts of a `Mowst`, averages of a `Sign`."""

    def known(self, x: Tensor, edge_index: Tensor, trains: Collection[str]) -> Known:
        """Return what cannot change while only the parts named in `trains` do ("": all), to be `given` to a call."""

    def reach(self, known: Known) -> int | None:
        """Return from how many edges away anything is read once this is known."""
