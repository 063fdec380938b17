"""What a prediction is asked of, looked at before anything is run: model, features, graph, threshold, draws."""

from __future__ import annotations

import inspect
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from mowst.errors import InputError
from mowst.kernels import Adjacency, checked_edges
from mowst.models import ROLES, LearnedGate, Mowst, channels_of, shown


def check_question(model: Any, x: Any, graph: Any) -> None:
    """Refuse what cannot be predicted with.

    Args:
        model: must be a mixture.
        x: must be features of all nodes, [N, F], as its experts take them.
        graph: must be an `Adjacency` or an `edge_index` of the same N nodes.

    Raises:
        InputError: one of them is something else; which, and what would be right.
    """
    check_parts(model, x)
    check_features(model, x)
    check_graph(graph, x)


def check_graph(graph: Any, x: Tensor) -> None:
    """Refuse what is no graph of the nodes of these features."""
    if not isinstance(graph, Adjacency):
        checked_edges(graph, len(x))
    elif len(graph) != len(x):
        raise InputError(f"graph: has {len(graph)} nodes, x has {len(x)} rows; they must be of the same nodes")
    if graph.device != x.device:
        raise InputError(f"graph: is on {graph.device}, x on {x.device}; move one of them")


def check_parts(model: Any, x: Any) -> None:
    """Refuse what is no mixture, and what are no features [N, F]."""
    if not isinstance(model, Mowst):
        raise InputError(f"model: must be a mowst.Mowst, got {shown(model)}")
    check_rows(x)


def check_rows(x: Any) -> None:
    """Refuse what are no features [N, F]."""
    right = "x: must be a tensor [N, F], a row of numbers per node"
    if not isinstance(x, Tensor):
        raise InputError(f"{right}, is {type(x).__name__}; torch.as_tensor makes one of an array")
    if x.dim() != 2 or not len(x):
        raise InputError(f"{right}, is of shape {list(x.shape)}")


def check_ids(nodes: Any, count: int) -> None:
    """Refuse what are no ids [n] of so many nodes, nor none for all of them."""
    if nodes is not None and not (isinstance(nodes, Tensor) and nodes.dim() == 1 and nodes.dtype == torch.long):
        raise InputError(f"nodes: must be a tensor of distinct ids (torch.long) [n], or none, got {shown(nodes)}")
    if nodes is not None and len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < count:
        raise InputError(f"nodes: must be from 0 to {count - 1}, are {int(nodes.min())} to {int(nodes.max())}")


def check_features(model: Mowst, x: Tensor) -> None:
    """Refuse features [N, F] that the experts of a mixture do not take; of strange experts nothing is known."""
    if x.device != model.temperature.device:
        raise InputError(f"x: is on {x.device}, the model on {model.temperature.device}; move one of them")
    for name, width in widths(model).items():
        if x.size(1) != width:
            raise InputError(f"x: has {x.size(1)} features, but the {name} takes {width}")
    for role in ROLES:
        check_dtype(f"{role} expert", model.of(role), x)


def check_dtype(name: str, expert: nn.Module, x: Tensor) -> None:
    """Refuse features of another precision than an expert computes in; of strange experts nothing is known."""
    dtype = next((weight.dtype for weight in expert.parameters()), x.dtype)
    known = channels_of(expert).features is not None and not torch.is_autocast_enabled(x.device.type)
    if known and x.dtype != dtype:
        raise InputError(f"x: is {x.dtype}, but the {name} computes in {dtype}; x.to({dtype}) makes it so")


def check_expert(expert: Any, x: Any, graph: Any) -> None:
    """Refuse what is no expert, and features and a graph that it does not take.

    Raises:
        InputError: one of them is something else; which, and what would be right.
    """
    if not isinstance(expert, nn.Module) or isinstance(expert, Mowst):
        raise InputError(f"expert: must be a torch.nn.Module that is no mixture, got {shown(expert)}")
    check_rows(x)
    if (width := channels_of(expert).features) is not None and x.size(1) != width:
        raise InputError(f"x: has {x.size(1)} features, but the expert takes {width}")
    if any(weight.device != x.device for weight in expert.parameters()):
        raise InputError(f"x: is on {x.device}, the expert is not; move one of them")
    check_dtype("expert", expert, x)
    check_graph(graph, x)


def widths(model: Mowst) -> dict[str, int]:
    """Return how many features each part of a mixture takes, where that is known."""
    found = {f"{role} expert": channels_of(model.of(role)).features for role in ROLES}
    for name, gate in (("gate", model.gate), ("router", model.router)):
        found[name] = gate.in_channels or None if isinstance(gate, LearnedGate) else None
    return {name: width for name, width in found.items() if width is not None}


def threshold_of(model: Mowst, threshold: Any) -> float:
    """Return the threshold that was asked for, or the model's own.

    Raises:
        InputError: it is no number.
    """
    if threshold is None:
        return float(model.threshold)
    if isinstance(threshold, Tensor) and threshold.numel() == 1 and threshold.is_floating_point():
        return float(threshold)
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise InputError(f"threshold: must be a number, or none for the model's own, got {shown(threshold)}")
    return float(threshold)


def check_mode(mode: Any) -> None:
    """Refuse a mode of one's own that cannot be called as one."""
    try:
        inspect.signature(mode).bind(None, threshold=0.5, generator=None)
    except (TypeError, ValueError) as error:
        right = "how: must be a function (question, *, threshold, generator) -> probabilities [n, C]"
        raise InputError(f"{right}, got {shown(mode)}: {error}") from None


def check_answer(probs: Any, count: int) -> None:
    """Refuse an answer that is not a row of probabilities for each of so many nodes."""
    if not isinstance(probs, Tensor) or probs.dim() != 2 or len(probs) != count:
        said = list(probs.shape) if isinstance(probs, Tensor) else shown(probs)
        raise InputError(f"how: must return probabilities [{count}, C], and returned {said}")


def check_generator(generator: Any) -> None:
    """Refuse what draws no numbers on the CPU."""
    if generator is None or (isinstance(generator, torch.Generator) and generator.device.type == "cpu"):
        return
    raise InputError(f"generator: must be a torch.Generator on the CPU, or none, got {shown(generator)}")
