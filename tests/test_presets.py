"""Presets beside everything else that a run can be asked for: nothing is dropped in silence, or refused too late."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from mowst import Config, ExpertConfig, InputError, MowstClassifier
from mowst.data import load
from mowst.experiment import config_of, parse, run, searching, settled, trying
from mowst.experiment.choosing import PRESETS
from mowst.experiment.reading import say_idle
from mowst.experiment.teachers import read
from mowst.predict import command as predict
from mowst.run import command, flags
from mowst.training.held_out import divide

GRAPH = "tests.graphs:good"
SMALL = {"dataset": GRAPH, "seeds": 1, "epochs": 2, "device": "cpu"}
ALONE = {"epochs": 2, "device": "cpu"}
FEW = (("gcn", {"norm": "none"}), ("sage", {"num_layers": 3}), ("neighbours", {}))
EXPERT = """
from mowst.models import EdgelessMLP

class Mine(EdgelessMLP):
    def __init__(self, in_channels, hidden_channels, num_layers, out_channels, **others):
        super().__init__([in_channels, hidden_channels, out_channels])
"""


@pytest.fixture
def few(monkeypatch):
    for name in ("good", "best"):
        monkeypatch.setitem(PRESETS, name, FEW)


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A run of a panel, and one of its experts alone, without a mixture."""
    folder = tmp_path_factory.mktemp("panel")
    line = ["--dataset", GRAPH, "--seeds", "1", "--epochs", "8", "--strong", "gcn+sage", "--quiet", "--out"]
    command([*line, str(folder / "whole")])
    command([*line, str(folder / "alone"), "--no-mixture"])
    return folder


# --- What a search has chosen


def test_a_choice_is_found_again_also_beside_an_expert_of_one_s_own(few, tmp_path, monkeypatch):
    (tmp_path / "experts_of_one_s_own.py").write_text(EXPERT)
    monkeypatch.syspath_prepend(tmp_path)
    config = Config(preset="best", weak=ExpertConfig(kind="experts_of_one_s_own:Mine"), batch="parts(2)", **SMALL)
    found = settled(config, tmp_path)
    monkeypatch.setattr(searching, "search", lambda *given: pytest.fail("was searched again"))
    assert settled(config, tmp_path) == found
    names = "strong", "optimizer", "weight_decay", "rehearsals"
    assert replace(found, **{name: getattr(config, name) for name in names}) == config


@pytest.mark.parametrize(
    "edit",
    [
        lambda held: held | {"lr": 0.5},
        lambda held: held | {"seeds": 9},
        lambda held: held | {"rehearsals": 3},
        lambda held: held | {"optimizer": "os:system"},
        lambda held: held | {"strong": held["strong"] | {"kind": "os:system", "each": []}},
        lambda held: held | {"strong": held["strong"] | {"kind": "auto", "each": []}},
        lambda held: held | {"strong": held["strong"] | {"pace": {"optimizer": "os:system"}}},
        lambda held: held | {"strong": held["strong"] | {"num_layers": 7}},
        lambda held: held | {"strong": 3},
        lambda held: {"strong": held["strong"]},
        lambda held: ["gcn"],
        lambda held: None,
    ],
)
def test_a_choice_that_was_edited_is_a_line_and_changes_no_run(few, tmp_path, edit):
    config = Config(preset="best", **SMALL)
    settled(config, tmp_path)
    path = tmp_path / "chosen.yaml"
    path.write_text(yaml.safe_dump(edit(yaml.safe_load(path.read_text())), sort_keys=False))
    with pytest.raises(InputError, match=r"chosen\.yaml: is not what the search for this run wrote; take it away"):
        settled(config, tmp_path)


def test_a_library_s_run_searches_too(few, tmp_path):
    config = Config(preset="best", budget="0.001s", **SMALL)
    for out in (tmp_path / "run", None):
        assert set(run(config, out)["parameters"]) == {"weak", "strong", "mixture"}, "one candidate was tried"
    assert yaml.safe_load((tmp_path / "run" / "chosen.yaml").read_text())["strong"]["kind"] == "gcn"


def test_arrays_of_candidates_that_need_not_be_kept_are_refused_before_the_search(few, tmp_path, monkeypatch):
    monkeypatch.setattr(trying, "select", lambda *given: pytest.fail("has begun"))
    line = ["--dataset", GRAPH, "--preset", "best", "--epochs", "2", "--out", str(tmp_path / "run")]
    with pytest.raises(InputError, match=r"predictions\.arrays: unknown 'gcn_logits'.*mixture_strong"):
        command([*line, "--predictions.arrays", "[mixture,gcn_logits]"])
    assert not (tmp_path / "run").exists()


def test_fan_outs_for_the_deepest_candidate_serve_whoever_is_kept(few):
    config = Config(preset="best", batch="neighbors(2,2,2)", budget="0.001s", **SMALL)
    found = settled(config, None)
    assert found.strong.num_layers == 2
    with pytest.warns(UserWarning, match="3 fan-outs, and the strong expert 2 layers, which need the first 2"):
        assert run(found)["batch"] == "neighbors(2,2,2)"


