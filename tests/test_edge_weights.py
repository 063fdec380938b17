"""Weights of edges are used by every expert that multiplies by the graph, the same wherever it is run."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import models

from mowst.inference.frontier import Costs, at_nodes
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.sparse_features import prepare_features
from mowst.models.experts import GCN, expert
from mowst.models.gates import LearnedGate
from mowst.models.mixture import Mowst
from mowst.models.reads import Reads, reads_of, run_module
from tests.graphs import TRAINED
from tests.test_propagation import N, edges

WEIGHTED = {"gcn", "sage", "gin", "gin-skip", "gcn-res", "sage-res", "sign"}  # the oracle of sign is in test_sign
NODES = torch.tensor([9, 3, 39, 20])


def weights() -> torch.Tensor:
    """Of each edge; all edges into node 7 weigh nothing, and some others."""
    weight = torch.rand(edges().size(1), dtype=torch.double, generator=torch.Generator().manual_seed(4))
    weight[(edges()[1] == 7) | (weight < 0.1)] = 0
    return weight


def graph() -> Adjacency:
    return Adjacency.from_edge_index(edges(), N, weights())


def features(sparse: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 12, dtype=torch.double, generator=generator)
    return prepare_features(x * (torch.rand(N, 12, generator=generator) < 0.08)) if sparse else x


def build(name: str, num_layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return expert(name, 12, 4, hidden_channels=16, num_layers=num_layers, norm="layer_norm").double().eval()


def dense() -> torch.Tensor:
    """The weighted graph, target by source; parallel edges add up."""
    source, target = edges()
    return torch.zeros(N, N, dtype=torch.double).index_put_((target, source), weights(), accumulate=True)


def summed(x: torch.Tensor) -> torch.Tensor:
    return dense() @ x


def averaged(x: torch.Tensor) -> torch.Tensor:
    total = dense().sum(1, keepdim=True)
    return torch.where(total > 0, dense() @ x / total.clamp_min(1e-300), 0)


def normalised(x: torch.Tensor) -> torch.Tensor:
    """D^-1/2 (A + I) D^-1/2 x; a node with a self-loop keeps the last one that it has, as in PyG."""
    loops, (source, target) = torch.ones(N, dtype=torch.double), edges()
    for node, weight in zip(source[source == target], weights()[source == target], strict=True):
        loops[node] = weight
    whole = dense().fill_diagonal_(0) + torch.diag(loops)
    scale = whole.sum(1).pow(-0.5).nan_to_num(posinf=0)
    return scale[:, None] * (whole * scale) @ x


PASSED = {"gcn": normalised, "gcn-res": normalised} | {"sage": averaged, "sage-res": averaged}
PASSED |= {"gin": summed, "gin-skip": summed}


def layer(name: str, conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    passed = PASSED[name](x)
    if name.startswith("gcn"):
        return conv.lin(passed) + conv.bias
    if name.startswith("sage"):
        return conv.lin_l(passed) + conv.lin_r(x)
    return conv.nn(passed + (1 + conv.eps) * x)


def oracle(name: str, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The model on the dense graph, layer by layer."""
    if name in ("gcn", "sage", "gin"):
        for place, conv in enumerate(model.convs):
            x = layer(name, conv, x)
            x = x if place == model.num_layers - 1 else model.norms[place](x).relu()
        return x
    for place, conv in enumerate(model.convs):
        x = model.norms[place](layer(name, conv, x) + model.skips[place](x)).relu()
    return model.lin_out(x)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", sorted(WEIGHTED - {"sign"}))
def test_weights_are_used_as_a_dense_graph_says(name, sparse):
    for num_layers in (1, 3):
        model, x = build(name, num_layers), features(sparse)
        want = oracle(name, model, features(sparse).clone() + 0)
        torch.testing.assert_close(run_module(model, reads_of(model), x, graph()), want)


@pytest.mark.parametrize("name", sorted(WEIGHTED - {"sign"}))
@pytest.mark.parametrize("sparse", [False, True])
def test_a_cut_and_a_part_of_the_graph_use_them_as_the_whole_does(name, sparse, monkeypatch):
    monkeypatch.setattr(Costs, "too_dear", lambda self, nodes, entries: False)
    model, x = build(name), features(sparse)
    reads = reads_of(model)
    with torch.no_grad():
        whole = run_module(model, reads, x, graph())
        some, touched = at_nodes(model, reads, x, graph(), NODES)
        torch.testing.assert_close(some, whole[NODES])
        everybody = torch.arange(N).flip(0)
        part = graph().within(everybody)
        torch.testing.assert_close(run_module(model, reads, (x + 0)[everybody], part), whole[everybody])
    assert touched.nodes <= N


def test_gcn_with_weights_is_pygs():
    theirs = models.GCN(12, 16, 3, 4).double()
    ours = GCN(12, 16, 3, 4).double()
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(features(), graph()), theirs(features(), edges(), edge_weight=weights()))


@pytest.mark.parametrize("name", TRAINED)
def test_an_expert_says_whether_weights_change_what_it_says(name):
    model = build(name)
    reads = reads_of(model)
    plain = Adjacency.from_edge_index(edges(), N, torch.ones(edges().size(1), dtype=torch.double))
    with torch.no_grad():
        one, other = (run_module(model, reads, features(), each) for each in (plain, graph()))
    assert reads.weights is (name in WEIGHTED)
    assert torch.equal(one, other) is not reads.weights


def test_of_pygs_models_it_follows_and_others_say_it():
    takes = [models.GraphSAGE(3, 4, 2), models.GIN(3, 4, 2), models.GCN(3, 4, 2, normalize=False)]
    none = [
        models.GCN(3, 4, 2),
        models.GAT(3, 4, 2),
        models.GraphSAGE(3, 4, 2, aggr="lstm"),
        models.MLP([3, 4]),
        nn.Linear(3, 4),
    ]
    assert all(reads_of(model).weights for model in takes)
    assert not any(reads_of(model).weights for model in none)

    class Own(nn.Module):
        reads = Reads(hops=1, adjacency=True, weights=True)

    assert reads_of(Own()).weights
    assert not Reads(hops=1, adjacency=True).weights
    assert Mowst(build("mlp"), build("gcn"), LearnedGate()).reads.weights
    assert not Mowst(build("mlp"), build("gat"), LearnedGate()).reads.weights


@pytest.mark.parametrize("name", sorted(WEIGHTED - {"sign"}))
def test_gradients_with_weights_are_those_of_the_dense_graph(name):
    model, results = build(name), []
    for run in (lambda x: run_module(model, reads_of(model), x, graph()), lambda x: oracle(name, model, x)):
        x = features().requires_grad_()
        results.append(torch.autograd.grad(run(x).square().sum(), [x, *model.parameters()]))
    torch.testing.assert_close(*results)
