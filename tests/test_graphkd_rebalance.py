"""A teacher of balanced labels that is told how frequent the classes are."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import graphkd

SHARES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
TRAINED = torch.tensor([4.0, 2.0, 2.0], dtype=torch.float64)


def seen():
    """Return p(x | c) of 5 kinds of nodes [5, 3], and the kinds of 2,000 nodes whose classes have `SHARES`."""
    generator = torch.Generator().manual_seed(0)
    likelihood = torch.rand(5, 3, generator=generator, dtype=torch.float64).pow(3)
    likelihood = likelihood / likelihood.sum(0)
    return likelihood, (2_000 * (likelihood @ SHARES)).round().long()


def posterior(likelihood, shares):
    joint = likelihood * shares
    return joint / joint.sum(-1, keepdim=True)


def test_of_a_calibrated_teacher_it_finds_the_true_shares_and_bayes_answers():
    likelihood, count = seen()
    kinds = torch.arange(5).repeat_interleave(count)
    logits = posterior(likelihood, TRAINED / TRAINED.sum()).log()[kinds] + 7
    found = graphkd.rebalance(logits, TRAINED, steps=1000).exp()
    torch.testing.assert_close(found.mean(0), SHARES, atol=5e-3, rtol=0)
    torch.testing.assert_close(found, posterior(likelihood, SHARES)[kinds], atol=5e-3, rtol=0)


def test_each_step_makes_the_nodes_likelier():
    logits = 2 * torch.randn(200, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logits[:, 0] += 1
    likelihood = logits.softmax(-1)  # up to a factor for each node, at equal shares in training

    def of_all(steps):
        shares = graphkd.rebalance(logits, steps=steps - 1).exp().mean(0)
        return float((likelihood @ shares).log().mean())

    values = [of_all(steps) for steps in range(1, 12)]
    assert all(later > earlier for earlier, later in pairwise(values))


def test_where_the_classes_are_as_frequent_as_in_training_nothing_changes():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mean = logits.softmax(-1).mean(0)
    for found in (
        graphkd.rebalance(logits, mean, 5),
        graphkd.rebalance(logits, 30 * mean),
        graphkd.rebalance(logits, steps=0),
    ):
        torch.testing.assert_close(found, logits.log_softmax(-1))
    cycled = torch.cat([logits, logits.roll(1, -1), logits.roll(2, -1)])
    torch.testing.assert_close(graphkd.rebalance(cycled), cycled.log_softmax(-1))


def test_one_step_is_the_formula_and_the_order_of_classes_is_nothing():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    p = logits.softmax(-1)
    wanted = p * p.mean(0) / TRAINED
    found = graphkd.rebalance(logits, TRAINED)
    torch.testing.assert_close(found.exp(), wanted / wanted.sum(-1, keepdim=True))
    torch.testing.assert_close(graphkd.rebalance(logits.flip(-1), TRAINED.flip(-1)), found.flip(-1))


def test_it_stays_finite_and_has_no_gradient():
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, -torch.inf, 5.0]], requires_grad=True)
    found = graphkd.rebalance(logits, steps=50)
    assert found.isfinite().all()
    assert not found.requires_grad
    assert graphkd.rebalance(torch.empty(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("trained", [torch.ones(4), torch.tensor([1.0, 0.0, 2.0]), torch.ones(3, 1), [1, 1, 1]])
def test_shares_that_are_none_are_refused(trained):
    with pytest.raises(ValueError, match=r"^rebalance: trained must be a tensor \[3\].* above 0, got"):
        graphkd.rebalance(torch.randn(5, 3), trained)
