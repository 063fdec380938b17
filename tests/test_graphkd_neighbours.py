"""Losses that learn from the teacher's neighbours, against loops over edges."""

from __future__ import annotations

import math

import pytest
import torch

import graphkd
from graphkd import FFG2M, HGMD, KRD, Signals
from graphkd.neighbours import BINS, fitted_power, hardness, lessons
from tests.graphkd_contract import call, example, gradient

close = torch.testing.assert_close


@pytest.fixture
def given():
    return example().to(torch.float64)


def nll(t, s, T=1.0):
    """Return KL(t ‖ s) of two rows."""
    p, q = (z.div(T).softmax(-1) for z in (t, s))
    return (p * (p.log() - q.log())).sum()


def around(edge_index, node):
    return [int(u) for u, v in edge_index.t() if v == node and u != node]


def test_hgmd_is_the_weighted_mean_of_a_loop_over_edges(given):
    s, t, alpha = given.student.logits, given.teacher.logits, 0.7
    p, q = t.softmax(-1), s.softmax(-1)
    entropy = [-(z * z.log()).sum(-1) for z in (p, q)]
    H_t, H_s = (h / h.max() for h in entropy)
    for i, got in enumerate(graphkd.hgmd(s, t, given.edge_index, alpha, 0.8)):
        total, weight = nll(t[i], s[i], 0.8), 1.0
        for j in around(given.edge_index, i):
            cos = p[i] @ p[j] / p[i].norm() / p[j].norm()
            e = 1 - math.exp(-alpha * cos * (H_t[i] * H_s[i]).sqrt() / H_t[j])
            total, weight = total + e * cos * e * nll(t[j], s[i], 0.8), weight + e * cos * e
        close(got, total / weight)


def test_mixup_is_the_mean_of_draws(given):
    s, t, edges, alpha = given.student.logits, given.teacher.logits, given.edge_index, 3.0
    wanted = gradient(graphkd.hgmd(s.requires_grad_(), t, edges, alpha, 0.8, mixup=True), s)
    p, q = (z.detach().div(0.8).softmax(-1) for z in (t, s))
    e, (source, sink) = hardness(s, t, edges, alpha), edges
    draws, generator = 40_000, torch.Generator().manual_seed(0)
    beta = torch.rand(draws, len(e), generator=generator, dtype=torch.float64)  # Beta(1, 1)
    drawn = (torch.rand(draws, len(e), generator=generator) < e) & (source != sink)
    count, pull = torch.ones(12, dtype=torch.float64), q - p  # of KL(p ‖ q), times the temperature
    for k, (j, i) in enumerate(edges.t().tolist()):
        share = e[k] * beta[:, k]
        count[i] += drawn[:, k].double().mean()
        mixed = (drawn[:, k] * (1 - share)).mean() * p[i] + (drawn[:, k] * share).mean() * p[j]
        pull[i] += drawn[:, k].double().mean() * q[i] - mixed
    close(wanted, pull / 0.8 / count[:, None], rtol=0.02, atol=0.005)


def test_mixup_moves_a_target_towards_neighbours_half_as_far_as_the_node_is_hard():
    edges = torch.tensor([[1], [0]])
    s, t = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True), torch.tensor([[1.0, 0.0], [5.0, 0.0]]).double()
    e = hardness(s, t, edges)
    target = t.softmax(-1)[0] + e / 2 * e / (1 + e) * (t.softmax(-1)[1] - t.softmax(-1)[0])
    close(gradient(graphkd.hgmd(s, t, edges, mixup=True), s)[0], s[0].softmax(-1) - target)


def test_hgmd_s_weights_are_constants(given):
    s, t = given.student.logits.requires_grad_(), given.teacher.logits
    source, sink = given.edge_index
    alike = torch.cosine_similarity(t.softmax(-1)[sink], t.softmax(-1)[source])
    weight = hardness(s.detach(), t, given.edge_index).square() * alike
    frozen = gradient(lessons(s, t, given.edge_index, weight, 1.0), s)
    close(gradient(graphkd.hgmd(s, t, given.edge_index), s), frozen)


def test_harder_nodes_learn_more_from_easier_neighbours(given):
    edges = torch.tensor([[0, 1], [1, 0]])  # 0 -> 1 and 1 -> 0
    t = torch.tensor([[4.0, 0, 0], [1.0, 0, 0]])  # node 1 is the harder one
    s = torch.zeros(2, 3)
    from_easy, from_hard = hardness(s, t, edges)
    assert from_easy > from_hard
    assert (hardness(s, t, edges, 100.0) > 0.99).all()
    assert (hardness(s, t, edges, 0.0) == 0).all()
    close(graphkd.hgmd(s, t, edges, 0.0), graphkd.kd(s, t, 1.0))


