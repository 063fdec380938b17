"""Which labels spoke for a prediction: the training nodes whose labels moved it most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from mowst.errors import InputError, unknown
from mowst.influence.counts import Counts
from mowst.influence.last_layer import LastLayer, read_out
from mowst.influence.network import Network
from mowst.models import ROLES, Learner, Mixture, Mowst, Neighbours, Panel, reads_of, run_module


class Spoke(NamedTuple):
    """The labels that moved a prediction."""

    node: int
    predicted: int
    """The class that is predicted for it."""
    ids: Tensor
    """[k] training nodes, those that moved it most first."""
    scores: Tensor
    """[k] nats by which each label raises the log-probability of that class; below 0: it speaks against it."""
    standing: tuple[str, ...] = ()
    """Experts or members of a panel that can only be trained anew, such as trees: they count as they stand."""


def why(
    model: nn.Module,
    data: Data,
    node: int,
    *,
    k: int | None = 10,
    through: str = "last",
    weights: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> Spoke:
    """Return the training nodes whose labels moved the prediction of a node most.

    Of a mixture both experts are asked, of a panel its members; gates, weights of members, and trees, which can only
    be trained anew, count as they stand. The expert `neighbours` is counted again, whatever `through` says.

    Args:
        model: an expert `(x, edge_index) -> logits`, or a `Mowst`.
        data: the graph with `y` and `train_mask`; only training labels are looked at.
        node: id of the node.
        k: how many; none: all of them.
        through: the `last` layer, refitted with `l2` and exact; or the whole `network` as it was trained.
        weights: of each label, [N], in the loss that an expert or a member was trained by, by the name of that module
            in the model ("": the model itself); those of whom none are given learned from all alike.
        options: `l2` of the last layer; `damping`, `steps` and `tolerance` of the network.

    Raises:
        InputError: there is no such node or way, or the model has no weights that the way could ask.
    """
    if not 0 <= node < len(data.y):
        raise InputError(f"node {node}: must be from 0 to {len(data.y) - 1}")
    if through not in WAYS:
        raise unknown("influence through", through, WAYS)
    graph = data.adj_t if "adj_t" in data else data.edge_index
    model.eval()
    with torch.no_grad():
        said = model(data.x, graph) if isinstance(model, Mowst) else run_module(model, reads_of(model), data.x, graph)
    scores: Any = 0.0
    standing = list[str]()
    paths = {module: name for name, module in model.named_modules()}
    for role, direction in directions_of(said, node).items():
        expert = model.of(role) if isinstance(model, Mowst) else model
        if isinstance(model, Mowst):
            direction = direction / model.temperature[ROLES.index(role)].cpu()
        for name, part, own in parts_of(expert, data.x, graph, node, direction):
            if isinstance(part, Learner) and not isinstance(part, Neighbours):
                standing.append(name or role or "the model")
                continue
            way: Callable[..., LastLayer | Network | Counts] = (
                counts
                if isinstance(part, Neighbours)
                else partial(WAYS[through], weight=(weights or {}).get(paths[part]), **options)
            )
            scores = scores + way(part, data, graph, len(own)).influence(node, own)
    if not isinstance(scores, Tensor):
        raise InputError(f"influence: {' and '.join(standing)} can only be trained anew")
    train = data.train_mask.cpu().nonzero().squeeze(-1)
    order = scores.abs().argsort(descending=True)[: len(scores) if k is None else k]
    predicted = int((said.scores() if isinstance(said, Mixture) else said)[node].argmax())
    return Spoke(node, predicted, train[order], scores[order], tuple(standing))


def directions_of(said: Tensor | Mixture, node: int) -> dict[str, Tensor]:
    """Return the gradient of the predicted class's log-probability by each expert's logits of a node, [C] by role."""
    if isinstance(said, Tensor):
        logits = said[node].detach().cpu().double().requires_grad_()
        log_p = logits.log_softmax(dim=-1)
        return {"": torch.autograd.grad(log_p.max(), logits)[0]}
    row = said.rows(torch.tensor([node], device=said.weak.device)).cpu()
    experts = [logits.detach().double().requires_grad_() for logits in (row.weak, row.strong)]
    with torch.enable_grad():
        log_p = row._replace(weak=experts[0], strong=experts[1]).log_probs()
        found = torch.autograd.grad(log_p.max(), experts)
    return {role: gradient.squeeze(0) for role, gradient in zip(ROLES, found, strict=True)}


def parts_of(
    expert: nn.Module, x: Tensor, graph: Any, node: int, direction: Tensor
) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Yield what is asked of an expert, with the direction [C] of its own logits: itself, or the members of a panel.

    Members have names; those that a panel does not hear are left out.
    """
    if not isinstance(expert, Panel):
        yield "", expert, direction
        return
    places = expert.active.nonzero().flatten().tolist()
    with torch.no_grad():
        said = [expert.member(place, x, graph)[[node]].double() for place in places]
    leaves = [logits.requires_grad_() for logits in said]
    with torch.enable_grad():
        pooled = expert.pool(leaves, places)
        found = torch.autograd.grad(pooled, leaves, direction.to(pooled).unsqueeze(0))
    for place, gradient in zip(places, found, strict=True):
        yield expert.names[place], expert.members[place], (gradient / expert.temperature[place]).squeeze(0).cpu()


def last_layer(expert: nn.Module, data: Data, graph: Any, num_classes: int, **options: Any) -> LastLayer:
    """Refit the last layer of an expert on a graph."""
    return LastLayer(read_out(expert, data.x, graph), data.y, data.train_mask, num_classes, **options)


def network(expert: nn.Module, data: Data, graph: Any, num_classes: int, **options: Any) -> Network:
    """Ask a whole expert on a graph."""
    return Network(expert, data.x, graph, data.y, data.train_mask, **options)


def counts(expert: Neighbours, data: Data, graph: Any, num_classes: int) -> Counts:
    """Count a graph again."""
    return Counts(expert, graph, data.x, data.train_mask)


WAYS: dict[str, Callable[..., LastLayer | Network]] = {"last": last_layer, "network": network}
