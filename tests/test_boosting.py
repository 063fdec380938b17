"""Trees grown by xgboost: the arrays say what xgboost says, values that it has never seen included."""

import sys

import numpy as np
import pytest
import torch

from mowst.errors import InputError
from mowst.models import Judged, Trees, boosting
from mowst.models.boosting import GROWERS, Wish, by_scikit_learn, by_xgboost, grower
from mowst.models.learners import ABSENT

xgboost = pytest.importorskip("xgboost", reason="xgboost is not installed")

N, F, TRAINED = 400, 5, 250
CPU, NO_EDGES = torch.device("cpu"), torch.empty(2, 0, dtype=torch.long)


def table(classes: int, categories: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(classes)
    rows = draw.normal(size=(N, F)).astype(np.float32).astype(np.float64)
    rows[:, :categories] = draw.integers(9, size=(N, categories))
    score = rows[:, -1] + (rows[:, 0] % 3 if categories else rows[:, 0])
    labels = np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]))
    rows[draw.random((N, F)) < 0.1] = np.nan
    if categories:
        rows[TRAINED:, 0] = draw.integers(12, size=N - TRAINED)  # 9 to 11 are in no training row
    return rows, np.where(np.arange(N) < TRAINED, labels, -1)


@pytest.mark.parametrize("categories", [0, 2])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_arrays_say_what_xgboost_says_at_every_node(classes, categories, monkeypatch):
    """Its own prediction is the oracle, also at missing values and at categories that no training row had."""
    rows, labels = table(classes, categories)
    boosters = []
    train = xgboost.train
    monkeypatch.setattr(xgboost, "train", lambda *a, **k: boosters.append(train(*a, **k)) or boosters[-1])
    trees = Trees(F, classes)
    grown = by_xgboost(rows, labels, Wish(0.3, 15, 5, 12, categories), None, CPU)
    trees.hold(**grown.arrays)
    said = (trees.base + trees._walked(torch.from_numpy(rows))).numpy()
    kinds = ["c"] * categories + ["float"] * (F - categories)
    shares = np.bincount(labels[labels >= 0]) / TRAINED
    margin = np.log(shares) if classes > 2 else np.log(shares[1:] / shares[0])
    asked = xgboost.DMatrix(
        rows, base_margin=np.tile(margin, (N, 1)), feature_types=kinds, enable_categorical=True, missing=np.nan
    )
    wanted = boosters[0].predict(asked, output_margin=True).reshape(N, -1)
    assert np.allclose(said, wanted, atol=1e-5)
    if categories:
        assert trees.divides.max() >= 0  # a category was asked for


def test_a_value_at_a_threshold_goes_where_xgboost_sends_it():
    """Splits lie at values that occur; float64 values a little above and below them round to the one or the other."""
    rows = np.repeat([[0.1], [0.2], [0.3]], 60, axis=0).astype(np.float32).astype(np.float64)
    labels = np.repeat([0, 1, 0], 60)
    grown = by_xgboost(rows, labels, Wish(0.5, 4, 1, 5, 0), None, CPU)
    trees = Trees(1, 2)
    trees.hold(**grown.arrays)
    asked = np.concatenate([rows[::60], rows[::60] * (1 - 1e-12), rows[::60] * (1 + 1e-12)])
    said = trees._walked(torch.from_numpy(asked)).flatten().numpy().reshape(3, 3)
    assert np.array_equal(said[0], said[1])
    assert np.array_equal(said[0], said[2])
    assert said[0, 1] > 0 > max(said[0, 0], said[0, 2])


def test_the_round_is_the_one_that_judged_nodes_like_best():
    rows, labels = table(3, 0)
    draw = np.random.default_rng(0)
    noisy = np.where((draw.random(N) < 0.4) & (labels >= 0), (labels + 1) % 3, labels)
    nodes = np.arange(150, TRAINED)
    seen = np.where(np.arange(N) < 150, noisy, -1)
    wish = Wish(0.3, 15, 5, 40, 0)
    found = by_xgboost(rows, seen, wish, Judged(torch.from_numpy(nodes), torch.from_numpy(labels[nodes])), CPU)
    likely = []
    for rounds in range(1, 41):
        trees = Trees(F, 3)
        trees.hold(**by_xgboost(rows, seen, wish._replace(rounds=rounds), None, CPU).arrays)
        raw = trees.base + trees._walked(torch.from_numpy(rows[nodes]))
        likely.append(float(raw.log_softmax(1)[range(len(nodes)), labels[nodes]].sum()))
    assert found.rounds == int(np.argmax(likely)) + 1 < 40


@pytest.mark.parametrize("by", GROWERS)
def test_an_expert_grown_by_either_learns_and_knows_nothing_of_absent_classes(by):
    rows, labels = table(3, 0)
    trees = Trees(F, 5, by=by)
    y = torch.from_numpy(np.where(labels == 1, -1, labels))
    trees.learn(torch.from_numpy(rows), NO_EDGES, y, Judged(torch.tensor([0]), torch.tensor([4])), 20)
    probs = trees(torch.from_numpy(rows)).softmax(1)
    assert torch.allclose(probs[:, [1, 3, 4]], torch.full((N, 3), ABSENT, dtype=probs.dtype), rtol=0.02)
    known = (y >= 0).nonzero().flatten()
    assert (probs[known].argmax(1) == y[known]).float().mean() > 0.9


def test_xgboost_grows_on_a_gpu_where_it_is_installed_and_where_it_is_asked_for(monkeypatch):
    assert grower("auto", CPU) is by_scikit_learn
    assert grower("auto", torch.device("cuda:1")) is by_xgboost
    assert grower("xgboost", CPU) is by_xgboost
    monkeypatch.setattr(boosting, "find_spec", lambda name: None)
    assert grower("auto", torch.device("cuda")) is by_scikit_learn
    rows, labels = table(2, 0)
    with pytest.raises(InputError, match="not installed"):
        by_xgboost(rows, labels, Wish(0.3, 15, 5, 2, 0), None, CPU)
    assert "xgboost" in sys.modules


def test_an_unknown_way_is_refused():
    with pytest.raises(InputError, match="choose from auto, scikit-learn, xgboost"):
        Trees(3, 2, by="lightgbm")
