"""Nodes by what they are called, and a graph without the labels of some of them."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.data.assembling import own_of
from mowst.errors import InputError, some
from mowst.experiment.building import classes_of

if TYPE_CHECKING:
    import pandas as pd


def names_of(data: Data) -> pd.Index:
    """Return what the nodes of a graph are called, by default their numbers."""
    import pandas as pd

    own = own_of(data)
    return pd.RangeIndex(len(data.x)) if own is None else own.names


def numbers_of(names: pd.Index, called: Sequence[Hashable], flag: str) -> list[int]:
    """Return the numbers of nodes by what they are called, as a flag gave them.

    Raises:
        InputError: no node is called so.
    """
    import pandas as pd

    found = names.map(str).get_indexer(pd.Index(list(called), dtype=object).map(str))
    if lost := [word for word, place in zip(called, found, strict=True) if place < 0]:
        raise InputError(f"{flag}: no node is called {some(lost)}; they are {some(names[:3])} and so on")
    return [int(place) for place in found]


def drawn_of(mask: Tensor, count: int | None, seed: int) -> Tensor:
    """Return a mask [N] of so many nodes of another, drawn by a seed; the same mask where it has no more, or for none.

    It depends on nothing else, the device or the number of processes included.
    """
    nodes = mask.nonzero().squeeze(-1)
    if count is None or count >= len(nodes):
        return mask
    chosen = torch.randperm(len(nodes), generator=torch.Generator().manual_seed(seed))[:count]
    return torch.zeros_like(mask).index_fill_(0, nodes[chosen.to(nodes.device)], True)


def without(data: Data, called: Sequence[Hashable], seed: int, *, validation: bool = False) -> Data:
    """Return a graph in which some training nodes have no label, and are in no mask; the nodes stay where they are.

    Args:
        data: the graph with the masks of a seed, whose tensors are left as they are.
        called: what the nodes are called; none of them: the graph as it is.
        seed: of the masks, to be named where a label of one of the nodes was not learned.
        validation: whether labels of validation nodes are learned, too, and may be taken away.

    Raises:
        InputError: there is no such node, its label was not learned, or no training label of a class, or none to
            validate, would be left.
    """
    if not called:
        return data
    names = names_of(data)
    nodes = torch.tensor(numbers_of(names, called, "forget"))
    learned = data.train_mask | data.val_mask if validation else data.train_mask
    if len(others := nodes[~learned[nodes]]):
        kind = "training or validation" if validation else "training"
        raise InputError(
            f"forget: {some(names[others.tolist()])}: no {kind} node of seed {seed}; only {kind} labels are learned"
        )
    left = copy.copy(data)
    left.y = data.y.index_fill(0, nodes, -1)
    for mask in ("train_mask", "val_mask"):
        left[mask] = data[mask].index_fill(0, nodes, False)
    if bool(data.val_mask.any()) and not bool(left.val_mask.any()):
        raise InputError("forget: no label of a validation node would be left; keep one")
    had, has = (each.y[each.train_mask].bincount(minlength=classes_of(data)) for each in (data, left))
    if lost := ((had > 0) & (has == 0)).nonzero().flatten().tolist():
        classes = data.get("class_names") or range(len(had))
        raise InputError(f"forget: no training label of class {some(classes[k] for k in lost)} would be left; keep one")
    return left


def places_of(data: Data, nodes: Any) -> Any:
    """Return the numbers of nodes that are given by the names which a graph has for them; numbers stay as they are.

    Raises:
        InputError: names are given of a graph that has none, or no node is called so.
    """
    import pandas as pd

    listed = isinstance(nodes, str | list | tuple | np.ndarray | pd.Series | pd.Index)
    if not listed or not any(isinstance(each, str) for each in nodes):
        return nodes
    nodes = [nodes] if isinstance(nodes, str) else list(nodes)

    if data.get("node_names") is None:
        raise InputError(f"nodes: the data has no node_names, by which to find {some(nodes)}; give numbers from 0")
    return numbers_of(pd.Index(list(data.node_names), dtype=object), nodes, "nodes")
