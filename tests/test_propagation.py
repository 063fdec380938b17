"""An adjacency gives what PyG gives on the plain edges: outputs and gradients, whatever the graph."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import GAT, GCN, GIN, PNA, GraphSAGE
from torch_geometric.utils import to_undirected

from mowst.errors import InputError
from mowst.kernels.adjacency import Adjacency, normalized
from mowst.kernels.sparse import Rows
from mowst.models.reads import Reads, reads_of, suited

N = 40


def edges(directed: bool = True) -> torch.Tensor:
    """Random edges with duplicates and self-loops; the last five nodes are isolated, node 0 has no edge in."""
    edge_index = torch.randint(0, N - 5, (2, 6 * N), generator=torch.Generator().manual_seed(0))
    edge_index = torch.cat([edge_index[:, edge_index[1] != 0], torch.tensor([[3, 3, 4, 4], [3, 3, 5, 5]])], dim=1)
    return edge_index if directed else to_undirected(edge_index)


GRAPHS = {
    "directed, duplicates, self-loops, isolated nodes": edges(),
    "symmetric": edges(directed=False),
    "one edge": torch.tensor([[1], [2]]),
    "no edge": torch.empty(2, 0, dtype=torch.long),
}
MODELS = {
    "gcn": (GCN, {}),
    "sage mean": (GraphSAGE, {}),
    "sage max": (GraphSAGE, {"aggr": "max"}),
    "sage two aggregations": (GraphSAGE, {"aggr": ["mean", "max"]}),
    "gin": (GIN, {"train_eps": True}),
    "gat": (GAT, {}),
}


class NormalisedGCN(GCN):
    """PyG's GCN on a normalised adjacency that is handed in."""

    reads = Reads(adjacency=True)

    def forward(self, x, edge_index):
        return super().forward(x, normalized(edge_index, x.size(0)))


