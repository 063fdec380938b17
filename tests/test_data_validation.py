"""Each kind of unsound graph is refused in one line that names the place; sound but odd ones pass."""

import math

import pytest
import torch
from torch_geometric.data import Data

from mowst.data import check
from mowst.errors import InputError


@pytest.fixture
def data():
    """Six nodes, node 5 isolated, node 4 unlabelled."""
    graph = Data(
        x=torch.rand(6, 3),
        edge_index=torch.tensor([[0, 1, 2, 3, 4, 0], [1, 0, 3, 2, 0, 4]]),
        y=torch.tensor([0, 1, 0, 1, -1, 1]),
    )
    for name, nodes in (("train_mask", [0, 1]), ("val_mask", [2]), ("test_mask", [3, 5])):
        graph[name] = torch.zeros(6, dtype=torch.bool)
        graph[name][nodes] = True
    graph.num_classes = 2
    return graph


def test_sound_graph_with_isolated_and_unlabelled_nodes_passes(data):
    check(data)


def set_feature(data, value):
    data.x[4, 2] = value


def make_sparse(data, value):
    data.x[4, 2] = value
    data.x = data.x.to_sparse_csr()


WRONG = {
    "nan feature": (lambda d: set_feature(d, math.nan), "feature 2 of node 4 is nan"),
    "infinite feature": (lambda d: set_feature(d, math.inf), "feature 2 of node 4 is inf"),
    "nan in sparse features": (lambda d: make_sparse(d, math.nan), "feature 2 of node 4 is nan"),
    "no features": (lambda d: d.pop("x"), "x"),
    "integer features": (lambda d: d.update({"x": d.x.long()}), "x"),
    "edge to a missing node": (lambda d: d.edge_index.__setitem__((1, 2), 6), "edge 2 joins 2 and 6"),
    "negative node": (lambda d: d.edge_index.__setitem__((0, 0), -1), "edge 0 joins -1 and 1"),
    "no edges at all": (lambda d: d.update({"edge_index": d.edge_index[:, :0]}), "no edges"),
    "label out of range": (lambda d: d.y.__setitem__(3, 2), "label 2 of node 3"),
    "label below -1": (lambda d: d.y.__setitem__(3, -2), "label -2 of node 3"),
    "labels not whole": (lambda d: d.update({"y": d.y + 0.5}), "whole"),
    "one class only": (lambda d: d.y.clamp_(max=0), "one class"),
    "too few labels": (lambda d: d.update({"y": d.y[:5]}), "shape"),
    "overlapping masks": (lambda d: d.val_mask.__setitem__(1, True), "train_mask and val_mask.*node 1"),
    "empty training split": (lambda d: d.train_mask.zero_(), "training split is empty"),
    "mask on an unlabelled node": (lambda d: d.test_mask.__setitem__(4, True), "test_mask.*node 4"),
    "mask of numbers": (lambda d: d.update({"val_mask": d.val_mask.long()}), "val_mask"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("kind", WRONG)
def test_unsound_graph_is_refused_in_one_line(data, kind):
    spoil, said = WRONG[kind]
    spoil(data)
    with pytest.raises(InputError, match=said) as caught:
        check(data)
    assert "\n" not in str(caught.value)
