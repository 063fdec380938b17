"""Batch norm, ReLU and dropout as one step: in one pass on a CUDA device in training, where that was found to pay.

One after the other they read and write a matrix [N, H] several times, and keep two and a mask for the gradient. In one
pass (`mowst.kernels.norm_passes`) what goes in is kept, two numbers of each column, and the seed of the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function
from torch_geometric.nn import BatchNorm

from mowst.kernels.choosing import Results, by_triton, measured, milliseconds, pays, worth_trying
from mowst.kernels.dropout import ReLUDropout, relu_dropout

BITS = 2**16
"""What a probability is rounded to a part of, in one pass."""
MOST = 2**20
"""Rows of a matrix at most that both ways are tried on."""


class Dropping(NamedTuple):
    """Which entries are dropped."""

    seed: Tensor
    """[1], on the device: what a mask is drawn from, again and again the same."""
    drops: int
    """Of `BITS` numbers those that drop an entry."""
    grow: float
    """What others are multiplied by."""


class Tracked(NamedTuple):
    """What a norm remembers, [H] each, and the share that a step has in it."""

    mean: Tensor
    var: Tensor
    factor: float


class Settings(NamedTuple):
    """How a matrix goes through batch norm, ReLU and dropout."""

    eps: float
    tracked: Tracked | None = None
    dropping: Dropping | None = None


class Passes(Protocol):
    """Computes it and its gradient: `mowst.kernels.norm_passes`, which says what is what."""

    def forth(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, settings: Settings
    ) -> tuple[Tensor, Tensor]: ...

    def back(
        self,
        gradient: Tensor,
        x: Tensor,
        affine: tuple[Tensor | None, Tensor | None],
        moments: Tensor,
        settings: Settings,
    ) -> tuple[Tensor, Tensor]: ...


class OnePass(torch.autograd.Function):
    """Batch norm, ReLU and dropout in one pass; its gradient has one, too, which is that of the plain way."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, passes: Passes, settings: Settings
    ) -> tuple[Tensor, Tensor]:
        return passes.forth(x, weight, bias, settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *given, ctx.passes, ctx.settings = inputs
        ctx.save_for_backward(*given, output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        x, weight, bias, moments = ctx.saved_tensors
        if gradient is None:
            return (None,) * 5
        if torch.is_grad_enabled():
            return *_gradients(gradient, (x, weight, bias), ctx), None, None
        found, sums = ctx.passes.back(gradient, x, (weight, bias), moments, ctx.settings)
        return found, None if weight is None else sums[1], None if bias is None else sums[0], None, None


def _gradients(gradient: Tensor, given: Sequence[Tensor | None], ctx: Any) -> list[Tensor | None]:
    """Return the gradients of what was given, so that they have some themselves."""
    x, weight, bias = given
    assert x is not None
    settings: Settings = ctx.settings._replace(tracked=None)
    with torch.no_grad():
        kept = ctx.passes.forth(x, weight, bias, settings)[0] > 0
    out = _masked(given, settings.eps, kept, 1.0 if settings.dropping is None else settings.dropping.grow)
    asked = [each for each in given if each is not None and each.requires_grad]
    found = iter(torch.autograd.grad(out, asked, gradient, create_graph=True))
    return [next(found) if each is not None and each.requires_grad else None for each in given]


def _masked(given: Sequence[Any], eps: float, kept: Tensor, grow: float) -> Tensor:
    """Return the result by torch, of which is known where it is not zero."""
    return _normal(given, eps) * kept * grow


def _normal(given: Sequence[Any], eps: float) -> Tensor:
    x, weight, bias = given
    return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


one_pass: Callable[..., tuple[Tensor, Tensor]] = OnePass.apply


def dropping(p: float, device: torch.device) -> Dropping | None:
    """Draw which entries are dropped, from torch's generator of the device; none: none are."""
    drops = round(p * BITS)
    if not drops:
        return None
    return Dropping(torch.randint(2**62, (1,), device=device), drops, BITS / (BITS - drops))


def norm_relu_dropout(norm: nn.Module, x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Return `relu_dropout(norm(x), p, training)`, [N, H]; of a batch norm in training in one pass, where that pays.

    In one pass the probability is rounded to a 65,536th, and the draws are other ones.
    """
    batch_norm, share = _batch_norm(norm) if measured(x) else None, p if training else 0.0
    passes = None if batch_norm is None else _passes(batch_norm, x, share)
    if batch_norm is None or passes is None:
        return relu_dropout(norm(x), p, training)
    settings = Settings(batch_norm.eps, _tracked(batch_norm), dropping(share, x.device))
    return one_pass(x, batch_norm.weight, batch_norm.bias, passes, settings)[0]


class NormReLUDropout(BatchNorm):
    """PyG's batch norm with ReLU and dropout behind it, as one layer; its parameters have the names of the norm's."""

    def __init__(self, norm: BatchNorm, act: ReLUDropout):
        super().__init__(norm.in_channels)
        self.module, self.act = norm.module, act

    def forward(self, x: Tensor) -> Tensor:
        """[N, H] -> [N, H]."""
        return norm_relu_dropout(self.module, x, self.act.p, self.act.training)


_found: dict[Hashable, Passes | None] = {}
"""What came up in this process, and what computes it: none, the plain way."""


def _batch_norm(norm: nn.Module) -> nn.BatchNorm1d | None:
    """Return torch's batch norm where a norm is that, in training, and nobody looks at what it says (a hook)."""
    found = norm.module if type(norm) is BatchNorm and not norm.allow_single_element else norm
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    watched = any(vars(each)[name] for each in norm.modules() for name in hooks)
    return found if type(found) is nn.BatchNorm1d and found.training and not watched else None


def _passes(norm: nn.BatchNorm1d, x: Tensor, p: float) -> Passes | None:
    """Return what computes it in one pass where it can be and that pays, by width, precision and magnitude of N."""
    if not _fits(norm, x, p):
        return None
    kind = x.device, x.dtype, x.size(1), min(len(x), MOST).bit_length(), p > 0
    if kind not in _found and worth_trying(x):
        passes: Passes | None = by_triton("norm_passes")
        _found[kind] = passes if passes is not None and _pays(passes, norm, x, p) else None
    return _found.get(kind)


def _fits(norm: nn.BatchNorm1d, x: Tensor, p: float) -> bool:
    """Tell whether one pass does what the norm, ReLU and dropout would do here."""
    numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    shaped = x.dim() == 2 and len(x) > 1 and x.size(1) == norm.num_features > 0
    alone = type(x) is Tensor and not has_torch_function((x,)) and not torch.compiler.is_compiling()
    held = all(each is None or (each.dtype, each.device) == (torch.float32, x.device) for each in numbers)
    return shaped and alone and held and round(p * BITS) in range(BITS)


def _tracked(norm: nn.BatchNorm1d) -> Tracked | None:
    """Count a step as `nn.BatchNorm1d` does, and return what it remembers."""
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return None
    factor = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        factor = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    return Tracked(norm.running_mean, norm.running_var, factor)


def _pays(passes: Passes, norm: nn.BatchNorm1d, x: Tensor, p: float) -> bool:
    """Try both ways, forward and backward, on a matrix like this one; nothing is remembered, no random number used."""
    given: list[Any] = [x.detach()[:MOST], norm.weight, norm.bias]
    eps = norm.eps

    def both(way: Callable[[Sequence[Tensor | None]], Tensor]) -> Results:
        leaves = [None if each is None else each.detach().requires_grad_() for each in given]
        out = way(leaves)
        return out.detach(), *torch.autograd.grad(out, [each for each in leaves if each is not None], gradient)

    def own() -> Results:
        settings = Settings(eps, None, dropping(p, x.device))
        return both(lambda leaves: one_pass(*leaves, passes, settings)[0])

    def plain() -> Results:
        return both(lambda leaves: relu_dropout(_normal(leaves, eps), p))

    def masked(found: Results) -> Results:
        with torch.no_grad():
            kept, positive = found[0] > 0, _normal(given, eps) > 0
        count, share = int(positive.sum()), round(p * BITS) / BITS
        lost = int((positive & ~kept).sum()) / max(1, count)
        assert abs(lost - share) <= 1e-3 + 6 * (share * (1 - share) / max(1, count)) ** 0.5, "another share is dropped"
        return both(lambda leaves: _masked(leaves, eps, kept, 1 / (1 - share)))

    devices = [x.device] if x.device.type == "cuda" else []
    with torch.enable_grad(), torch.random.fork_rng(devices):
        gradient = torch.randn_like(given[0])
        return pays(own, plain, milliseconds, masked)