def run(model: nn.Module, x: torch.Tensor, graph: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradient of x and of every parameter, for a loss that weighs all entries differently."""
    x = x.clone().requires_grad_()
    out = model(x, graph)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), [x, *model.parameters()])]


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-12))


def pair(name: str) -> tuple[nn.Module, nn.Module]:
    """PyG's model, and the same weights in the form that takes an adjacency where there is one."""
    torch.manual_seed(0)
    model, options = MODELS[name]
    size = {"hidden_channels": 16, "num_layers": 3, "out_channels": 4, "norm": "batch_norm"}
    plain = model(7, **size, **options)
    ours = NormalisedGCN(7, **size, normalize=False) if name == "gcn" else copy.deepcopy(plain)
    ours.load_state_dict(plain.state_dict())
    return plain.double(), ours


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("name", MODELS)
def test_output_and_every_gradient_equal_pyg_on_plain_edges(name, graph):
    plain, ours = pair(name)
    x = torch.randn(N, 7, dtype=torch.float64)
    adjacency = Adjacency.from_edge_index(graph, N, torch.ones(graph.size(1), dtype=torch.float64))
    got, want = run(ours.double(), x, suited(reads_of(ours), adjacency)), run(plain, x, graph)
    largest = max(float(oracle.norm()) for oracle in want)
    for value, oracle in zip(got, want, strict=True):
        torch.testing.assert_close(value, oracle, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("name", MODELS)
def test_float32_is_as_near_to_float64_as_its_rounding(name, graph):
    """Judge all parameters together: the gradient of a bias before batch norm is zero, and has no relative error."""
    plain, ours = pair(name)
    x = torch.randn(N, 7)
    got = run(ours, x, suited(reads_of(ours), Adjacency.from_edge_index(graph, N)))
    want = run(plain, x.double(), graph)
    for part in (slice(0, 1), slice(1, 2), slice(2, None)):
        value, oracle = (torch.cat([tensor.double().flatten() for tensor in side[part]]) for side in (got, want))
        assert relative_error(value, oracle) < 1e-5


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_normalised_entries_equal_gcn_norm(graph):
    weight = torch.rand(graph.size(1)) + 0.1
    for weights in (None, weight):
        dense = torch.zeros(N, N)
        edge_index, entries = gcn_norm(graph, weights, N)
        dense.index_put_((edge_index[1], edge_index[0]), entries, accumulate=True)
        adjacency = Adjacency.from_edge_index(graph, N, weights).gcn()
        torch.testing.assert_close(adjacency @ torch.eye(N), dense)
        torch.testing.assert_close(torch.sparse.mm(adjacency, torch.eye(N)), dense)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("weighted", [False, True])
def test_weighted_products_equal_a_loop_over_edges(reduce, weighted):
    edge_index, x = edges(), torch.randn(N, 3, dtype=torch.float64)
    weight = torch.rand(edge_index.size(1), dtype=torch.float64) if weighted else None
    adjacency = Adjacency.from_edge_index(edge_index, N, weight)
    got = torch.sparse.mm(adjacency, x, reduce) if reduce != "sum" else adjacency @ x
    for node in range(N):
        into = edge_index[1] == node
        messages = x[edge_index[0, into]] * (1 if weight is None else weight[into, None])
        if len(messages) == 0:
            want = torch.zeros(3, dtype=torch.float64)
        else:
            total = len(messages) if weight is None else weight[into].sum()
            mean = messages.sum(0) / total
            want = {"sum": messages.sum(0), "mean": mean, "max": messages.amax(0), "min": messages.amin(0)}[reduce]
        torch.testing.assert_close(got[node], want)


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_gradient_equals_finite_differences(reduce):
    edge_index = edges()[:, :60]
    adjacency = Adjacency.from_edge_index(edge_index, N, torch.rand(60, dtype=torch.float64))
    x = torch.randn(N, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: adjacency.aggregate(x, reduce), x)


def test_symmetric_graph_keeps_one_copy_and_directed_graph_two():
    symmetric = Adjacency.from_edge_index(edges(directed=False), N)
    assert symmetric.columns is symmetric.rows
    assert symmetric.gcn().columns is symmetric.gcn().rows
    assert symmetric.averaging().columns.column is symmetric.averaging().rows.column
    directed = Adjacency.from_edge_index(edges(), N)
    assert not torch.equal(directed.columns.column, directed.rows.column)


def test_normalisation_is_computed_once_per_graph_and_for_every_batch_of_plain_edges():
    adjacency = Adjacency.from_edge_index(edges(), N)
    assert normalized(adjacency, N) is normalized(adjacency, N) is adjacency.gcn()
    x = torch.randn(N, 3)
    torch.testing.assert_close(normalized(edges(), N) @ x, adjacency.gcn() @ x)


def test_who_takes_an_adjacency_is_decided_by_what_it_does():
    adjacency, edge_index = Adjacency.from_edge_index(edges(), N), edges()
    takes = [
        GraphSAGE(3, 4, 2),
        GraphSAGE(3, 4, 2, aggr="max"),
        GIN(3, 4, 2),
        GCN(3, 4, 2, normalize=False),
        NormalisedGCN(3, 4, 2),
    ]
    plain = [GCN(3, 4, 2), GCN(3, 4, 2, add_self_loops=False), GAT(3, 4, 2), GraphSAGE(3, 4, 2, aggr="lstm")]
    plain += [PNA(3, 4, 2, aggregators=["mean"], scalers=["identity"], deg=torch.ones(3)), nn.Linear(3, 4)]
    plain += [GraphSAGE(3, 4, 2, flow="target_to_source")]
    for module in takes:
        assert suited(reads_of(module), adjacency) is adjacency
        assert suited(reads_of(module), edge_index) is edge_index
    for module in plain:
        assert torch.equal(suited(reads_of(module), adjacency), edge_index)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_data_with_an_adjacency_can_be_copied_and_pickled(make):
    adjacency, x = Adjacency.from_edge_index(edges(), N), torch.randn(N, 2)
    data = make(Data(x=x, edge_index=edges(), adjacency=adjacency))
    assert torch.equal(data.adjacency @ x, adjacency @ x)
    order = (edges()[1] * N + edges()[0]).argsort(stable=True)
    assert torch.equal(data.adjacency.edge_index.sort(dim=1)[0], edges()[:, order].sort(dim=1)[0])
    assert data.to("cpu").adjacency is data.adjacency.cpu()


def test_bfloat16_under_autocast_stays_near_float32():
    torch.manual_seed(0)
    model = NormalisedGCN(7, 16, num_layers=2, out_channels=4, normalize=False)
    adjacency, x = Adjacency.from_edge_index(edges(), N), torch.randn(N, 7)
    want = run(model, x, adjacency)
    with torch.autocast("cpu", torch.bfloat16):
        got = run(model, x, adjacency)
        assert (adjacency @ x.bfloat16()).dtype == torch.bfloat16
    for value, oracle in zip(got, want, strict=True):
        assert value.dtype == oracle.dtype
        assert relative_error(value, oracle) < 2e-2


def test_what_is_no_product_is_refused_in_one_line():
    adjacency = Adjacency.from_edge_index(edges(), N)
    with pytest.raises(InputError, match="can only be multiplied"):
        adjacency + 1
    with pytest.raises(InputError, match="nodes 0 to 9"):
        Adjacency.from_edge_index(torch.tensor([[0], [10]]), 10)
    assert repr(adjacency) == f"Adjacency({N} x {N}, {edges().size(1)} entries)"
    assert adjacency.layout == torch.sparse_csr
    assert adjacency.shape == (N, N)


@pytest.mark.gpu
def test_products_on_a_gpu_equal_those_on_the_cpu():
    adjacency, x = Adjacency.from_edge_index(edges(), N), torch.randn(N, 7)
    model = GraphSAGE(7, 16, num_layers=2, out_channels=4)
    want = run(model, x, adjacency)
    got = run(model.cuda(), x.cuda(), adjacency.cuda())
    for value, oracle in zip(got, want, strict=True):
        assert relative_error(value.cpu(), oracle) < 1e-4


def test_the_product_with_constant_features_is_computed_twice_at_most_and_follows_their_changes(monkeypatch):
    torch.manual_seed(0)
    adjacency = Adjacency.from_edge_index(torch.randint(20, (2, 60)), 20)
    x, calls, times = torch.randn(20, 5), [], Rows.times
    monkeypatch.setattr(Rows, "times", lambda self, other: calls.append(1) or times(self, other))
    dense = torch.zeros(20, 20).index_put_(tuple(adjacency.edge_index.flip(0)), torch.ones(60), accumulate=True)
    for _ in range(5):
        torch.testing.assert_close(adjacency @ x, dense @ x)
    assert len(calls) == 2
    x.mul_(2)
    torch.testing.assert_close(adjacency @ x, dense @ x)
    for _ in range(3):
        hidden = torch.randn(20, 5)
        torch.testing.assert_close(adjacency @ hidden, dense @ hidden)
        learned = hidden.clone().requires_grad_()
        torch.testing.assert_close(
            torch.autograd.grad((adjacency @ learned).sum(), learned)[0], dense.t() @ torch.ones(20, 5)
        )


def test_a_kept_product_survives_being_written_into_and_is_never_made_for_inference_only():
    adjacency, x, weight = (
        Adjacency.from_edge_index(edges(), N),
        torch.randn(N, 3),
        torch.ones(N, 3, requires_grad=True),
    )
    want = adjacency.rows.times(x)
    with torch.inference_mode():
        for _ in range(3):
            torch.testing.assert_close(adjacency @ x, want)
            assert (adjacency @ torch.randn(N, 3)).shape == (N, 3)
    for _ in range(3):
        product = adjacency @ x
        torch.testing.assert_close(torch.autograd.grad((product * weight).sum(), weight)[0], want)
        product.add_(1)
    torch.testing.assert_close(adjacency @ x, want)


WRITERS = {
    "from_numpy": lambda x: (torch.from_numpy(array := x.numpy().copy()), lambda: array.fill(7)),
    "numpy": lambda x: (x, lambda: x.numpy().fill(7)),
    "asarray": lambda x: (x, lambda: np.asarray(x).fill(7)),
    "a view of what numpy sees": lambda x: ((whole := torch.cat([x, x]))[:N], lambda: whole.numpy().fill(7)),
    "torch": lambda x: (x, lambda: x.fill_(7)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_product_is_kept_of_features_that_numpy_wrote_into(name):
    adjacency = Adjacency.from_edge_index(edges(), N)
    x, write = WRITERS[name](torch.randn(N, 3))
    for _ in range(3):
        adjacency @ x
    write()
    torch.testing.assert_close(adjacency @ x, adjacency.rows.times(torch.full((N, 3), 7.0)))


def test_a_kept_product_that_numpy_wrote_into_is_made_anew():
    adjacency, x = Adjacency.from_edge_index(edges(), N), torch.randn(N, 3)
    for _ in range(3):
        product = adjacency @ x
    product.numpy().fill(7)
    torch.testing.assert_close(adjacency @ x, adjacency.rows.times(x))


@pytest.mark.parametrize(
    "write", [lambda edge_index: edge_index.zero_(), lambda edge_index: edge_index.numpy().fill(0)]
)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_prepared_graph_stays_as_it_was_whoever_writes_into_its_edges(write, foreign):
    edge_index = torch.from_numpy(edges().numpy().copy()) if foreign else edges()
    weight = torch.rand(edge_index.size(1))
    adjacency = Adjacency.from_edge_index(edge_index, N, weight)
    before = adjacency.gcn() @ torch.eye(N)
    write(edge_index)
    weight.zero_()
    again = Adjacency.from_edge_index(adjacency.edge_index, N, adjacency.edge_weight)
    torch.testing.assert_close(again @ torch.eye(N), adjacency @ torch.eye(N))
    assert int(adjacency.edge_index.max()) > 0
    torch.testing.assert_close(again.gcn() @ torch.eye(N), before)


def test_weights_come_back_in_the_order_of_the_edges():
    weight = torch.rand(edges().size(1))
    adjacency = Adjacency.from_edge_index(edges(), N, weight)
    assert torch.equal(adjacency.edge_index, edges())
    assert torch.equal(adjacency.edge_weight, weight)
    assert Adjacency.from_edge_index(edges(), N).edge_weight is None


def test_the_mean_over_edges_of_no_weight_is_zero():
    adjacency = Adjacency.from_edge_index(torch.tensor([[0, 1, 2], [3, 3, 1]]), 4, torch.tensor([0.0, 0.0, 2.0]))
    mean = adjacency.aggregate(torch.ones(4, 2), "mean")
    assert mean.tolist() == [[0, 0], [1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.tensor([1.0, -0.5]), "-0.5 at edge 1"),
        (torch.tensor([float("nan"), 1.0]), "nan at edge 0"),
        (torch.tensor([float("inf"), 1.0]), "inf at edge 0"),
        (torch.ones(3), "2 numbers, one an edge"),
        (torch.ones(2, 1), r"shape \[2, 1\]"),
        ([1.0, 1.0], "is list"),
        (torch.ones(2, dtype=torch.complex64), "complex64"),
    ],
)
def test_what_are_no_weights_is_refused(weight, words):
    with pytest.raises(InputError, match=f"^edge_weight: .*{words}"):
        Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3, weight)


def test_whole_numbers_are_weights_too():
    whole = Adjacency.from_edge_index(edges(), N, torch.full((edges().size(1),), 3))
    torch.testing.assert_close(
        whole.gcn() @ torch.eye(N),
        Adjacency.from_edge_index(edges(), N, torch.full((edges().size(1),), 3.0)).gcn() @ torch.eye(N),
    )


def test_a_layer_that_cannot_multiply_spoils_none_that_can():
    code = """
import torch, mowst.kernels.adjacency
from torch_geometric.nn import GCNConv, GINConv, SAGEConv
adjacency = mowst.kernels.adjacency.Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3)
for conv, args in ((SAGEConv, (4, 4)), (GINConv, (torch.nn.Identity(),))):
    conv(*args, aggr="median")
    conv(*args)(torch.randn(3, 4), adjacency)
GCNConv(4, 4, aggr="median")
GCNConv(4, 4, normalize=False)(torch.randn(3, 4), adjacency)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
