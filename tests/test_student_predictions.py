"""What `mowst.predict` makes of a run whose model is no mixture: a student, or an expert alone."""

from __future__ import annotations

import numpy as np
import pytest

import mowst.predict
from mowst.errors import InputError
from mowst.run import command as run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A student, and the expert that taught it, by the command."""
    out = tmp_path_factory.mktemp("student") / "out"
    small = "--weak.hidden_channels 4 --strong.hidden_channels 4 --quiet"
    line = f"--dataset sbm --regime solo --teacher strong --kd glnn --epochs 3 --seeds 1 {small} --out {out}"
    run_command(line.split())
    return out / "seed-0"


def predict(*arguments):
    return mowst.predict.command([str(each) for each in arguments])


def test_a_student_predicts_as_it_did_in_its_run_and_reads_no_edge(folder, capsys, tmp_path):
    assert predict(folder, "--save", tmp_path / "all.npz") == 0
    said = capsys.readouterr().out
    assert "bit for bit as the run wrote them" in said
    assert "the student read" in said
    assert "0 of 0 edges" in said
    saved = np.load(tmp_path / "all.npz")
    assert np.array_equal(saved["probabilities"], np.load(folder / "predictions.npz")["student"])
    assert predict(folder, "--nodes", "7,3,7", "--save", tmp_path / "some.npz") == 0
    some = np.load(tmp_path / "some.npz")
    np.testing.assert_allclose(some["probabilities"], saved["probabilities"][[7, 3, 7]], atol=1e-6)


def test_another_model_of_the_run_goes_by_its_name(folder, capsys, tmp_path):
    teacher = np.load(folder / "predictions.npz")
    (name,) = {"strong", "teacher"} & set(teacher.files)
    predict(folder, "--model", name, "--save", tmp_path / "teacher.npz")
    assert "bit for bit" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "teacher.npz")["probabilities"], teacher[name])


def test_an_expert_alone_needs_no_name(tmp_path, capsys):
    line = f"--dataset sbm --regime solo --epochs 2 --seeds 1 --weak.hidden_channels 4 --quiet --out {tmp_path / 'out'}"
    run_command(line.split())
    assert predict(tmp_path / "out" / "seed-0") == 0
    assert "the weak read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--how", "routed"], "one expert is asked, which has no mode"),
        (["--how", "routed", "--threshold", "0.5"], "one expert is asked"),
        (["--threshold", "0.5"], "only --how routed has one"),
        (["--model", "mixture"], "'mixture'.*student"),
        (["--nodes", "99999"], "99999"),
    ],
)
def test_what_a_student_cannot_be_asked_is_said(folder, options, words):
    with pytest.raises(InputError, match=words):
        predict(folder, *options)
