"""SP, DIST and Hint against the papers' formulas, written out."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import pearsonr

import graphkd
from graphkd import DIST, SP, Hint, Signals
from tests.graphkd_contract import call, draw, example, gradient

close = torch.testing.assert_close


def gram(h: torch.Tensor, normalize: bool) -> torch.Tensor:
    whole = h @ h.t()
    return whole / whole.norm(dim=1, keepdim=True) if normalize else whole


@pytest.mark.parametrize("normalize", [True, False])
def test_sp_is_the_distance_of_gram_matrices_that_are_never_formed(normalize):
    s, _, _ = draw()
    t = torch.randn(16, 3, dtype=torch.float64)
    explicit = (gram(t, normalize) - gram(s, normalize)).square().sum() / 16**2
    close(graphkd.sp(s, t, normalize), explicit)
    close(gradient(graphkd.sp(s, t, normalize), s), gradient(explicit, s))


def test_sp_sees_no_rotation_and_with_rows_of_length_one_no_scale():
    s, t, _ = draw()
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    close(graphkd.sp(s @ turn, t), graphkd.sp(s, t))
    close(graphkd.sp(3 * s, t), graphkd.sp(s, t))
    assert graphkd.sp(t @ turn, t).abs() < 1e-12
    assert graphkd.sp(3 * t, t, normalize=False) > 1


def test_a_row_of_zeros_resembles_nothing():
    s, t, _ = draw()
    dark = s.detach().clone()
    dark[3] = 0
    dark.requires_grad_()
    value = graphkd.sp(dark, t)
    whole = gram(dark.detach(), True).nan_to_num(0)
    close(value, (gram(t, True) - whole).square().sum() / 16**2)
    assert gradient(value, dark).isfinite().all()


def test_sp_of_hidden_layers_takes_other_widths():
    given = example()
    close(SP(of="hidden")(*given[:2]), graphkd.sp(given.student.hidden[-1], given.teacher.hidden[-1]))


def test_dist_is_scipy_s_correlation_of_rows_and_columns():
    s, t, _ = draw()
    q, p = (z.detach().div(2).softmax(-1).numpy() for z in (s, t))
    rows = sum(1 - pearsonr(q[i], p[i])[0] for i in range(16)) / 16
    columns = sum(1 - pearsonr(q[:, c], p[:, c])[0] for c in range(6)) / 6
    close(graphkd.dist(s, t, 0.5, 2.0, 2.0).item(), 4 * (0.5 * rows + 2 * columns))


def test_dist_sees_no_scale_of_probabilities_and_is_nothing_where_both_agree():
    _, t, _ = draw()
    p = t.softmax(-1)
    flatter = (0.3 * p + 0.7 / 6).log()  # every row and column moved to its mean
    assert graphkd.dist(t, t) < 1e-12
    assert graphkd.dist(flatter, t).abs() < 1e-12
    assert graphkd.kd(flatter, t, 1.0).min() > 1e-3


def test_dist_with_a_constant_class_or_row_is_finite():
    s = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    value = graphkd.dist(s, torch.randn(4, 3, dtype=torch.float64))
    close(value.item(), 2.0)
    assert gradient(value, s).isfinite().all()


def test_two_classes_are_warned_about():
    with pytest.warns(UserWarning, match="DIST with 2 classes: .* only that of γ is left"):
        call(DIST(), example(C=2))


def test_hint_is_half_the_mean_squared_error_behind_a_linear_map_and_least_squares_is_its_minimum():
    given = example().to(torch.float64)
    loss = Hint(6, 3).double()
    h, wanted = given.student.hidden[-1], given.teacher.hidden[-1]
    by_hand = (h @ loss.map.weight.t() + loss.map.bias - wanted).square().sum(-1) / 6
    close(call(loss, given), by_hand)
    best = torch.linalg.lstsq(torch.cat([h, torch.ones(12, 1, dtype=torch.float64)], 1), wanted).solution
    loss.map.weight.data, loss.map.bias.data = best[:-1].t(), best[-1]
    call(loss, given).sum().backward()
    assert loss.map.weight.grad.abs().max() < 1e-10
    assert loss.map.bias.grad.abs().max() < 1e-10


def test_hint_says_what_does_not_fit():
    given = example()
    with pytest.raises(ValueError, match="Hint has no map yet"):
        Hint()(*given[:2])
    with pytest.raises(ValueError, match="Hint maps 6 columns to 4, here are 6 and 3"):
        Hint(6, 4)(*given[:2])
    with pytest.raises(ValueError, match="give both"):
        Hint(6)
    with pytest.raises(ValueError, match="Hint needs teacher_hidden"):
        Hint().prepare(given.student, Signals(given.teacher.logits))
    with pytest.raises(ValueError, match=r"Hint is of torch\.float64"):
        Hint(6, 3).double()(*given[:2])
