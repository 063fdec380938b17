"""NOSMOG's position features and adversarial noise."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch_geometric.utils import get_laplacian, to_dense_adj, to_undirected

import graphkd
from graphkd import deepwalk

close = torch.testing.assert_close


def ring_and_more(N: int = 20) -> torch.Tensor:
    ring = torch.stack([torch.arange(N), (torch.arange(N) + 1) % N])
    more = torch.tensor([[0, 3, 5, 5], [7, 11, 15, 2]])
    return to_undirected(torch.cat([ring, more], 1))


def test_laplacian_positions_are_eigenvectors_of_the_smallest_eigenvalues():
    edges = ring_and_more()
    found = graphkd.positions(edges, 20, 4)
    again = graphkd.positions(edges, 20, 4)
    assert torch.equal(found, again)
    assert (found.max(0).values >= found.min(0).values.abs() - 1e-5).all()
    where, weight = get_laplacian(edges, normalization="sym", num_nodes=20)
    dense = to_dense_adj(where, edge_attr=weight)[0].double()
    values = torch.linalg.eigvalsh(dense)
    for column, value in zip(found.double().t(), values[1:5], strict=True):
        close(dense @ column, value * column, atol=1e-4, rtol=1e-3)
        close(column.square().mean(), torch.tensor(1.0, dtype=torch.float64), atol=1e-4, rtol=0)


def test_walk_positions_are_the_diagonals_of_powers_of_the_walk():
    edges = ring_and_more()
    walk = to_dense_adj(edges)[0]
    walk = walk / walk.sum(1, keepdim=True)
    found = graphkd.positions(edges, 20, 3, "walks")
    wanted = torch.stack([torch.linalg.matrix_power(walk, k).diagonal() for k in (1, 2, 3)], -1)
    close(found, wanted)


def met(edges: torch.Tensor, N: int, window: int) -> torch.Tensor:
    """Return log max(1, how much more often a node and one within the window of it meet than by chance), float64.

    By the definition of DeepWalk's pairs: a walk begins anywhere, as often as it would come by; of each two nodes at
    most `window` steps apart either is the context of the other.
    """
    adjacency = to_dense_adj(edges, max_num_nodes=N)[0].double()
    degrees = adjacency.sum(1)
    stays = degrees / degrees.sum()
    step = adjacency / degrees.clamp(min=1).unsqueeze(1)
    pairs = torch.zeros(N, N, dtype=torch.double)
    for length in range(1, window + 1):
        ahead = stays.unsqueeze(1) * torch.linalg.matrix_power(step, length)
        pairs += (ahead + ahead.t()) / (2 * window)
    chance = pairs.sum(1, keepdim=True) * pairs.sum(0, keepdim=True)
    return torch.where(chance > 0, pairs / chance, 0).clamp(min=1).log()


@pytest.mark.parametrize("window", [1, 3, 10])
def test_deepwalk_positions_are_the_factors_of_how_often_nodes_meet_on_walks(window):
    edges = torch.cat([ring_and_more(), torch.tensor([[4], [4]])], 1)  # node 4 may stay, 20 and 21 have no edge
    found = graphkd.positions(edges, 22, 6, "deepwalk", window).double()
    left, sizes, _ = torch.linalg.svd(met(edges, 22, window))
    wanted = left[:, :6] * sizes[:6].sqrt()
    wanted = wanted / wanted.square().mean().sqrt()
    for column, other in zip(found.t(), wanted.t(), strict=True):
        assert column[column.abs().argmax()] > 0
        close(column, other * (column @ other).sign(), atol=2e-4, rtol=1e-3)
    assert found[20:].abs().max() < 1e-6


def test_deepwalk_positions_are_the_same_each_time_and_for_edges_in_either_direction():
    edges = ring_and_more()
    torch.manual_seed(0)
    first = graphkd.positions(edges, 20, 4, "deepwalk")
    state = torch.get_rng_state()
    again = graphkd.positions(edges, 20, 4, "deepwalk")
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    close(graphkd.positions(edges[:, edges[0] < edges[1]], 20, 4, "deepwalk"), first)


def test_large_graphs_are_approximated_and_larger_ones_refused(monkeypatch):
    N = 150
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(N) % 3
    drawn = torch.rand(N, N, generator=generator) < torch.where(group.unsqueeze(1) == group, 0.2, 0.01)
    edges = to_undirected(drawn.triu(1).nonzero().t(), num_nodes=N)
    exact = graphkd.positions(edges, N, 3, "deepwalk")
    monkeypatch.setattr(deepwalk, "SMALL", 100)
    close(graphkd.positions(edges, N, 3, "deepwalk"), exact, atol=1e-3, rtol=1e-3)
    monkeypatch.setattr(deepwalk, "EXACT", 100)
    monkeypatch.setattr(deepwalk, "BLOCK", 64)
    near = graphkd.positions(edges, N, 3, "deepwalk")
    assert torch.equal(near, graphkd.positions(edges, N, 3, "deepwalk"))
    assert (near - exact).norm() < 0.02 * exact.norm()  # one eigenvalue of 150 is left out
    monkeypatch.setattr(deepwalk, "PAIRS", 3)
    few = graphkd.positions(edges, N, 3, "deepwalk")
    assert (few * exact).sum() > 0.9 * exact.square().sum()
    monkeypatch.setattr(deepwalk, "MOST", N - 1)
    with pytest.raises(ValueError, match=r"150 nodes are more than the 149 of .deepwalk.; take .laplacian.") as error:
        graphkd.positions(edges, N, 3, "deepwalk")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("N", [8, 600])
def test_two_complete_bipartite_graphs_are_told_apart_and_nothing_else(N):
    """Within one of them any two nodes meet twice as often as by chance, at an even window: a block of log 2."""
    side = torch.arange(N // 4)
    one = torch.cartesian_prod(side, side + N // 4).t()
    found = graphkd.positions(torch.cat([one, one + N // 2], 1), N, 4, "deepwalk")
    close(found @ found.t(), 4 * torch.block_diag(*[torch.ones(N // 2, N // 2)] * 2), atol=1e-3, rtol=0)
    assert torch.equal(found[:, 2:], torch.zeros(N, 2))
    nothing = graphkd.positions(torch.empty(2, 0, dtype=torch.long), N, 4, "deepwalk")
    assert torch.equal(nothing, torch.zeros(N, 4))


@pytest.mark.parametrize("kind", ["deepwalk", "laplacian"])
def test_without_scipy_eigenvectors_are_refused_in_a_line_and_walks_are_not(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setattr(sys.modules["graphkd.positions"], "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"positions of kind {kind} need scipy; pip install scipy, or take walks"):
        graphkd.positions(ring_and_more(), 20, 4, kind)
    assert graphkd.positions(ring_and_more(), 20, 4, "walks").shape == (20, 4)


def test_noise_raises_the_loss_stays_within_its_size_and_leaves_parameters_alone():
    torch.manual_seed(0)
    model, x, y = nn.Linear(6, 3), torch.randn(30, 6), torch.randint(3, (30,))

    def loss(features):
        return nn.functional.cross_entropy(model(features), y)

    noise = graphkd.worst_noise(x, loss, 0.1, 5)
    assert noise.abs().max() <= 0.1 + 1e-7
    assert not noise.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    drawn = [loss(x + torch.empty_like(x).uniform_(-0.1, 0.1)) for _ in range(20)]
    assert loss(x + noise) > max(drawn)


def test_of_a_linear_loss_the_worst_noise_is_a_corner():
    w = torch.tensor([1.0, -2.0, 3.0])
    noise = graphkd.worst_noise(torch.zeros(5, 3), lambda x: (x @ w).sum(), 0.2, 8)
    close(noise, 0.2 * w.sign().expand(5, 3))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: graphkd.positions(ring_and_more(), 20, 19), "20 nodes have no 19 eigenvectors"),
        (
            lambda: graphkd.positions(ring_and_more(), 20, 4, "wavelets"),
            "'wavelets'; choose from laplacian, walks, deepwalk",
        ),
        (lambda: graphkd.positions(ring_and_more(), 20, 4, "deepwalk", 0), "window must be a whole number from 1"),
        (lambda: graphkd.positions(ring_and_more(), 10, 4), "node 1[0-9] with 10 nodes"),
        (lambda: graphkd.worst_noise(torch.zeros(5, 3), lambda x: torch.ones(())), "depends on the features"),
        (lambda: graphkd.worst_noise(torch.zeros(5, 3), lambda x: x), "must return a scalar"),
        (lambda: graphkd.worst_noise(torch.zeros(5, 3), None), "must be a function"),
        (lambda: graphkd.worst_noise(torch.zeros(5, 3), lambda x: x.sum(), size=0.0), "size must be above 0"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
