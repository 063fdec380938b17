"""What attention by Triton kernels comes to; `test_row_attention.py` runs this file by Triton's interpreter."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.nn import GATConv

from mowst.kernels import Adjacency, Rows, attention, row_attention, sparse
from mowst.kernels.attention import AttentionConv
from mowst.kernels.choosing import APART, apart
from mowst.kernels.row_attention import attend_by_rows


@pytest.fixture(autouse=True)
def short_rows_take_two_steps_and_long_ones_too(monkeypatch):
    monkeypatch.setattr(sparse, "LONG", 4)
    for name, value in {"LONG": 4, "STEP": 2, "WIDER": 2}.items():
        monkeypatch.setattr(row_attention, name, value)


def graph(rows=7, columns=9, edges=24) -> Adjacency:
    """Return edges from columns to rows, without duplicates; two rows and two columns have none."""
    torch.manual_seed(1)
    place = torch.randperm((rows - 2) * (columns - 2))[:edges]
    entries = 1 + place // (columns - 2), 1 + place % (columns - 2)
    found = Adjacency(Rows.from_entries(*entries, None, (rows, columns)), columns)
    assert 0 < len(found.rows.long) < rows - 2
    assert 0 < len(found.columns.long) < columns - 2
    return found


def given(adjacency, heads, width, dtype=torch.float32, size=1.0):
    x = torch.randn(adjacency.size(1), heads, width) + 0.5
    return x.to(dtype), *(size * torch.randn(count, heads) for count in reversed(adjacency.shape))


def own(adjacency, slope=0.2, dropout=0.0):
    return partial(attend_by_rows, adjacency, slope=slope, dropout=dropout)


def counts(adjacency) -> torch.Tensor:
    """Return how many edges lead from each column to each row, [N, M]."""
    one = torch.ones(len(adjacency.rows.column), dtype=torch.double)
    return one.new_zeros(adjacency.shape).index_put_(adjacency.rows.entries(), one, accumulate=True)


def dense(adjacency, x, source, target, slope=0.2, loud=None):
    """Attend by matrices in which every node hears every other: the paper's equation 3, with edges counted.

    `loud`, [N, H, M]: what weights are multiplied by.
    """
    count = counts(adjacency)
    reached = count.sum(1).nonzero().squeeze(-1)
    before = (target[:, :, None] + source.t()[None])[reached]  # [n, H, M]
    weight = (F.leaky_relu(before, slope) + count[reached].log()[:, None]).softmax(-1)
    weight = weight if loud is None else weight * loud[reached]
    heard = torch.einsum("nhm,mhc->nhc", weight, x)
    return heard.new_zeros(adjacency.size(0), *heard.shape[1:]).index_copy(0, reached, heard)


def results(way, inputs, pushed):
    """Return the output and the gradients with respect to nodes, sources and targets."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    out = way(*leaves)
    return out.detach(), *torch.autograd.grad(out, leaves, pushed.to(out.dtype))


def check(found, wanted, bound):
    for one, other, like in zip(found, wanted, [found[0], found[1], found[2], found[2]], strict=True):
        assert one.shape == other.shape
        assert one.dtype == like.dtype
        size = other.norm() if other is not wanted[3] else wanted[2].norm()  # of targets it can be next to nothing
        assert float((one.double() - other).norm()) <= bound * float(size)


@pytest.mark.parametrize(
    ("heads", "width", "dtype", "slope"),
    [
        (1, 16, torch.float32, 0.2),
        (8, 4, torch.float32, 0.2),
        (3, 7, torch.float32, 0.7),
        (2, 5, torch.bfloat16, 0.2),
        (1, 300, torch.float32, 0.0),
        (2, 1, torch.float32, 0.2),
    ],
)
def test_output_and_every_gradient_are_those_of_dense_matrices_in_float64(heads, width, dtype, slope):
    adjacency = graph()
    inputs = given(adjacency, heads, width, dtype)
    pushed = torch.randn(adjacency.size(0), heads, width).to(dtype)
    found = results(own(adjacency, slope), inputs, pushed)
    wanted = results(lambda *each: dense(adjacency, *each, slope), [each.double() for each in inputs], pushed)
    check(found, wanted, APART[dtype])
    assert not found[0][[0, -1]].any()
    assert not found[1][[0, -1]].any()


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_scores_and_edges_that_come_twice(size):
    adjacency = graph()
    row, column = (torch.cat([each, each[::2]]) for each in adjacency.rows.entries())
    adjacency = Adjacency(Rows.from_entries(row, column, None, adjacency.shape), adjacency.size(1))
    inputs, pushed = given(adjacency, 2, 3, size=size), torch.randn(adjacency.size(0), 2, 3)
    found = results(own(adjacency), inputs, pushed)
    assert all(each.isfinite().all() for each in found)
    wanted = dense(adjacency, *(each.double() for each in inputs))
    assert apart(found[0], wanted) < 1e-5


