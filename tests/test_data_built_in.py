"""The two graphs that need no file: what was asked of them can be measured on them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from torch_geometric.utils import contains_self_loops, is_undirected

from mowst.data import check, digits, digits_knn, sbm
from mowst.errors import InputError


def same_class_share(data, wanted):
    """Share of same-class edges among those with both ends in `wanted`."""
    source, target = data.edge_index[:, wanted[data.edge_index].all(0)]
    return float((data.y[source] == data.y[target]).float().mean())


def nearest_centre_accuracy(data, nodes):
    """Accuracy on half of `nodes`, of the class centres of the other half."""
    index = nodes.nonzero().view(-1)
    fit, rest = index[::2], index[1::2]
    centres = torch.stack([data.x[fit][data.y[fit] == label].mean(0) for label in range(data.num_classes)])
    return float((torch.cdist(data.x[rest], centres).argmin(1) == data.y[rest]).float().mean())


@pytest.mark.parametrize("homophily", [0.1, 0.5, 0.9])
def test_measured_homophily_is_the_requested_one(homophily):
    data = sbm(homophily=homophily, useless_edges=0.0)
    assert same_class_share(data, torch.ones(3000, dtype=torch.bool)) == pytest.approx(homophily, abs=0.02)
    mixed = sbm(homophily=homophily, useless_edges=0.3)
    assert same_class_share(mixed, ~mixed.edges_useless) == pytest.approx(homophily, abs=0.03)


def test_neighbours_of_nodes_with_useless_edges_say_nothing_about_their_class():
    data = sbm(num_nodes=8000, homophily=0.9, useless_edges=0.4)
    source, target = data.edge_index[:, data.edges_useless[data.edge_index[0]]]
    assert float((data.y[source] == data.y[target]).float().mean()) == pytest.approx(0.25, abs=0.02)


def test_useless_features_say_nothing_about_the_class_and_useful_ones_do():
    data = sbm(num_nodes=6000, signal=3.0)
    assert nearest_centre_accuracy(data, data.feature_useless) == pytest.approx(0.25, abs=0.04)
    assert nearest_centre_accuracy(data, ~data.feature_useless) > 0.9


def test_stronger_signal_is_easier():
    scores = [nearest_centre_accuracy(sbm(signal=s, useless_features=0.0), torch.ones(3000).bool()) for s in (0, 1, 3)]
    assert scores[0] < 0.32 < scores[1] < scores[2]


def test_shares_of_useless_nodes_are_the_requested_ones_and_disjoint():
    data = sbm(useless_features=0.2, useless_edges=0.5)
    assert int(data.feature_useless.sum()) == 600
    assert int(data.edges_useless.sum()) == 1500
    assert not (data.feature_useless & data.edges_useless).any()


def test_equal_seeds_draw_equal_graphs_and_others_do_not():
    first, again, other = sbm(seed=1), sbm(seed=1), sbm(seed=2)
    for key in ("x", "y", "edge_index", "train_mask"):
        assert torch.equal(first[key], again[key])
    assert not torch.equal(first.x, other.x)


def test_drawing_a_graph_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    sbm()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "settings",
    [{"homophily": 1.2}, {"useless_features": 0.7, "useless_edges": 0.7}, {"num_classes": 1}, {"degree": 0}, {"n": 9}],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(InputError, match="sbm"):
        sbm(**settings)


@pytest.mark.parametrize("build", [digits, digits_knn, sbm])
def test_built_in_graph_is_sound_simple_and_symmetric(build):
    data = build()
    check(data)
    assert is_undirected(data.edge_index)
    assert not contains_self_loops(data.edge_index)
    assert data.edge_index.unique(dim=1).size(1) == data.edge_index.size(1)
    assert data.count_mismatch is None


@pytest.mark.parametrize(("build", "count", "val", "width"), [(digits, 20, 300, 32), (digits_knn, 5, 100, 64)])
def test_digits_are_few_labelled_and_fixed(build, count, val, width):
    data = build()
    sizes = [int(data[mask].sum()) for mask in ("train_mask", "val_mask", "test_mask")]
    assert sizes == [10 * count, val, 1797 - 10 * count - val]
    assert torch.equal(data.train_mask, build().train_mask)
    assert data.y[data.train_mask].bincount().tolist() == [count] * 10
    assert 0 <= float(data.x.min()) < float(data.x.max()) == 1
    assert data.x.size(1) == width


def test_what_digits_show_is_not_what_joins_them():
    """Neighbours by the right halves are scikit-learn's; the features are the left halves."""
    images, data = load_digits().images / 16, digits(neighbours=3)
    assert torch.allclose(data.x, torch.tensor(images[:, :, :4].reshape(1797, 32)).float())
    right = images[:, :, 4:].reshape(1797, 32)
    far, _ = NearestNeighbors(n_neighbors=4).fit(right).kneighbors(right)
    source, target = data.edge_index.numpy()
    apart = np.linalg.norm(right[source] - right[target], axis=1)
    assert (apart <= np.maximum(far[source, 3], far[target, 3]) + 1e-9).all()