def test_a_choice_is_written_where_something_was_chosen(few, tmp_path):
    run(Config(strong=ExpertConfig(kind="gcn"), **SMALL), tmp_path / "named")
    run(Config(**SMALL), tmp_path / "auto")
    assert not (tmp_path / "named" / "chosen.yaml").exists()
    assert (tmp_path / "auto" / "chosen.yaml").exists()


# --- A panel as teacher


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_an_expert_of_a_panel_can_teach(panel, name):
    for folder in ("whole", "alone"):
        arrays = np.load(panel / folder / "seed-0" / "predictions.npz")
        teacher = read(f"{panel / folder}:{name}", 0, load(GRAPH))
        assert torch.equal(teacher.signals.logits, torch.from_numpy(arrays[f"{name}_logits"]))


def test_of_a_run_without_a_mixture_the_expert_that_validates_best_teaches(panel):
    record = json.loads((panel / "alone" / "seed-0" / "result.json").read_text())
    scores = {name: record["scores"][name] for name in record["parameters"]}
    assert scores["weak"]["val"] < max(each["val"] for each in scores.values())
    best = max(scores, key=lambda name: scores[name]["val"])
    assert read(str(panel / "alone"), 0, load(GRAPH)).model == best
    assert read(str(panel / "whole"), 0, load(GRAPH)).model == "mixture"
    with pytest.raises(InputError, match=r"model: unknown 'strong'.*choose from gcn, sage, weak"):
        read(f"{panel / 'alone'}:strong", 0, load(GRAPH))


def test_each_expert_of_a_panel_is_predicted_as_the_run_wrote_it(panel, capsys):
    for name in ("weak", "gcn", "sage"):
        predict([str(panel / "alone"), "--model", name])
        assert "bit for bit as the run wrote them" in capsys.readouterr().out


# --- What is said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--preset fast --budget 3h", "budget changes nothing with preset fast"),
        ("--strong gcn --preset best", "preset changes nothing with strong gcn"),
        ("--strong gcn --preset best --budget 1h", "budget changes nothing with strong gcn"),
        ("--preset good --regime joint", "preset changes nothing with regime joint"),
        ("--preset good --regime solo", "preset changes nothing with regime solo"),
        ("--preset good --teacher strong --kd nkd", "preset changes nothing with regime held-out and kd"),
        ("--mondrian true", "mondrian changes nothing with no coverage"),
        ("--no-mixture --folds 3", "folds changes nothing with regime held-out and no mixture"),
        ("--label cls", "columns.label changes nothing with a graph that is no file"),
    ],
)
def test_with_what_a_flag_means_nothing_is_said_truly(line, said, capsys):
    words = line.split()
    say_idle(config_of(parse(flags(), words)), words)
    assert f"note: --{said}" in capsys.readouterr().err.splitlines()


def test_flags_that_mean_something_are_passed_over_in_silence(capsys):
    line = "--preset best --budget 1h --coverage 0.9 --mondrian true --folds 3 --dataset here.graphml --label a"
    words = line.split()
    say_idle(config_of(parse(flags(), words)), words)
    assert capsys.readouterr().err == ""


def test_classes_of_two_nodes_are_divided_without_a_word_of_a_library():
    y = torch.arange(20) // 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = divide(torch.arange(20), y, 5)
    assert sorted(torch.cat([held for _, held in parts]).tolist()) == list(range(20))


def test_an_ensemble_without_a_mixture_is_of_one_kind_of_expert(tmp_path):
    line = f"--dataset {GRAPH} --seeds 2 --epochs 8 --strong gcn+neighbours --no-mixture --quiet --out {tmp_path / 'o'}"
    command(line.split())
    arrays = [np.load(tmp_path / "o" / f"seed-{seed}" / "predictions.npz") for seed in range(2)]
    records = [json.loads((tmp_path / "o" / f"seed-{seed}" / "result.json").read_text()) for seed in range(2)]
    first = max(records[0]["scores"], key=lambda name: records[0]["scores"][name]["val"])
    other = next(name for name in records[1]["scores"] if name != first)
    records[1]["scores"][other]["val"] = 101.0  # better there than the one of the first seed
    (tmp_path / "o" / "seed-1" / "result.json").write_text(json.dumps(records[1]))
    mean = sum(torch.from_numpy(each[first]).double() for each in arrays) / 2
    said = read(f"ensemble({tmp_path / 'o'})", 0, load(GRAPH)).signals.logits.softmax(-1)
    torch.testing.assert_close(said.double(), mean, atol=1e-6, rtol=1e-5)


def test_an_estimator_keeps_to_the_budget_and_chooses_as_a_run_does(few, tmp_path):
    short = MowstClassifier(preset="best", budget="0.001s", **ALONE).fit(load(GRAPH))
    assert short.config_.strong.kind == "gcn", "one candidate was tried"
    whole = MowstClassifier(preset="best", budget="10m", **ALONE).fit(load(GRAPH))
    run(Config(preset="best", budget="10m", **SMALL), tmp_path / "run")
    chosen = yaml.safe_load((tmp_path / "run" / "chosen.yaml").read_text())
    assert (whole.config_.strong.kind, list(whole.config_.strong.each)) == (
        chosen["strong"]["kind"],
        chosen["strong"]["each"],
    )
    with pytest.raises(InputError, match="budget: must be a time such as 90s"):
        MowstClassifier(preset="best", budget="soon").fit(load(GRAPH))
