"""Large graphs without gradients: a few rows at a time say what all rows at once say, and hold less."""

import pytest
import torch

from mowst.kernels import Adjacency
from mowst.models import blocks, expert, reads_of, run_module
from tests.graphs import TRAINED

LAYERS = {"hidden_channels": 8, "num_layers": 3, "norm": "batch_norm", "dropout": 0.5}
BLOCKED = {"gcn", "sage", "gin", "gin-skip", "gcn-res", "sage-res"}


def graph(weighted: bool) -> Adjacency:
    """A directed graph of 30 nodes, 5 of them isolated."""
    edges = torch.randint(0, 25, (2, 120), generator=torch.Generator().manual_seed(3)).unique(dim=1)
    return Adjacency.from_edge_index(edges, 30, torch.rand(edges.size(1)) + 0.1 if weighted else None)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("wide", [4, 20])  # on either side of the hidden layers' width
@torch.no_grad()
def test_a_block_at_a_time_says_what_all_at_once_says(name, weighted, wide, monkeypatch):
    torch.manual_seed(0)
    model, adjacency, x = expert(name, wide, 3, **LAYERS).eval(), graph(weighted), torch.randn(30, wide)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm1d):
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    at_once, ran, between = run_module(model, reads_of(model), x, adjacency), set(), Adjacency.between
    monkeypatch.setattr(blocks, "ROWS", 7)
    monkeypatch.setattr(Adjacency, "between", lambda *args: ran.add(args[1:3]) or between(*args))
    by_block = run_module(model, reads_of(model), x, adjacency)
    torch.testing.assert_close(by_block, at_once, atol=1e-5, rtol=1e-5)
    assert ran == ({(0, 7), (7, 14), (14, 21), (21, 28), (28, 30)} if name in BLOCKED else set())


def test_gradients_training_and_hooks_see_all_rows(monkeypatch):
    monkeypatch.setattr(blocks, "ROWS", 7)
    torch.manual_seed(0)
    model, adjacency, x = expert("sage", 4, 3, **LAYERS).eval(), graph(False), torch.randn(30, 4)
    widths = []
    run_module(model, reads_of(model), x, adjacency).sum().backward()
    assert model.convs[0].lin_l.weight.grad is not None
    with torch.no_grad():
        assert len(run_module(model.train(), reads_of(model), x, adjacency)) == 30
        handle = model.eval().convs[1].register_forward_hook(lambda module, given, said: widths.append(len(said)))
        run_module(model, reads_of(model), x, adjacency)
        handle.remove()
    assert widths == [30]


@torch.no_grad()
def test_some_rows_of_a_matrix_multiply_as_all_do():
    for weighted in (False, True):
        whole, x = graph(weighted), torch.eye(30)
        for made in (whole, whole.averaging(), whole.gcn()):
            parts = [made.between(first, min(first + 11, 30)) for first in (0, 11, 22)]
            assert torch.equal(torch.cat([part.times(x) for part in parts]), made.times(x))
        means = [whole.between(first, min(first + 11, 30)).averaging().times(x) for first in (0, 11, 22)]
        assert torch.equal(torch.cat(means), whole.averaging().times(x))
