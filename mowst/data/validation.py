"""`check`: refuse a graph that cannot be trained on, in one line that names the first place that is wrong."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.data.given import MASKS
from mowst.data.uneven import AT_ONCE, rows_at_once
from mowst.errors import InputError


def check(data: Data) -> None:
    """Raise InputError unless features, edges, labels and masks are sound. Isolated nodes are."""
    check_form(data)
    for field in ("y", *MASKS):
        _require(data, field)
    _check_labels(data, len(data.x))
    _check_masks(data, len(data.x))


def check_form(data: Data) -> None:
    """Raise InputError unless features and edges are sound: what a prediction needs."""
    if not isinstance(data, Data):
        raise InputError(f"data: must be a PyG Data, is a {type(data).__name__}; mowst.from_networkx makes one")
    _require(data, "x")
    _check_features(data.x)
    _require(data, "edge_index")
    _check_edges(data.edge_index, len(data.x))


def _require(data: Data, field: str) -> None:
    held = data.get(field)
    if held is None:
        raise InputError(f"data: {field} is missing{INSTEAD.get(field, '')}")
    if not isinstance(held, Tensor):
        raise InputError(f"{field}: must be a tensor, is a {type(held).__name__}; torch.as_tensor makes one")


INSTEAD = {"x": "; torch_geometric.transforms.LocalDegreeProfile()(data) makes features of the degrees"}
"""What to do where a part of a graph is missing."""


def _check_features(x: Tensor) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        raise InputError(f"x: must be floats of shape [N, F], is {x.dtype} of shape {list(x.shape)}")
    if x.layout not in (torch.strided, torch.sparse_csr):
        raise InputError(f"x: must be dense or sparse_csr, is {x.layout}; x.to_sparse_csr() makes it so")
    sparse = x.layout == torch.sparse_csr
    parts = torch.split(x.values(), AT_ONCE) if sparse else torch.split(x, rows_at_once(x))
    if not all(bool(part.isfinite().all()) for part in parts):
        bad = ~torch.isfinite(x.values() if sparse else x)
        if sparse:
            position = int(bad.nonzero()[0])
            row = int(torch.searchsorted(x.crow_indices(), torch.tensor(position), right=True)) - 1
            column, value = int(x.col_indices()[position]), float(x.values()[position])
        else:
            row, column = bad.nonzero()[0].tolist()
            value = float(x[row, column])
        raise InputError(f"x: feature {column} of node {row} is {value}; features must be finite")


def _check_edges(edge_index: Tensor, nodes: int) -> None:
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype != torch.long:
        shape = list(edge_index.shape)
        raise InputError(f"edge_index: must be long of shape [2, E], is {edge_index.dtype} of shape {shape}")
    if edge_index.size(1) == 0:
        raise InputError("edge_index: the graph has no edges at all")
    if int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes:
        edge = int(((edge_index < 0) | (edge_index >= nodes)).any(0).nonzero()[0])
        ends = edge_index[:, edge].tolist()
        raise InputError(f"edge_index: edge {edge} joins {ends[0]} and {ends[1]}, but the nodes are 0 to {nodes - 1}")


def _check_labels(data: Data, nodes: int) -> None:
    y = data.y
    if y.dtype != torch.long:
        raise InputError(f"y: labels must be whole numbers, are {y.dtype}")
    if list(y.shape) != [nodes]:
        raise InputError(f"y: must have shape [{nodes}], one label a node, has {list(y.shape)}")
    known = data.to_dict().get("num_classes")
    classes = known if isinstance(known, int) else int(y.max()) + 1
    wrong = ((y < -1) | (y >= classes)).nonzero()
    if len(wrong):
        node = int(wrong[0])
        raise InputError(f"y: label {int(y[node])} of node {node} is not in 0 to {classes - 1} (-1: unlabelled)")
    if len(y[y >= 0].unique()) < 2:
        raise InputError("y: labelled nodes are of one class only; at least two are needed")


def _check_masks(data: Data, nodes: int) -> None:
    for name in MASKS:
        mask = data[name]
        if mask.dtype != torch.bool or list(mask.shape) != [nodes]:
            raise InputError(f"{name}: must be bool of shape [{nodes}], is {mask.dtype} of shape {list(mask.shape)}")
        unlabelled = (mask & (data.y < 0)).nonzero()
        if len(unlabelled):
            raise InputError(f"{name}: holds node {int(unlabelled[0])}, which has no label")
    for first, second in combinations(MASKS, 2):
        both = (data[first] & data[second]).nonzero()
        if len(both):
            raise InputError(f"{first} and {second}: overlap in {len(both)} nodes, the first is node {int(both[0])}")
    if not bool(data.train_mask.any()):
        raise InputError("train_mask: the training split is empty")
    if not bool(data.val_mask.any()):
        raise InputError("val_mask: the validation split is empty, and nothing else tells when to stop training")
