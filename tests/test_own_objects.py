"""What a library's user hands over, and what is said where another form is meant."""

import warnings

import networkx as nx
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.transforms import ToSparseTensor
from torch_geometric.utils import to_edge_index

from mowst import MowstClassifier, from_networkx
from mowst.data import read
from mowst.errors import InputError
from tests.graphs import good
from tests.test_own_graphs import people, written


class Mine(nn.Module):
    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.layer = nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return self.layer(x)


class Broken(Mine):
    def forward(self, x, edge_index):
        return self.layer(x) * torch.nan


def small(**options) -> MowstClassifier:
    return MowstClassifier(**{"weak": "mlp", "strong": "gcn", "epochs": 2, "folds": 2, "device": "cpu"} | options)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A classifier and its graph, whose nodes have names."""
    folder = tmp_path_factory.mktemp("named")
    written(folder, *people())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = read(folder, label="drink")
        return small().fit(data), data


@pytest.mark.parametrize("kind", [list, tuple])
def test_nodes_go_by_name_where_they_have_names(named, kind):
    classifier, data = named
    places = [7, 3, 7]
    called = kind(data.node_names[place] for place in places)
    for ask in (classifier.predict, classifier.predict_proba):
        assert torch.equal(ask(data, called), ask(data, places))
    assert (classifier.expert_of(data, called) == classifier.expert_of(data, places)).all()
    with pytest.raises(InputError, match="nodes: no node is called nobody; they are p"):
        classifier.predict(data, [called[0], "nobody"])


def test_names_need_a_graph_that_has_them():
    classifier = small().fit(good())
    with pytest.raises(InputError, match="the data has no node_names, by which to find a; give numbers from 0"):
        classifier.predict(good(), ["a"])


@pytest.mark.parametrize("given", [Mine, Mine(2, 3)])
@pytest.mark.parametrize("place", ["weak", "strong", "gate"])
def test_a_module_is_given_by_its_path(given, place):
    with pytest.raises(InputError, match=f"{place}: give a module of your own by its path, {place}='{__name__}:Mine'"):
        small(**{place: given}).fit(good())


def test_that_path_is_taken():
    assert len(small(strong=f"{__name__}:Mine").fit(good()).predict(good())) == 60


@pytest.mark.parametrize("place", ["weak", "strong"])
def test_an_expert_that_says_no_numbers_is_named(place):
    with pytest.raises(FloatingPointError, match=rf"{place}.* no number"):
        small(**{place: f"{__name__}:Broken"}).fit(good())


def test_choices_are_listed_as_such():
    with pytest.raises(InputError, match=r"preset: must be one of 'fast', 'good', 'best', got 'slow'"):
        small(preset="slow").fit(good())


def test_what_is_no_graph_is_said_before_labels_that_belong_to_it():
    data = good()
    with pytest.raises(InputError, match="data: must be a PyG Data, is a Tensor"):
        small().fit(data.x, data.y)
    with pytest.raises(InputError, match=r"y: the labels of a graph are its data.y"):
        small().fit(data, data.y)


def test_a_part_that_is_missing_comes_with_a_remedy_that_works():
    from torch_geometric.transforms import LocalDegreeProfile

    data = good()
    without = Data(**{key: value for key, value in data.to_dict().items() if key != "x"}, num_nodes=60)
    with pytest.raises(InputError, match=r"x is missing; torch_geometric.transforms.LocalDegreeProfile\(\)\(data\)"):
        small().fit(without)
    small().fit(LocalDegreeProfile()(without))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse = ToSparseTensor()(data.clone())
    with pytest.raises(
        InputError, match=r"no edge_index; torch_geometric.utils.to_edge_index\(data.adj_t\)\[0\].flip\(0\)"
    ):
        small().fit(sparse)
    made = to_edge_index(sparse.adj_t)[0].flip(0)
    assert {tuple(pair) for pair in made.t().tolist()} == {tuple(pair) for pair in data.edge_index.t().tolist()}


@pytest.mark.parametrize("features", [(), [], None])
def test_a_network_without_features_is_sent_to_the_reader_that_makes_some(features, tmp_path):
    G = nx.karate_club_graph()
    with pytest.raises(InputError, match=r"mowst.data.read makes features of its structure: nx.write_graphml"):
        from_networkx(G, "club", features)
    with pytest.raises(InputError, match="features: name at least one"):
        from_networkx(G, "club")
    nx.write_graphml(G, tmp_path / "g.graphml")
    assert read(tmp_path / "g.graphml", label="club").num_features > 1
