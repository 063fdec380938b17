"""Attention by our own kernels on a CUDA device; skipped where there is none."""

import pytest
import torch

from mowst.kernels import Adjacency, measuring
from mowst.kernels import attention as kernels
from mowst.kernels.attention import AttentionConv, _there_and_back, attend, by_products, own_attention
from mowst.kernels.choosing import APART, apart
from tests.test_gpu import alike_there, trained_there
from tests.test_propagation import N as FEW
from tests.test_propagation import edges

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

N = 500


@pytest.fixture
def own():
    found = own_attention()
    if found is None:
        pytest.skip("Triton is not installed")
    return found


def graph() -> Adjacency:
    """Return a graph with nodes of more than `LONG` edges into and out of them, and of none."""
    torch.manual_seed(0)
    drawn = torch.randint(1, N, (2, 4000))
    drawn[0, :300], drawn[1, 300:600] = 1, 2
    adjacency = Adjacency.from_edge_index(drawn, N).cuda()
    assert len(adjacency.rows.long) == len(adjacency.columns.long) == 1
    return adjacency


def given(heads: int, width: int, dtype: torch.dtype = torch.float32, size: float = 1.0):
    x = torch.randn(N, heads, width, device="cuda") + 0.5
    return x.to(dtype), *(size * torch.randn(N, heads, device="cuda") for _ in range(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "width"), [(1, 64), (8, 32), (3, 7), (5, 40), (1, 300), (2, 600), (40, 1)])
def test_our_own_attention_comes_to_what_products_in_float64_do_twice_the_same(heads, width, dtype, own):
    adjacency, inputs = graph(), given(heads, width, dtype)
    found, again = (_there_and_back(own, adjacency, inputs, 0.2) for _ in range(2))
    wanted = _there_and_back(by_products, adjacency, tuple(each.double() for each in inputs), 0.2)
    assert [each.dtype for each in found] == [dtype, dtype, torch.float32]
    for one, other, oracle in zip(found, again, wanted, strict=True):
        assert torch.equal(one, other)
        assert apart(one, oracle) <= APART[dtype]


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_scores_come_to_numbers(size, own):
    for each in _there_and_back(own, graph(), given(2, 8, size=size), 0.2):
        assert each.isfinite().all()


def test_the_gradient_has_the_mask_of_the_output(own):
    adjacency = Adjacency.from_edge_index(edges(), FEW).cuda()
    who = torch.eye(FEW, device="cuda")[:, None].repeat(1, 3, 1).requires_grad_()
    scores = torch.randn(2, FEW, 3, device="cuda")
    out = own(adjacency, who, *scores, slope=0.2, dropout=0.5)
    pushed = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, who, pushed)
    torch.testing.assert_close(gradient, torch.einsum("nhm,nhc->mhc", out.detach(), pushed), rtol=1e-5, atol=1e-5)
    assert (out == 0).sum() > (own(adjacency, who, *scores, slope=0.2, dropout=0.0) == 0).sum()


def test_a_recorded_call_drops_others_at_each_replay_and_a_seed_says_which(own):
    adjacency, (x, *scores) = graph(), given(4, 16)
    stream, recorded = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        plain = own(adjacency, x, *scores, slope=0.2, dropout=0.5)
    torch.cuda.synchronize()
    with torch.cuda.graph(recorded, stream=stream):
        out = own(adjacency, x, *scores, slope=0.2, dropout=0.5)
    heard = []
    for seed in (1, None, 1):
        if seed is not None:
            torch.manual_seed(seed)
        recorded.replay()
        heard.append(out.clone())
    assert torch.equal(heard[0], heard[2])
    assert not torch.equal(heard[0], heard[1])
    torch.manual_seed(1)
    plain = own(adjacency, x, *scores, slope=0.2, dropout=0.5)
    assert torch.equal(plain, heard[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_that_was_chosen_by_measurement_has_the_gradients_of_the_one_that_was_not(dtype):
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        adjacency, x = graph(), torch.randn(N, 12, device="cuda")
        layer = AttentionConv(12, 8, heads=4).cuda()
        with measuring(enabled), torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = layer(x, adjacency)
        out.float().square().sum().backward()
        assert (("attention", dtype, 4, 8) in adjacency.gcn().rows.own) == enabled
        found.append([out.detach().float(), *(each.grad for each in layer.parameters())])
    for one, other in zip(*found, strict=True):
        assert apart(one, other) < 5e-2


def test_nothing_is_tried_while_a_stream_is_recorded(own):
    adjacency, (x, *scores) = graph(), given(2, 8)
    x.requires_grad_()
    by_products(adjacency, x, *scores, slope=0.2, dropout=0.0).sum().backward()
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with measuring(), torch.cuda.graph(torch.cuda.CUDAGraph(), stream=stream):
        attend(adjacency, x, *scores)
    assert not adjacency.rows.own


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_captured_epochs_with_our_own_attention_are_the_plain_ones(tiny, precision, own, monkeypatch):
    monkeypatch.setattr(kernels, "_own", lambda *_: own)
    data = tiny.clone().to("cuda")
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    ends = [
        trained_there(data, "solo", "learned", "", graphs=graphs, kind="gat", precision=precision)
        for graphs in (False, True)
    ]
    assert not ends[1][1]
    alike_there(ends[0][0], ends[1][0])
