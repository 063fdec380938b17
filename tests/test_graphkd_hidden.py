"""Hidden layers of a model that was not made for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn.models import GCN, MLP

import graphkd
from graphkd import Signals, hidden_of
from tests.graphkd_contract import example

GIVEN = example()
X = torch.randn(12, 8)


class Named(nn.Module):
    """Calls its layers by name of the argument."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 5)

    def forward(self, x):
        return self.second(input=self.first(input=x).relu())


def test_layers_are_those_of_the_latest_run_with_their_gradient_and_gone_afterwards():
    model = Named()
    with hidden_of(model) as layers:
        assert len(layers) == 0
        model(x=X)
        logits = model(x=2 * X)
        (last,) = layers
        torch.testing.assert_close(F.linear(2 * X, model.first.weight, model.first.bias).relu(), last)
        torch.testing.assert_close(F.linear(last, model.second.weight, model.second.bias), logits)
        graphkd.DualHead(6, 5)(Signals(logits, tuple(layers)), GIVEN.teacher).sum().backward()
        assert model.first.weight.grad.abs().sum() > 0
        assert model.second.weight.grad is None  # the head of the model has no part in it
    model(X)
    assert len(layers) == 0
    assert not model._forward_pre_hooks
    assert not model.second._forward_pre_hooks


@pytest.mark.parametrize("model", [GCN(8, 6, 3, 5), MLP([8, 6, 6, 5], norm=None)])
def test_models_of_pyg_show_their_layers(model):
    arguments = (X, GIVEN.edge_index) if isinstance(model, GCN) else (X,)
    with hidden_of(model) as layers:
        logits = model(*arguments)
        loss = graphkd.OFA()
        loss.prepare(Signals(logits, tuple(layers)))
        assert len(loss.heads) == 2
        assert loss(Signals(logits, layers[:]), GIVEN.teacher).shape == (12,)


def test_an_error_inside_takes_the_hooks_off_too():
    model = Named()
    with pytest.raises(RuntimeError, match="mine"), hidden_of(model):
        raise RuntimeError("mine")
    assert not model.second._forward_pre_hooks


@pytest.mark.parametrize("what", [None, "model", nn.ReLU(), nn.Linear(2, 2)])
def test_what_has_no_layers_is_refused(what):
    with pytest.raises(ValueError, match=r"^hidden_of: "):
        hidden_of(what)
