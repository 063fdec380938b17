"""The ablation shares experts between its steps and changes nothing by it; its gains are those of a paired t-test."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from mowst.experiment import Config, run_seed
from mowst.experiment.choosing import PANEL, PRESETS, composed
from mowst.experiment.scoring import scores_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CONFIG = Config(dataset="tests.graphs:good", seeds=1, first_seed=1, epochs=5, device="cpu")


@pytest.fixture
def ablation(monkeypatch):
    """The script, with the presets as they are outside of the suite."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setitem(PRESETS, "good", PANEL)
    return importlib.import_module("ablation")


def test_a_step_that_shares_experts_is_the_run_that_trains_them(ablation, monkeypatch):
    seen = []
    monkeypatch.setattr(ablation, "scores_of", lambda fitted, data: seen.append(fitted) or scores_of(fitted, data))
    names = ["good", "chosen", "crossed", "no-depth"]
    found = ablation.measured(CONFIG, names)
    opened = ablation.Opened(CONFIG).config
    listed = dict(zip(opened.strong.members, ablation.candidates(opened), strict=True))
    for name, fitted in zip(names, seen[1:], strict=True):
        step = ablation.ALL[name]
        members = tuple(listed[each] for each in step.members(ablation.known_of(found)))
        plain = run_seed(replace(composed(opened, members), rehearsals=step.rehearsals), CONFIG.first_seed)
        for shared, own in zip(fitted["mixture"].output, plain.fitted["mixture"].output, strict=True):
            assert shared is own is None or shared.equal(own), name
        assert found["steps"][name]["test"] == plain.scores["mixture"]["test"]


def test_a_gain_and_its_error_make_the_t_of_a_paired_test(ablation):
    before, after = np.random.default_rng(0).normal(80, 2, (2, 7))
    mean, error = ablation.gain(before, after)
    assert mean == pytest.approx((after - before).mean())
    assert mean / error == pytest.approx(ttest_rel(after, before).statistic)


def test_every_record_of_validation_is_told_once(ablation):
    history = [{"epoch": epoch, "best": best} for epoch, best in enumerate((0.2, 0.2, 0.5, 0.5, 0.6), 1)]
    assert ablation.improved(history) == [(1, 20.0), (3, 50.0), (5, 60.0)]
