"""Batch norm, ReLU and dropout in one pass on a CUDA device; skipped where there is none."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mowst.kernels import measuring, norm_relu_dropout, normed
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.choosing import APART, apart, by_triton
from mowst.kernels.normed import Settings, dropping, one_pass
from tests.test_gpu import alike_there, trained_there

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def passes():
    found = by_triton("norm_passes")
    if found is None:
        pytest.skip("Triton is not installed")
    return found


@pytest.fixture
def taken(passes, monkeypatch):
    """Let the kernels be taken wherever they can be, and count how often they are."""
    calls, forth = [], passes.forth
    monkeypatch.setattr(normed, "_found", {})
    monkeypatch.setattr(normed, "_pays", lambda *_: True)
    monkeypatch.setattr(passes, "forth", lambda *given: calls.append(1) or forth(*given))
    with measuring():
        yield calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize(("rows", "width"), [(2, 1), (1000, 3), (20_000, 64), (5_001, 256), (3_000, 300)])
def test_it_and_its_gradients_come_to_what_float64_does(rows, width, p, dtype, passes):
    torch.manual_seed(0)
    x = (3 * torch.randn(rows, width, device="cuda") + 2).to(dtype).requires_grad_()
    pair = [torch.randn(width, device="cuda", requires_grad=True) for _ in range(2)]
    gradient, settings = torch.randn_like(x), Settings(1e-5, None, dropping(p, x.device))
    found = []
    for _ in range(2):
        out = one_pass(x, *pair, passes, settings)[0]
        found.append([out.detach(), *torch.autograd.grad(out, [x, *pair], gradient)])
    exact = [each.detach().double().requires_grad_() for each in (x, *pair)]
    wanted = F.batch_norm(exact[0], None, None, *exact[1:], True) * (out > 0) / (1 - p)
    wanted = [wanted.detach(), *torch.autograd.grad(wanted, exact, gradient.double())]
    for one, again, other in zip(*found, wanted, strict=True):
        assert torch.equal(one, again)
        assert rows == 2 or apart(one, other) <= APART[dtype]
    torch.testing.assert_close(found[0][0].double(), wanted[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_are_fixed_by_the_seed_and_others_at_each_call_and_drop_their_share(p, passes):
    zero, one, kept = torch.zeros(4096, 257, device="cuda"), torch.ones(257, device="cuda"), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        kept += [passes.forth(zero, None, one, Settings(1e-5, None, dropping(p, zero.device)))[0] for _ in range(2)]
    assert torch.equal(kept[0], kept[2])
    assert torch.equal(kept[1], kept[3])
    for first, second in ((kept[0], kept[1]), (kept[0], kept[4])):
        together = float(((first > 0) & (second > 0)).float().mean())
        assert abs(together - (1 - p) ** 2) < 0.005
    assert kept[0].unique().tolist() == [0.0, pytest.approx(1 / (1 - p), rel=1e-4)]


def test_a_matrix_of_more_than_two_to_the_31_entries(passes):
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("needs 24 GiB of the device")
    rows, width, tail = 2**21 + 1000, 1024, slice(-500, None)
    x = torch.empty(rows, width, dtype=torch.bfloat16, device="cuda").normal_()
    settings = Settings(1e-5, None, dropping(0.5, x.device))
    out, moments = passes.forth(x, None, None, settings)
    torch.testing.assert_close(moments[0].mean().item(), 0.0, atol=1e-4, rtol=0)
    wanted = ((x[tail].float() - moments[0]) * moments[1]).relu() * 2
    kept = out[tail] > 0
    torch.testing.assert_close(out[tail].float(), wanted * kept, rtol=1e-2, atol=1e-2)
    assert abs(float(kept.float().mean()) - 0.25) < 0.01
    back, sums = passes.back(out, x, (None, None), moments, settings)
    given = out[tail].float() * kept * 2
    normal = (x[tail].float() - moments[0]) * moments[1]
    wanted = moments[1] * (given - sums[0] / rows - normal * sums[1] / rows)
    torch.testing.assert_close(back[tail].float(), wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_tried_once_and_is_what_the_plain_way_is_without_dropout(dtype, passes, monkeypatch):
    monkeypatch.setattr(normed, "_found", {})
    torch.manual_seed(0)
    norm, x = nn.BatchNorm1d(64).cuda(), torch.randn(30_000, 64, dtype=dtype, device="cuda")
    for p in (0.0, 0.5):
        assert normed._pays(passes, norm, x, p) in (True, False)
    monkeypatch.setattr(normed, "milliseconds", lambda way: 1.0 if way.__name__ == "own" else 9.0)
    found = []
    for enabled in (False, True):
        one, given = copy.deepcopy(norm), x.clone().requires_grad_()
        with measuring(enabled):
            out = norm_relu_dropout(one, given, 0.0)
            out.square().sum().backward()
        assert bool(normed._found) == enabled
        found.append([out.float(), given.grad.float(), one.weight.grad, one.running_mean, one.running_var])
    assert all(each is passes for each in normed._found.values()), "it did not come to the same"
    torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["gcn", "sage", "gin", "gat", "gcn-res", "sign"])
def test_captured_epochs_with_it_are_the_plain_ones_with_it(tiny, kind, precision, taken):
    data, ends = tiny.clone().to("cuda"), []
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    for graphs in (False, True):
        trainer, said = trained_there(data, "solo", "learned", "", graphs=graphs, kind=kind, precision=precision)
        print(kind, precision, said or "captured")
        assert taken
        assert not said or kind not in ("gcn", "sage")
        ends.append(trainer)
        taken.clear()
    alike_there(*ends)
