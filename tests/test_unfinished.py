"""What is said of a run that was killed, wherever a whole one is asked for."""

from dataclasses import replace

import pytest

from mowst import Config, MowstClassifier, forget
from mowst.errors import InputError
from mowst.experiment import ExpertConfig, claim, run, write_seed
from mowst.experiment.seed import run_seed
from mowst.predict import command as predict
from mowst.report import command as report
from mowst.run import command as run_command

SMALL = {"hidden_channels": 4}
CONFIG = Config(
    dataset="tests.graphs:good",
    weak=ExpertConfig("mlp", **SMALL),
    strong=ExpertConfig("gcn", **SMALL),
    epochs=2,
    seeds=2,
    baselines=False,
    device="cpu",
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run of two seeds that was killed while it trained the second."""
    out = tmp_path_factory.mktemp("killed") / "out"
    with claim(str(out), CONFIG) as claimed:
        write_seed(claimed.place / "seed-0", CONFIG, run_seed(CONFIG, 0))
        (claimed.place / "seed-1").mkdir()
    return out


ASKED = {
    "predict": lambda out: predict([str(out)]),
    "predict seed": lambda out: predict([str(out / "seed-1")]),
    "forget": lambda out: predict([str(out), "--forget", "0"]),
    "report": lambda out: report([str(out)]),
    "compare": lambda out: report([str(out), str(out)]),
    "teacher": lambda out: run(replace(CONFIG, regime="solo", kd="kd", teacher=str(out))),
    "load": lambda out: MowstClassifier.load(out),
    "library": lambda out: forget(out, [0]),
}


@pytest.mark.parametrize("asked", ASKED)
def test_whoever_asks_of_it_learns_how_it_goes_on(killed, asked):
    with pytest.raises(InputError) as error:
        ASKED[asked](killed)
    goes_on = f"that run did not end; python -m mowst.run --resume {killed} goes on; already there: {killed}/seed-0"
    assert str(error.value).endswith(goes_on)


def test_the_seed_that_is_there_can_be_asked(killed):
    assert predict([str(killed / "seed-0")]) == 0


def test_a_command_with_other_options_is_told_which(killed):
    line = "--dataset tests.graphs:good --weak.hidden_channels 4 --strong mlp --strong.hidden_channels 4 --epochs 5 "
    with pytest.raises(InputError) as error:
        run_command([*line.split(), *f"--seeds 2 --no-baselines --device cpu --quiet --out {killed}".split()])
    assert "holds a run that did not end, of " in str(error.value)
    assert "--strong.kind gcn" in str(error.value)
    assert "--epochs 2" in str(error.value)
    assert "--seeds" not in str(error.value)
    assert f"--resume {killed} goes on with it" in str(error.value)


@pytest.mark.parametrize("asked", ["predict", "forget", "teacher", "load", "library"])
def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path, asked):
    with pytest.raises(InputError, match=r"no (such )?(run )?folder"):
        ASKED[asked](tmp_path / "nope")
    assert not list(tmp_path.iterdir())
