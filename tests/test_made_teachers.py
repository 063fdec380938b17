"""Teachers that are made of several models of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import graphkd
from mowst.data import load
from mowst.errors import InputError
from mowst.experiment.teachers import read
from mowst.run import command

GRAPH = "tests.graphs:good"
SMALL = f"--dataset {GRAPH} --epochs 3 --weak.hidden_channels 4 --strong.hidden_channels 4 --quiet"


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A run of two seeds with a mixture and its experts, on a graph that ships its split."""
    out = tmp_path_factory.mktemp("made") / "run"
    command([*SMALL.split(), "--seeds", "2", "--out", str(out)])
    return out


def arrays(out, seed):
    return {key: torch.from_numpy(value) for key, value in np.load(out / f"seed-{seed}" / "predictions.npz").items()}


def test_an_ensemble_says_the_mean_of_the_probabilities_of_all_seeds(taught):
    for model in ("mixture", "strong"):
        words = f"ensemble({taught})" if model == "mixture" else f"ensemble({taught}:{model})"
        teacher = read(words, 0, load(GRAPH))
        mean = (arrays(taught, 0)[model].double() + arrays(taught, 1)[model].double()) / 2
        torch.testing.assert_close(teacher.signals.logits.softmax(-1).double(), mean, atol=1e-6, rtol=1e-5)
        assert "2 seeds of" in teacher.source


def test_an_extrapolated_teacher_is_graphkd_s(taught):
    found = arrays(taught, 1)
    teacher = read(f"extrapolate({taught}, beta=0.5,max_step=2)", 1, load(GRAPH))
    wanted = graphkd.extrapolate(found["strong_logits"], found["weak_logits"], 0.5, 2.0).logits
    torch.testing.assert_close(teacher.signals.logits, wanted)
    nothing = read(f"extrapolate({taught}/seed-1, beta=0)", 1, load(GRAPH))
    torch.testing.assert_close(nothing.signals.logits.softmax(-1), found["strong"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("inner", ["{}:strong", "ensemble({})", "extrapolate({}, beta=0.5)"])
def test_any_of_them_can_be_rebalanced(taught, inner):
    data, words = load(GRAPH), inner.format(taught)
    teacher, plain = read(f"rebalance({words})", 0, data), read(words, 0, data)
    p = plain.signals.logits.double().softmax(-1)
    labels = torch.bincount(data.y[data.train_mask]).double()
    wanted = p * p.mean(0) / labels
    torch.testing.assert_close(
        teacher.signals.logits.softmax(-1).double(), wanted / wanted.sum(-1, keepdim=True), atol=1e-6, rtol=1e-5
    )
    assert teacher.source == f"{plain.source}, rebalanced"


def test_a_class_without_a_label_cannot_be_rebalanced(tmp_path):
    data = load(GRAPH)
    data.train_mask = data.train_mask & (data.y != 1)
    np.savez(tmp_path / "said.npz", logits=np.eye(data["num_classes"], dtype=np.float32)[data.y])
    with pytest.warns(UserWarning, match="split"), pytest.raises(InputError, match="no training node is of class 1"):
        read(f"rebalance({tmp_path / 'said.npz'})", 0, data)


@pytest.mark.parametrize("words", ["ensemble({})", "extrapolate({}, beta=2)", "rebalance(ensemble({}))"])
def test_a_student_learns_from_it_by_the_command(taught, words, tmp_path):
    line = f"{SMALL} --regime solo --kd glnn --seeds 1 --no-baselines --out {tmp_path / 'out'}"
    command([*line.split(), "--teacher", words.format(taught)])
    record = json.loads((tmp_path / "out" / "seed-0" / "result.json").read_text())
    assert "student" in record["scores"]
    assert record["teacher"]["same_split"]


@pytest.mark.parametrize("words", ["rebalance({})", "ensemble({})"])
def test_a_made_teacher_has_logits_alone_and_losses_on_hidden_layers_are_told(taught, words, tmp_path):
    line = f"{SMALL} --regime solo --seeds 1 --out {tmp_path / 'out'}"
    with pytest.raises(InputError, match=r"logits alone, no hidden layers for hint, sp; give a run \(OUT") as error:
        command([*line.split(), "--kd", "glnn + hint + sp(of=hidden)", "--teacher", words.format(taught)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ensemble({}/seed-0)", "holds no run of a seed; give the folder of a whole run"),
        ("extrapolate({}, beta=much)", "beta must be a number, is much"),
        ("extrapolate({}, beta=-1)", "beta must be a number from 0"),
        ("extrapolate({}, gamma=1)", "option.*'gamma'.*beta"),
        ("ensemble({}, beta=1)", "option.*'beta'"),
        ("average({})", "'average'.*ensemble"),
        ("rebalance({}, beta=1)", "option.*'beta'"),
        ("rebalance(ensemble(nowhere))", "no run of a seed"),
        ("ensemble(nowhere)", "no run of a seed"),
        ("extrapolate(nowhere)", "no such run folder"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_line(taught, words, said):
    with pytest.raises(InputError, match=said) as error:
        read(words.format(taught), 0, load(GRAPH))
    assert "\n" not in str(error.value)


def test_seeds_of_other_splits_are_no_ensemble(tmp_path):
    line = SMALL.replace(GRAPH, "sbm").split()
    command([*line, "--seeds", "2", "--no-baselines", "--out", str(tmp_path / "run")])
    data = load("sbm")
    place = tmp_path / "run" / "seed-1" / "result.json"
    record = json.loads(place.read_text())
    record["split"]["sha256"] = "0" * 64
    place.write_text(json.dumps(record))
    with pytest.raises(InputError, match="seed-1: was trained on another split"):
        read(f"ensemble({tmp_path / 'run'})", 0, data)