def test_who_needs_no_gradient_gets_the_same():
    adjacency = graph()
    inputs = given(adjacency, 2, 5)
    learned = own(adjacency)(*(each.clone().requires_grad_() for each in inputs))
    assert torch.equal(own(adjacency)(*inputs), learned)
    assert learned.requires_grad


@pytest.mark.parametrize("dropout", [0.25, 0.6])
def test_the_gradients_have_the_mask_of_the_output(dropout):
    """Nodes say who they are, so the output shows the weights; from these the mask, and from that all gradients."""
    adjacency = graph()
    _, source, target = given(adjacency, 2, 1)
    who = torch.eye(adjacency.size(1))[:, None].repeat(1, 2, 1)
    pushed = torch.randn(adjacency.size(0), 2, adjacency.size(1))
    found = results(own(adjacency, dropout=dropout), (who, source, target), pushed)
    assert (found[0] == 0).sum() > (dense(adjacency, who.double(), source.double(), target.double()) == 0).sum()
    torch.testing.assert_close(found[1], torch.einsum("nhm,nhc->mhc", found[0], pushed))
    loud = (found[0] != 0).double() / (1 - dropout)
    inputs = [each.double() for each in (who, source, target)]
    check(found, results(lambda *each: dense(adjacency, *each, loud=loud), inputs, pushed), 1e-5)


def test_so_many_are_dropped_others_at_each_call_and_the_same_after_the_same_seed(monkeypatch):
    """One row hears 30 columns alike, in 40 heads."""
    monkeypatch.setattr(row_attention, "STEP", 16)
    columns, heads = 30, 40
    entries = torch.zeros(columns, dtype=torch.long), torch.arange(columns)
    adjacency = Adjacency(Rows.from_entries(*entries, None, (1, columns)), columns)
    who = torch.eye(columns)[:, None].expand(columns, heads, columns)
    flat = torch.zeros(columns, heads), torch.zeros(1, heads)
    heard = []
    for seed in (0, None, 0):
        if seed is not None:
            torch.manual_seed(seed)
        heard.append(own(adjacency, dropout=0.6)(who, *flat)[0] * columns)
    torch.testing.assert_close(heard[0], 2.5 * (heard[0] != 0))
    assert torch.equal(heard[0], heard[2])
    kept = [each != 0 for each in heard[:2]]
    for each in kept:
        assert float(each.double().mean()) == pytest.approx(0.4, abs=0.05)  # four deviations
    assert float((kept[0] & kept[1]).double().mean()) == pytest.approx(0.16, abs=0.04)
    assert float((kept[0][:-1] & kept[0][1:]).double().mean()) == pytest.approx(0.16, abs=0.04)
    assert not own(adjacency, dropout=1.0)(who, *flat).any()


def test_nothing_comes_of_nothing():
    empty = torch.empty(0, dtype=torch.long)
    for rows, columns in [(0, 3), (3, 0), (2, 2)]:
        adjacency = Adjacency(Rows.from_entries(empty, empty, None, (rows, columns)), columns)
        inputs = given(adjacency, 2, 3)
        found = results(own(adjacency, dropout=0.5), inputs, torch.ones(rows, 2, 3))
        assert not any(each.any() for each in found)


@pytest.mark.parametrize("options", [{"heads": 3}, {"heads": 2, "concat": False, "residual": True}])
def test_the_layer_is_pygs(options, monkeypatch):
    monkeypatch.setattr(attention, "_own", lambda *_: attend_by_rows)
    torch.manual_seed(0)
    theirs = GATConv(6, 5, **options)
    ours = AttentionConv(6, 5, **options)
    ours.load_state_dict(theirs.state_dict())
    edges, x = torch.randint(12, (2, 50)), torch.randn(12, 6)
    for layer, seen in ((ours, Adjacency.from_edge_index(edges, 12)), (theirs, edges)):
        layer(x, seen).square().sum().backward()
    torch.testing.assert_close(ours(x, Adjacency.from_edge_index(edges, 12)), theirs(x, edges))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_the_layer_takes_pairs_as_pygs(monkeypatch):
    monkeypatch.setattr(attention, "_own", lambda *_: attend_by_rows)
    torch.manual_seed(0)
    conv, adjacency = AttentionConv((6, 6), 5, heads=2, add_self_loops=False), graph(rows=7, columns=9)
    conv.lin = torch.nn.Linear(6, 10, bias=False)
    seen = torch.randn(9, 6)
    pair, (target, source) = (seen, seen[:7]), adjacency.rows.entries()
    torch.testing.assert_close(conv(pair, adjacency), conv(pair, torch.stack([source, target])))
