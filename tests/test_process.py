"""The process-wide settings change nothing but speed and the draw of the dropout masks."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn.models import MLP

import mowst.system.process
from mowst.errors import InputError
from mowst.system.process import float32_products, keep_freed_memory, tune_process


@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_kept_only_if_it_may_be(monkeypatch, keep):
    kept = []
    monkeypatch.setattr(mowst.system.process, "keep_freed_memory", lambda: kept.append(True))
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


def test_dropout_is_torchs_own_again_whatever_happened_inside_the_settings():
    own = F.dropout

    @tune_process()
    def fails() -> None:
        with tune_process():
            assert F.dropout is not own
        assert F.dropout(input=torch.ones(3), p=0.0, training=True, inplace=False).tolist() == [1, 1, 1]
        raise KeyError("inside" if F.dropout is not own else "outside")

    with pytest.raises(KeyError, match="inside"):
        fails()
    assert F.dropout is own


def test_an_empty_tensor_and_dropout_in_place_work():
    with tune_process():
        assert F.dropout(torch.empty(0, 3)).shape == (0, 3)
        x = torch.ones(100)
        assert F.dropout(x, 0.5, inplace=True) is x


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_three_gigabytes_that_are_freed_together_stay_in_the_process():
    code = """
import ctypes
from mowst.system.process import keep_freed_memory
assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
before = libc.sbrk(0)
blocks = [libc.malloc(2**29) for _ in range(6)]  # nothing is written: it takes no memory
largest = libc.sbrk(0)
for block in blocks:
    libc.free(block)
assert largest - before > 2.9 * 2**30
assert libc.sbrk(0) == largest
"""
    subprocess.run([sys.executable, "-c", code], check=True)


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
