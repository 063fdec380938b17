"""How far probabilities can be believed."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from mowst.evaluation import (
    averaged,
    belief,
    beliefs,
    calibration_error,
    squared_error,
    thirds,
)
from mowst.models import Logits, Mixture


def case(n=500, C=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, C, generator=generator, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
    return logits, y


def test_likelihood_and_brier_score_are_those_of_scikit_learn():
    logits, y = case()
    found, p = belief(logits, y), logits.softmax(-1).numpy()
    assert found.nll == pytest.approx(log_loss(y.numpy(), p, labels=range(4)), rel=1e-12)
    assert found.brier == pytest.approx(brier_score_loss(y.numpy(), p, labels=range(4), scale_by_half=False), rel=1e-12)
    assert found.accuracy == (p.argmax(1) == y.numpy()).mean()
    assert found == belief(Logits(logits), y)


@pytest.mark.parametrize("bins", [1, 9, 15, 600])
def test_the_calibration_error_is_that_of_bins_of_equal_mass(bins):
    logits, y = case(450)
    confidence, guess = logits.softmax(-1).max(-1)
    right = (guess == y).double()
    parts = np.array_split(confidence.argsort().numpy(), bins) if 450 % bins == 0 else [[k] for k in range(450)]
    each = [abs(float(right[part].mean() - confidence[part].mean())) * len(part) / 450 for part in parts]
    assert calibration_error(confidence, right, bins) == pytest.approx(sum(each), rel=1e-9)


def test_the_order_of_nodes_means_nothing_even_where_confidences_are_equal():
    torch.manual_seed(0)
    confidence, right = (torch.rand(400) * 4).round() / 4, (torch.rand(400) < 0.6).float()
    order = torch.randperm(400)
    for error in (calibration_error, squared_error):
        assert error(confidence, right) == pytest.approx(error(confidence[order], right[order]), abs=1e-12)


@pytest.mark.parametrize("off", [0.0, 0.1])
def test_the_squared_error_is_unbiased_and_the_plain_one_is_not(off):
    generator = torch.Generator().manual_seed(1)
    confidence = torch.linspace(0.4, 0.85, 300, dtype=torch.float64)
    draws = [(torch.rand(300, generator=generator) < confidence + off).double() for _ in range(600)]
    squares = torch.tensor([squared_error(confidence, right) for right in draws])
    assert abs(float(squares.mean()) - off**2) < 4 * float(squares.std()) / 600**0.5 + 1e-4
    plain = torch.tensor([calibration_error(confidence, right) ** 2 for right in draws])
    assert float(plain.mean()) > off**2 + 8 * float(plain.std()) / 600**0.5


def test_everything_is_finite_at_logits_of_ten_thousand():
    generator = torch.Generator().manual_seed(0)
    weak, strong = (1e4 * torch.randint(-1, 2, (200, 5), generator=generator).float() for _ in range(2))
    y, confidence = torch.arange(200) % 5, torch.linspace(0, 1, 200)
    for scale in (None, torch.full((200,), 2.0)):
        found = belief(Mixture(weak, strong, confidence, scale), y)
        assert all(map(math.isfinite, found))
        assert found.nll > 100
    assert all(map(math.isfinite, belief(weak, y)))


def test_of_no_nodes_nothing_is_known():
    found = belief(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    assert found.nodes == 0
    assert all(map(math.isnan, found[1:]))


def test_thirds_part_the_nodes_and_keep_equals_together():
    torch.manual_seed(0)
    values = torch.randint(0, 12, (300,)).double()
    values[:20] = torch.nan
    parts = thirds(values)
    assert (sum(mask.long() for mask in parts.values()) == (~values.isnan()).long()).all()
    assert values[parts["low"]].max() < values[parts["middle"]].min() <= values[parts["middle"]].max()
    assert values[parts["middle"]].max() < values[parts["high"]].min()
    even = thirds(torch.randperm(300).double())
    assert [int(mask.sum()) for mask in even.values()] == [100, 100, 100]
    assert not any(mask.any() for mask in thirds(torch.full((4,), torch.nan)).values())


def test_groups_add_up_to_the_whole():
    logits, y = case()
    parts = beliefs(logits, y, thirds(torch.arange(500).double()))
    whole = belief(logits, y)
    for name in ("nll", "brier", "accuracy", "confidence"):
        mean = sum(part.nodes * getattr(part, name) for part in parts.values()) / 500
        assert mean == pytest.approx(getattr(whole, name))


def test_means_over_seeds_leave_out_what_is_missing():
    one, two = {"a": {"x": 1.0, "y": None}, "b": {"x": 1}}, {"a": {"x": 3.0, "y": None}}
    found = averaged([one, two])
    assert found["a"]["x"] == 2
    assert math.isnan(found["a"]["y"])
    assert found.keys() == {"a"}
    assert averaged([{"x": math.nan}, {"x": 4.0}]) == {"x": 4}
