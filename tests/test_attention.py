"""Attention by products is PyG's attention: outputs and every gradient, whatever the graph."""

import pytest
import torch
from torch_geometric.nn import GATConv
from torch_geometric.nn.models import GAT

from mowst.kernels.adjacency import Adjacency
from mowst.kernels.attention import AttentionConv, attend
from mowst.models.experts import expert
from mowst.models.reads import reads_of, run_module, suited
from tests.test_propagation import GRAPHS, N, edges, relative_error, run

LAYERS = {
    "one head": {},
    "four heads": {"heads": 4},
    "heads averaged": {"heads": 3, "concat": False, "bias": False},
    "residual": {"heads": 2, "residual": True},
    "no self-loops": {"heads": 2, "add_self_loops": False},
    "another slope": {"negative_slope": 0.7},
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_output_and_every_gradient_equal_pyg_on_plain_edges(options, graph):
    torch.manual_seed(0)
    theirs = GATConv(7, 5, **options).double()
    ours = AttentionConv(7, 5, **options).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(N, 7, dtype=torch.double)
    got, want = run(ours, x, Adjacency.from_edge_index(graph, N)), run(theirs, x, graph)
    for value, oracle in zip(got, want, strict=True):
        torch.testing.assert_close(value, oracle, rtol=1e-9, atol=1e-12)


def test_gradients_equal_finite_differences():
    adjacency, random = Adjacency.from_edge_index(edges(), N), torch.Generator().manual_seed(3)
    inputs = [
        torch.randn(shape, dtype=torch.double, generator=random).requires_grad_()
        for shape in ((N, 2, 3), (N, 2), (N, 2))
    ]
    assert torch.autograd.gradcheck(lambda *given: attend(adjacency, *given), inputs)


def test_what_memory_held_before_changes_nothing():
    """New memory is not-a-number here, as it may be anywhere."""
    x, scores = torch.randn(N, 2, 3, requires_grad=True), torch.randn(2, N, 2, requires_grad=True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        attend(Adjacency.from_edge_index(edges(), N), x, *scores).square().sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert x.grad.isfinite().all()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_what_all_nodes_say_is_heard_unchanged_and_nothing_where_no_edge_leads(size):
    scores = [size * torch.randn(N, 2) for _ in range(2)]
    heard = attend(Adjacency.from_edge_index(edges(), N), torch.full((N, 2, 3), 4.0), *scores)
    reached = torch.zeros(N, dtype=torch.bool).index_fill(0, edges()[1], True)
    torch.testing.assert_close(heard, reached[:, None, None] * torch.full((N, 2, 3), 4.0))


def test_the_attention_is_that_of_the_paper():
    """Dense, from equation 3: a softmax over the row of every target."""
    torch.manual_seed(0)
    graph = edges().unique(dim=1)
    x, source, target = torch.randn(N, 1, 4), torch.randn(N, 1), torch.randn(N, 1)
    scores = torch.nn.functional.leaky_relu(target + source.t(), 0.2)
    there = torch.zeros(N, N, dtype=torch.bool).index_put((graph[1], graph[0]), torch.tensor(True))
    dense = scores.masked_fill(~there, -torch.inf).softmax(1).nan_to_num() @ x[:, 0]
    torch.testing.assert_close(attend(Adjacency.from_edge_index(graph, N), x, source, target)[:, 0], dense)


def test_dropped_edges_are_silent_and_the_others_louder():
    adjacency = Adjacency.from_edge_index(torch.stack([torch.arange(1, N), torch.zeros(N - 1).long()]), N)
    x = torch.eye(N)[:, None].expand(N, 200, N)  # who is heard by node 0, whose edges all weigh the same
    torch.manual_seed(0)
    heard = attend(adjacency, x, torch.zeros(N, 200), torch.zeros(N, 200), dropout=0.6)[0, :, 1:] * (N - 1)
    torch.testing.assert_close(heard, 2.5 * (heard != 0))
    assert float((heard == 0).float().mean()) == pytest.approx(0.6, abs=0.02)


def test_a_layer_drops_edges_in_training_alone(tiny):
    conv, adjacency = AttentionConv(8, 4, dropout=0.5), Adjacency.from_edge_index(tiny.edge_index, 60)
    assert not torch.equal(conv(tiny.x, adjacency), conv(tiny.x, adjacency))
    conv.eval()
    assert torch.equal(conv(tiny.x, adjacency), conv(tiny.x, adjacency))


@pytest.mark.parametrize("kind", ["gat", "gat-res"])
def test_the_experts_write_no_message_down(kind, tiny, monkeypatch):
    model = expert(kind, 8, 3, hidden_channels=8, num_layers=2, heads=2)
    for conv in model.convs:
        monkeypatch.setattr(conv, "message", lambda *args, **kwargs: pytest.fail("a message was written down"))
    adjacency = Adjacency.from_edge_index(tiny.edge_index, 60)
    assert suited(reads_of(model), adjacency) is adjacency
    run_module(model, reads_of(model), tiny.x, adjacency).sum().backward()


def test_gat_is_pygs_gat(tiny):
    options = {"in_channels": 8, "hidden_channels": 8, "num_layers": 3, "out_channels": 3, "heads": 4, "norm": None}
    ours, theirs = expert("gat", 8, 3, hidden_channels=8, num_layers=3, heads=4), GAT(**options)
    assert isinstance(ours, GAT)
    ours.load_state_dict(theirs.state_dict())
    for graph in (tiny.edge_index, Adjacency.from_edge_index(tiny.edge_index, 60)):
        torch.testing.assert_close(run_module(ours, reads_of(ours), tiny.x, graph), theirs(tiny.x, tiny.edge_index))


def test_what_is_no_product_takes_pygs_way(tiny):
    """The second version, both directions, features by edge, and two kinds of nodes are PyG's own."""
    adjacency = Adjacency.from_edge_index(tiny.edge_index, 60)
    second = expert("gat", 8, 3, hidden_channels=8, num_layers=2, v2=True)
    assert torch.equal(suited(reads_of(second), adjacency), tiny.edge_index)
    backwards = AttentionConv(8, 3, flow="target_to_source")
    torch.testing.assert_close(backwards(tiny.x, adjacency), backwards(tiny.x, tiny.edge_index))
    two = AttentionConv((8, 8), 3, add_self_loops=False)
    torch.testing.assert_close(two((tiny.x, tiny.x), adjacency), two((tiny.x, tiny.x), tiny.edge_index))
    by_edge, weight = AttentionConv(8, 3, edge_dim=1), torch.rand(tiny.edge_index.size(1), 1)
    torch.testing.assert_close(by_edge(tiny.x, adjacency, weight), by_edge(tiny.x, tiny.edge_index, weight))
    out, (_, weights) = AttentionConv(8, 3)(tiny.x, adjacency, return_attention_weights=True)
    assert out.shape == (60, 3)
    assert weights.size(1) == 1


def test_bfloat16_is_as_near_to_float32_as_pygs(tiny):
    theirs = GATConv(8, 16, heads=2)
    ours = AttentionConv(8, 16, heads=2)
    ours.load_state_dict(theirs.state_dict())
    adjacency, x = Adjacency.from_edge_index(tiny.edge_index, 60), tiny.x
    exact = run(theirs, x, tiny.edge_index)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x, adjacency).dtype == torch.bfloat16
        rough = [run(model, x, graph) for model, graph in ((ours, adjacency), (theirs, tiny.edge_index))]
    for want, got, usual in zip(exact, *rough, strict=True):
        assert relative_error(got, want) <= 2 * relative_error(usual, want) + 2**-8
