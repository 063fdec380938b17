"""Labels spread over edges: PyG's own on plain edges, by training labels alone, and weights that count."""

import pytest
import torch
from torch_geometric.nn.models import CorrectAndSmooth, LabelPropagation

from mowst import Config
from mowst.evaluation import Spread
from mowst.experiment import run
from mowst.kernels import Adjacency
from tests.graphs import good


def spread_of(data, y=None, weight=None) -> Spread:
    adjacency = Adjacency.from_edge_index(data.edge_index, len(data.y), weight)
    return Spread(adjacency, data.y if y is None else y, data.train_mask)


def test_they_are_pygs_on_plain_edges():
    data, said = good(), torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    train = data.train_mask.nonzero().flatten()
    known = torch.nn.functional.one_hot(data.y, 3).float()
    wanted = LabelPropagation(50, 0.9)(known, data.edge_index, train)
    assert torch.allclose(spread_of(data).labels(3).values.exp(), wanted.clamp_min(1e-6), atol=1e-5)
    wanted = CorrectAndSmooth(50, 1.0, 50, 0.8)(said.softmax(1), data.y[train], train, data.edge_index)
    assert torch.allclose(spread_of(data).corrected(said).values.exp(), wanted.clamp_min(1e-6), atol=1e-5)


@pytest.mark.parametrize("outside", [-100, 0, 7])
def test_labels_outside_the_training_set_are_not_looked_at(outside):
    data, said = good(), torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    hidden = torch.where(data.train_mask, data.y, outside)
    assert torch.equal(spread_of(data).labels(3).values, spread_of(data, hidden).labels(3).values)
    assert torch.equal(spread_of(data).corrected(said).values, spread_of(data, hidden).corrected(said).values)


def test_an_edge_without_weight_carries_no_label():
    data = good()
    target = int((~data.train_mask).nonzero()[0])
    weight = (data.edge_index[1] != target).float()
    said = spread_of(data, weight=weight).labels(3).values
    assert torch.equal(said[target], said[target, :1].expand(3))


def test_a_table_of_scores_names_both():
    from mowst.reporting.table import ordered

    result = run(Config(dataset="tests.graphs:good", epochs=2, seeds=1, device="cpu"))
    words = ordered(result)
    assert words["label-propagation"] == "labels spread over the edges"
    assert words["correct-and-smooth"] == "weak expert, corrected and smoothed"
