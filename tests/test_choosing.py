"""Our own sparse product comes to what a dense one does, and is taken where it pays alone."""

import os
import subprocess
import sys

import pytest
import torch

from mowst.kernels import Adjacency, Rows, choosing, measuring

ORACLE = """
import torch
from scipy.sparse import csr_array
from mowst.kernels.row_products import row_product

draw = torch.Generator().manual_seed(0)
for rows, columns, width, dtype, weighted in [
    (7, 5, 3, torch.float32, True), (9, 4, 8, torch.float32, False), (6, 6, 257, torch.float32, True),
    (5, 9, 33, torch.bfloat16, True), (4, 3, 16, torch.bfloat16, False), (3, 2, 1, torch.float32, True),
]:
    degree = torch.randint(0, 4, (rows,), generator=draw)
    degree[1], degree[-1] = 19, 0  # more than two steps, and none
    start = torch.cat([torch.zeros(1, dtype=torch.long), degree.cumsum(0)]).int()
    column = torch.randint(0, columns, (int(start[-1]),), generator=draw).int()
    value = torch.rand(len(column), generator=draw) if weighted else None
    wide = torch.randn(columns, width + 3, generator=draw).to(dtype)
    x = wide[:, :width]  # its rows lie apart
    entries = torch.ones(len(column)) if value is None else value
    matrix = csr_array((entries.double().numpy(), column.numpy(), start.numpy()), shape=(rows, columns))
    wanted = torch.from_numpy(matrix @ x.double().numpy())
    for each in (x, x.t().contiguous().t()):
        found = row_product(start, column, value, each)
        assert found.dtype == dtype and found.shape == (rows, width)
        bound = 1e-5 if dtype == torch.float32 else 1e-2
        assert float((found.double() - wanted).abs().max()) <= bound * float(wanted.abs().max()), (rows, width, dtype)
assert row_product(torch.zeros(1, dtype=torch.int32), column, None, x).shape == (0, x.size(1))
print("as wanted")
"""


def test_the_kernel_comes_to_what_scipy_does_in_float64():
    """By Triton's interpreter, which runs on a CPU."""
    pytest.importorskip("triton", reason="triton is not installed")
    found = subprocess.run(
        [sys.executable, "-c", ORACLE], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert found.stdout.strip() == "as wanted", found.stderr


def clock_of(seconds: dict):
    """A clock that knows how long each takes, and how often it was asked."""

    def clock(work) -> float:
        work()
        return next(seconds[work])

    return clock


def taking(*seconds: float):
    return iter(seconds)


@pytest.mark.parametrize(
    ("ours", "theirs", "taken"),
    [
        ([1.0] * 5, [1.2] * 5, True),
        ([1.0] * 5, [1.19] * 5, False),
        ([1.0, 1.0, 1.0, 9.0, 9.0], [1.3] * 5, True),  # somebody disturbed it
        ([2.0] * 5, [1.0] * 5, False),
    ],
)
def test_it_pays_where_it_is_so_much_faster_by_the_median(ours, theirs, taken):
    def own():
        return torch.ones(3, 2)

    def other():
        return torch.ones(3, 2)

    assert choosing.pays(own, other, clock_of({own: iter(ours), other: iter(theirs)})) == taken


@pytest.mark.parametrize(
    "own",
    [
        lambda: torch.full((3, 2), 1.001),
        lambda: torch.full((3, 2), torch.nan),
        lambda: torch.ones(3, 2, dtype=torch.bfloat16),
        lambda: torch.ones(3, 1),
        lambda: (_ for _ in ()).throw(RuntimeError("no compiler")),
    ],
    ids=["another", "no number", "another precision", "another shape", "raises"],
)
def test_what_does_something_else_or_nothing_does_not_pay(own):
    assert not choosing.pays(own, lambda: torch.ones(3, 2), lambda work: 1.0 if work is own else 9.0)


def test_several_results_are_compared_one_by_one_as_the_coarsest_of_them_allows():
    def paying(*scales: float, dtype=torch.float32) -> bool:
        def own():
            return torch.full((3, 2), scales[0]).to(dtype), torch.full((4,), scales[1])

        return choosing.pays(
            own, lambda: (torch.ones(3, 2).to(dtype), torch.ones(4)), clock=lambda work: work is not own
        )

    assert paying(1.0, 1.0)
    assert not paying(1.0, 1.001)
    assert not paying(1.001, 1.0)
    assert paying(1.0, 1.001, dtype=torch.bfloat16)
    assert not choosing.pays(lambda: torch.ones(4), lambda: (torch.ones(4), torch.ones(4)), lambda work: 1.0)


def matrix() -> Adjacency:
    target, source = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 0]])
    return Adjacency(Rows.from_entries(target, source, torch.tensor([1.0, 2.0, 3.0, 4.0]), (3, 3)), 3)


@pytest.mark.parametrize("faster", [True, False])
def test_a_matrix_asks_once_for_each_width_and_precision_and_both_directions(faster, monkeypatch):
    asked, calls = [], []

    def own(start, column, value, x):
        calls.append((x.dtype, x.size(1)))
        return Rows(start, column, value)._by_torch(x)

    def pays(one, other, clock):
        torch.testing.assert_close(one(), other())
        asked.append(calls.pop())
        return faster

    for name, double in {"own_product": lambda: own, "pays": pays, "worth_trying": lambda x: True}.items():
        monkeypatch.setattr("mowst.kernels.sparse." + name, double)
    held = matrix()
    for dtype, width in [(torch.float32, 2), (torch.float32, 2), (torch.float32, 5), (torch.bfloat16, 2)]:
        x = torch.randn(3, width, dtype=dtype, requires_grad=True)
        dense = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 3.0], [4.0, 0.0, 0.0]], dtype=dtype)
        held.times(x).sum().backward()
        torch.testing.assert_close(x.grad, (dense.t() @ torch.ones(3, width, dtype=dtype)))
    kinds = [(torch.float32, 2), (torch.float32, 5), (torch.bfloat16, 2)]
    assert asked == [kind for kind in kinds for _ in ("forward", "backward")]
    assert bool(calls) == faster


def test_where_nobody_asks_or_there_is_no_cuda_device_or_no_triton_all_is_as_before(monkeypatch):
    x = torch.ones(3, 2)
    with measuring():
        assert not choosing.worth_trying(x)
        with measuring(False):
            assert not choosing.worth_trying(x)
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    assert choosing.own_product() is None
    monkeypatch.setattr("mowst.kernels.sparse.worth_trying", lambda x: True)
    torch.testing.assert_close(matrix().times(x)[:, 0], torch.tensor([3.0, 3.0, 4.0]))
