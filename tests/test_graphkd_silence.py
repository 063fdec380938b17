"""A loss that is constant where it stands says so, once: what, why, and what to change."""

from __future__ import annotations

import warnings

import pytest
import torch

import graphkd
from graphkd import DKD, LSP, OFA, RKD, USKD, Signals
from tests.graphkd_contract import call, draw, example, gradient, leaves

NO_EDGES = torch.empty(2, 0, dtype=torch.long)
LOOPS = torch.arange(12).expand(2, 12)


def flat(given):
    """Return an example whose student says the same of every node."""
    return given._replace(student=Signals(torch.zeros_like(given.student.logits), given.student.hidden))


STANDING = [
    (LSP(), lambda given: given, "width 100 is .* times the teacher's mean distance along an edge.*try width="),
    (LSP(5.0), lambda given: given._replace(edge_index=NO_EDGES), "no edge between two nodes.*give it a graph"),
    (LSP(5.0), lambda given: given._replace(edge_index=LOOPS), "no edge between two nodes"),
    (LSP(5.0), flat, "logits are equal along every edge.*begin from a random layer"),
    (RKD(pairs="edges"), lambda given: given._replace(edge_index=NO_EDGES), "no edge.*take pairs=sampled"),
    (RKD(), flat, "logits are the same for every node.*begin from a random layer"),
    (DKD(alpha=0), lambda given: example(C=2), "DKD with 2 classes and alpha=0 is 0 throughout.*give an alpha"),
]


@pytest.mark.parametrize(("loss", "change", "words"), STANDING)
def test_a_constant_loss_says_so_once_and_truly_has_no_gradient(loss, change, words):
    given = change(example())
    leaf = leaves(given.student)[0]
    with pytest.warns(UserWarning, match=words):
        value = call(loss, given)
    value.sum().backward()
    plain = gradient(graphkd.kd(leaf, given.teacher.logits), leaf)
    assert leaf.grad is None or leaf.grad.norm() < 2e-3 * plain.norm()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(loss, given)


def test_uskd_without_a_label_says_so():
    given = example()
    loss = USKD((4, 6), 5)
    with pytest.warns(UserWarning, match="none of these rows has a label.*give it rows with labels"):
        value = loss(given.student, target=torch.full((12,), -100))
    assert value == 0


@pytest.mark.parametrize("loss", [LSP(5.0), RKD(), RKD(pairs="edges"), DKD(alpha=0), USKD((4, 6), 5), OFA((4, 6), 5)])
def test_a_loss_that_moves_is_quiet(loss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(loss, example())


def test_a_loss_that_was_quiet_still_speaks_when_it_comes_to_stand():
    loss, given = RKD(pairs="edges"), example()
    call(loss, given)
    with pytest.warns(UserWarning, match="no edge"):
        call(loss, given._replace(edge_index=NO_EDGES))


@pytest.mark.parametrize("on", ["all", "target"])
def test_from_gamma_one_on_the_target_outweighs_what_the_teacher_prefers_less(on):
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    teacher, y = torch.stack([p, 1 - p], -1).log(), torch.zeros(99, dtype=torch.long)
    s = torch.zeros(99, 2, dtype=torch.float64, requires_grad=True)

    def weights(gamma):  # the optimum is w / Σw: the gradient at q = 1/2 is Σw / 2 - w
        slope = gradient(graphkd.ofa(s, teacher, y, gamma, gamma_on=on), s)
        return slope[:, 1] - slope[:, 0]

    for gamma in (1.0, 1.5, 3.0):
        assert (weights(gamma)[p > 0.5] > 0).all()
    assert (weights(0.5)[(p > 0.51) & (p < 0.7)] < 0).all()
    low, _ = OFA.search["gamma"]
    assert low == 1
    with pytest.warns(UserWarning, match=r"gamma=0\.5 can prefer a wrong class"):
        OFA(gamma=0.5)


def test_logits_alone_are_signals():
    s, t, y = draw()
    torch.testing.assert_close(graphkd.KD()(s, t), graphkd.KD()(Signals(s), Signals(t)))
    torch.testing.assert_close(graphkd.NKD()(s, Signals(t), target=y), graphkd.NKD()(Signals(s), t, target=y))
    some = torch.arange(16) < 7
    torch.testing.assert_close(graphkd.on_rows(graphkd.KD(), some, s, t), graphkd.KD()(s, t)[some].mean())
    assert graphkd.take(t, some).logits.shape == (7, 6)
    with pytest.raises(
        ValueError, match=r"^KD: student must be logits \[N, C\], or Signals\(logits, ...\), got \[1, 2\]"
    ):
        graphkd.KD()([1, 2], t)
