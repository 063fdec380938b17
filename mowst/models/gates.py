"""Gates turn the dispersion of the weak expert's prediction into its confidence, its share of the weight.

Notation: p = softmax(weak logits) [N, C], D a dispersion (`mowst.models.dispersions`), G a gate, c = G(D(p)) [N] in
[0, 1].

A gate is any module `gate(weak_logits, x, strong_logits=None) -> Gated(confidence, scale)`. What it asks for and gives
it says as `asks`: with `Asks(strong=True)` it looks at the strong expert too, so that expert runs everywhere; with
`Asks(scale=True)` its scale makes the pool a logarithmic one (`mowst.models.outputs`). Gates take raw logits and apply
softmax once, in at least float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn.models import MLP

from mowst.errors import InputError
from mowst.kernels import dense
from mowst.models.dispersions import DISPERSIONS, Dispersion
from mowst.models.options import layers, listed, number, numbers, probability, shown, whole
from mowst.models.outputs import Gated, probabilities
from mowst.names import Names


@dataclass(frozen=True)
class Asks:
    """What a gate asks for and gives."""

    strong: bool = False
    """It looks at the logits of the strong expert, too."""
    scale: bool = False
    """It answers with a scale: the pool is logarithmic."""
    stiff: tuple[str, ...] = ()
    """Parameters by name that few nodes say little of, such as slopes: a fit holds them ten times as strongly."""


@runtime_checkable
class Asking(Protocol):
    """A gate, or a class of gates, that says what it asks for."""

    asks: Asks


@runtime_checkable
class Weighable(Protocol):
    """A gate that can be told to weigh the experts alike everywhere."""

    def weigh(self, *weights: float) -> None:
        """Give the weak and the strong expert these weights everywhere."""


def asks_of(gate: Any) -> Asks:
    """Return what a gate, or a class of gates, asks for; one that says nothing sees the weak expert alone.

    Raises:
        InputError: what it says is no `Asks`.
    """
    if not isinstance(gate, Asking):
        return Asks()
    if not isinstance(gate.asks, Asks):
        raise InputError(f"{type(gate).__name__}: its `asks` must be a mowst.models.Asks, is {shown(gate.asks)}")
    return gate.asks


def weigh(gate: nn.Module, asks: Asks, weak: Tensor, x: Tensor, strong: Tensor | None) -> Gated:
    """Ask a gate for its weights, from logits [N, C] and features [N, F].

    Raises:
        InputError: it answers something else than `Gated`.
    """
    said = gate(weak, x, strong) if asks.strong else gate(weak, x)
    if not isinstance(said, Gated):
        raise InputError(f"gate {type(gate).__name__}: must return mowst.models.Gated, not {type(said).__name__}")
    return said


class DispersionGate(nn.Module):
    """Base of the gates that see the weak expert's dispersions: `measure` gives them as columns.

    Args:
        dispersions: names or functions; one column each.
        detach: stop the gradient of the confidence at the weak expert's logits, as the authors' code does. The paper's
            analysis lets it flow, and so does the default: that is how the weak expert learns to step back.

    Raises:
        InputError: an option is not what it must be; so do all gates.
    """

    asks = Asks()
    search: ClassVar[dict[str, Any]] = {}
    """What a study may search of the constructor's own parameters; ranges as beside the fields of a configuration."""

    def __init__(self, dispersions: Sequence[str | Dispersion] = ("variance", "negentropy"), *, detach: bool = False):
        super().__init__()
        self.dispersions = tuple(map(DISPERSIONS.lookup, listed("dispersions", dispersions)))
        self.detach = detach

    def measure(self, weak_logits: Tensor) -> Tensor:
        """Dispersions of a prediction, [N, C] -> [N, D] in [0, 1], in the precision of the gate's own parameters."""
        probs = probabilities(weak_logits.detach() if self.detach else weak_logits)
        signals = torch.stack([dispersion(probs) for dispersion in self.dispersions], dim=-1)
        own = next(self.parameters(), signals)
        return signals.to(own.dtype)


