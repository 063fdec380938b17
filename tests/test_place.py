"""The folder that a study's result goes to: nobody's files are replaced, and what cannot be is said first."""

import dataclasses
from pathlib import Path

import optuna
import pytest

from mowst.errors import InputError
from mowst.tune import command
from mowst.tuning.finals import finish
from mowst.tuning.place import MARK, NAMES, claim, claimed, default_place
from mowst.tuning.plan import Plan
from mowst.tuning.search import tune
from tests.tuning import SMALL, narrow, plan

FLAGS = ["--dataset", "tests.graphs:good", "--epochs", "6", "--seeds", "1", "--strong.hidden_channels", "8"]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


class Stop(Exception):  # noqa: N818 - nothing is wrong
    """Somebody ended it."""


@pytest.mark.parametrize("name", [*NAMES, ".mowst.json"])
def test_nobodys_files_are_replaced(tmp_path, name):
    place = tmp_path / "out" / name
    place.parent.mkdir()
    place.write_text("mine")
    with pytest.raises(InputError, match=r"--out .*give another folder"):
        command([*FLAGS, "--study", str(tmp_path / "s.log"), "--out", str(tmp_path / "out")])
    assert place.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["out", name])


def test_another_studys_folder_is_refused_and_ones_own_may_be_moved(tmp_path):
    first, out = Plan(study=str(tmp_path / "here" / "s.log")), tmp_path / "here" / "out"
    claim(out, first)
    claim(out, first)
    for other in (dataclasses.replace(first, study=str(tmp_path / "t.log")), dataclasses.replace(first, name="two")):
        with pytest.raises(InputError, match="not of this study"):
            claim(out, other)
    (tmp_path / "here").rename(tmp_path / "there")
    claim(tmp_path / "there" / "out", Plan(study=str(tmp_path / "there" / "s.log")))


def test_a_password_is_not_written_down(tmp_path):
    claim(tmp_path, Plan(study="postgresql://me:secret@host/db"))
    assert "secret" not in (tmp_path / MARK).read_text()


def test_what_a_study_left_before_there_were_marks_is_its_own(tmp_path):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=1))
    first = finish(study, narrow(), Plan(), tmp_path / "out", 1)
    (tmp_path / "out" / MARK).unlink()
    assert finish(study, narrow(), Plan(), tmp_path / "out", 1) == first
    assert (tmp_path / "out" / MARK).exists()


@pytest.mark.parametrize(
    ("study", "out", "words"),
    [
        ("s.log", "file", "is a file"),
        ("s.log", "file/out", "cannot be written"),
        ("s.log", "/proc/none/out", "cannot be written"),
        ("s.log", "a" * 300, "cannot be written"),
        ("s.log", "s.log", "lies where the study is"),
        ("s.log", "s.log/out", "lies where the study is"),
        ("out/best.yaml", "out", "lies where the result is written"),
        ("out/front/s.log", "out", "lies where the result is written"),
        (".", "out", "is a folder"),
    ],
)
def test_an_out_that_cannot_be_is_found_before_the_first_trial(tmp_path, monkeypatch, study, out, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=words) as caught:
        command([*FLAGS, "--study", study, "--out", out])
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_folder_that_was_made_for_nothing_is_taken_away_and_one_in_use_stays(tmp_path):
    how = Plan(study=str(tmp_path / "s.log"))
    with pytest.raises(Stop), claimed(tmp_path / "a" / "b", how):
        raise Stop
    assert not list(tmp_path.iterdir())
    with claimed(tmp_path / "a", how), pytest.raises(Stop), claimed(tmp_path / "a", how):
        raise Stop
    with claimed(tmp_path / "b", how):
        (tmp_path / "b" / "study.html").write_text("a page")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    ("study", "place"), [("a/study.log", "a/study-best"), ("s", "s-best"), ("sqlite:///x.db", "mowst-best")]
)
def test_where_the_result_goes_by_default(study, place):
    assert default_place(Plan(study=study)) == Path(place)
