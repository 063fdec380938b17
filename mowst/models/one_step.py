"""PyG's models with what is done to one entry after the other in one layer: batch norm, ReLU, dropout."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn
from torch_geometric.nn import BatchNorm
from torch_geometric.nn.models import MLP

from mowst.kernels import NormReLUDropout, ReLUDropout


def in_one_step(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    """Make PyG's models with ReLU and dropout in one layer, where one follows the other; they compute the same.

    Where both follow batch norms, each of these is that layer.
    """

    @wraps(kind, updated=())
    def make(*args: Any, **kwargs: Any) -> nn.Module:
        model: Any = kind(*args, **kwargs)
        norm_between = model.act_first and any(not isinstance(norm, nn.Identity) for norm in model.norms)
        if type(model.act) is nn.ReLU and not norm_between:
            if not isinstance(model, MLP):
                model.act, model.dropout = ReLUDropout(model.dropout.p), nn.Dropout(0.0)
            elif len(rates := set(model.dropout[: len(model.norms)])) == 1:
                model.act = ReLUDropout(*rates)
                model.dropout = [0.0] * len(model.norms) + model.dropout[len(model.norms) :]
            if isinstance(model.act, ReLUDropout):
                _behind_norms(model)
        return model

    return make


def _behind_norms(model: Any) -> None:
    """Let the batch norms of one of PyG's models be one layer with what is behind them."""
    norms = {place: norm for place, norm in enumerate(model.norms) if not isinstance(norm, nn.Identity)}
    if norms and all(type(norm) is BatchNorm and not norm.allow_single_element for norm in norms.values()):
        for place, norm in norms.items():
            model.norms[place] = NormReLUDropout(norm, model.act)
        model.act = None
