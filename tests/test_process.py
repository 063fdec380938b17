"""The process-wide settings change nothing but speed and the draw of the dropout masks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn.models import MLP

import mowst.process
from mowst.errors import InputError
from mowst.process import byte_dropout, coins, float32_products, keep_freed_memory, tune_process


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


@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_kept_only_if_it_may_be(monkeypatch, keep):
    kept = []
    monkeypatch.setattr(mowst.process, "keep_freed_memory", lambda: kept.append(True))
    with tune_process(keep_memory=keep):
        assert (F.dropout(torch.ones(100, 100), 0.9) > 0).any()
    assert kept == [True] * keep


def test_models_are_reached_only_in_training_and_only_inside_the_settings():
    model, x = MLP([8, 64, 64, 3], dropout=0.5, norm=None), torch.randn(200, 8)

    def output() -> torch.Tensor:
        torch.manual_seed(0)
        return model(x)

    plain, evaluated = output(), model.eval()(x)
    with tune_process():
        assert torch.equal(output(), evaluated)
        model.train()
        assert not torch.equal(output(), plain)
        assert torch.equal(output(), output())
    assert torch.equal(output(), plain)
    with tune_process(enabled=False):
        assert torch.equal(output(), plain)


@pytest.mark.parametrize("p", [0.0, 0.001, 1 / 512, 0.999, 1.0])
def test_probabilities_that_a_byte_cannot_hold_go_to_torch(p):
    def dropped() -> torch.Tensor:
        torch.manual_seed(0)
        return nn.Dropout(p)(torch.ones(10_000))

    plain = dropped()
    with tune_process():
        assert torch.equal(dropped(), plain)


def test_an_empty_tensor_and_dropout_in_place_work():
    with tune_process():
        assert F.dropout(torch.empty(0, 3)).shape == (0, 3)
        x = torch.ones(100)
        assert F.dropout(x, 0.5, inplace=True) is x


def test_keeping_freed_memory_is_silent_elsewhere(monkeypatch):
    assert isinstance(keep_freed_memory(), bool)
    monkeypatch.setattr("sys.platform", "win32")
    assert keep_freed_memory() is False


def test_float32_products_are_made_coarser_inside_and_on_cuda_only():
    before = torch.get_float32_matmul_precision()
    with float32_products("medium", torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before
    with float32_products("highest", torch.device("cpu")):
        pass
    with pytest.raises(InputError, match="CUDA"):
        float32_products("high", torch.device("cpu"))
