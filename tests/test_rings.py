"""Layers of a batch of neighbourhoods, each run for the nodes that later ones look at."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

import graphkd
from mowst.evaluation import accuracy, signal
from mowst.kernels import ALL, Adjacency, prepare_features
from mowst.models import LearnedGate, Mowst, Panel, Reads, expert, reads_of, run_module
from mowst.training import Batch, Needs, Neighbours, Trainer
from tests.graphs import TRAINED, good

SCORE = signal("metric", accuracy)
OPTIONS = {
    **{name: (name, {}) for name in TRAINED if name not in ("mlp", "sign")},
    "gat of two heads": ("gat", {"heads": 2}),
    "gat of the second version": ("gat", {"v2": True}),
    "sage that keeps all layers": ("sage", {"jk": "cat"}),
    "gcn that keeps the largest": ("gcn", {"jk": "max"}),
    "gin with a layer behind": ("gin", {"jk": "last"}),
    "sage with another activation": ("sage", {"act": "elu"}),
    "sage that takes the largest": ("sage", {"aggr": "max"}),
    "gcn-res with a layer in front": ("gcn-res", {"pre_linear": True}),
}
"""Experts, of which those that look at edges have three layers."""
LAYERS = {"hidden_channels": 12, "num_layers": 3, "norm": "batch_norm", "dropout": 0.3}


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def prepared(*, sparse: bool = False) -> Data:
    data = good()
    data.x = prepare_features((data.x > 1).double().to_sparse()) if sparse else data.x.double()
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    return data


def lived(model: nn.Module, data: Data) -> nn.Module:
    """Let batch norm see the graph, with weights that are not those of a layer that is new."""
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    with torch.no_grad():
        run_module(model.train(), reads_of(model), data.x, data.adj_t)
    return model.eval()


def needs_of(model: nn.Module, **more: bool) -> Needs:
    return Needs(reads_of(model).hops, graphkd.Scope.NODE, frozenset({"train"}), **more)


def said(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return what a model says of the nodes that are asked for, and the gradient of some function of it."""
    model.zero_grad()
    out = run_module(model, reads_of(model), batch.x, batch.graph)
    out = out if batch.seeds is None else out[batch.seeds]
    out.square().sum().backward()
    return out.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_cut_batch_says_of_its_seeds_what_an_uncut_one_says(kind, sparse):
    name, more = OPTIONS[kind]
    data = prepared(sparse=sparse)
    torch.manual_seed(0)
    model = lived(expert(name, 8, 16, **LAYERS, **more), data)
    for fanouts in ((2, 2, 2), (ALL, ALL, ALL)):
        feed, whole = Neighbours(fanouts, 12), Batch.of(data)
        looked_up = needs_of(model, seeds_alone=True, looked_up=reads_of(model).looked_up)
        plain, cut = feed.training(whole, needs_of(model))(1), feed.training(whole, looked_up)(1)
        for one, other in zip(plain, cut, strict=True):
            assert other.nodes.tolist() == one.nodes[one.seeds].tolist()
            (theirs, their_slopes), (ours, slopes) = said(model, one), said(model, other)
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)
            for mine, slope in zip(slopes, their_slopes, strict=True):
                torch.testing.assert_close(mine, slope, atol=1e-10, rtol=1e-10)
            if fanouts[0] == ALL:
                everything = run_module(model, reads_of(model), whole.x, whole.graph)[other.nodes]
                torch.testing.assert_close(ours, everything, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("kind", ["gcn", "sage", "gat", "gin-skip", "gcn-res"])
def test_each_layer_is_run_for_the_nodes_that_later_ones_look_at(kind):
    data = prepared()
    model = lived(expert(kind, 8, 3, **LAYERS), data)
    batch = next(iter(Neighbours((2, 2, 2), 5).training(Batch.of(data), needs_of(model, seeds_alone=True))(1)))
    rows, norms = list[int](), list[int]()
    for layer in model.convs:
        layer.register_forward_hook(lambda _, inputs, out: rows.append(len(out)))
    for norm in model.norms:
        norm.register_forward_hook(lambda _, inputs, out: norms.append(len(out)))
    assert len(run_module(model, reads_of(model), batch.x, batch.graph)) == len(batch.nodes)
    within = batch.graph.around.sizes
    assert rows == list(within[2::-1])
    assert norms[:2] == rows[:2]  # a batch norm is one of the nodes that count
    assert within[0] == len(batch.nodes) < within[1] < within[2] < within[3]


def test_no_neighbour_is_drawn_whose_features_only_a_first_product_would_read():
    data, model = prepared(), expert("sage", 8, 3, **LAYERS)
    whole, feed = Batch.of(data), Neighbours((2, 2, 2), 5)
    both = [needs_of(model, seeds_alone=True, looked_up=looked_up) for looked_up in (False, True)]
    drawn, spared = (next(iter(feed.training(whole, needs)(1))) for needs in both)
    assert spared.graph.around.sizes == drawn.graph.around.sizes[:-1]
    with pytest.raises(AssertionError, match="no neighbours were drawn"):
        spared.graph.ring(2, len(spared.graph)).times(torch.rand(len(spared.graph), 8))  # other features
    data.x = torch.from_numpy(data.x.numpy())  # into which others may write: no product with it is kept
    again = next(iter(feed.training(Batch.of(data), both[1])(1)))
    assert len(again.graph.around.sizes) == 4


class Own(nn.Module):
    """An expert of one's own that looks at its neighbours, of which no more is known."""

    def __init__(self, reads):
        super().__init__()
        self.reads, self.inside = reads, expert("sage", 8, 3, **LAYERS)

    def forward(self, x, edge_index):
        return self.inside(x, edge_index)


@pytest.mark.parametrize("reads", [Reads(3, adjacency=True), Reads(3)], ids=["adjacency", "edges"])
def test_parts_of_a_mixture_are_cut_and_what_cannot_be_is_not(reads):
    data = prepared()
    torch.manual_seed(0)
    small = LAYERS | {"num_layers": 2}
    panel = Panel({"gcn": expert("gcn", 8, 3, **small), "own": Own(reads), "mlp": expert("mlp", 8, 3, **small)})
    model = lived(Mowst(expert("mlp", 8, 3, **LAYERS), panel, LearnedGate()), data)
    trainer = Trainer(model, data, SCORE, feed=Neighbours((2, 2, 2), 12))
    cut = trainer.glimpse(graphkd.Scope.NODE, ["train"])
    plain = trainer.glimpse(graphkd.Scope.EDGES, ["train"])
    assert len(cut[0].weak) == len(cut[1].y) == len(cut[1].nodes)
    same = {int(node): place for place, node in enumerate(plain[1].nodes)}
    places = torch.tensor([same[int(node)] for node in cut[1].nodes])
    for ours, theirs in zip(cut[0][:3], plain[0].rows(places)[:3], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


def test_a_loss_sees_all_rows_of_the_layers_that_it_looks_at():
    model = expert("sage", 8, 3, **LAYERS)
    trainer = Trainer(model, prepared(), SCORE, feed=Neighbours((2, 2, 2), 12))
    assert trainer.glimpse(graphkd.Scope.NODE, ["train"])[1].seeds is None
    with graphkd.hidden_of(model):
        out, batch = trainer.glimpse(graphkd.Scope.NODE, ["train"])
        assert len(out.values) == len(batch.nodes) > len(batch.seeds)


class Curious(Mowst):
    """A mixture of one's own that looks at edges, too."""

    def forward(self, x, edge_index, **known):
        assert len(x) == edge_index.size(0)
        return super().forward(x, edge_index, **known)


def test_a_mixture_that_may_look_at_edges_itself_is_given_all_rows():
    experts = expert("mlp", 8, 3, **LAYERS), expert("sage", 8, 3, **LAYERS)
    trainer = Trainer(Curious(*experts, LearnedGate()), prepared(), SCORE, feed=Neighbours((2, 2, 2), 12))
    out, batch = trainer.glimpse(graphkd.Scope.NODE, ["train"])
    assert len(out.weak) == len(batch.nodes) > len(batch.seeds)


def test_dropout_is_where_it_is_in_the_whole_model():
    data, model = prepared(), expert("sage", 8, 3, **LAYERS, act="elu").train()
    model.dropout = nn.Dropout(1.0)  # of hidden layers nothing is left, so that all nodes are the same
    for needs in (needs_of(model), needs_of(model, seeds_alone=True)):
        batch = next(iter(Neighbours((2, 2, 2), 12).training(Batch.of(data), needs)(1)))
        out, _ = said(model, batch)
        assert torch.equal(out, model.convs[-1].lin_l.bias.detach().expand(len(out), -1))
