"""A graph that lies elsewhere, and a double of the library that holds such graphs on many GPUs."""

import inspect
import sys
from types import ModuleType

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.testing import MyFeatureStore, MyGraphStore

import graphkd
from mowst.errors import InputError
from mowst.evaluation import accuracy, signal
from mowst.kernels import ALL, Adjacency, Brought, NeighbourSampler, neighbourhood
from mowst.models import LearnedGate, Mowst, expert
from mowst.training import REGIMES, Batch, Needs, OnCuGraph, Remote, Schedule, Share, Trainer
from tests.graphs import good

SCORE = signal("metric", accuracy)
LAYERS = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm", "dropout": 0.2}


class NeighborLoader:
    """Stands for `cugraph_pyg.loader.NeighborLoader`, with the arguments that are documented of it (26.10)."""

    def __init__(self, data, num_neighbors, input_nodes=None, *, batch_size=16, shuffle=False, replace=False, **others):
        assert not others
        _, graph = data
        (edges,) = graph.get_all_edge_attrs()
        source, target = graph.get_edge_index(edges)
        sampler = NeighbourSampler(torch.stack([source, target]), 60, num_neighbors)
        self.loader = NodeLoader(data, sampler, input_nodes=input_nodes, batch_size=batch_size, shuffle=shuffle)

    def __iter__(self):
        return iter(self.loader)


@pytest.fixture
def held(monkeypatch) -> tuple[Data, OnCuGraph]:
    """Return a graph, and the same in the stores of another library."""
    loader = ModuleType("cugraph_pyg.loader")
    loader.NeighborLoader = NeighborLoader
    monkeypatch.setitem(sys.modules, "cugraph_pyg", ModuleType("cugraph_pyg"))
    monkeypatch.setitem(sys.modules, "cugraph_pyg.loader", loader)
    data = good()
    features, graph = MyFeatureStore(), MyGraphStore()
    features["node", "x", None] = data.x
    graph.put_edge_index(data.edge_index, edge_type=("node", "to", "node"), layout="coo", size=(60, 60))
    return data, OnCuGraph(features, graph, torch.bincount(data.edge_index[1], minlength=60))


def labels_of(data: Data) -> Data:
    """Leave what is here of a graph that lies elsewhere."""
    masks = {name: data[name] for name in ("train_mask", "val_mask", "test_mask")}
    return Data(x=torch.empty(60, 0), edge_index=torch.empty(2, 0, dtype=torch.long), y=data.y, **masks)


@pytest.mark.parametrize("fanouts", [(2, 2), (ALL, ALL)])
def test_what_was_brought_is_what_would_have_been_cut_from_the_graph(fanouts):
    edges = torch.randint(0, 60, (2, 500), generator=torch.Generator().manual_seed(1)).unique(dim=1)
    whole = Adjacency.from_edge_index(edges[:, edges[0] != edges[1]], 60)
    drawn = neighbourhood(whole.rows, torch.arange(9), fanouts, torch.Generator().manual_seed(0))
    x = torch.rand(len(drawn.nodes), 5)
    ours, theirs = Brought.of(drawn, whole.rows.start.diff()[drawn.nodes], x), whole.thinned(drawn)
    for one, other in ((ours, theirs), (ours.averaging(), theirs.averaging()), (ours.gcn(), theirs.gcn())):
        torch.testing.assert_close(one.times(x), other.times(x))
    for reduce in ("sum", "mean"):
        torch.testing.assert_close(ours.uncut().aggregate(x, reduce), theirs.aggregate(x, reduce))


@pytest.mark.parametrize("name", ["mlp", "gcn", "sage", "gin", "gat", "sage-res"])
def test_with_every_neighbour_a_model_says_what_it_says_on_the_whole_graph(held, name):
    data, holder = held
    torch.manual_seed(0)
    model = expert(name, 8, 3, **LAYERS)
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    expected = Trainer(model, data, SCORE).output().values
    found = Trainer(model, labels_of(data), SCORE, feed=Remote(holder, (ALL, ALL), size=13)).output().values
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_mixture_trains_on_it(held):
    data, holder = held
    torch.manual_seed(1)
    model = Mowst(expert("mlp", 8, 3, **LAYERS), expert("sage", 8, 3, **LAYERS), LearnedGate())
    trainer = Trainer(model, labels_of(data), SCORE, feed=Remote(holder, (3, 2), (ALL, ALL), size=12))
    REGIMES.lookup("joint")(trainer, Schedule(epochs=15, lr=0.02, pretrain="both"))
    assert trainer.best.score > 0.6


@pytest.mark.parametrize("size", [1, 7, 12, 60])
@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_every_node_is_in_one_share_and_shares_have_as_many_steps(held, size, devices):
    data, holder = held
    whole, feed = Batch.of(labels_of(data)), Remote(holder, (2,), size=size)
    for on in ({"train"}, {"all"}):
        needs = Needs(1, graphkd.Scope.NODE, frozenset(on), seeds_alone=True)
        shares = [list(feed.training(whole, needs._replace(share=Share(rank, devices)))(1)) for rank in range(devices)]
        assert len(set(map(len, shares))) == 1
        seen = torch.cat([batch.nodes for share in shares for batch in share]).sort().values
        assert torch.equal(seen, data.train_mask.nonzero().squeeze(-1) if on == {"train"} else torch.arange(60))


def test_what_cannot_be_is_a_line(held, monkeypatch):
    data, holder = held
    whole, feed = Batch.of(labels_of(data)), Remote(holder, (2,))
    needs = Needs(1, graphkd.Scope.NODE, frozenset({"train"}), seeds_alone=True)
    with pytest.raises(InputError, match="the model reaches 2 hops; give as many fan-outs"):
        feed.training(whole, needs._replace(hops=2))
    with pytest.raises(InputError, match="sees the outputs of single nodes alone"):
        feed.training(whole, needs._replace(scope=graphkd.Scope.EDGES))
    monkeypatch.setitem(sys.modules, "cugraph_pyg.loader", None)
    with pytest.raises(InputError, match="cugraph-pyg is not installed"):
        next(iter(feed.training(whole, needs)(1)))


def test_the_double_has_the_arguments_that_the_library_has():
    library = pytest.importorskip("cugraph_pyg.loader")
    theirs = inspect.signature(library.NeighborLoader.__init__).parameters
    assert {"data", "num_neighbors", "input_nodes", "batch_size"} <= theirs.keys()
