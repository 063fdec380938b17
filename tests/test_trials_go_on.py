"""A trial that was killed is not begun anew: its retry goes on inside it, and ends as if nothing had happened."""

import dataclasses
import os
import random
import signal
import time
from functools import partial

import optuna
import pytest
from filelock import FileLock
from optuna.trial import TrialState

from mowst.experiment import Saving
from mowst.tuning.plan import Plan
from mowst.tuning.saving import LOCK, Trials
from mowst.tuning.search import tune
from mowst.tuning.sharing import Shared
from mowst.tuning.storage import RETRIES
from mowst.tuning.study import open_study, work
from mowst.tuning.trial import Watch, objective
from tests.tuning import SMALL, narrow, plan, state

CONFIG = dataclasses.replace(SMALL, regime="alternate", seeds=2, epochs=4, rounds=1)


class Killed(BaseException):
    """Nobody is told, as with SIGKILL."""


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def searched(folder, config=CONFIG, trials=2, **fields):
    """Return a study of some trials, that are saved after every epoch."""
    fields = {"pruner": "none", "sampler": "random"} | fields
    how = Plan(**plan(folder / "study.log", trials=trials, **fields))
    object.__setattr__(how, "silence", -1.0)  # whoever is not there now is dead
    space, shared = narrow(config), Shared(Trials(folder / "trials", Saving(minutes=0)))
    points = [{"lr": 0.02, "strong.dropout": 0.1}, {"lr": 0.05, "strong.dropout": 0.3}]
    open_study(how, ["maximize"], {"x": 1}, points[:trials])
    return work(how, partial(objective, config=config, space=space, goals=("metric",), shared=shared), config.epochs)


def ended(study):
    """Return what a study knows of the trials that came to their end."""
    done = [trial for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    keys = ("epochs", "by_seed", "scored", "reason")
    found = [(t.params, t.values, t.intermediate_values, [t.user_attrs.get(key) for key in keys]) for t in done]
    return sorted(found, key=lambda trial: trial[0]["lr"])


def killing(monkeypatch, after, told):
    """Kill the process after so many validations, once."""
    call, left = Watch.__call__, iter([*[False] * after, True])

    def watched(self, line):
        told.append((line["seed"], line["model"], line["phase"], line["epoch"]))
        call(self, line)
        if next(left, False):
            raise Killed

    monkeypatch.setattr(Watch, "__call__", watched)


@pytest.mark.parametrize("moments", [(9,), pytest.param((0, 2, 17, 46), marks=pytest.mark.slow)])
def test_a_killed_trial_ends_with_the_identical_value(moments, tmp_path, monkeypatch):
    lines = []
    killing(monkeypatch, 10_000, lines)
    expected, whole = ended(searched(tmp_path / "whole")), list(lines)
    assert len(expected) == 2
    assert len(whole) == 48
    assert not (tmp_path / "whole" / "trials").exists()
    for moment in moments:
        monkeypatch.undo()
        killing(monkeypatch, moment, told := [])
        folder = tmp_path / str(moment)
        with pytest.raises(Killed):
            searched(folder)
        assert (folder / "trials").exists() == (moment > 0)  # nothing was done before the first validation
        study = searched(folder)
        assert ended(study) == expected
        assert [trial.state.name for trial in study.trials].count("FAIL") == 1
        assert len(told) <= len(whole) + 1  # of the epoch that it was killed in
        assert not (folder / "trials").exists()


@pytest.mark.slow
def test_a_trial_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    config = dataclasses.replace(CONFIG, epochs=20, patience=20)
    start = time.perf_counter()
    expected = ended(searched(tmp_path / "whole", config, trials=1))
    span, moments, kills = time.perf_counter() - start, random.Random(0), 0
    for _ in range(RETRIES):
        if (child := os.fork()) == 0:
            searched(tmp_path / "out", config, trials=1)
            os._exit(0)
        kills += not over(child, moments.uniform(0.1, 0.4) * span)
    assert kills > 1
    assert ended(searched(tmp_path / "out", config, trials=1)) == expected


def over(child, seconds):
    """Kill a process after a while, and tell whether it had come to its end."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFEXITED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_what_cannot_be_gone_on_with_is_begun_anew(tmp_path, monkeypatch):
    expected = ended(searched(tmp_path / "whole", trials=1))
    killing(monkeypatch, 9, [])
    with pytest.raises(Killed):
        searched(tmp_path, trials=1)
    (held,) = (tmp_path / "trials").rglob("checkpoint.safetensors")
    held.write_bytes(held.read_bytes()[:100])
    assert ended(searched(tmp_path, trials=1)) == expected


def test_the_folder_lies_beside_the_study(tmp_path):
    assert Trials.of(Plan(study=str(tmp_path / "a.log"))).folder == tmp_path / "a-trials"
    assert str(Trials.of(Plan(study="sqlite:///a.db", name="b")).folder) == "b-trials"
    study = tune(SMALL, narrow(), **plan(tmp_path / "s.log", trials=2))
    assert len(state(study)) == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_retry_leaves_the_checkpoint_of_a_worker_that_still_lives_alone(tmp_path, monkeypatch):
    expected = ended(searched(tmp_path / "whole", trials=1))
    killing(monkeypatch, 9, [])
    with pytest.raises(Killed):
        searched(tmp_path, trials=1)
    (held,) = (tmp_path / "trials").rglob("checkpoint.safetensors")
    before = held.read_bytes()
    with FileLock(held.parents[1] / LOCK):  # it was asleep only
        assert ended(searched(tmp_path, trials=1)) == expected
        assert held.read_bytes() == before
