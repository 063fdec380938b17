"""The area under the ROC curve is scikit-learn's, equal scores, weights and several classes included."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mowst.evaluation.metrics import area_under_roc, rocauc


@settings(max_examples=60, deadline=None)
@given(
    classes=st.integers(2, 5),
    count=st.integers(12, 200),
    steps=st.sampled_from([1, 2, 5, 1000]),
    weighted=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_it_is_what_scikit_learn_says_of_the_same_rows(classes, count, steps, weighted, seed):
    """With one to five steps most scores are equal."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.arange(classes), torch.randint(classes, (count - classes,), generator=draw)])
    raw = torch.randint(1, steps + 1, (count, classes), generator=draw).double()
    probs = raw / raw.sum(1, keepdim=True)
    # scikit-learn has weights of two classes alone
    weight = torch.rand(count, generator=draw) + 0.1 if weighted and classes == 2 else None
    wanted = roc_auc_score(
        y, probs[:, 1] if classes == 2 else probs, multi_class="ovr", sample_weight=None if weight is None else weight
    )
    assert float(area_under_roc(probs, y, weight)) == pytest.approx(wanted, abs=1e-12)


def test_whole_weights_are_rows_that_stand_more_than_once():
    draw = torch.Generator().manual_seed(0)
    probs, y = torch.rand(60, 3, generator=draw).softmax(1), torch.arange(60) % 3
    times = torch.randint(1, 4, (60,), generator=draw)
    again = torch.arange(60).repeat_interleave(times)
    assert rocauc(probs, y, times.float()) == pytest.approx(rocauc(probs[again], y[again]), abs=1e-12)


def test_without_a_class_or_with_no_number_it_has_no_value():
    probs = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    assert math.isnan(rocauc(probs, torch.zeros(3, dtype=torch.long)))
    assert math.isnan(rocauc(probs.index_fill(0, torch.tensor([1]), math.nan), torch.tensor([1, 0, 1])))
    assert rocauc(probs, torch.tensor([1, 0, 1])) == 1
    assert rocauc(probs, torch.tensor([0, 1, 0])) == 0
