"""Several experts that speak as one.

A `Panel` is a strong expert like any other, `(x, edge_index) -> logits [N, C]`; behind it stand members that err at
different nodes. Their predictions are pooled: softmax(Σ_k a_k log p_k), where the weight a_k of a member at a node is
ramp(b_k + w_k · D(p_k)), a function of how peaked the member is there, and ramp(u) = softplus(10 u) / 10 is nearly
max(u, 0). A weight of one for a single member is that member; equal weights are the geometric mean. The weights are
fitted on held-out nodes (`mowst.training.panels`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mowst.errors import InputError
from mowst.models.dispersions import DISPERSIONS, Dispersion
from mowst.models.options import listed
from mowst.models.outputs import log_probs
from mowst.models.reads import handing_on, reads_of, run_module

STEEPNESS = 10.0
SILENT = 0.001
"""The weight of a member that is not listened to, where a panel leans to another one."""


class Panel(nn.Module):
    """Several experts behind one logarithmic pool; until it is fitted, their geometric mean.

    Args:
        members: at least two experts by name, on the same features and classes.
        dispersions: by which a member's weight may differ from node to node.

    `temperature [K]` divides the logits of the members, `active [K]` says which of them are run and heard.
    """

    temperature: Tensor
    active: Tensor

    def __init__(
        self, members: Mapping[str, nn.Module], dispersions: Sequence[str | Dispersion] = ("variance", "negentropy")
    ):
        super().__init__()
        if len(members) < 2:
            raise InputError(f"panel: needs at least two members, got {', '.join(members) or 'none'}")
        self.names = tuple(members)
        self.members = nn.ModuleList(members.values())
        self.members_read = [reads_of(member) for member in self.members]
        self.dispersions = [DISPERSIONS.lookup(each) for each in listed("panel: dispersions", dispersions)]
        self.bias = nn.Parameter(torch.empty(len(self.names)))
        self.slope = nn.Parameter(torch.empty(len(self.names), len(self.dispersions)))
        self.register_buffer("temperature", torch.ones(len(self.names)))
        self.register_buffer("active", torch.ones(len(self.names), dtype=torch.bool))
        hops = [each.hops for each in self.members_read]
        reach = None if None in hops else max(hop for hop in hops if hop is not None)
        self.reads = handing_on(reach, self.members_read, alone=type(self).forward is Panel.forward)
        self.lean(*[1 / len(self.names)] * len(self.names))

    @torch.no_grad()
    def lean(self, *weights: float) -> None:
        """Give the members these weights everywhere."""
        nn.init.zeros_(self.slope)
        ramp = [weight + math.log(-math.expm1(-STEEPNESS * weight)) / STEEPNESS for weight in weights]
        self.bias.copy_(torch.tensor(ramp))

    def member(self, place: int, x: Tensor, edge_index: Tensor) -> Tensor:
        """Calibrated logits of one member, [N, C]."""
        said = run_module(self.members[place], self.members_read[place], x, edge_index)
        return said / self.temperature[place]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, F], [2, E] -> [N, C]; members that are not heard are not run."""
        places = self.active.nonzero().flatten().tolist()
        return self.pool([self.member(place, x, edge_index) for place in places], places)

    def pool(self, said: Sequence[Tensor], places: Sequence[int]) -> Tensor:
        """Pool the calibrated logits [n, C] of the members at some places -> log-probabilities [n, C]."""
        logs = torch.stack([log_probs(each) for each in said])
        with torch.autocast(logs.device.type, enabled=False):
            return (self.weights(logs, places).unsqueeze(-1) * logs).sum(0).log_softmax(-1)

    def weights(self, logs: Tensor, places: Sequence[int]) -> Tensor:
        """Weigh members by what they say, log-probabilities [K, n, C] -> [K, n]."""
        probs = logs.exp()
        signals = torch.stack([measure(probs) for measure in self.dispersions], dim=-1)
        own = torch.as_tensor(places, device=logs.device)
        slope, bias = self.slope[own].to(logs.dtype), self.bias[own].to(logs.dtype)
        return F.softplus(bias.unsqueeze(1) + (signals * slope.unsqueeze(1)).sum(-1), beta=STEEPNESS)


def parts_of(model: Any, roles: Sequence[str], *, heard: bool = False) -> tuple[str, ...]:
    """Return the parts of a mixture trained on their own: experts, and of a panel each member, or those heard."""
    found = []
    for role in roles:
        part = model.get_submodule(role)
        active = part.active.tolist() if isinstance(part, Panel) else []
        members = [f"{role}.members.{place}" for place, runs in enumerate(active) if runs or not heard]
        found += members or [role]
    return tuple(found)
