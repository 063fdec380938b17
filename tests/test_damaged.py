"""A file of a run that somebody has damaged is named, whoever reads it."""

import shutil
from dataclasses import replace

import pytest

from mowst.errors import InputError
from mowst.experiment import run
from mowst.predict import command as predict
from mowst.report import command as report
from mowst.run import command as run_command
from tests.test_unfinished import CONFIG

OF_A_RUN = ["config.yaml", "chosen.yaml", "result.json", "seed-0/figures.json", "seed-0/metrics.jsonl"]
OF_A_SEED = ["result.json", "seed-0/config.yaml", "seed-0/result.json"]
JUNK = ["", "[1, 2]\n", "null", "{}", "hello"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    run(replace(CONFIG, seeds=1), out)
    shutil.copy(out / "config.yaml", out / "chosen.yaml")
    return out


def damaged(whole, out, name):
    """Yield a copy of a run with every kind of damage to one of its files: cut, and all of `JUNK`."""
    shutil.copytree(whole, out)
    text = (out / name).read_text()
    cut = text[: len(text) // 2] if name.endswith("yaml") else text.rstrip()[:-1]
    for junk in [cut, *JUNK]:
        if junk or not name.endswith("jsonl"):  # no line is no validation
            (out / name).write_text(junk)
            yield out


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_report_names_the_file(whole, tmp_path, name):
    for out in damaged(whole, tmp_path / "out", name):
        with pytest.raises(InputError) as error:
            report([str(out)])
        assert f"{out / name}: " in str(error.value)


@pytest.mark.parametrize("name", OF_A_SEED)
def test_a_prediction_names_the_file(whole, tmp_path, name):
    for out in damaged(whole, tmp_path / "out", name):
        with pytest.raises(InputError) as error:
            predict([str(out)])
        assert f"{out / name}: " in str(error.value)


def test_a_seed_is_not_taken_for_a_run_nor_a_run_for_a_seed(whole):
    with pytest.raises(InputError, match="give the one above seed-0"):
        report([str(whole / "seed-0")])


@pytest.mark.parametrize("text", ["", "hello", "[1]", "null"])
def test_a_configuration_without_fields_is_said_to_be_none(tmp_path, text):
    (tmp_path / "some.yaml").write_text(text)
    with pytest.raises(InputError, match=r"some\.yaml: must have fields, as in epochs: 100, and is"):
        run_command(["--config", str(tmp_path / "some.yaml")])
