"""Sets of classes with a coverage that was asked for."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from mowst import InputError
from mowst.evaluation import (
    CONFORMITY,
    SetRule,
    aps,
    diffused,
    fewest,
    lac,
    law,
    measured,
    neighbours_by_features,
    raps,
    threshold_for,
    thresholds_for,
)


def case(n=1200, C=5, seed=0, sharp=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(n, C, generator=generator, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
    noise = torch.rand(n, generator=generator, dtype=torch.float64)
    return (sharp * logits).softmax(-1), y, noise


def by_hand(probs, noise, penalty=0.0, free=1):
    """The scores of APS and RAPS, class by class."""
    found = torch.empty_like(probs)
    for node, row in enumerate(probs):
        for label, own in enumerate(row):
            larger = row[row > own]
            rank = 1 + len(larger)
            found[node, label] = larger.sum() + noise[node] * own + penalty * max(0, rank - free)
    return found


def test_scores_are_those_of_their_definitions():
    probs, _, noise = case(60)
    torch.testing.assert_close(lac(probs, noise), 1 - probs)
    torch.testing.assert_close(aps(probs, noise), by_hand(probs, noise))
    torch.testing.assert_close(raps(probs, noise, penalty=0.1, free=2), by_hand(probs, noise, 0.1, 2))


@pytest.mark.parametrize("name", CONFORMITY.names)
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_coverage_over_draws_follows_the_beta_binomial_law(name, coverage):
    probs, y, noise = case()
    own = CONFORMITY.lookup(name)(probs, noise).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    own = own + 1e-9 * noise  # the law is exact without ties
    n, m, draws = 99, 400, 1000
    generator, covered = torch.Generator().manual_seed(1), []
    for _ in range(draws):
        picked = torch.randperm(len(own), generator=generator)[: n + m]
        limit = threshold_for(own[picked[:n]], coverage)
        covered.append(int((own[picked[n:]] <= limit).sum()))
    expected = law(n, m, coverage)
    assert expected.mean() / m >= coverage
    assert abs(np.mean(covered) - expected.mean()) < 4 * expected.std() / draws**0.5
    smeared = np.array(covered) + np.random.default_rng(0).random(draws)  # between the steps of a law on whole numbers
    assert kstest(smeared, lambda x: expected.cdf(np.floor(x) - 1) + (x % 1) * expected.pmf(np.floor(x))).pvalue > 1e-3


def test_too_few_nodes_are_refused_with_the_number_that_would_do():
    for coverage in (0.5, 0.8, 0.9, 0.95, 0.99, 1 / 3):
        few = fewest(coverage)
        assert threshold_for(torch.rand(few), coverage) <= 1
        with pytest.raises(InputError, match=f"needs {few} calibrating nodes, and there are {few - 1}"):
            threshold_for(torch.rand(few - 1), coverage)
    assert fewest(0.9) == 9
    with pytest.raises(InputError, match="above 0 and below 1"):
        fewest(1.0)


def test_groups_are_covered_each_by_itself():
    probs, y, noise = case(4000)
    group = (torch.arange(4000) % 4 == 0).long()
    probs[group == 1] = probs[group == 1].roll(1, dims=-1)  # an expert that is wrong
    own = lac(probs, noise).gather(-1, y.unsqueeze(-1)).squeeze(-1)
    half = torch.arange(4000) < 2000
    both = threshold_for(own[half], 0.9)
    each = thresholds_for(own[half], group[half], 2, 0.9)
    asked = [~half & (group == number) for number in (0, 1)]
    assert float((own[asked[1]] <= both).double().mean()) < 0.8
    for number in (0, 1):
        assert float((own[asked[number]] <= each[number]).double().mean()) == pytest.approx(0.9, abs=0.04)
    assert thresholds_for(own[:5], torch.zeros(5), 2, 0.9).tolist() == [math.inf, math.inf]


def test_diffusion_is_the_mean_over_neighbours_and_of_nobody_without():
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.2, 0.8]], dtype=torch.float64)
    edge_index = torch.tensor([[0, 1, 1, 2, 3], [1, 0, 2, 1, 3]])
    found = diffused(scores, edge_index, 0.4)
    around = torch.stack([scores[1], (scores[0] + scores[2]) / 2, scores[1]])
    torch.testing.assert_close(found[:3], 0.6 * scores[:3] + 0.4 * around)
    torch.testing.assert_close(found[3], scores[3])
    alike = torch.tensor([[3, 3, 3, 0], [0, 1, 2, 3]])
    torch.testing.assert_close(diffused(scores, edge_index, 0.4, alike, 0.5)[3], 0.5 * scores[3] + 0.5 * scores[0])
    assert diffused(scores, edge_index, 0.0).equal(scores)
    with pytest.raises(InputError, match="at most 1"):
        diffused(scores, edge_index, 0.7, alike, 0.5)


def test_neighbours_by_features_are_the_nearest_by_cosine():
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    source, target = neighbours_by_features(x, 3, block=7)
    cosine = torch.nn.functional.cosine_similarity(x.unsqueeze(1), x.unsqueeze(0), dim=-1).fill_diagonal_(-2)
    for node in range(50):
        assert set(source[target == node].tolist()) == set(cosine[node].topk(3).indices.tolist())


def test_only_labels_of_calibrating_nodes_are_looked_at(tiny):
    probs = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    rule = SetRule(0.8, "aps", 0.3, 7, ())
    other = torch.where(tiny.val_mask, tiny.y, -9)
    assert rule.fit(probs, tiny.edge_index, tiny.y, tiny.val_mask) == rule.fit(
        probs, tiny.edge_index, other, tiny.val_mask
    )
    fitted = rule.fit(probs, tiny.edge_index, tiny.y, tiny.val_mask)
    sets = fitted.sets(probs, tiny.edge_index)
    assert measured(sets[tiny.val_mask], tiny.y[tiny.val_mask])["coverage"] >= 0.8
    assert math.isnan(measured(sets[:0], tiny.y[:0])["size"])


def test_sets_are_sound_at_logits_of_ten_thousand(tiny):
    logits = 1e4 * torch.randint(-1, 2, (60, 3), generator=torch.Generator().manual_seed(0)).double()
    for name in CONFORMITY.names:
        rule = SetRule(0.8, name, 0.3, 7, ()).fit(logits.softmax(-1), tiny.edge_index, tiny.y, tiny.val_mask)
        assert rule.scores(logits.softmax(-1), tiny.edge_index).isfinite().all()
        assert (
            measured(rule.sets(logits.softmax(-1), tiny.edge_index)[tiny.val_mask], tiny.y[tiny.val_mask])["coverage"]
            >= 0.8
        )


@pytest.mark.parametrize(("name", "options"), [("lac", {}), ("aps", {"include_last_label": "randomized"})])
def test_sets_are_those_of_mapie(name, options):
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Says the probabilities that it is handed as features."""

        def fit(self, x, y):
            self.classes_ = np.arange(5)
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(1)

    probs, y, _ = case()
    probs = probs.numpy()
    given = Given().fit(probs, y.numpy())
    classifier = mapie.SplitConformalClassifier(
        given, confidence_level=0.9, conformity_score=name, prefit=True, random_state=3
    )
    classifier.conformalize(probs[:300], y.numpy()[:300])
    theirs = torch.from_numpy(classifier.predict_set(probs[300:], conformity_score_params=options)[1][:, :, 0])
    score = CONFORMITY.lookup(name)
    noise = [
        1 - torch.from_numpy(np.random.RandomState(3).uniform(size=size)) for size in (300, 900)
    ]  # theirs, from 1 on
    own = score(torch.from_numpy(probs[:300]), noise[0]).gather(-1, y[:300].unsqueeze(-1)).squeeze(-1)
    ours = score(torch.from_numpy(probs[300:]), noise[1]) <= threshold_for(own, 0.9)
    assert theirs.bool().equal(ours)
