"""What a run says of its own mixture."""

import pytest
import torch

from mowst.evaluation.diagnosis import EDGES, bins, diagnose, together
from mowst.evaluation.routing import threshold
from mowst.models.outputs import Mixture, hard


def case(n=400, seed=0):
    torch.manual_seed(seed)
    return torch.rand(n), (torch.rand(n) < 0.6).float(), (torch.rand(n) < 0.7).float()


def brute_threshold(confidence, weak, strong):
    """Try every threshold: nodes right, then as many nodes as can be for the weak expert."""
    tried = [(float(strong.sum()), 0, None)]
    for t in confidence.unique().tolist():
        sent = confidence >= t
        if sent.float().mean() >= 0.01:
            tried.append((float(torch.where(sent, weak, strong).sum()), int(sent.sum()), t))
    return max(tried, key=lambda each: each[:2])[2]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_the_threshold_is_the_best_of_all(seed, levels):
    confidence, weak, strong = case(300, seed)
    confidence = (confidence * levels).round() / levels
    assert threshold(confidence, weak, strong) == pytest.approx(brute_threshold(confidence, weak, strong))


def test_a_weak_expert_that_is_never_right_serves_nowhere():
    confidence = torch.rand(50)
    assert threshold(confidence, torch.zeros(50), torch.ones(50)) is None
    assert threshold(confidence, torch.ones(50), torch.zeros(50)) == confidence.min()
    assert threshold(torch.rand(0), torch.rand(0), torch.rand(0)) is None


def test_one_node_in_a_thousand_does_not_speak_for_the_weak_expert():
    weak, strong = torch.zeros(1000), torch.ones(1000)
    weak[0], strong[0] = 1.0, 0.0
    assert threshold(torch.linspace(1, 0, 1000), weak, strong) is None
    out = Mixture(torch.eye(2)[torch.zeros(1000, dtype=torch.long)], torch.rand(1000, 2), torch.linspace(1, 0, 1000))
    y, val = torch.ones(1000, dtype=torch.long), torch.ones(1000, dtype=torch.bool)
    assert diagnose(out, y, ~val, val)["served"] == 0


def test_the_threshold_is_where_the_weak_expert_begins_to_be_right():
    confidence = torch.linspace(0, 1, 1001)
    torch.manual_seed(0)
    weak, strong = (torch.rand(1001) < confidence).float(), (torch.rand(1001) < 0.6).float()
    assert threshold(confidence, weak, strong) == pytest.approx(0.6, abs=0.1)


def test_every_node_is_in_one_bin():
    confidence, weak, strong = case()
    confidence[:6] = torch.tensor(EDGES)
    found = bins(confidence, weak, strong)
    assert sum(each["nodes"] for each in found) == 400
    assert sum(each["weak"] for each in found) == weak.sum()
    assert sum(each["strong"] for each in found) == strong.sum()
    for each in found:
        inside = (confidence >= each["low"]) & ((confidence < each["high"]) | (each["high"] == 1))
        assert each["nodes"] == int(inside.sum())


def output(n=40):
    torch.manual_seed(0)
    return Mixture(torch.randn(n, 3), torch.randn(n, 3), torch.rand(n))


def test_only_validation_labels_are_looked_at():
    out, y = output(), torch.arange(40) % 3
    train, val = torch.arange(40) < 20, (torch.arange(40) >= 20) & (torch.arange(40) < 30)
    other = torch.where(val, y, (y + 1) % 3)
    assert diagnose(out, y, train, val) == diagnose(out, other, train, val)
    assert diagnose(out, (y + 1) % 3, train, val) != diagnose(out, y, train, val)


@pytest.mark.parametrize("threshold", [0.0, 0.3, float("inf"), float("nan")])
def test_the_share_that_is_routed_is_that_of_the_threshold(threshold):
    out, val = output(), torch.arange(40) >= 20
    found = diagnose(out, torch.arange(40) % 3, ~val, val, routes_from=threshold)
    assert found["routed"] == pytest.approx(float((hard(out, threshold).confidence[val]).mean()))


def test_seeds_are_put_together():
    out, y = output(), torch.arange(40) % 3
    one, two = (diagnose(out, y, torch.arange(40) < 20, torch.arange(40) >= n, torch.rand(5)) for n in (20, 30))
    both = together([one, two])
    assert sum(each["nodes"] for each in both["bins"]) == 20 + 10
    assert both["confidence"]["held_out"] == pytest.approx(
        (one["confidence"]["held_out"] + two["confidence"]["held_out"]) / 2
    )
