"""What a prediction is worth that may also say "I do not know"."""

import math

import pytest
import torch

from mowst import InputError
from mowst.evaluation import abstention
from mowst.evaluation.abstention import (
    accuracy_at,
    answers,
    answers_from,
    area,
    distributional_correctness,
    extended,
    fewest_answers,
    risks,
)


def case(n=400, seed=0, C=4):
    generator = torch.Generator().manual_seed(seed)
    probs = (2 * torch.randn(n, C, generator=generator, dtype=torch.float64)).softmax(-1)
    return probs, torch.multinomial(probs, 1, generator=generator).squeeze(-1)


def test_the_area_is_the_mean_risk_over_every_number_of_answers():
    probs, y = case()
    confidence, guess = probs.max(-1)
    right = (guess == y).double()
    order = sorted(range(400), key=lambda node: -confidence[node])
    by_hand = [sum(1 - float(right[node]) for node in order[:k]) / k for k in range(1, 401)]
    assert risks(confidence, right).tolist() == pytest.approx(by_hand)
    assert area(confidence, right) == pytest.approx(sum(by_hand) / 400)
    assert accuracy_at(confidence, right, 0.9) == pytest.approx(1 - by_hand[359])
    assert accuracy_at(confidence, right, 1.0) == pytest.approx(float(right.mean()))


def test_equal_confidences_are_taken_in_every_order_alike():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.tensor([0.9, 0.9, 0.9, 0.5, 0.5, 0.2])
    right = torch.tensor([1.0, 0, 1, 0, 1, 0])
    drawn = []
    for _ in range(4000):
        noise = 1e-6 * torch.rand(6, generator=generator)
        drawn.append(risks(confidence + noise, right))
    assert risks(confidence, right).tolist() == pytest.approx(torch.stack(drawn).mean(0).tolist(), abs=0.03)
    assert area(torch.ones(6), right) == pytest.approx(0.5)


def test_nothing_beats_the_oracle_and_the_oracle_has_no_excess():
    probs, y = case()
    found = answers(probs, y)
    assert found.excess > 0
    assert all(found.accuracy[share] <= found.oracle[share] for share in found.accuracy)
    certain = torch.nn.functional.one_hot(y, 4).double()
    half = torch.where(torch.arange(400).unsqueeze(-1) < 200, certain, certain.roll(1, dims=-1) * 0.6 + 0.1)
    assert answers(half, y).excess == pytest.approx(0, abs=1e-12)
    accuracy = float((probs.argmax(-1) == y).double().mean())
    assert found.oracle["0.8"] == pytest.approx(min(1, accuracy / 0.8))
    assert math.isnan(answers(probs[:0], y[:0]).area)


def test_answers_may_be_other_classes_than_the_likeliest():
    probs, y = case()
    found, second = answers(probs, y), probs.topk(2, -1).indices[:, 1]
    assert answers(probs, y, probs.argmax(-1)) == found
    other = answers(probs, y, second)
    confidence = probs.gather(-1, second.unsqueeze(-1)).squeeze(-1)
    assert other.area == area(confidence, (second == y).double())
    assert other.correctness == found.correctness


def test_the_correctness_score_credits_right_mass_and_charges_wrong_mass():
    y = torch.tensor([0, 0, 0, 0])
    probs = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.3, 0.2]], dtype=torch.float64)
    assert distributional_correctness(probs, y).tolist() == pytest.approx([1, -1, 0, 0.2 * 0.8])
    assert distributional_correctness(probs, y, credit=2, loss=3)[3] == pytest.approx((1 - 0.9) * 0.8)
    said = extended(probs[:, :2], probs[:, :2].max(-1).values >= 0.6)
    assert said.sum(-1).tolist() == pytest.approx([1, 1, 1, 1])
    assert said[:, 2].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(("risk", "n", "least"), [(0.05, 2000, 0.0), (0.2, 400, 0.15)])
def test_the_risk_of_the_answers_is_held_as_often_as_promised(risk, n, least):
    generator, broken, answered = torch.Generator().manual_seed(0), 0, []
    others = torch.rand(2000, generator=generator)
    for _ in range(300):
        confidence = torch.rand(n, generator=generator)  # right with chance confidence
        right = (torch.rand(n, generator=generator) < confidence).double()
        threshold = answers_from(confidence, right, others, risk)
        true_risk = (1 - threshold) / 2 if threshold < 1 else 0.0  # mean of 1 - confidence from the threshold on
        broken += true_risk > risk
        answered.append(1 - min(threshold, 1))
    assert broken / 300 <= abstention.DOUBT + 0.05
    assert sum(answered) / 300 >= least  # of the share 2 risk that could be answered


def test_too_few_nodes_are_refused_and_hopeless_ones_are_never_answered():
    few = fewest_answers(0.05)
    assert (1 - 0.05) ** (few / 2) <= abstention.DOUBT < (1 - 0.05) ** (few / 2 - 1)
    confidence = torch.linspace(0.5, 1, few)
    assert answers_from(confidence, torch.ones(few), confidence, 0.05) == 0.5
    assert answers_from(confidence, torch.zeros(few), confidence, 0.05) == math.inf
    with pytest.raises(InputError, match=f"needs {few} nodes that calibrate, and there are {few - 1}"):
        answers_from(confidence[1:], torch.ones(few - 1), confidence, 0.05)
    with pytest.raises(InputError, match="above 0 and below 1"):
        answers_from(confidence, torch.ones(few), confidence, 5.0)


def test_everything_is_finite_at_logits_of_ten_thousand():
    logits = 1e4 * torch.randint(-1, 2, (200, 4), generator=torch.Generator().manual_seed(0)).double()
    y = torch.arange(200) % 4
    found = answers(logits.softmax(-1), y)
    assert all(map(math.isfinite, (found.area, found.excess, found.correctness, *found.accuracy.values())))
    assert distributional_correctness(extended(logits.softmax(-1), y > 1), y).isfinite().all()
