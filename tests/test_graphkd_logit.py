"""Identities of the losses on a row of logits, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import graphkd
from graphkd import Signals
from graphkd.logit import nckd
from tests.graphkd_contract import draw, gradient, without

N, C = 16, 6
close = torch.testing.assert_close


def entropy(p: Tensor) -> Tensor:
    return torch.special.entr(p).sum(-1)


# --- KD


@pytest.mark.parametrize("T", [0.5, 1.0, 4.0])
def test_kd_gradient_is_the_difference_of_probabilities(T):
    s, t, _ = draw()
    close(gradient(graphkd.kd(s, t, T), s), T * ((s / T).softmax(-1) - (t / T).softmax(-1)))


def test_kd_is_cross_entropy_less_entropy_and_blind_to_the_offset_of_a_row():
    s, t, _ = draw()
    p = t.softmax(-1)
    close(graphkd.kd(s, t, 1.0), -(p * s.log_softmax(-1)).sum(-1) - entropy(p))
    close(graphkd.kd(s + 7, t - 100, 3.0), graphkd.kd(s, t, 3.0))
    close(graphkd.kd(t + 5, t), torch.zeros(N, dtype=torch.float64))


def test_kd_to_a_certain_teacher_is_cross_entropy():
    s, _, y = draw()
    close(graphkd.kd(s, 1e4 * F.one_hot(y, C).double(), 1.0), F.cross_entropy(s, y, reduction="none"))


def test_kd_at_a_high_temperature_compares_centred_logits():
    s, t, _ = draw()
    d = s - t
    limit = (d - d.mean(-1, keepdim=True)).square().sum(-1) / (2 * C)
    close(graphkd.kd(s, t, 1e4), limit, rtol=1e-3, atol=1e-4)


def test_reverse_kd_swaps_the_two():
    s, t, _ = draw()
    close(graphkd.kd(s, t, 2.0, "reverse"), graphkd.kd(t, s.detach(), 2.0))


def test_glnn_is_kd_at_temperature_one():
    s, t, _ = draw()
    close(graphkd.GLNN()(Signals(s), Signals(t)), graphkd.KD(1.0)(Signals(s), Signals(t)))


# --- DKD and NKD


@pytest.mark.parametrize(("T", "scale"), [(1.0, 2.0), (4.0, 2.0), (1.0, 3000.0)])
def test_kd_is_tckd_plus_weighted_nckd(T, scale):
    s, t, y = draw(scale=scale)
    p_y = (t / T).softmax(-1).gather(1, y[:, None]).squeeze(1)
    tckd = graphkd.dkd(s, t, y, alpha=1, beta=0, temperature=T) / T**2
    close(graphkd.kd(s, t, T) / T**2, tckd + (1 - p_y) * nckd(s, t, y, T))


def test_nckd_and_its_kin_do_not_see_the_target_logit():
    s, t, y = draw()
    moved = s + 3 * F.one_hot(y, C)
    close(nckd(moved, t, y), nckd(s, t, y))
    close(graphkd.dkd(moved, t, y, alpha=0), graphkd.dkd(s, t, y, alpha=0))
    p, q = without(t, y, 2.0), without(s, y, 2.0)
    close(nckd(s, t, y, 2.0), (p * (p / q).log()).sum(-1))


def test_dkd_is_zero_where_both_agree_and_nkd_is_not():
    _, t, y = draw()
    s = t.clone().requires_grad_()
    close(graphkd.dkd(s, t, y), torch.zeros(N, dtype=torch.float64))
    p = t.softmax(-1)
    wanted = p.gather(1, y[:, None]) * (p - F.one_hot(y, C))
    close(gradient(graphkd.nkd(s, t, y), s), wanted)


@pytest.mark.parametrize(("gamma", "T"), [(1.5, 1.0), (3.5, 3.0), (0.0, 1.0)])
def test_nkd_is_weighted_cross_entropy_plus_nckd_plus_entropy(gamma, T):
    s, t, y = draw()
    own = t.softmax(-1).gather(1, y[:, None]).squeeze(1) * F.cross_entropy(s, y, reduction="none")
    rest = gamma * T**2 * (nckd(s, t, y, T) + entropy(without(t, y, T)))
    value = graphkd.nkd(s, t, y, gamma, T)
    close(value, own + rest)
    close(gradient(value - own, s), gradient(gamma * T**2 * nckd(s, t, y, T), s))
    close(graphkd.nkd(s + 9, t - 9, y, gamma, T), value)


# --- standardization


@pytest.mark.parametrize("inner", ["kd", "dkd", "nkd"])
def test_standardized_losses_are_blind_to_scale_and_offset(inner):
    s, t, y = draw()
    loss = graphkd.Standardized(graphkd.make(inner), temperature=1.0)
    value = loss(Signals(s), Signals(t), target=y)
    close(loss(Signals(3 * s + 5), Signals(0.2 * t - 8), target=y), value)
    assert not torch.allclose(loss(Signals(-s), Signals(t), target=y), value)
    close(gradient(value, s).sum(-1), torch.zeros(N, dtype=torch.float64))
    along = gradient(loss(Signals(s), Signals(t), target=y), s) * (s - s.mean(-1, keepdim=True))
    close(along.sum(-1), torch.zeros(N, dtype=torch.float64))


def test_standardized_kd_is_zero_at_an_affine_image_of_the_teacher_and_kd_is_not():
    _, t, _ = draw()
    image = Signals(2 * t + 1)
    close(graphkd.Standardized()(image, Signals(t)), torch.zeros(N, dtype=torch.float64))
    assert (graphkd.KD(2.0)(image, Signals(t)) > 1e-3).all()


def test_standardized_rows_have_mean_0_deviation_1_and_a_cap():
    s, _, _ = draw()
    z = graphkd.standardize(s)
    close(z.mean(-1), torch.zeros(N, dtype=torch.float64))
    close(z.std(-1), torch.ones(N, dtype=torch.float64))
    peak = (graphkd.standardize(F.one_hot(torch.tensor([0]), 7).double()) / 2).softmax(-1).max()
    assert peak.item() == pytest.approx(1 / (1 + 6 * math.exp(-math.sqrt(7) / 2)), abs=1e-9)
    assert peak.item() == pytest.approx(0.385, abs=1e-3)


def test_standardized_kd_is_kd_with_the_deviation_as_temperature():
    s, t, _ = draw()
    p, q = (t / t.std(-1, keepdim=True) / 2).softmax(-1), (s / s.std(-1, keepdim=True) / 2).log_softmax(-1)
    close(graphkd.Standardized(graphkd.KD(2.0))(Signals(s), Signals(t)), 4 * (-entropy(p) - (p * q).sum(-1)))


def test_a_constant_row_standardizes_to_zero_with_a_finite_gradient():
    z = torch.ones(1, 5, requires_grad=True)
    assert (graphkd.standardize(z) == 0).all()
    assert gradient(graphkd.standardize(z)[:, 0], z).isfinite().all()


# --- the functions, used without a module


@pytest.mark.parametrize(
    ("function", "rest"),
    [
        (graphkd.kd, ()),
        (graphkd.dkd, ("y",)),
        (graphkd.nkd, ("y",)),
        (graphkd.ofa, ("y",)),
        (graphkd.binary_kl, ()),
        (graphkd.lsp, ("edges",)),
        (graphkd.krd, ("edges", "trust")),
        (graphkd.rkd_distance, ("edges",)),
        (graphkd.rkd_angle, ("triples",)),
    ],
)
def test_functions_too_hold_the_teacher_constant_and_compute_in_full_precision(function, rest):
    s, t, y = draw()
    s, t = s.detach().bfloat16().requires_grad_(), t.bfloat16().requires_grad_()
    more = {
        "y": y,
        "edges": torch.tensor([[0, 1, 2], [1, 2, 1]]),
        "triples": torch.tensor([[0, 3], [1, 4], [2, 5]]),
        "trust": torch.ones(N),
    }
    value = function(s, t, *(more[name] for name in rest))
    value.sum().backward()
    assert value.dtype == torch.float32
    assert s.grad.any()
    assert t.grad is None
