"""Dropout with few draws, and ReLU and dropout in one step, compute what torch's own do."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import models

from mowst.kernels.dropout import ReLUDropout, byte_dropout, coins, relu_dropout
from mowst.models.experts import GCN, EdgelessMLP, expert
from mowst.system.process import tune_process


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_the_share_asked_for_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    out = byte_dropout(torch.ones(1001, 301, dtype=dtype), p)
    assert out.dtype == dtype
    exact = round(256 * p) / 256
    assert abs(float((out == 0).float().mean()) - exact) < 5 * (exact * (1 - exact) / out.numel()) ** 0.5
    assert abs(exact - p) <= 1 / 512
    scale = torch.tensor(1 / (1 - exact)).to(dtype)
    assert out.unique().tolist() == [0, float(scale)]


@pytest.mark.parametrize("heads", [1, 2, 77, 128, 129, 192, 255])
def test_a_coin_falls_heads_as_often_as_asked(heads):
    torch.manual_seed(heads)
    drawn, share = coins(2**20 + 3, heads), heads / 256
    assert drawn.dtype == torch.uint8
    assert len(drawn) == 2**20 + 3
    assert int(drawn.max()) == 1
    assert abs(float(drawn.float().mean()) - share) < 5 * (share * (1 - share) / len(drawn)) ** 0.5


def test_dropout_keeps_one_byte_per_entry_for_its_gradient():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        byte_dropout(torch.randn(50, 7, requires_grad=True), 0.3)
    assert [(tensor.shape, tensor.element_size()) for tensor in kept] == [((50, 7), 1)]


@pytest.mark.parametrize("shape", [(50, 7), (1500, 1400), (7,)])
def test_gradient_of_dropout_is_its_own_mask_and_has_a_gradient_too(shape):
    x = torch.randn(shape, requires_grad=True)
    out = byte_dropout(x, 0.5)
    (gradient,) = torch.autograd.grad((out * x).sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, 2 * out)
    (second,) = torch.autograd.grad(gradient.sum(), x)
    torch.testing.assert_close(second * x, 2 * out)


def test_dropout_takes_what_does_not_lie_in_one_piece():
    x = torch.randn(300, 200).t()
    torch.manual_seed(0)
    out = byte_dropout(x, 0.3)
    torch.manual_seed(0)
    assert torch.equal(out, byte_dropout(x.contiguous(), 0.3))
    assert torch.equal((out == 0) | torch.isclose(out, x * 256 / 179), torch.ones_like(x, dtype=torch.bool))


def test_masks_are_fixed_by_the_seed_and_independent_between_neighbours_and_calls():
    x = torch.ones(512, 512)
    torch.manual_seed(3)
    first, second = byte_dropout(x), byte_dropout(x)
    torch.manual_seed(3)
    assert torch.equal(byte_dropout(x), first)
    left, right, below = first[:, :-1] - 1, first[:, 1:] - 1, first[1:] - 1
    for one, other in ((left, right), (first[:-1] - 1, below), (first - 1, second - 1)):
        assert abs(float((one * other).mean())) < 5 / 512


def test_every_place_in_a_word_is_a_fair_draw():
    torch.manual_seed(0)
    kept = byte_dropout(torch.ones(100_000, 64), 0.5) > 0
    assert (kept.float().mean(0) - 0.5).abs().max() < 0.01


def with_gradients(function, x, weight):
    """The result of a function at a seed, its gradient, and the gradient of that."""
    torch.manual_seed(0)
    out = function(x)
    (first,) = torch.autograd.grad((out * weight * x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * weight).sum(), x)
    return out, first, second


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_relu_and_dropout_in_one_step_are_torchs_own_with_the_same_draws(p, training):
    x = torch.randn(300, 70, dtype=torch.double, requires_grad=True)
    weight = torch.randn_like(x)
    ours = with_gradients(lambda x: relu_dropout(x, p, training), x, weight)
    theirs = with_gradients(lambda x: F.dropout(F.relu(x), p, training), x, weight)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_relu_and_dropout_in_one_step_with_the_process_settings_are_relu_and_the_settings_dropout(p):
    x, weight = torch.randn(1500, 800, requires_grad=True), torch.randn(1500, 800)
    with tune_process():
        ours = with_gradients(lambda x: relu_dropout(x, p), x, weight)
        theirs = with_gradients(lambda x: F.dropout(F.relu(x), p), x, weight)
        assert torch.equal(relu_dropout(x, p, training=False), F.relu(x))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("settings", [True, False])
def test_what_is_infinite_below_is_zero(settings):
    with tune_process(settings):
        assert torch.equal(relu_dropout(torch.full((64,), -torch.inf)), torch.zeros(64))


def test_functional_gradients_are_those_of_torchs_own():
    x = torch.randn(40, 3)
    found = []
    for function in (relu_dropout, lambda x: F.dropout(F.relu(x))):
        torch.manual_seed(0)
        found.append(torch.func.grad(lambda x, function=function: function(x).square().sum())(x))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["mlp", "gcn", "sage", "gin", "gcn-res"])
def test_dropout_is_switched_by_its_modules(tiny, name):
    model = expert(name, 8, 3, norm="none", hidden_channels=16, num_layers=2, dropout=0.5)

    def varies():
        return not torch.equal(*(model(tiny.x, tiny.edge_index) for _ in range(2)))

    assert varies()
    for on in (False, True):
        model.train(not on)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.train(on)
        assert varies() == on


@pytest.mark.parametrize("settings", [True, False])
def test_relu_and_dropout_in_one_step_keep_only_their_result(settings):
    kept, x = [], torch.randn(50, 7, requires_grad=True)
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    )
    with tune_process(settings), hooks:
        out = relu_dropout(x, 0.3)
    assert [tensor.data_ptr() for tensor in kept] == [out.data_ptr()]


@pytest.mark.parametrize("norm", ["none", "batch_norm", "layer_norm"])
@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [
        ("mlp", EdgelessMLP, {}),
        ("mlp", EdgelessMLP, {"plain_last": False}),
        ("gcn", GCN, {}),
        ("sage", models.GraphSAGE, {"jk": "cat"}),
        ("gin", models.GIN, {}),
    ],
)
@pytest.mark.parametrize("act_first", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_experts_by_name_compute_what_their_classes_compute(tiny, name, kind, own, norm, act_first, num_layers):
    options = {"hidden_channels": 16, "num_layers": num_layers, "dropout": 0.4, "act_first": act_first, **own}
    ours = expert(name, 8, 3, norm=norm, **options)
    options |= {"norm": None if norm == "none" else norm, "norm_kwargs": {"mode": "node"} if "layer" in norm else {}}
    theirs = kind(in_channels=8, out_channels=3, **options)
    if num_layers > 1:
        act = ours.norms[0].act if norm == "batch_norm" and not act_first else ours.act
        assert isinstance(act, ReLUDropout) == (norm == "none" or not act_first)
    theirs.load_state_dict(ours.state_dict())
    results = []
    for model in (ours, theirs):
        torch.manual_seed(1)
        out = model(tiny.x, tiny.edge_index)
        out.square().sum().backward()
        results.append(
            [out, *(parameter.grad for parameter in model.parameters()), model.eval()(tiny.x, tiny.edge_index)]
        )
    torch.testing.assert_close(*results)


class Shifted(nn.ReLU):
    def forward(self, x):
        return super().forward(x - 1)


@pytest.mark.parametrize("act", [nn.ELU(), Shifted()])
def test_another_activation_is_left_as_it_is(act):
    model = expert("gcn", 8, 3, act=act, hidden_channels=16, num_layers=3, dropout=0.4)
    assert model.act is act
    assert model.dropout.p == 0.4
