"""Compiled in one piece, a loss says what it says otherwise, and passes on the same gradient."""

from __future__ import annotations

import pytest
import torch

import graphkd
from graphkd import Signals
from tests.graphkd_contract import SPECS, call, draw, example, leaves, loss_for

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(function, backend: str = "eager"):
    return torch.compile(function, fullgraph=True, backend=backend)


QUICK = ("nkd", "gld(k=3, form=neighbourhood)", "krd", "ofa", "sp")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, marks=() if spec in QUICK else pytest.mark.slow)
        for spec in SPECS
        if not spec.startswith("rkd")
    ],
)
def test_a_loss_compiles_without_a_break(spec):
    given, other = example(), example()
    loss, wanted, got = loss_for(spec, given), leaves(given.student), leaves(other.student)
    value = call(loss, given)
    value.sum().backward()
    said = call(compiled(loss), other)
    said.sum().backward()
    close(said, value)
    for leaf, like in zip(got, wanted, strict=True):
        assert (leaf.grad is None) == (like.grad is None)
        if leaf.grad is not None:
            close(leaf.grad, like.grad)


def test_rkd_compiles_where_it_draws():
    given = example()
    value = call(compiled(graphkd.RKD(samples=20)), given)
    assert value > 0
    assert call(compiled(graphkd.RKD(samples=20)), given._replace(student=given.teacher)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["kd", "nkd", "ofa", "gld(k=3, form=neighbourhood)", "krd"])
def test_a_loss_compiles_with_its_backward_pass(spec):
    given, other = example(), example()
    loss, leaf, like = loss_for(spec, given), leaves(given.student)[0], leaves(other.student)[0]
    call(compiled(loss, "aot_eager"), given).sum().backward()
    call(loss, other).sum().backward()
    close(leaf.grad, like.grad)


def test_functions_compile_too_and_take_a_masked_class():
    s, t, y = draw()
    t[:, 0] = -torch.inf
    y = y.clamp(min=1)
    for function, rest in ((graphkd.kd, ()), (graphkd.nkd, (y,)), (graphkd.dkd, (y,))):
        close(compiled(function)(s, t.clamp(min=-1e4), *rest), function(s, t.clamp(min=-1e4), *rest))
    masked = Signals(t)
    close(compiled(graphkd.KD())(Signals(s), masked), graphkd.KD()(Signals(s), masked))


def test_sizes_are_checked_in_a_compiled_loss_as_well():
    given = example()
    with pytest.raises(Exception, match="must be logits of the same nodes and classes"):
        compiled(graphkd.KD())(given.student, Signals(given.teacher.logits[:, :4]))
