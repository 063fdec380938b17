"""Attention by our own kernels: what it comes to, that it can be compiled, and that it is taken where it pays alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mowst.kernels import Adjacency, Rows, attention
from mowst.kernels.attention import attend, by_products

HERE = Path(__file__).resolve().parent
COMPILES = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mowst.kernels import row_attention, row_products

NUMBERS = "width", "stride", "heads", "pairs", "longest"
KINDS = dict.fromkeys(NUMBERS, "i32") | dict.fromkeys(("start", "column"), "*i32")
KINDS |= dict.fromkeys(("slope", "dropout", "louder"), "fp32") | dict.fromkeys(("listed", "turn", "seed"), "*i64")
KINDS |= dict.fromkeys(("x", "along", "pushed", "x_pushed"), "*bf16")  # all others point to float32
ROWS = {"LISTED": False, "DROPS": True, "BLOCK": 32, "STEP": 16}
for kernel, fixed in [
    (row_products._kernel, {"WEIGHTED": True, "BLOCK": 64, "STEP": 8}),
    (row_attention._attend_kernel, {"LEARNS": True} | ROWS),
    (row_attention._push_kernel, ROWS),
    (row_attention._level_kernel, {"BLOCK": 32, "STEP": 16}),
]:
    kinds = {name: KINDS.get(name, "*fp32") for name in kernel.arg_names} | dict.fromkeys(fixed, "constexpr")
    source, card = ASTSource(kernel, kinds, fixed), GPUTarget("cuda", 90, 32)
    assert len(triton.compile(source, target=card, options={"num_warps": 1}).asm["ptx"]) > 1000
print("compiled")
"""


def run_aside(*command: str, **environment: str) -> str:
    """Run Python in another process, and return what it printed."""
    pytest.importorskip("triton", reason="triton is not installed")
    seen = os.environ | environment
    done = subprocess.run([sys.executable, *command], env=seen, cwd=HERE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_the_kernels_come_to_what_float64_and_pyg_do():
    """By Triton's interpreter, which runs on a CPU."""
    options = "-n", "0", "-q", "-p", "no:cacheprovider"
    said = run_aside("-m", "pytest", str(HERE / "attention_by_rows.py"), *options, TRITON_INTERPRET="1")
    assert "passed" in said
    assert "skipped" not in said


def test_kernels_compile_for_a_card_that_is_not_there(tmp_path):
    said = run_aside("-W", "ignore", "-c", COMPILES, TRITON_CACHE_DIR=str(tmp_path), TRITON_INTERPRET="0")
    assert said.strip() == "compiled"


def graph() -> Adjacency:
    target, source = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 0]])
    return Adjacency(Rows.from_entries(target, source, None, (3, 3)), 3)


def inputs(heads: int, width: int, dtype: torch.dtype):
    return torch.randn(3, heads, width, dtype=dtype, requires_grad=True), torch.randn(3, heads), torch.randn(3, heads)


class Double:
    """Our own kernels, as it were: products, which say that they were asked."""

    def __init__(self, monkeypatch, *, faster: bool = True, there: bool = True):
        self.calls, self.asked = [], []
        self.faster = faster
        doubles = {"own_attention": lambda: self.attend if there else None, "pays": self.pays}
        for name, double in (doubles | {"worth_trying": lambda x: True}).items():
            monkeypatch.setattr(attention, name, double)

    def attend(self, adjacency, x, source, target, *, slope, dropout):
        self.calls.append((x.dtype, *x.shape[1:], slope, dropout))
        return by_products(adjacency, x, source, target, slope=slope, dropout=dropout)

    def pays(self, one, other, clock):
        found, wanted = one(), other()
        assert len(found) == 3  # output, and gradients for nodes and for scores
        for each, oracle in zip(found, wanted, strict=True):
            torch.testing.assert_close(each, oracle)
        self.asked.append(self.calls.pop())
        return self.faster


@pytest.mark.parametrize("faster", [True, False])
def test_a_matrix_asks_once_for_each_number_of_heads_their_width_and_precision(faster, monkeypatch):
    double, adjacency = Double(monkeypatch, faster=faster), graph()
    kinds = [(torch.float32, 2, 4), (torch.float32, 4, 2), (torch.float32, 2, 4), (torch.bfloat16, 2, 4)]
    for dtype, heads, width in kinds:
        before = torch.get_rng_state()
        given = inputs(heads, width, dtype)
        after = torch.get_rng_state()
        out = attend(adjacency, *given, slope=0.3)
        assert torch.equal(torch.get_rng_state(), after), "measuring draws nothing"
        assert not torch.equal(before, after)
        torch.testing.assert_close(out, by_products(adjacency, *given, slope=0.3, dropout=0.0))
    assert double.asked == [(*kind, 0.3, 0.0) for kind in dict.fromkeys(kinds)]
    assert double.calls == ([(*kind, 0.3, 0.0) for kind in kinds] if faster else [])


def test_it_is_tried_where_there_is_a_gradient_and_taken_without_and_with_dropout(monkeypatch):
    double, adjacency = Double(monkeypatch), graph()
    given = inputs(2, 4, torch.float32)
    attend(adjacency, *(each.detach() for each in given))
    with torch.no_grad():
        attend(adjacency, *given)
    assert not double.asked
    attend(adjacency, *given, dropout=0.5)
    with torch.inference_mode():
        attend(adjacency, *given)
    assert double.asked == [(torch.float32, 2, 4, 0.2, 0.0)]
    assert [dropout for *_, dropout in double.calls] == [0.5, 0.0]


def test_where_there_is_no_triton_all_is_as_before(monkeypatch):
    double, adjacency = Double(monkeypatch, there=False), graph()
    given = inputs(2, 4, torch.float32)
    out = attend(adjacency, *given)
    torch.testing.assert_close(out, by_products(adjacency, *given, slope=0.2, dropout=0.0))
    assert adjacency.rows.own == {("attention", torch.float32, 2, 4): None}
    assert not double.asked


def test_nobody_is_asked_on_a_cpu():
    adjacency = graph()
    attend(adjacency, *inputs(2, 4, torch.float32))
    assert not adjacency.rows.own