class LearnedGate(DispersionGate):
    """The gate of the published experiments: sigmoid of an MLP over the dispersions, with the features if asked.

    Nothing makes it monotone or 0 at 0; `MonotoneGate` has both.

    Args:
        dispersions, detach: see `DispersionGate`.
        in_channels: number of node features joined to the dispersions; 0 for dispersions only.
        hidden_channels, num_layers, dropout: of the MLP.
    """

    search: ClassVar[dict[str, Any]] = {"hidden_channels": [16, 64], "dropout": (0.0, 0.7)}

    def __init__(
        self,
        dispersions: Sequence[str | Dispersion] = ("variance", "negentropy"),
        *,
        in_channels: int = 0,
        hidden_channels: int = 64,
        num_layers: int = 2,
        dropout: float = 0.0,
        detach: bool = False,
    ):
        super().__init__(dispersions, detach=detach)
        self.in_channels = whole("in_channels", in_channels, least=0)
        width, hidden = len(self.dispersions) + self.in_channels, whole("hidden_channels", hidden_channels)
        channels = [width, *[hidden] * (layers("num_layers", num_layers) - 1), 1]
        self.mlp = MLP(channels, dropout=probability("dropout", dropout), norm=None)

    def forward(self, weak_logits: Tensor, x: Tensor, strong_logits: Tensor | None = None) -> Gated:
        """[N, C], [N, F] -> confidence [N]."""
        signals = self.measure(weak_logits)
        if self.in_channels:
            signals = torch.cat([signals, dense(x).to(signals.dtype)], dim=-1)
        confidence: Tensor = self.mlp(signals).squeeze(-1).to(signals.dtype).sigmoid()
        return Gated(confidence)


class PowerGate(DispersionGate):
    """c = D^alpha with alpha >= 1: no parameters, 0 at uniform, 1 at one-hot.

    Several dispersions are averaged first.
    """

    search: ClassVar[dict[str, Any]] = {"alpha": (1.0, 16.0, "log")}

    def __init__(
        self, dispersions: Sequence[str | Dispersion] = ("variance",), *, alpha: float = 1.0, detach: bool = False
    ):
        super().__init__(dispersions, detach=detach)
        self.alpha = number("alpha", alpha, lambda alpha: 1 <= alpha < math.inf, "at least 1")

    def forward(self, weak_logits: Tensor, x: Tensor, strong_logits: Tensor | None = None) -> Gated:
        """[N, C] -> confidence [N]."""
        return Gated(self.measure(weak_logits).mean(dim=-1) ** self.alpha)


