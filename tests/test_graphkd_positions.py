"""NOSMOG's position features and adversarial noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch_geometric.utils import get_laplacian, to_dense_adj, to_undirected

import graphkd

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
        (lambda: graphkd.positions(ring_and_more(), 20, 4, "wavelets"), "'wavelets'; choose from laplacian, walks"),
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
