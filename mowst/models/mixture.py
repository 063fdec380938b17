"""The mixture of a weak and a strong expert (Mowst; Zeng et al., ICLR 2024, arXiv 2311.05185)."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from mowst.errors import InputError, unknown
from mowst.models.experts import Channels, channels_of
from mowst.models.gates import asks_of, weigh
from mowst.models.known import Known
from mowst.models.options import module
from mowst.models.outputs import ROLES, Gated, Mixture
from mowst.models.reads import handing_on, reads_of, run_module


def agree(weak: Channels, strong: Channels) -> None:
    """Refuse two experts on other features, or of other classes, where both are known."""
    for what, one, other in zip(("features", "classes"), weak, strong, strict=True):
        if one is not None and other is not None and one != other:
            raise InputError(f"weak and strong: must have as many {what}, but weak has {one}, strong {other}")


class Mowst(nn.Module):
    """A weak expert, a strong expert, and a gate that says how far to trust the weak one at each node.

    Args:
        weak, strong: modules `(x, edge_index) -> logits [N, C]`; what they read is kept in `experts_read`.
        gate: module `(weak_logits, x, strong_logits=None) -> Gated` (`mowst.models.gates`).
        router: a gate that sees the weak expert alone, asked where nodes are given to one expert and `gate` needs both.

    `temperature [2]` divides the logits of the weak and of the strong expert; 1 until something calibrates them
    (`mowst.evaluation.calibration`). Where each node is given to one expert, the weak one gets those whose confidence
    reaches `threshold`: 1/2, for which a router is fitted, until something chooses another; infinite, or not a number:
    it gets none. What the parts read and ask for is found out once: for another part make another mixture.
    """

    temperature: Tensor
    threshold: Tensor

    def __init__(self, weak: nn.Module, strong: nn.Module, gate: nn.Module, router: nn.Module | None = None):
        super().__init__()
        self.weak, self.strong, self.gate = module("weak", weak), module("strong", strong), module("gate", gate)
        self.router = None if router is None else module("router", router)
        agree(channels_of(weak), channels_of(strong))
        self.experts_read = {"weak": reads_of(weak), "strong": reads_of(strong)}
        alone = type(self).forward is Mowst.forward
        self.reads = handing_on(self.reach(Known()), self.experts_read.values(), alone=alone)
        self.asks = asks_of(gate)
        self.register_buffer("temperature", torch.ones(2))
        self.register_buffer("threshold", torch.tensor(0.5))

    def of(self, role: str) -> nn.Module:
        """Return the `weak` or the `strong` expert."""
        if role not in ROLES:
            raise unknown("role", role, ROLES)
        return self.get_submodule(role)

    def expert(self, role: str, x: Tensor, edge_index: Tensor) -> Tensor:
        """Calibrated logits of the `weak` or the `strong` expert, [N, C]."""
        return self.calibrated(role, run_module(self.of(role), self.experts_read[role], x, edge_index))

    def calibrated(self, role: str, logits: Tensor) -> Tensor:
        """Divide an expert's logits [N, C] by its temperature."""
        return logits / self.temperature[ROLES.index(role)]

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        *,
        weak: Tensor | None = None,
        strong: Tensor | None = None,
        gated: Gated | None = None,
    ) -> Mixture:
        """[N, F], [2, E] -> `Mixture`. Calibrated logits `[N, C]` or a `Gated` handed in are not computed again."""
        if weak is None:
            weak = self.expert("weak", x, edge_index)
        if strong is None:
            strong = self.expert("strong", x, edge_index)
        if gated is None:
            gated = self.weighed(weak, x, strong)
        return Mixture(weak, strong, *gated)

    def weighed(self, weak: Tensor, x: Tensor, strong: Tensor | None) -> Gated:
        """Ask the gate, from calibrated logits [N, C]."""
        return weigh(self.gate, self.asks, weak, x, strong)

    def routed(self, weak: Tensor, x: Tensor) -> Gated | None:
        """Ask the router, which sees the weak expert alone; none if there is none."""
        return None if self.router is None else weigh(self.router, asks_of(self.router), weak, x, None)

    def reach(self, known: Known) -> int | None:
        """Return from how many edges away anything is read once this is known; 0: from none, none: not known."""
        hops = [self.experts_read[role].hops for role in ROLES if role not in known.given()]
        return None if None in hops else max((hop for hop in hops if hop is not None), default=0)

    @torch.no_grad()
    def known(self, x: Tensor, edge_index: Tensor, trains: Collection[str]) -> Known:
        """Return what cannot change while only the parts named in `trains` do ("": everything does)."""
        if "" in trains:
            return Known()
        weak, strong = (None if role in trains else self.expert(role, x, edge_index) for role in ROLES)
        seen = {"weak", "gate", "strong"} if self.asks.strong else {"weak", "gate"}
        if weak is None or seen & set(trains):
            return Known(weak, strong)
        return Known(weak, strong, self.weighed(weak, x, strong))
