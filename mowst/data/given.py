"""What people hand over, in the one form that all graphs here have.

Each function takes whatever may hold the thing (a tensor, an array of numpy or scipy, a list), and returns a tensor or
says what is wrong with it. Nothing that is there is replaced by something else.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd.checks import shown
from mowst.data.labels import labels
from mowst.errors import InputError, some

MASKS = ("train_mask", "val_mask", "test_mask")
EXACT = 2**24
"""Up to here float32 tells all whole numbers apart."""


def tensor(given: Any, what: str, form: str, *, sparse: bool = False) -> Tensor:
    """Return numbers as a tensor, the same one where it is a tensor already.

    Args:
        given: numbers in any holder.
        what, form: the field, and how it must be, for messages.
        sparse: whether it may be a sparse tensor.

    Raises:
        InputError: it holds no numbers, or is sparse where it may not be.
    """
    if isinstance(given, Tensor):
        found = given.detach() if given.requires_grad else given
    else:
        try:
            found = _csr(given) if scipy.sparse.issparse(given) else _dense(given)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{what}: must be {form}, is {_said(given)}") from None
    if found.is_complex() or found.is_meta:
        raise InputError(f"{what}: must be {form}, is {'without values' if found.is_meta else found.dtype}")
    if found.layout != torch.strided and not sparse:
        raise InputError(f"{what}: must be {form}, is {found.layout}; to_dense makes it so")
    return found


def _csr(given: Any) -> Tensor:
    rows = given.tocsr()
    start, column, value = (torch.from_numpy(part) for part in (rows.indptr, rows.indices, rows.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")
        return torch.sparse_csr_tensor(start, column, value, rows.shape, check_invariants=True)


def _dense(given: Any) -> Tensor:
    array = np.ascontiguousarray(given)
    return torch.as_tensor(array if array.flags.writeable else array.copy()).reshape(np.shape(given))


def features(given: Any) -> Tensor:
    """Return features [N, F] as float32, dense or CSR; the same tensor where it is that already, for it may be large.

    It is said where float32 cannot tell apart what the data can: ids and times have too many digits for it.

    Raises:
        InputError: they are no numbers of this shape, or there is none.
    """
    form = "numbers of shape [N, F]"
    x = tensor(given, "x", form, sparse=True)
    if x.dim() != 2:
        raise InputError(f"x: must be {form}, is of shape {list(x.shape)}")
    if x.size(0) == 0:
        raise InputError("x: has no rows, and so the graph no nodes")
    if x.size(1) == 0:
        raise InputError(
            "x: has no columns; a graph without features of its own can have those of its structure, such as "
            "torch_geometric.transforms.LocalDegreeProfile"
        )
    if x.layout == torch.sparse_coo:
        x = x.coalesce().to_sparse_csr()
    if x.layout == torch.strided and x.dtype in (torch.float64, torch.int64, torch.int32):
        _say_collapsed(x)
    return x.to(torch.float32)


def edges(given: Any) -> Tensor:
    """Return edges [2, E] as long, the source of each above its target.

    Raises:
        InputError: they are no whole numbers of this shape.
    """
    form = "node numbers of shape [2, E]"
    edge_index = tensor(given, "edge_index", form)
    if edge_index.numel() == 0 and edge_index.dim() != 2:
        return torch.empty(2, 0, dtype=torch.long)
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        hint = "; turn it: edge_index.t()" if edge_index.dim() == 2 and edge_index.size(1) == 2 else ""
        raise InputError(f"edge_index: must be {form}, is of shape {list(edge_index.shape)}{hint}")
    if edge_index.is_floating_point() or edge_index.dtype == torch.bool:
        raise InputError(f"edge_index: must be {form}, is {edge_index.dtype}")
    return edge_index.long()


def weights(given: Any, edge_index: Tensor) -> Tensor | None:
    """Return the weight of each edge, [E] float32, from 0.

    Raises:
        InputError: there is not one for each edge, or one is below 0 or no number.
    """
    if given is None:
        return None
    count = edge_index.size(1)
    weight = tensor(given, "edge_weight", f"one number for each of the {count} edges")
    if weight.numel() != count or weight.dim() > 2:
        raise InputError(f"edge_weight: must be one number for each of the {count} edges, is {list(weight.shape)}")
    weight = weight.reshape(-1).float()
    wrong = (~(weight.isfinite() & (weight >= 0))).nonzero()
    if len(wrong):
        edge = int(wrong[0])
        raise InputError(f"edge_weight: of edge {edge} is {float(weight[edge])}; weights must be finite and from 0")
    return weight


def as_mask(given: Any, name: str, nodes: int, seed: int) -> Tensor:
    """Return a mask [N] bool.

    Args:
        given: true or false (or 1 or 0) for each node, several such columns [N, K] or rows [K, N], of which that of the
            seed modulo K is taken, or the numbers of the nodes.
        name: the field.
        nodes: N.
        seed: chooses among several.

    Raises:
        InputError: it is none of these.
    """
    form = f"bool of shape [{nodes}], several of these as columns, or numbers of nodes"
    found = tensor(given, name, form)
    if found.dim() == 2 and nodes in found.shape and found.numel():
        found = found[:, seed % found.size(1)] if found.size(0) == nodes else found[seed % found.size(0)]
    if found.dim() != 1:
        raise InputError(f"{name}: must be {form}, is of shape {list(found.shape)}")
    if len(found) == nodes and (found.dtype == torch.bool or bool(((found == 0) | (found == 1)).all())):
        return found.bool().clone()
    if found.dtype == torch.bool or found.is_floating_point():
        raise InputError(f"{name}: must be {form}, is {found.dtype} of shape {list(found.shape)}")
    ids = found.long()
    wrong = ids[(ids < 0) | (ids >= nodes)]
    if len(wrong):
        raise InputError(f"{name}: names node {int(wrong[0])}, but the nodes are 0 to {nodes - 1}")
    if len(torch.unique(ids)) < len(ids):
        raise InputError(f"{name}: must be {form}; its {len(ids)} numbers name some nodes twice")
    return torch.zeros(nodes, dtype=torch.bool).index_fill_(0, ids.cpu(), True).to(found.device)


def asked(data: Data, what: str = "data") -> Data:
    """Return a new graph with the features, edges and edge weights of another in the form all have here.

    Raises:
        InputError: there are no edges, or something is in no form that is known.
    """
    if not isinstance(data, Data):
        raise InputError(f"data: must be a PyG Data, is a {type(data).__name__}; mowst.from_networkx makes one")
    if data.get("edge_index") is None:
        made = "; torch_geometric.utils.to_edge_index(data.adj_t)[0].flip(0) makes one of its adj_t"
        there = made if data.get("adj_t") is not None else ""
        raise InputError(f"{what}: the data has no edge_index{there}")
    graph = Data(edge_index=edges(data.edge_index))
    if "own" in vars(data):  # what is known of somebody's own graph (`mowst.data.assembling`)
        vars(graph)["own"] = vars(data)["own"]
    graph.x = None if data.get("x") is None else features(data.x)
    graph.num_nodes = None if graph.x is None else len(graph.x)
    if (weight := weights(data.get("edge_weight"), graph.edge_index)) is not None:
        graph.edge_weight = weight
    return graph


def taken(data: Data, what: str = "data") -> Data:
    """Return the same with labels; whatever else nodes have, and the masks, go along as they are.

    Raises:
        InputError: something is missing, or in no form that is known.
    """
    graph, held = asked(data, what), data.to_dict()
    if held.get("y") is None:
        raise InputError(f"{what}: the data has no y")
    names, known = class_names_of(data), held.get("num_classes")
    if known is not None and (isinstance(known, bool) or not isinstance(known, int) or known < 1):
        raise InputError(f"num_classes: must be a whole number from 1, is {known!r}")
    classes = known if known is not None else None if names is None else len(names)
    found = labels(data.y, classes, names=names)
    graph.y, graph.num_nodes = found.y.clone(), len(found.y) if graph.x is None else len(graph.x)
    graph.num_classes = classes or (int(graph.y.max()) + 1 if graph.y.numel() else 0)
    if (called := found.names or names) is not None:
        if len(called) != graph.num_classes:
            raise InputError(
                f"num_classes: is {graph.num_classes}, but {len(called)} classes have names: {some(called)}"
            )
        graph.class_names = called
    for key, value in held.items():
        of_nodes = isinstance(value, Tensor) and value.dim() and len(value) == graph.num_nodes and "edge" not in key
        if key not in graph and (of_nodes or key in MASKS):
            graph[key] = value
    return graph


def class_names_of(data: Data) -> list[Hashable] | None:
    """Return the names of a graph's classes, if it has some.

    Raises:
        InputError: `class_names` is no list of names.
    """
    held = data.get("class_names")
    if held is None:
        return None
    return named_list("class_names", held)


def named_list(what: str, held: Any) -> list[Hashable]:
    """Return a list of distinct names.

    Raises:
        InputError: it is something else.
    """
    listed = held.tolist() if isinstance(held, Tensor | np.ndarray) and np.ndim(held) == 1 else held
    whole = isinstance(listed, list | tuple) and all(isinstance(name, Hashable) for name in listed)
    if not whole or len(set(listed)) < len(listed):
        raise InputError(f"{what}: must be a list of names, one for each class, is {shown(held)}")
    return list(listed)


class Scale(NamedTuple):
    """Where the columns of a graph's features lie, and how wide they are."""

    mean: Tensor
    """[F]"""
    deviation: Tensor
    """[F], 1 for a column that is the same everywhere."""

    @classmethod
    def of(cls, x: Tensor) -> Scale:
        """Measure features [N, F]."""
        plain = (x if x.layout == torch.strided else x.to_dense()).double()
        deviation = plain.std(0, correction=0)
        return cls(plain.mean(0), torch.where(deviation > 0, deviation, 1.0))

    def standardized(self, x: Tensor) -> Tensor:
        """Return features [N, F] of this or another graph, dense, on the scale of this one."""
        plain = x if x.layout == torch.strided else x.to_dense()
        mean, deviation = self.mean.to(x.device), self.deviation.to(x.device)
        return ((plain.double() - mean) / deviation).to(x.dtype)


def unread(data: Data) -> list[str]:
    """Name what a graph has on its edges that nothing here reads."""
    return [key for key in data.edge_attrs() if key not in ("edge_index", "edge_weight")]


def _say_collapsed(x: Tensor) -> None:
    """Say where different numbers in a column become one in float32."""
    largest, lowest = x.amax(0).double(), x.amin(0).double()
    size = torch.maximum(largest.abs(), lowest.abs())
    close = (size > EXACT) | ((largest - lowest) * EXACT < size * 2**10)
    for column in (close & (largest > lowest)).nonzero().flatten().tolist():
        before, after = (len(torch.unique(part)) for part in (x[:, column], x[:, column].float()))
        if after < before:
            warnings.warn(
                f"x: column {column} has {before} different numbers, of which float32 tells {after} apart; take their "
                "smallest from them, or scale them, before",
                stacklevel=2,
            )


def _said(given: Any) -> str:
    """Describe what somebody handed over, in a few words."""
    if isinstance(given, np.ndarray):
        return f"an array of {given.dtype} of shape {list(given.shape)}"
    return shown(given)
