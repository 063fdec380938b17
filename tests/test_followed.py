"""`--logger`: what a program that draws scores reads is what the run wrote; without its package a line says so."""

import json
from importlib.util import find_spec

import pytest

from mowst import Config, InputError
from mowst.experiment import Followed, check_logger
from mowst.run import command as run

FAST = ["--dataset", "tests.graphs:good", "--preset", "fast", "--epochs", "4", "--patience", "4", "--folds", "2"]
FAST += ["--weak.hidden_channels", "8", "--strong.hidden_channels", "8", "--quiet", "--no-fast", "--no-report"]


def history_of(folder):
    """Return (tag, epochs counted on through a model's phases, value) of every validation of a seed."""
    found, passed, before = [], dict[str, int](), None
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        same = before and (before["model"], before["phase"]) == (line["model"], line["phase"])
        passed[line["model"]] = passed.get(line["model"], 0) + line["epoch"] - (before["epoch"] if same else 0)
        where = f"{line['model']}/{line['phase']}".replace(" ", "-")
        found += [(f"{where}/{name}", passed[line["model"]], line[name]) for name in ("val", "best")]
        before = line
    return found


def events_of(folder):
    """Read the same from the files that TensorBoard reads."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    tags = [tag for tag in read.Tags()["scalars"] if not tag.endswith("/loss")]
    return [(tag, event.step, event.value) for tag in tags for event in read.Scalars(tag)]


def test_tensorboard_reads_the_scores_of_every_seed_phase_and_epoch(tmp_path):
    pytest.importorskip("tensorboard")
    out = tmp_path / "out"
    line = [*FAST, "--seeds", "2", "--out", str(out), "--logger", "tensorboard"]
    assert run(line) == 0
    for seed in range(2):
        wanted = sorted(history_of(out / f"seed-{seed}"))
        found = sorted(events_of(out / "tensorboard" / f"seed-{seed}"))
        assert [each[:2] for each in found] == [each[:2] for each in wanted]
        assert [each[2] for each in found] == pytest.approx([each[2] for each in wanted], rel=1e-6)
    held = len(list((out / "tensorboard" / "seed-0").iterdir()))
    with pytest.raises(InputError, match="holds a run already"):
        run(line)
    assert run([*line, "--overwrite"]) == 0
    assert len(list((out / "tensorboard" / "seed-0").iterdir())) == held


def test_a_folder_of_somebody_elses_is_not_written_into(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").mkdir()
    with pytest.raises(InputError, match="tensorboard there is no run's"):
        run([*FAST, "--seeds", "1", "--out", str(tmp_path), "--logger", "tensorboard"])


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_a_line_before_anything_is_trained(name, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mowst.experiment.followed.find_spec", lambda asked: None if asked == name else find_spec(asked)
    )
    with pytest.raises(InputError, match=f"--logger {name}: is not installed: pip install {name}"):
        run([*FAST, "--seeds", "1", "--out", str(tmp_path / "out"), "--logger", name])
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="unknown 'mlflow'; choose from tensorboard, wandb"):
        check_logger("mlflow")


def test_wandb_is_told_offline_what_was_measured(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    kept = []
    begin = wandb.init

    def init(**options):
        made = begin(**options)
        assert options["mode"] == "offline"
        monkeypatch.setattr(made, "log", kept.append)
        return made

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", init)
    told = []
    with Followed(told.append, "wandb", tmp_path, Config()) as followed:
        followed({"seed": 0, "model": "weak", "phase": "solo", "epoch": 1, "val": 0.5, "best": 0.5, "loss": 1.0})
    assert kept == [{"weak/solo/val": 0.5, "weak/solo/best": 0.5, "weak/solo/loss": 1.0, "epoch": 1}]
    assert len(told) == 1
    assert list((tmp_path / "wandb").glob("offline-run-*"))
