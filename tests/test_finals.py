"""The end of a study: what it costs is said, nothing is trained twice, and nobody's files are replaced."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from rich.console import Console

from mowst.experiment import alike
from mowst.experiment.bench import Bench
from mowst.experiment.seed import run_seed
from mowst.reporting.progress import Trainings, lasting
from mowst.tune import command
from mowst.tuning.fields import configured
from mowst.tuning.finals import finalists, finals, finish, fresh
from mowst.tuning.judging import Judge, Kept, Replayed, read_kept
from mowst.tuning.plan import Plan
from mowst.tuning.search import tune
from mowst.tuning.sharing import Shared
from mowst.tuning.study import settled
from mowst.tuning.trial import judged_alone
from tests.tuning import SMALL, narrow, plan

ROOT = Path(__file__).parents[1]
FLAGS = ["--dataset", "tests.graphs:good", "--epochs", "6", "--seeds", "1", "--strong.hidden_channels", "8"]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


@pytest.fixture
def trained(monkeypatch):
    """Every phase that is run, not taken from a journal, by seed."""
    from mowst.training.trainer import Trainer

    run, seen = Trainer._run, []

    def counting(trainer, phase, losses, free):
        seen.append(phase.name)
        return run(trainer, phase, losses, free)

    monkeypatch.setattr(Trainer, "_run", counting)
    return seen


class Stop(Exception):  # noqa: N818 - nothing is wrong
    """Somebody ended it."""


def test_what_was_judged_is_tested_without_being_trained_again_and_comes_out_the_same(tmp_path, trained):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=3))
    trained.clear()
    result = finish(study, narrow(), Plan(), tmp_path / "out", 2)
    judged = ["solo", "joint"] * 2 * len(result["finalists"])
    tested = 1 + (result["default"] != result["tuned"])
    assert sorted(trained) == sorted(judged + ["solo"] * 2 * tested), "beside it only the weak expert alone is trained"
    won = result["finalists"][0]["params"]
    config = fresh(configured(SMALL, won), 2)
    again = [run_seed(config, seed) for seed in (1, 2)]
    for name, scores in result["tuned"]["scores"].items():
        for split in ("val", "test"):
            assert scores[split][0] == pytest.approx(sum(run.scores[name][split] for run in again) / 2, abs=1e-9)


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_finals_that_were_stopped_go_on(tmp_path, monkeypatch, trained, count):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=3))
    whole = finish(study, narrow(), Plan(), tmp_path / "whole", 2)
    trained.clear()
    once, done = Judge.once, []

    def stopping(judge, config, seed, hook=None):
        if len(done) == count:
            raise Stop
        done.append(seed)
        return once(judge, config, seed, hook)

    monkeypatch.setattr(Judge, "once", stopping)
    with pytest.raises(Stop):
        finish(study, narrow(), Plan(), tmp_path / "out", 2)
    monkeypatch.setattr(Judge, "once", once)
    best = yaml.safe_load((tmp_path / "out" / "best.yaml").read_text())
    assert best["lr"] == study.best_params["lr"], "there is a best trial before the finals begin"
    assert len(list((tmp_path / "out" / "judged").glob("*.pt"))) == count
    before = len(trained)
    result = finish(study, narrow(), Plan(), tmp_path / "out", 2)
    assert result["tuned"]["scores"] == whole["tuned"]["scores"]
    assert result["finalists"] == whole["finalists"]
    judged, tested = 2 * 2 * len(whole["finalists"]), 2 * (1 + (whole["default"] != whole["tuned"]))
    assert before == 2 * count
    assert len(trained) == judged + tested, "no training is repeated"


def test_a_test_that_was_stopped_goes_on_by_seeds(tmp_path, monkeypatch):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=3))
    whole = finish(study, narrow(), Plan(), tmp_path / "whole", 2)
    bench, seen = Replayed.bench, []

    def stopping(opened, seed, hook=None):
        seen.append(seed)
        if seed == 2:
            raise Stop
        return bench(opened, seed, hook)

    monkeypatch.setattr(Replayed, "bench", stopping)
    with pytest.raises(Stop):
        finish(study, narrow(), Plan(), tmp_path / "out", 2)
    assert seen == [1, 2]
    seen.clear()
    monkeypatch.setattr(Replayed, "bench", lambda *given: (seen.append(given[1]), bench(*given))[1])
    result = finish(study, narrow(), Plan(), tmp_path / "out", 2)
    assert seen[0] == 2, "seed 1 of the winner is there"
    assert result["tuned"]["scores"] == whole["tuned"]["scores"]


def test_what_is_kept_of_another_split_or_damaged_is_trained_again(tmp_path, trained):
    config, judge = fresh(SMALL, 1), Judge("metric", tmp_path)
    value = judge(config)
    trained.clear()
    assert judge(config) == value
    assert not trained
    (path,) = tmp_path.glob("*.pt")
    held = read_kept(path)
    torch.save({**held, "about": {"split": "another", "device": "cpu"}, "values": {"metric": -1.0}}, path)
    assert judge(config) == value
    path.write_bytes(path.read_bytes()[:-50])
    assert judge(config) == value
    assert len(trained) == 4
    assert Judge("parameters", tmp_path)(config) > 0
    assert len(trained) == 4, "another goal is measured on what was trained"


def test_journals_are_left_out_once_the_result_is_there(tmp_path):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=2))
    finish(study, narrow(), Plan(), tmp_path / "out", 1)
    kept = [read_kept(path) for path in (tmp_path / "out" / "judged").glob("*.pt")]
    assert kept
    assert all(each["journal"] is None and each["values"] for each in kept)


def test_what_finals_will_cost_is_said_before_and_where_they_are_meanwhile(tmp_path):
    study, shown = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=3)), io.StringIO()
    trainings = Trainings(Console(file=shown, width=200), "--retrain 0 leaves them out")
    rows = finals(study, narrow(), Plan(), 2, 3, judge=Judge("metric", tmp_path / "kept"), shown=trainings)
    first, *lines = shown.getvalue().splitlines()
    assert first.startswith(f"finals: {2 * len(rows)} trainings of about ")
    assert first.endswith("--retrain 0 leaves them out")
    assert len(lines) == 2 * len(rows)
    assert lines[0].startswith("finals: the default, seed 1: ")
    assert lines[0].partition("; ")[2].startswith(f"1 of {2 * len(rows)}, about ")
    assert lines[-1].endswith(f"{2 * len(rows)} of {2 * len(rows)}")
    shown.truncate(0)
    finals(study, narrow(), Plan(), 2, 3, judge=Judge("metric", tmp_path / "kept"), shown=trainings)
    assert "finals" not in shown.getvalue(), "nothing is left to train"


def test_the_estimate_is_what_a_finalists_own_trial_took(tmp_path):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=2))
    default, other = finalists(study, narrow(), 3, 2)
    assert (default.trial, other.trial.number) == (None, 1)
    assert default.seconds == study.trials[0].duration.total_seconds()
    assert other.seconds == study.trials[1].duration.total_seconds()
    assert other.config.first_seed == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.04 s"), (12.3, "12 s"), (600, "10 min"), (7200, "2.0 h"), (0, "0 s")]
)
def test_times_are_written_for_people(seconds, words):
    assert lasting(seconds) == words


@pytest.mark.slow
def test_a_command_that_is_interrupted_in_the_finals_goes_on(tmp_path):
    line = [sys.executable, "-m", "mowst.tune", "--dataset", "tests.graphs:good", "--epochs", "100", "--seeds", "1"]
    line += ["--patience", "100", "--trials", "1", "--study", str(tmp_path / "s.log"), "--retrain", "9"]
    judged, end = tmp_path / "s-best" / "judged", time.monotonic() + 60
    started = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while len(list(judged.glob("*.pt"))) < 2:
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert (tmp_path / "s-best" / "best.yaml").exists()
    kept = len(list(judged.glob("*.pt")))
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"({kept} more are there already)" in done.stderr
    assert json.loads((tmp_path / "s-best" / "result.json").read_text())["tuned"]["scores"]


def test_the_graph_is_opened_once_for_those_that_read_it_alike(tmp_path, monkeypatch):
    import mowst.experiment.opening as opening

    opened, open_graph = [], opening.open_graph
    monkeypatch.setattr(
        opening, "open_graph", lambda *given, **named: (opened.append(given), open_graph(*given, **named))[1]
    )
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=4))
    assert len(opened) == 1
    finish(study, narrow(), Plan(), tmp_path / "out", 1)
    assert len(opened) == 2
    shared = Shared()
    first = shared.open(SMALL, judged_alone(SMALL))
    assert shared.open(dataclasses.replace(SMALL, lr=0.5), judged_alone(SMALL)).graph is first.graph
    assert not alike(SMALL, dataclasses.replace(SMALL, normalize_features=True))
    assert (
        shared.open(dataclasses.replace(SMALL, normalize_features=True), judged_alone(SMALL)).graph is not first.graph
    )


def test_the_bench_that_judges_has_no_test_node(tmp_path, monkeypatch):
    train = Bench.train

    def looking(bench, name):
        assert "test_mask" not in bench.ready
        return train(bench, name)

    monkeypatch.setattr(Bench, "train", looking)
    assert Judge("metric", tmp_path)(fresh(SMALL, 2)) > 0
    assert Kept(tmp_path, SMALL).read(1)["values"]


@pytest.mark.parametrize(
    "blocks", [pytest.param(2, marks=pytest.mark.slow), 6, pytest.param(12, marks=pytest.mark.slow)]
)
def test_a_disk_that_is_full_is_a_line_and_the_same_command_goes_on(tmp_path, monkeypatch, blocks):
    """The journal may have so many blocks of 1024 bytes: not enough to begin, to draw a trial, to end one."""
    code = (
        "import resource, sys; from mowst.system.main import main; from mowst.tune import command\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({1024 * blocks}, resource.RLIM_INFINITY)); main(command)"
    )
    flags = [*FLAGS, "--trials", "2", "--silence", "1", "--retrain", "0"]
    study, out = tmp_path / "s.log", tmp_path / "out"
    line = [sys.executable, "-c", code, *flags, "--study", str(study), "--out", str(out)]
    full = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    *_, last = full.stderr.strip().splitlines()
    assert full.returncode == 2, full.stderr
    assert last.startswith(f"error: study {study}: cannot be used any more (File too large)")
    assert "Traceback" not in full.stderr
    assert study.stat().st_size <= 1024 * blocks
    monkeypatch.setattr(settled, "__defaults__", (0.2,))
    assert command([*flags, "--study", str(study), "--out", str(out)]) == 0
    assert (out / "best.yaml").exists()
