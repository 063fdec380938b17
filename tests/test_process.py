"""The process-wide settings change nothing but speed and the draw of the dropout masks; threads fit the machine."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn.models import MLP

import mowst.system.process
from mowst.errors import InputError
from mowst.kernels import recorder
from mowst.system import threads
from mowst.system.process import (
    Settings,
    check_products,
    epochs_recorded,
    keep_freed_memory,
    products_in,
    tune_process,
)


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


def test_epochs_are_recorded_where_that_is_asked_for_alone(monkeypatch):
    monkeypatch.setattr(mowst.system.process, "CudaGraphs", lambda: "graphs")
    for asked, found in (("auto", None), (False, None), (True, "graphs")):
        with epochs_recorded(asked, torch.device("cuda")):
            assert recorder() == found
        with Settings(capture=asked).applied():
            assert recorder() == found
        assert recorder() is None
    with epochs_recorded("auto", torch.device("cpu")), pytest.raises(InputError, match="CUDA"):
        epochs_recorded(True, torch.device("cpu"))


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


def test_float32_products_are_made_coarser_inside():
    before = torch.get_float32_matmul_precision()
    with products_in("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("options", "tf32"),
    [
        ({}, True),
        ({"matmul": "highest"}, False),
        ({"enabled": False}, False),
        ({"enabled": False, "matmul": "high"}, True),
    ],
)
def test_commands_multiply_in_tf32_on_a_gpu_and_nowhere_else(options, tf32):
    elsewhere = torch.backends.mkldnn.matmul.fp32_precision
    with tune_process(keep_memory=False, **options):
        assert torch.backends.cuda.matmul.allow_tf32 == tf32
        if not options:
            assert torch.backends.mkldnn.matmul.fp32_precision == elsewhere
    assert not torch.backends.cuda.matmul.allow_tf32


def test_coarser_products_are_for_cuda_devices():
    check_products("medium", torch.device("cuda"))
    check_products("auto", torch.device("cpu"))
    with pytest.raises(InputError, match="CUDA"):
        check_products("high", torch.device("cpu"))


# --- Threads


@pytest.fixture
def machine(monkeypatch):
    """An idle machine of eight CPUs, on which torch would take as many threads, and the numbers that it is told."""
    told = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 8)
    monkeypatch.setattr(threads, "free_cpus", lambda: 8.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: told[-1] if told else 8)
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    return told


@pytest.mark.parametrize(("workers", "each"), [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)])
def test_workers_divide_the_cpus_that_the_process_may_use(machine, workers, each, capsys):
    assert threads.take_threads(workers=workers) == each
    assert machine == [each]
    assert not capsys.readouterr().err


def test_a_control_group_bounds_what_torch_would_take(machine, monkeypatch):
    monkeypatch.setattr(threads, "usable_cpus", lambda: 3)
    assert threads.take_threads() == 3


def test_torchs_own_number_is_never_exceeded(machine, monkeypatch):
    monkeypatch.setattr(threads, "usable_cpus", lambda: 16)  # hyperthreads, say
    assert threads.take_threads() == 8


def test_a_number_that_was_recorded_is_taken(machine, capsys):
    assert threads.take_threads(3, workers=2) == 3
    assert machine == [3]
    assert not capsys.readouterr().err
    assert threads.take_threads(12) == 12
    assert capsys.readouterr().err == (
        "note: 12 threads, as the run took, share 8 CPUs: it is slow; OMP_NUM_THREADS=1 takes one thread\n"
    )


def test_a_number_that_was_given_is_left_alone_and_said_where_the_run_had_another(machine, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setattr(threads, "free_cpus", lambda: 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert threads.take_threads(workers=4) == threads.take_threads(5) == 5
    assert not capsys.readouterr().err
    assert threads.take_threads(2) == 5
    assert "2 threads, OMP_NUM_THREADS gives 5" in capsys.readouterr().err
    assert set(machine) <= {5}


@pytest.mark.parametrize(("free", "said"), [(8.0, False), (4.1, False), (3.9, True), (0.0, True)])
def test_a_busy_machine_gets_a_line_and_the_same_number(machine, monkeypatch, capsys, free, said):
    monkeypatch.setattr(threads, "free_cpus", lambda: free)
    assert threads.take_threads() == 8
    line = capsys.readouterr().err
    assert line.count("\n") == said
    assert ("OMP_NUM_THREADS=1" in line) == said


def test_one_thread_is_never_too_many(machine, monkeypatch, capsys):
    monkeypatch.setattr(threads, "free_cpus", lambda: 0.0)
    assert threads.take_threads(1) == 1
    assert not capsys.readouterr().err


@pytest.mark.parametrize("number", [0, -1, 10**9, 1.5, "2", [2]])
def test_a_record_without_a_sensible_number_is_said(machine, number):
    with pytest.raises(InputError, match="threads"):
        threads.take_threads(number)
    assert not machine


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinities")
def test_cpus_are_those_of_the_affinity_and_busy_ones_are_seen():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # and of what is started from here
    try:
        assert threads.usable_cpus() == 1
        with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=-1) as spinning:
            spinning.stdout.readline()
            free = threads.free_cpus()
            spinning.kill()
        assert free < 0.5
    finally:
        os.sched_setaffinity(0, before)


def test_settings_of_another_process_bring_their_number_of_threads(machine):
    with Settings(threads=3).applied():
        assert machine == [3]