def test_high_frequency_is_the_mean_of_a_loop_over_edges(given):
    s, t = given.student.logits, given.teacher.logits
    for i, got in enumerate(graphkd.high_frequency(s, t, given.edge_index, 0.6)):
        terms = [nll((t[i] - t[j]).abs(), (s[i] - s[j]).abs(), 0.6) for j in around(given.edge_index, i)]
        close(got, sum(terms) / len(terms) if terms else torch.zeros_like(got))


def test_low_frequency_gives_every_neighbour_the_say_of_the_node(given):
    s, t = given.student.logits, given.teacher.logits
    got = FFG2M(high=0.0)(Signals(s), Signals(t), edge_index=given.edge_index)
    for i in range(12):
        terms = [nll(t[j], s[i]) for j in (i, *around(given.edge_index, i))]
        close(got[i], sum(terms) / len(terms))


def test_parts_of_ffg2m_add_up_and_vanish_where_they_should(given):
    parts = [FFG2M(low, high, 0.6) for low, high in ((1.0, 0.0), (0.0, 1.0), (2.0, 3.0))]
    low, high, both = (call(loss, given) for loss in parts)
    close(both, 2 * low + 3 * high)
    same = given._replace(student=given.teacher)
    assert (call(parts[1], same) == 0).all()
    none = given._replace(edge_index=torch.empty(2, 0, dtype=torch.long))
    close(call(parts[2], none), 2 * graphkd.GLNN()(*given[:2]))


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_the_power_is_found_again_from_agreement_that_follows_it(power):
    draw = torch.Generator().manual_seed(0)
    change = torch.rand(40_000, generator=draw, dtype=torch.float64)
    agrees = torch.rand(40_000, generator=draw, dtype=torch.float64) < 1 - change.pow(power)
    teacher = torch.eye(2, dtype=torch.float64)[torch.zeros(40_000, dtype=torch.long)]
    student = torch.eye(2, dtype=torch.float64)[(~agrees).long()]
    found = fitted_power(student, teacher, change)
    assert found.item() == pytest.approx(power, rel=0.1)

    def error(a):  # the same sum of squares, bin by bin
        place = (change * BINS).long().clamp(max=BINS - 1)
        rates = [(agrees[place == b].double().mean(), int((place == b).sum())) for b in range(BINS)]
        least, most = min(r for r, _ in rates), max(r for r, _ in rates)
        return sum(
            n * (1 - ((b + 0.5) / BINS) ** a - (r - least) / (most - least)) ** 2 for b, (r, n) in enumerate(rates)
        )

    assert error(found.item()) <= min(error(found.item() * 1.05), error(found.item() / 1.05))


def test_a_power_that_nothing_tells_is_one():
    t, change = torch.randn(30, 4), torch.rand(30)
    assert fitted_power(t, t, change) == 1
    assert fitted_power(-t, t, change) == 1
    assert fitted_power(t, t, torch.zeros(30)) == 1


def test_krd_refits_its_power_while_it_trains_and_keeps_it(given):
    r = torch.rand(12, dtype=torch.float64)
    teacher = given.teacher._replace(reliability=r)
    loss = KRD(refit=True, momentum=0.5)
    loss(given.student, teacher, edge_index=given.edge_index)
    now = fitted_power(given.student.logits, teacher.logits, 1 - r)
    close(loss.power, (0.5 + 0.5 * now).float())
    kept = loss.power.double()
    loss.eval()
    value = loss(given.student, teacher, edge_index=given.edge_index)
    plain = graphkd.krd(given.student.logits, teacher.logits, given.edge_index, 1 - (1 - r).pow(kept))
    close(value, plain)
    other = KRD(refit=True)
    other.load_state_dict(loss.state_dict())
    close(other.eval()(given.student, teacher, edge_index=given.edge_index), value)


def test_krd_without_refitting_does_not_move():
    given = example()
    loss = KRD()
    call(loss, given)
    assert loss.power == 1


@pytest.mark.parametrize("name", ["HGMD", "FFG2M", "KRD"])
def test_self_loops_change_nothing(given, name):
    loops = torch.arange(12).repeat(2, 3)
    loss = getattr(graphkd, name)()
    more = given._replace(edge_index=torch.cat([given.edge_index, loops], 1))
    close(call(loss, more), call(loss, given))
    assert HGMD().scope is graphkd.Scope.ALL
