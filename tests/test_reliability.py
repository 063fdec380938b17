"""Figures of a report against their definitions, brute force, and independent libraries."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import t as student
from sklearn.calibration import calibration_curve
from torch_geometric.utils import degree, homophily, remove_self_loops

from mowst.evaluation import METRICS, Paired, degrees, local_homophily, paired, risk_coverage, tradeoff
from mowst.evaluation.reliability import reliability
from mowst.models import Mixture, hard


def case(n=300, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits.softmax(-1), torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_bins_of_equal_mass_are_those_of_scikit_learn(bins):
    probs, y = case()
    found = reliability(probs, y, bins)
    confidence, said = probs.max(-1)
    share, sure = calibration_curve(said == y, confidence, n_bins=bins, strategy="quantile")
    assert found.nodes.tolist() == [300 // bins] * bins
    np.testing.assert_allclose(found.accuracy, share, atol=1e-12)
    np.testing.assert_allclose(found.confidence, sure, atol=1e-12)
    assert found.error == pytest.approx(np.abs(share - sure).mean())


def test_a_prediction_that_is_as_sure_as_right_has_no_error_and_one_that_is_too_sure_has_all():
    probs = torch.tensor([[0.75, 0.25]] * 400, dtype=torch.float64)
    y = (torch.arange(400) % 4 == 0).long()
    assert reliability(probs, y).error == pytest.approx(0, abs=1e-12)
    sure = torch.tensor([[1.0, 0.0]] * 400)
    assert reliability(sure, torch.ones(400, dtype=torch.long)).error == 1


def test_the_order_of_nodes_does_not_matter_where_many_are_equally_sure():
    probs, y = case()
    probs = torch.stack([(5 * probs[:, 0]).round().clamp(1, 4) / 5, 1 - (5 * probs[:, 0]).round().clamp(1, 4) / 5], -1)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    y = y.clamp_max(1)
    one, other = reliability(probs, y), reliability(probs[order], y[order])
    assert torch.allclose(one.accuracy, other.accuracy)
    right = (probs.argmax(-1) == y).double()
    confidence = probs.max(-1).values
    assert torch.allclose(risk_coverage(confidence, right).risk, risk_coverage(confidence[order], right[order]).risk)


def test_risk_by_coverage_is_what_counting_says():
    probs, y = case(50)
    confidence, said = probs.max(-1)
    found, right = risk_coverage(confidence, said == y), (said == y).numpy()
    order = np.argsort(-confidence.numpy())
    brute = [1 - right[order[: k + 1]].mean() for k in range(50)]
    np.testing.assert_allclose(found.risk, brute, atol=1e-12)
    assert found.risk[-1] == pytest.approx(1 - right.mean())
    assert found.area == pytest.approx(np.mean(brute))
    perfect = risk_coverage(torch.as_tensor(right, dtype=torch.float64), torch.as_tensor(right))
    assert perfect.area < found.area < risk_coverage(-torch.as_tensor(right, dtype=torch.float64), right_of(right)).area


def right_of(right):
    return torch.as_tensor(right)


def test_nothing_has_no_error():
    assert math.isnan(reliability(torch.empty(0, 3), torch.empty(0, dtype=torch.long)).error)
    assert math.isnan(risk_coverage(torch.empty(0), torch.empty(0)).area)


def test_the_paired_test_is_students_formula():
    ones, others = [81.0, 79.5, 84.0, 80.2], [80.0, 79.0, 81.5, 80.9]
    gains = np.subtract(ones, others)
    statistic = gains.mean() / (gains.std(ddof=1) / 2)
    expected = Paired(gains.mean(), gains.std(ddof=1), 2 * student.sf(abs(statistic), 3))
    assert paired(ones, others) == pytest.approx(expected)
    assert paired(others, ones).mean == -paired(ones, others).mean


@pytest.mark.parametrize(("ones", "others"), [([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 1.0])])
def test_where_nothing_varies_there_is_nothing_to_test(ones, others):
    assert math.isnan(paired(ones, others).p)


def graph():
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(40, (2, 200), generator=generator)
    return edge_index, torch.randint(3, (40,), generator=generator)


def test_degree_and_homophily_are_those_of_pyg(monkeypatch):
    monkeypatch.setattr("mowst.evaluation.structure.CHUNK", 17)
    edge_index, y = graph()
    found, (others, _) = local_homophily(edge_index, y), remove_self_loops(edge_index)
    assert torch.equal(degrees(edge_index, 40), degree(others[1], 40).long())
    torch.testing.assert_close(found, local_homophily(others, y), equal_nan=True, rtol=0, atol=0)
    edge_index = others
    assert float(found.nanmean()) == pytest.approx(homophily(edge_index, y, method="node"), abs=1e-6)


def test_nodes_without_a_label_are_no_neighbours_and_have_no_homophily():
    edge_index, y = torch.tensor([[0, 1, 2, 1], [3, 3, 3, 0]]), torch.tensor([0, 1, -1, 0])
    assert local_homophily(edge_index, y).nan_to_num(-1).tolist() == [0.0, -1.0, -1.0, 0.5]


@pytest.mark.parametrize("metric", ["accuracy", "rocauc"])
def test_each_point_along_the_threshold_is_the_score_of_routing_there(metric):
    generator = torch.Generator().manual_seed(0)
    weak, strong = (torch.randn(200, 2, generator=generator) for _ in range(2))
    out, y = Mixture(weak, strong, torch.rand(200, generator=generator)), torch.randint(2, (200,), generator=generator)
    score = METRICS.lookup(metric)
    found = tradeoff(out, y, score, 21)
    for asked, threshold, value in zip(found.asked, found.threshold, found.score, strict=True):
        routed = hard(out, float(threshold))
        assert float(1 - routed.confidence.mean()) == pytest.approx(float(asked), abs=1e-6)
        assert float(value) == pytest.approx(score(routed.probs(), y), abs=1e-6)


def test_a_sample_stands_for_the_nodes_where_a_metric_is_no_mean(monkeypatch):
    monkeypatch.setattr("mowst.evaluation.thresholds.MOST", 100)
    out = Mixture(torch.randn(400, 2), torch.randn(400, 2), torch.rand(400))
    y = torch.randint(2, (400,))
    one, other = (tradeoff(out, y, METRICS.lookup("rocauc"), 5) for _ in range(2))
    assert one.nodes == 100
    assert torch.equal(one.score, other.score)
    assert tradeoff(out, y, METRICS.lookup("accuracy"), 5).nodes == 400
