"""Identities of the losses with heads, and of teachers made of experts, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import graphkd
from graphkd import Signals
from graphkd.feature import zipf_labels
from tests.graphkd_contract import draw, example, gradient, rows, without

N, C = 16, 6
close = torch.testing.assert_close


# --- OFA and dual head


def test_ofa_at_gamma_one_is_cross_entropy():
    s, t, y = draw()
    entropy = torch.special.entr(t.softmax(-1)).sum(-1)
    close(graphkd.ofa(s, t, y, gamma=1.0), graphkd.kd(s, t, 1.0) + entropy)


@pytest.mark.parametrize("gamma_on", ["all", "target"])
def test_ofa_weighs_classes_as_the_formula_says(gamma_on):
    s, t, y = draw()
    p, hot = t.softmax(-1), F.one_hot(y, C).bool()
    weight = torch.where(hot, 2 * p + p**2, p**2 if gamma_on == "all" else p)
    value = graphkd.ofa(s, t, y, 2.0, 1.0, gamma_on)
    close(value, -(weight * s.log_softmax(-1)).sum(-1))
    close(gradient(value, s), weight.sum(-1, keepdim=True) * s.softmax(-1) - weight)


def test_ofa_with_a_certain_teacher_is_a_multiple_of_cross_entropy_or_nothing():
    s, _, y = draw()
    right, wrong = 1e4 * F.one_hot(y, C).double(), 1e4 * F.one_hot((y + 1) % C, C).double()
    close(graphkd.ofa(s, right, y, 1.5), (2**1.5 - 1) * F.cross_entropy(s, y, reduction="none"))
    close(graphkd.ofa(s, wrong, y, 1.5), F.cross_entropy(s, (y + 1) % C, reduction="none"))


def test_ofa_sums_the_output_and_every_exit_and_reaches_the_backbone():
    given = example()
    loss = graphkd.OFA((4, 6), 5)
    hidden = tuple(h.requires_grad_() for h in given.student.hidden)
    value = loss(*given[:2], target=given.target)
    y = graphkd.fill_target(given.target, given.teacher)
    exits = [given.student.logits] + [head(h) for head, h in zip(loss.heads, hidden, strict=True)]
    close(value, sum(graphkd.ofa(z, given.teacher.logits, y) for z in exits))
    value.sum().backward()
    assert all(h.grad.any() for h in hidden)


def test_binary_kl_is_log_cosh_even_and_bounded_in_slope():
    s, t, _ = draw()
    T = 2.0
    value = graphkd.binary_kl(s, t, T)
    close(value, T**2 * torch.cosh((s - t) / (2 * T)).log().sum(-1))
    sigma = torch.sigmoid((s - t) / T)
    close(value, T**2 * (0.5 * (0.5 / sigma).log() + 0.5 * (0.5 / (1 - sigma)).log()).sum(-1))
    close(graphkd.binary_kl(2 * t - s, t, T), value)
    close(gradient(value, s), T / 2 * torch.tanh((s - t) / (2 * T)))
    assert (graphkd.binary_kl(t, t) == 0).all()
    assert (value > 0).all()


def test_binary_kl_is_quadratic_when_hot_absolute_when_cold_and_finite_far_out():
    s, t, _ = draw()
    d = s - t
    close(graphkd.binary_kl(s, t, 1e4), d.square().sum(-1) / 8, rtol=1e-3, atol=1e-6)
    close(graphkd.binary_kl(s, t, 1e-5), 1e-5 / 2 * d.abs().sum(-1), rtol=1e-3, atol=1e-6)
    assert graphkd.binary_kl(torch.full((1, 5), 1e6), torch.zeros(1, 5)).isfinite().all()
    close(graphkd.binary_kl(s + 3, t, center=True), graphkd.binary_kl(s, t, center=True))


def test_dual_head_leaves_the_model_s_own_head_alone():
    given = example()
    logits = given.student.logits.requires_grad_()
    loss = graphkd.DualHead((4, 6), 5)
    value = loss(*given[:2])
    assert torch.autograd.grad(value.sum(), logits, allow_unused=True)[0] is None
    close(value, graphkd.binary_kl(loss.heads[0](given.student.hidden[-1]), given.teacher.logits))


# --- USKD


def test_zipf_labels_are_harmonic_and_sum_to_one():
    student = torch.tensor([[3.0, 0.0, 2.0, 1.0]])
    label = zipf_labels(student, student, torch.tensor([2]))
    close(label, torch.tensor([[1, 1 / 3, 0, 1 / 2]]) / (1 + 1 / 2 + 1 / 3))
    by_code = zipf_labels(student, student, torch.tensor([2]), author_code=True)  # the target takes the second rank
    close(by_code, torch.tensor([[1, 1 / 4, 0, 1 / 3]]) / (1 + 1 / 3 + 1 / 4))


def test_zipf_labels_follow_the_classes_and_ignore_the_offset_of_a_row():
    s, w, y = draw()
    order = torch.tensor([2, 0, 5, 1, 4, 3])
    for code in (False, True):
        label = zipf_labels(s, w, y, code)
        close(label.sum(-1), torch.ones(N, dtype=torch.float64))
        close(zipf_labels(s[:, order], w[:, order], order.argsort()[y], code), label[:, order])
        close(zipf_labels(s + 3, w - 2, y, code), label)


def test_uskd_equals_its_formula_with_frozen_weights_and_labels():
    s, w, y = draw()
    p_y = s.detach().softmax(-1).gather(1, y[:, None]).squeeze(1)
    P = 1 + p_y**2 - (p_y**2).mean()
    assert P.mean().item() == pytest.approx(1, abs=1e-12)
    labels = zipf_labels(s, w, y)
    kept = torch.stack([torch.cat([row[:k], row[k + 1 :]]) for row, k in zip(labels, y, strict=True)])
    wanted = (P * F.cross_entropy(s, y, reduction="none")).mean() - 0.1 * (kept * without(s, y, 1).log()).sum(-1).mean()
    value = graphkd.uskd(s, w, y, mu=0.0)
    close(value, wanted)
    close(gradient(value, s), gradient(wanted, s))
    smooth = graphkd.uskd(s, w, y, alpha=0.0, beta=0.0, mu=2.0)
    close(smooth, 2 * F.cross_entropy(w, 0.9 * F.one_hot(y, C) + 0.1 / C))


def test_uskd_with_equal_confidences_is_cross_entropy():
    s, w, y = draw()
    same = s[:1].expand(N, C)
    close(graphkd.uskd(same, w, y[:1].expand(N), beta=0, mu=0, alpha=0.7), 0.7 * F.cross_entropy(same, y[:1].expand(N)))


def test_uskd_without_a_teacher_is_about_labelled_rows_only():
    given = example()
    loss = graphkd.USKD((4, 6), 5)
    labelled = given.target >= 0
    alone = loss(graphkd.take(given.student, labelled), target=given.target[labelled])
    close(loss(given.student, target=given.target), alone)


# --- teachers


def test_extrapolated_logits_keep_the_odds_identity():
    plus, minus, _ = draw()
    logits, step = graphkd.extrapolate(plus, minus, beta=1.5, max_step=10.0)
    close(step, 1.5 * (plus.softmax(-1) - minus.softmax(-1)).abs().sum(-1).detach())

    def odds(z):
        return z[:, 0] - z[:, 1]

    close(odds(logits), ((1 + step) * odds(plus) - step * odds(minus)).detach())
    assert not logits.requires_grad


def test_extrapolation_of_equals_or_by_nothing_is_the_strong_expert():
    plus, minus, _ = draw()
    close(graphkd.extrapolate(plus, plus).logits.softmax(-1), plus.softmax(-1).detach())
    close(graphkd.extrapolate(plus, minus, beta=0.0).logits.softmax(-1), plus.softmax(-1).detach())
    shifted = graphkd.extrapolate(plus + 11, minus.log_softmax(-1)).logits
    close(shifted, graphkd.extrapolate(plus, minus).logits)


def test_extrapolation_is_capped_and_far_out_it_is_what_changed_most():
    plus, minus, _ = draw()
    assert graphkd.extrapolate(plus, minus, beta=100, max_step=3.0).step.max() <= 3
    far = graphkd.extrapolate(plus, minus, beta=1e6, max_step=1e6).logits
    assert torch.equal(far.argmax(-1), (plus.log_softmax(-1) - minus.log_softmax(-1)).argmax(-1))
    teacher = graphkd.Extrapolated(beta=1.0)(Signals(plus, (plus,)), Signals(minus))
    close(teacher.logits, graphkd.extrapolate(plus, minus).logits)
    assert not teacher.hidden[0].requires_grad


def test_reliability_is_0_where_noise_changes_most_and_1_where_it_changes_nothing():
    clean, noisy, _ = draw()
    noisy[0] = clean[0]
    r = graphkd.reliability(clean, noisy)
    assert r[0] == 1
    assert r.min() == 0
    assert ((r >= 0) & (r <= 1)).all()
    assert (graphkd.reliability(clean, clean) == 1).all()
    assert (graphkd.reliability(clean, noisy, power=1e9) == 1).sum() == N - 1  # all but the worst
    assert graphkd.reliability(clean[:0], noisy[:0]).shape == (0,)


def test_a_label_wins_over_the_teacher_and_rows_follow():
    given = example()
    target = graphkd.fill_target(given.target, given.teacher)
    labelled = given.target >= 0
    assert torch.equal(target[labelled], given.target[labelled])
    assert torch.equal(graphkd.fill_target(None, given.teacher), given.teacher.logits.argmax(-1))
    assert rows(given, labelled).target.min() >= 0