class MonotoneGate(DispersionGate):
    """The gate that the theory assumes: non-decreasing in every dispersion, 0 at 0, at most 1.

    G(D) = 1 - exp(f(0) - f(D)), f(D) = v · sigmoid(W D + b) with v, W >= 0 (softplus of free parameters).
    """

    def __init__(
        self,
        dispersions: Sequence[str | Dispersion] = ("variance", "negentropy"),
        *,
        hidden_channels: int = 16,
        detach: bool = False,
    ):
        super().__init__(dispersions, detach=detach)
        self.inner = nn.Linear(len(self.dispersions), whole("hidden_channels", hidden_channels))
        self.outer = nn.Parameter(torch.empty(self.inner.out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Spread the steps over [0, 1] and start near G(D) = D."""
        nn.init.constant_(self.inner.weight, 3.0)
        steps = torch.linspace(-3.0, 0.0, self.outer.numel()) * len(self.dispersions)
        self.inner.bias.data.copy_(steps)
        nn.init.constant_(self.outer, math.log(math.expm1(4.0 / self.outer.numel())))

    def potential(self, signals: Tensor) -> Tensor:
        """The non-decreasing f, [N, D] -> [N]."""
        steps = F.linear(signals, F.softplus(self.inner.weight), self.inner.bias).sigmoid()
        return steps @ F.softplus(self.outer)

    def forward(self, weak_logits: Tensor, x: Tensor, strong_logits: Tensor | None = None) -> Gated:
        """[N, C] -> confidence [N]."""
        signals = self.measure(weak_logits)
        with torch.autocast(signals.device.type, enabled=False):
            return Gated(-torch.expm1(self.potential(torch.zeros_like(signals)) - self.potential(signals)))


class LogisticGate(DispersionGate):
    """c = sigmoid(b + 2 w · D) with w >= 0 (softplus of free parameters): non-decreasing in every dispersion.

    It has as many parameters as a handful of held-out nodes can tell.

    Args:
        dispersions, detach: see `DispersionGate`.
        start: confidence at a uniform prediction before anything is learned; it leans to the strong expert.
    """

    search: ClassVar[dict[str, Any]] = {"start": (0.01, 0.5, "log")}

    def __init__(
        self,
        dispersions: Sequence[str | Dispersion] = ("variance", "negentropy"),
        *,
        start: float = 0.1,
        detach: bool = False,
    ):
        super().__init__(dispersions, detach=detach)
        self.start = number("start", start, lambda start: 0 < start < 1, "between 0 and 1")
        self.slope = nn.Parameter(torch.empty(len(self.dispersions)))
        self.bias = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Trust a uniform prediction by `start`, and a certain one more."""
        nn.init.constant_(self.slope, 0.5)
        nn.init.constant_(self.bias, math.log(self.start / (1 - self.start)))

    def forward(self, weak_logits: Tensor, x: Tensor, strong_logits: Tensor | None = None) -> Gated:
        """[N, C] -> confidence [N]."""
        signals = self.measure(weak_logits)
        with torch.autocast(signals.device.type, enabled=False):
            return Gated((self.bias + 2 * signals @ F.softplus(self.slope)).sigmoid())


class FusedGate(DispersionGate):
    """A logarithmic pool whose weights depend on the dispersions of both experts.

    softmax(a_weak log p + a_strong log q) with (a_weak, a_strong) = ramp(W [D(p), D(q)] + b), where ramp(u) =
    softplus(10 u) / 10 is nearly max(u, 0). Each expert alone, the geometric mean (½, ½) and the product of independent
    evidence (1, 1) are among its settings. As `Gated`: confidence = a_weak / (a_weak + a_strong), scale their sum.

    Args:
        dispersions, detach: see `DispersionGate`.
        start: the two weights before anything is learned; they lean to the strong expert.
    """

    asks = Asks(strong=True, scale=True, stiff=("linear.weight",))
    steepness = 10.0

    def __init__(
        self,
        dispersions: Sequence[str | Dispersion] = ("variance", "negentropy"),
        *,
        start: tuple[float, float] = (0.001, 1.0),
        detach: bool = False,
    ):
        super().__init__(dispersions, detach=detach)
        self.start = numbers("start", start, 2, lambda weight: 0 < weight < math.inf, "two positive weights")
        self.linear = nn.Linear(2 * len(self.dispersions), 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weigh the experts by `start` everywhere."""
        self.weigh(*self.start)

    @torch.no_grad()
    def weigh(self, *weights: float) -> None:
        """Give the weak and the strong expert these weights everywhere."""
        nn.init.zeros_(self.linear.weight)
        k = self.steepness
        ramp = [weight + math.log(-math.expm1(-k * weight)) / k for weight in weights]
        self.linear.bias.copy_(torch.tensor(ramp))

    def forward(self, weak_logits: Tensor, x: Tensor, strong_logits: Tensor | None = None) -> Gated:
        """[N, C], [N, C] -> confidence [N], scale [N]."""
        assert strong_logits is not None, "this gate looks at the strong expert too"
        signals = torch.cat([self.measure(weak_logits), self.measure(strong_logits)], dim=-1)
        with torch.autocast(signals.device.type, enabled=False):
            weights = F.softplus(self.linear(signals), beta=self.steepness)
        scale = weights.sum(dim=-1).clamp_min(torch.finfo(weights.dtype).tiny)
        return Gated(weights[..., 0] / scale, scale)


GATES: Names[Callable[..., nn.Module]] = Names(
    "gate",
    {"learned": LearnedGate, "power": PowerGate, "monotone": MonotoneGate}
    | {"logistic": LogisticGate, "fused": FusedGate},
)
