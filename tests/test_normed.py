"""Batch norm, ReLU and dropout in one pass are the three one after the other, and taken where that pays alone."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import BatchNorm, LayerNorm

from mowst.kernels import NormReLUDropout, ReLUDropout, measuring, norm_relu_dropout, normed
from mowst.models.experts import expert
from mowst.training.norms import StepNorm


class Double:
    """Computes it by torch, in any precision; and remembers how often it was asked."""

    def __init__(self, keep=None, grow=None, relu=True, bend=1.0):
        self.calls, self.keep, self.grow, self.relu, self.bend = [], keep, grow, relu, bend

    def mask(self, x, settings):
        if settings.dropping is None:
            return torch.ones_like(x)
        draw = torch.Generator().manual_seed(int(settings.dropping.seed))
        drops = settings.dropping.drops if self.keep is None else normed.BITS * (1 - self.keep)
        grow = settings.dropping.grow if self.grow is None else self.grow
        return (torch.randint(normed.BITS, x.shape, generator=draw) >= drops).to(x.dtype) * grow

    def normal(self, x, weight, bias, settings, remembered=(None, None)):
        factor = 0.0 if settings.tracked is None else settings.tracked.factor
        return F.batch_norm(x, *remembered, weight, bias, True, factor, settings.eps)

    def forth(self, x, weight, bias, settings):
        self.calls.append(("forth", tuple(x.shape), x.dtype))
        remembered = (None, None) if settings.tracked is None else settings.tracked[:2]
        out = self.normal(x, weight, bias, settings, remembered)
        return (out.relu() if self.relu else out) * self.mask(x, settings), x.new_zeros(2, x.size(1))

    def back(self, gradient, x, affine, moments, settings):
        self.calls.append(("back", tuple(x.shape), x.dtype))
        weight = torch.ones_like(x[0]) if affine[0] is None else affine[0]
        bias = torch.zeros_like(x[0]) if affine[1] is None else affine[1]
        with torch.enable_grad():
            given = [each.detach().requires_grad_() for each in (x, weight, bias)]
            out = self.normal(*given, settings)
            found = torch.autograd.grad(out.relu() * self.mask(x, settings), given, gradient)
        return found[0] * self.bend, torch.stack([found[2], found[1]])


@pytest.fixture
def taken(monkeypatch):
    """Let a double be taken on a CPU as the kernels are on a CUDA device, and return it."""
    double = Double()
    here = {"measured": lambda x: True, "worth_trying": lambda x: True, "by_triton": lambda name: double}
    for name, value in (here | {"_found": {}, "_pays": lambda passes, norm, x, p: True}).items():
        monkeypatch.setattr(normed, name, value)
    return double


def settings_of(p):
    return normed.Settings(1e-5, None, normed.dropping(p, torch.device("cpu")))


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_and_those_of_gradients_are_those_of_the_three_one_after_the_other(p, affine):
    torch.manual_seed(0)
    x, upstream = torch.randn(9, 4, dtype=torch.double, requires_grad=True), torch.randn(9, 4, dtype=torch.double)
    pair = [torch.randn(4, dtype=torch.double, requires_grad=True) if affine else None for _ in range(2)]
    double, settings = Double(), settings_of(p)
    asked = [x, *(each for each in pair if each is not None)]
    found = []
    for way in (
        lambda: normed.one_pass(x, *pair, double, settings)[0],
        lambda: double.normal(x, *pair, settings).relu() * double.mask(x, settings),
    ):
        plain = torch.autograd.grad((way() * upstream).sum(), asked)
        first = torch.autograd.grad((way() * upstream * x).sum(), asked, create_graph=True)
        second = torch.autograd.grad(sum((each * each.detach().cos()).sum() for each in first), asked)
        found.append([*plain, *first, *second])
    torch.testing.assert_close(*found)


def test_what_is_kept_for_the_gradient_is_what_goes_in_and_numbers_of_columns():
    kept, x = [], torch.randn(50, 7, requires_grad=True)
    pair = [torch.randn(7, requires_grad=True) for _ in range(2)]
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        normed.one_pass(x, *pair, Double(), settings_of(0.5))
    assert [each.shape for each in kept] == [(50, 7), (7,), (7,), (2, 7)]
    assert kept[0].data_ptr() == x.data_ptr()


def test_a_functional_gradient_is_that_of_the_three_one_after_the_other():
    x, double, settings = torch.randn(9, 4), Double(), settings_of(0.4)
    ways = (
        lambda x: normed.one_pass(x, None, None, double, settings)[0],
        lambda x: double.normal(x, None, None, settings).relu() * double.mask(x, settings),
    )
    torch.testing.assert_close(*(torch.func.grad(lambda x, way=way: way(x).square().sum())(x) for way in ways))


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"momentum": 0.3}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.5}],
    ids=str,
)
def test_a_norm_remembers_what_it_remembers(options, wrapped, taken):
    torch.manual_seed(0)
    one = BatchNorm(5, **options) if wrapped else nn.BatchNorm1d(5, **options)
    other = copy.deepcopy(one)
    for rows in (30, 7, 2):
        x = torch.randn(rows, 5) + 3
        found = norm_relu_dropout(one, x, 0.0)
        torch.testing.assert_close(found, other(x).relu())
        torch.testing.assert_close(one.state_dict(), other.state_dict())
    for each in (one, other):
        (each.module if wrapped else each).track_running_stats = False
    norm_relu_dropout(one, x, 0.0), other(x)
    torch.testing.assert_close(one.state_dict(), other.state_dict())
    assert len(taken.calls) == 4


def test_one_row_and_other_shapes_raise_as_torch_does(taken):
    norm = nn.BatchNorm1d(3)
    for x in (torch.ones(1, 3), torch.ones(4, 2), torch.ones(4), torch.ones(4, 3, 2, 2)):
        with pytest.raises(Exception, match=r".") as wanted:
            norm(x)
        with pytest.raises(type(wanted.value)) as found:
            norm_relu_dropout(norm, x)
        assert str(found.value) == str(wanted.value)
    assert norm_relu_dropout(norm, torch.ones(0, 3)).shape == (0, 3)
    assert norm_relu_dropout(norm, torch.ones(4, 3, 2)).shape == (4, 3, 2)
    assert not taken.calls


class Other(nn.BatchNorm1d):
    """Another batch norm."""


def hooked():
    norm = nn.BatchNorm1d(3)
    norm.register_forward_hook(lambda *_: None)
    return norm


PLAIN = {
    "evaluation": (lambda: nn.BatchNorm1d(3).eval(), {}),
    "all dropped": (lambda: nn.BatchNorm1d(3), {"p": 1.0}),
    "nearly all dropped": (lambda: nn.BatchNorm1d(3), {"p": 1 - 1e-6}),
    "another norm": (lambda: Other(3), {}),
    "layer norm": (lambda: LayerNorm(3, mode="node"), {}),
    "no norm": (nn.Identity, {}),
    "looked at": (hooked, {}),
    "single rows allowed": (lambda: BatchNorm(3, allow_single_element=True), {}),
    "float64": (lambda: nn.BatchNorm1d(3).double(), {"dtype": torch.double}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_elsewhere_the_plain_way_is_gone_with_its_draws(name, taken):
    make, given = PLAIN[name]
    norm, p = make(), given.get("p", 0.4)
    x = torch.randn(9, 3, dtype=given.get("dtype", torch.float32))
    found = []
    for way in (
        lambda norm: norm_relu_dropout(norm, x, p),
        lambda norm: F.dropout(F.relu(norm(x)), p),
    ):
        torch.manual_seed(0)
        found.append(way(copy.deepcopy(norm)))
    torch.testing.assert_close(*found)
    assert not taken.calls
    norm_relu_dropout(nn.BatchNorm1d(3), x.float(), 0.4)
    assert taken.calls


def test_a_norm_over_a_whole_step_is_that(taken):
    norm, x, asked = nn.BatchNorm1d(3), torch.randn(8, 3), []
    with StepNorm(0, 1, lambda table: asked.append(1) or table):  # of the only process
        found = norm_relu_dropout(norm, x, 0.0)
    torch.testing.assert_close(found, nn.BatchNorm1d(3)(x).relu())
    assert len(asked) == 1
    assert not taken.calls


@pytest.mark.parametrize("faster", [True, False])
def test_it_is_asked_once_for_each_width_precision_magnitude_and_whether_anything_is_dropped(
    faster, taken, monkeypatch
):
    asked = []
    monkeypatch.setattr(normed, "_pays", lambda passes, norm, x, p: asked.append((*x.shape, x.dtype, p)) or faster)
    half = torch.bfloat16
    kinds = [(40, 3, torch.float32, 0.5), (80, 3, torch.float32, 0.5), (40, 4, torch.float32, 0.5)]
    kinds += [(40, 3, half, 0.5), (40, 3, torch.float32, 0.0)]
    for rows, width, dtype, p in [*kinds, *kinds, (50, 3, torch.float32, 0.2)]:
        norm_relu_dropout(nn.BatchNorm1d(width), torch.randn(rows, width, dtype=dtype), p)
    assert asked == kinds
    assert bool(taken.calls) == faster


def test_where_nobody_measures_or_there_is_no_triton_or_a_stream_is_recorded_it_is_the_plain_way(monkeypatch):
    x = torch.randn(9, 3)
    monkeypatch.setattr(normed, "_pays", lambda *_: pytest.fail("tried"))
    for name, value in {
        "by_triton": ("worth_trying", True),
        "worth_trying": ("by_triton", Double()),
    }.items():
        monkeypatch.setattr(normed, "_found", {})
        monkeypatch.setattr(normed, "measured", lambda x: True)
        monkeypatch.setattr(normed, value[0], lambda *_, it=value[1]: it)
        monkeypatch.setattr(normed, name, lambda *_: None)
        assert norm_relu_dropout(nn.BatchNorm1d(3), x, 0.0).shape == x.shape
    monkeypatch.undo()
    monkeypatch.setattr(normed, "_passes", lambda *_: pytest.fail("looked up"))
    for context in (nullcontext(), measuring()):
        with context:
            assert norm_relu_dropout(nn.BatchNorm1d(3), x, 0.0).shape == x.shape


@pytest.mark.parametrize(
    ("double", "p", "same"),
    [
        (Double(), 0.4, True),
        (Double(), 0.0, True),
        (Double(keep=0.4), 0.4, False),
        (Double(keep=0.0), 0.4, False),
        (Double(keep=1.0), 0.4, False),
        (Double(grow=1.0), 0.4, False),
        (Double(relu=False), 0.0, False),
        (Double(bend=1.001), 0.4, False),
    ],
    ids=["", "nothing dropped", "more dropped", "all", "none", "not grown", "no ReLU", "another gradient"],
)
@pytest.mark.parametrize("faster", [True, False])
def test_it_pays_where_it_comes_to_the_same_and_is_faster_and_a_trial_leaves_no_trace(
    double, p, same, faster, monkeypatch
):
    monkeypatch.setattr(normed, "milliseconds", lambda way: 1.0 if (way.__name__ == "own") == faster else 9.0)
    torch.manual_seed(0)
    norm, x = nn.BatchNorm1d(6), torch.randn(500, 6, requires_grad=True)
    nn.init.normal_(norm.bias)
    before, state = copy.deepcopy(norm.state_dict()), torch.get_rng_state()
    with torch.no_grad():
        assert normed._pays(double, norm, x, p) == (same and faster)
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is norm.weight.grad is None


EXPERTS = {
    "mlp": ("mlp", {}, 2),
    "all layers of an mlp": ("mlp", {"plain_last": False}, 3),
    "gcn": ("gcn", {}, 2),
    "jumps": ("sage", {"jk": "cat"}, 3),
    "residual": ("gcn-res", {}, 3),
    "sign": ("sign", {}, 2),
    "act first": ("gcn", {"act_first": True}, 0),
    "another act": ("gcn", {"act": "elu"}, 0),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_experts_take_it_for_every_batch_norm_with_relu_behind_and_learn_the_same(tiny, name, taken, monkeypatch):
    kind, options, norms = EXPERTS[name]
    options = {"hidden_channels": 16, "num_layers": 3, "norm": "batch_norm", "dropout": 0.0, **options}
    torch.manual_seed(0)
    ours = expert(kind, 8, 3, **options)
    theirs, found = copy.deepcopy(ours), []
    for model, own in ((ours, True), (theirs, False)):
        monkeypatch.setattr(normed, "measured", lambda x, own=own: own)
        for _ in range(2):
            out = model(tiny.x, tiny.edge_index)
            out.square().sum().backward()
        state = model.state_dict()
        said = model.eval()(tiny.x, tiny.edge_index)
        found.append([out, said, *(each.grad for each in model.parameters()), *state.values()])
    assert [call[0] for call in taken.calls].count("forth") == 2 * norms
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_the_layer_is_told_when_to_drop_and_is_copied_and_pickled_as_it_is(taken):
    layer = NormReLUDropout(BatchNorm(3), ReLUDropout(0.4))
    x = torch.randn(50, 3)
    for each in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert list(each.state_dict()) == list(BatchNorm(3).state_dict())
        assert not torch.equal(each(x), each(x))
        each.act.eval()
        assert torch.equal(each(x), each(x))
        assert len(taken.calls) == 4
        each.module.eval()
        torch.testing.assert_close(each(x), each.module(x).relu())
        assert len(taken.calls) == 4
        taken.calls.clear()
