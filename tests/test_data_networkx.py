"""A networkx graph goes in by names and comes out by names."""

import math

import networkx as nx
import pytest
import torch
from torch_geometric.utils import is_undirected

from mowst.data import from_networkx
from mowst.errors import InputError


@pytest.fixture
def graph():
    """Twelve people in a ring, every third without a label."""
    G = nx.cycle_graph(12)
    for node in G:
        G.nodes[node].update(age=20 + node, place=[0.1 * node, -1.0], field=["tea", "coffee"][node % 2])
    for node, nothing in ((0, None), (3, math.nan), (6, "")):
        G.nodes[node]["field"] = nothing
    del G.nodes[9]["field"]
    return nx.relabel_nodes(G, lambda node: f"person {node}")


def test_labels_and_nodes_go_back_to_their_names(graph):
    data = from_networkx(graph, "field", ["age", "place"])
    assert data.node_names == list(graph)
    assert data.class_names == ["coffee", "tea"]
    assert data.num_classes == 2
    for name, label in zip(data.node_names, data.y.tolist(), strict=True):
        truth = graph.nodes[name].get("field")
        assert (data.class_names[label] == truth) if label >= 0 else truth in (None, "") or math.isnan(truth)
    assert (data.y == -1).sum() == 4


def test_numbers_and_vectors_become_columns(graph):
    data = from_networkx(graph, "field", ["age", "place"])
    assert data.x.shape == (12, 3)
    assert data.x[5].tolist() == pytest.approx([25, 0.5, -1])
    assert data.x.dtype == torch.float32


def test_edges_join_the_named_nodes(graph):
    data = from_networkx(graph, "field", ["age"])
    found = {frozenset(data.node_names[end] for end in pair) for pair in data.edge_index.t().tolist()}
    assert found == {frozenset(edge) for edge in graph.edges}


@pytest.mark.parametrize("kind", [nx.DiGraph, nx.MultiDiGraph, nx.MultiGraph])
def test_directed_and_repeated_edges_become_simple_and_symmetric(graph, kind):
    G = kind(graph)
    G.add_edge("person 1", "person 2")
    G.add_edge("person 1", "person 1")
    data = from_networkx(G, "field", ["age"])
    assert is_undirected(data.edge_index)
    assert data.edge_index.size(1) == 24


def test_split_is_seeded_over_labelled_nodes_only(graph):
    data = from_networkx(graph, "field", ["age"], seed=1, train=0.5, val=0.25)
    assert [int(data[mask].sum()) for mask in ("train_mask", "val_mask", "test_mask")] == [4, 2, 2]
    assert torch.equal(data.train_mask, from_networkx(graph, "field", ["age"], seed=1).train_mask)
    few = from_networkx(graph, "field", ["age"], split="per-class", train=1, val=2)
    assert int(few.train_mask.sum()) == 2


def spoil_age(graph, value):
    graph.nodes["person 4"]["age"] = value


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda G: G.nodes["person 4"].pop("age"), "'person 4' has no attribute 'age'"),
        (lambda G: spoil_age(G, "old"), "'person 4' is 'old'"),
        (lambda G: spoil_age(G, "7"), "'person 4' is '7'"),
        (lambda G: spoil_age(G, [1, 2]), "'person 4' has length 2"),
        (lambda G: spoil_age(G, math.nan), "node 4 is nan"),
        (lambda G: G.remove_edges_from(list(G.edges)), "no edges"),
        (lambda G: G.remove_nodes_from(list(G)), "no nodes"),
        (lambda G: [G.nodes[node].update(field=node) for node in G], "12 classes for 12"),
    ],
)
def test_unsuitable_graph_is_refused_by_name(graph, spoil, said):
    spoil(graph)
    with pytest.raises(InputError, match=said) as caught:
        from_networkx(graph, "field", ["age"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"split": "public"}, {"fraction": 0.5}, {"features": []}])
def test_unknown_options_are_refused(graph, wrong):
    with pytest.raises(InputError):
        from_networkx(graph, "field", **{"features": ["age"], **wrong})
