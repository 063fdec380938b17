"""What losses on relations must not see, and what they must."""

from __future__ import annotations

import math

import pytest
import torch
import torch_geometric.utils as pyg
from torch_geometric.utils import remove_self_loops, scatter

import graphkd
from graphkd import KRD, LSP, RKD, Signals
from graphkd.neighbours import certainty
from graphkd.relation import all_or_sampled, local_structure, sampled, wedges
from tests.graphkd_contract import call, example, loss_for

close = torch.testing.assert_close


@pytest.fixture
def given():
    return example().to(torch.float64)


def turned(h: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    rotation, _ = torch.linalg.qr(torch.randn(h.size(1), h.size(1), generator=generator, dtype=h.dtype))
    return h @ rotation


def test_lsp_does_not_see_translations_order_or_signs_of_coordinates(given):
    h = given.teacher.logits
    image = (h + 4)[:, torch.tensor([3, 1, 4, 0, 2])] * torch.tensor([1, -1, 1, 1, -1])
    assert graphkd.lsp(image, h, given.edge_index, 5.0).abs().max() < 1e-12
    assert graphkd.lsp(2 * h, h, given.edge_index, 5.0).max() > 1e-4


def test_local_structure_is_a_distribution_at_each_node(given):
    weight = local_structure(given.teacher.logits, given.edge_index)
    total = scatter(weight, given.edge_index[1], dim_size=12, reduce="sum")
    close(total[given.edge_index[1].unique()], torch.ones(len(given.edge_index[1].unique()), dtype=torch.float64))


def test_lsp_is_the_divergence_of_a_loop_over_nodes(given):
    s, t, edge_index = given.student.logits, given.teacher.logits, given.edge_index
    got = graphkd.lsp(s, t, edge_index, 3.0)
    for node in range(12):
        around = edge_index[0][edge_index[1] == node]
        p, q = (((-(h[around] - h[node]).abs().sum(-1) / 3).exp()).softmax(0) for h in (t, s))
        close(got[node], (p * (p / q).log()).sum())


def test_a_node_with_one_neighbour_or_none_gives_nothing(given):
    edge_index = torch.tensor([[1, 2, 3], [0, 1, 1]])
    value = graphkd.lsp(given.student.logits, given.teacher.logits, edge_index, 5.0)
    assert value[0].abs() < 1e-12
    assert value[1] > 0
    assert not value[2:].any()


def test_widths_of_hidden_layers_need_not_match(given):
    value = LSP(9.0, of="hidden")(*given[:2], edge_index=given.edge_index)
    close(value, graphkd.lsp(given.student.hidden[-1], given.teacher.hidden[-1], given.edge_index, 9.0))


def test_rkd_does_not_see_rigid_motion_or_scale_but_sees_a_stretch(given):
    h = given.teacher.logits
    moved, stretched = 3 * turned(h) + 5, h * torch.tensor([4.0, 1, 1, 1, 1])
    for loss in (RKD(), RKD(distance=0), RKD(angle=0), RKD(pairs="edges")):
        assert loss(Signals(moved), Signals(h), edge_index=given.edge_index) < 1e-12
        assert loss(Signals(stretched), Signals(h), edge_index=given.edge_index) > 1e-4


def test_rkd_takes_every_pair_and_every_angle_of_few_nodes(given):
    s, t = given.student.logits, given.teacher.logits
    pairs = [(i, j) for i in range(12) for j in range(i)]
    ds, dt = (torch.stack([(h[i] - h[j]).norm() for i, j in pairs]) for h in (s, t))
    wanted = torch.nn.functional.smooth_l1_loss(ds / ds.mean(), dt / dt.mean())
    close(RKD(angle=0)(*given[:2]), wanted)
    triples = [(i, j, k) for j in range(12) for i in range(12) for k in range(i) if j not in (i, k)]
    cs, ct = (
        torch.stack([torch.cosine_similarity(h[i] - h[j], h[k] - h[j], dim=0) for i, j, k in triples]) for h in (s, t)
    )
    close(RKD(distance=0, angle=1)(*given[:2]), torch.nn.functional.smooth_l1_loss(cs, ct))


def test_rkd_of_collapsed_nodes_is_finite():
    same = torch.ones(5, 3, requires_grad=True)
    with pytest.warns(UserWarning, match="the same for every node"):
        value = RKD()(Signals(same), Signals(torch.randn(5, 3)))
    value.backward()
    assert value.isfinite()
    assert same.grad.isfinite().all()


def test_sampling_is_whole_where_it_can_be_and_seeded_where_asked():
    assert all_or_sampled(10, 2, 45).shape == (2, 45)
    assert all_or_sampled(10, 3, 360).shape == (3, 3 * math.comb(10, 3))
    drawn = all_or_sampled(1000, 3, 200, torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 200)
    assert all(len(set(column)) == 3 for column in drawn.t().tolist())
    for size in (2, 3):  # uniform: each of the 5 · 4 (· 3) ordered choices as often as every other
        drawn = sampled(5, size, 60_000, torch.Generator().manual_seed(0))
        codes = (drawn * torch.tensor([1, 5, 25])[:size].unsqueeze(-1)).sum(0).bincount()
        assert all((drawn != drawn.roll(shift, 0)).all() for shift in range(1, size))
        counts = codes[codes > 0]
        assert len(counts) == math.perm(5, size)
        assert (counts - 60_000 / len(counts)).abs().max() < 6 * (60_000 / len(counts)) ** 0.5
    s, t = Signals(torch.randn(300, 4)), Signals(torch.randn(300, 4))
    assert RKD(samples=50, seed=1)(s, t) == RKD(samples=50, seed=1)(s, t)
    assert RKD(samples=50)(s, t) != RKD(samples=50)(s, t)


def test_wedges_are_pairs_of_edges_that_meet(given):
    edge_index, _ = remove_self_loops(given.edge_index)
    edges = set(map(tuple, edge_index.t().tolist()))
    for i, j, k in wedges(edge_index).t().tolist():
        assert (i, j) in edges
        assert (k, j) in edges
        assert len({i, j, k}) == 3


def test_krd_is_the_weighted_mean_of_a_loop_over_edges(given):
    s, t, r = given.student.logits, given.teacher.logits, torch.rand(12, dtype=torch.float64)
    got = graphkd.krd(s, t, given.edge_index, r, 0.8)
    for node in range(12):
        around = [int(u) for u, v in given.edge_index.t() if v == node and u != node]
        total = graphkd.kd(s[[node]], t[[node]], 0.8) / 0.64
        for u in around:
            total = total + r[u] * graphkd.kd(s[[node]], t[[u]], 0.8) / 0.64
        close(got[[node]], total / (1 + r[around].sum()))


def test_krd_without_neighbours_or_trust_is_glnn(given):
    glnn = graphkd.GLNN()(*given[:2])
    loops = torch.arange(12).expand(2, 12)
    close(KRD()(*given[:2], edge_index=loops), glnn)
    distrusted = given.teacher._replace(reliability=torch.zeros(12))
    close(KRD()(given.student, distrusted, edge_index=given.edge_index), glnn)


def test_krd_uses_the_reliability_it_is_given_and_else_the_certainty(given):
    trusted = given.teacher._replace(reliability=torch.rand(12, dtype=torch.float64))
    value = KRD()(given.student, trusted, edge_index=given.edge_index)
    close(value, graphkd.krd(*(x.logits for x in given[:2]), given.edge_index, trusted.reliability))
    known = certainty(given.teacher.logits)
    close(
        KRD()(*given[:2], edge_index=given.edge_index),
        graphkd.krd(*(x.logits for x in given[:2]), given.edge_index, known),
    )
    assert certainty(torch.zeros(1, 4)) == 0
    assert certainty(torch.tensor([[1e4, 0, 0, 0]])) == 1


@pytest.mark.parametrize(
    ("spec", "used"),
    [
        ("gld(k=3, form=neighbourhood)", {"graph.scatter"}),
        ("lsp(width=5)", {"relation.scatter", "relation.softmax"}),
        ("krd", {"neighbours.scatter"}),
    ],
)
def test_sums_over_edges_are_pyg_s_which_use_torch_scatter(spec, used, monkeypatch):
    seen = set()
    for place in ("graph.scatter", "neighbours.scatter", "relation.scatter", "relation.softmax"):
        original = getattr(pyg, place.split(".")[1])

        def spy(*args, place=place, original=original, **options):
            seen.add(place)
            return original(*args, **options)

        monkeypatch.setattr(f"graphkd.{place}", spy)
    given = example()
    call(loss_for(spec, given), given)
    assert seen == used
