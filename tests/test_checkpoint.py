"""Nothing is lost when a run dies: it goes on inside the seed, inside the phase, and ends as if it had not."""

import json
import math
import os
import random
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mowst.errors import InputError
from mowst.experiment import Config, ExpertConfig, Opened, Saving, run
from mowst.experiment.checkpoint import ANOTHER, FILE, standing
from mowst.experiment.states import read_about, read_state, write_state
from mowst.run import command
from mowst.system import postponed
from mowst.system.main import Stopped

OFTEN = Saving(minutes=0)
SMALL = {"hidden_channels": 4, "num_layers": 2, "dropout": 0.3}
BASE = Config(
    dataset="tests.graphs:good",
    weak=ExpertConfig(kind="mlp", **SMALL),
    strong=ExpertConfig(kind="gcn", **SMALL),
    epochs=4,
    patience=10,
    rounds=1,
    seeds=1,
    ema_decay=0.9,
    device="cpu",
)
CASES = {
    "held-out": BASE,
    "alternate": replace(BASE, regime="alternate", kd="ofa", teacher="strong", eval_every=2),
    "panel": replace(BASE, strong=ExpertConfig(kind="sage+neighbours", **SMALL)),
    "trees": replace(BASE, weak=ExpertConfig(kind="trees", **SMALL), mixture=False, epochs=6),
}


class Stop(Exception):  # noqa: N818 - nothing is wrong
    """Somebody ends the run."""


def left(out: Path) -> dict:
    """What a run leaves, without times."""
    lines = [json.loads(line) for line in (out / "seed-0" / "metrics.jsonl").read_text().splitlines()]
    weights = load_file(out / "seed-0" / "model.safetensors")
    return {
        "weights": {key: value.numpy().tobytes() for key, value in weights.items()},
        "history": [{key: value for key, value in line.items() if key != "seconds"} for line in lines],
        "scores": json.loads((out / "result.json").read_text())["scores"],
        "predictions": (out / "seed-0" / "predictions.npz").read_bytes(),
        "files": sorted(path.name for path in (out / "seed-0").iterdir()),
    }


def stopped(config: Config, out: Path, lines: int, opened: Opened | None = None, saving: Saving = OFTEN) -> None:
    """Run until so many validations have been told of."""
    seen = []

    def stop(line: dict) -> None:
        seen.append(line)
        if len(seen) == lines:
            raise Stop

    with pytest.raises(Stop):
        run(config, out, hook=stop, opened=opened, saving=saving)


# --- Going on


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_stopped_again_and_again_ends_as_if_it_had_not_been(name, tmp_path):
    config = CASES[name]
    opened = Opened(config)
    run(config, tmp_path / "whole", opened=opened)
    whole = left(tmp_path / "whole")
    stands = []
    for lines in (3, 2, 4):
        stopped(config, tmp_path / "out", lines, opened)
        stands += standing(tmp_path / "out", ["seed-0"]).values()
    assert stands[0] < stands[1] < stands[2]
    run(config, tmp_path / "out", opened=opened, saving=OFTEN)
    assert left(tmp_path / "out") == whole
    assert FILE not in whole["files"]


def test_what_was_done_is_not_done_again(tmp_path):
    lines = []
    stopped(BASE, tmp_path, 6)
    run(BASE, tmp_path, hook=lines.append, saving=OFTEN)
    run(BASE, tmp_path / "whole", hook=(whole := []).append)
    assert [line["phase"] for line in lines] == [line["phase"] for line in whole[5:]]  # the one that it was stopped in


def test_the_seconds_of_a_run_are_those_of_all_its_parts(tmp_path):
    def slowly(line: dict) -> None:
        time.sleep(0.02)

    with pytest.raises(Stop):
        run(BASE, tmp_path, hook=lambda line: slowly(line) if line["epoch"] < 4 else stop_now(), saving=OFTEN)
    result = run(BASE, tmp_path, saving=OFTEN)
    assert result["seconds"] > 0.06


def stop_now() -> None:
    raise Stop


def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path):
    config, moments, kills = CASES["held-out"], random.Random(0), 0
    opened, start = Opened(config), time.perf_counter()
    run(config, tmp_path / "whole", opened=opened, saving=OFTEN)
    span = (time.perf_counter() - start) / 3
    while (child := os.fork()) == 0 or not ended_after(child, moments.uniform(0, span)):
        if child == 0:
            run(config, tmp_path / "out", opened=opened, saving=OFTEN)
            os._exit(0)
        kills, span = kills + 1, span * 1.1
    assert kills > 1
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def ended_after(child: int, seconds: float) -> bool:
    """Kill a process after a while, and tell whether it had come to its end."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)


def test_saving_by_epochs_and_by_the_clock(tmp_path):
    for saving, epoch in ((Saving(math.inf, 2), 2), (Saving(math.inf, 3), 3), (Saving(0), 3)):
        out = tmp_path / f"{saving.minutes}-{saving.epochs}"
        stopped(BASE, out, 4, saving=saving)
        assert standing(out, ["seed-0"])["seed-0"].epochs == epoch
    stopped(BASE, tmp_path / "never", 4, saving=Saving(math.inf))
    assert not (tmp_path / "never" / "seed-0").exists()


# --- Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_epoch_and_what_was_done_is_saved(number, tmp_path):
    def ask(line: dict) -> None:
        if line["epoch"] == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped) as ended:
        run(BASE, tmp_path, hook=ask, saving=Saving(math.inf))
    assert ended.value.number == number
    assert standing(tmp_path, ["seed-0"])["seed-0"][:2] == (0, 2)
    run(BASE, tmp_path, saving=OFTEN)
    run(BASE, tmp_path / "whole")
    assert left(tmp_path) == left(tmp_path / "whole")


def test_a_second_signal_ends_at_once_and_leaves_the_checkpoint_of_before(tmp_path):
    def ask(line: dict) -> None:
        if line["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")

    with pytest.raises(Stopped):
        run(BASE, tmp_path, hook=ask, saving=OFTEN)
    assert standing(tmp_path, ["seed-0"])["seed-0"][:2] == (0, 2)


def test_a_signal_waits_only_where_something_is_under_way():
    before = signal.getsignal(signal.SIGTERM)
    went_on = []

    def ask(waits: bool) -> None:
        with postponed(lambda: waits):
            os.kill(os.getpid(), signal.SIGTERM)
            went_on.append(waits)

    for waits in (False, True):
        with pytest.raises(Stopped):
            ask(waits)
    assert went_on == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with postponed(lambda: True) as asked:
            os.kill(os.getpid(), signal.SIGINT)
        assert asked.number is None
    finally:
        signal.signal(signal.SIGINT, before)


# --- What cannot go on


def test_a_checkpoint_of_something_else_is_a_line(tmp_path):
    stopped(BASE, tmp_path, 3)
    path = tmp_path / "seed-0" / FILE
    about, state = read_about(path), read_state(path)
    for key, what in ANOTHER.items():
        write_state(path, about | {key: "else"}, state)
        with pytest.raises(InputError, match=f"of {what}: 'else', here it is .* take .* away") as said:
            run(BASE, tmp_path, saving=OFTEN)
        assert "\n" not in str(said.value)
    write_state(path, about, state)
    run(BASE, tmp_path, saving=OFTEN)


@pytest.mark.parametrize(
    ("change", "what"),
    [({"lr": 0.02}, "configuration"), ({"dataset": "tests.graphs:isolated"}, "configuration")],
)
def test_another_configuration_does_not_go_on(change, what, tmp_path):
    stopped(BASE, tmp_path, 3)
    with pytest.raises(InputError, match=f"of another {what}"):
        run(replace(BASE, **change), tmp_path, saving=OFTEN)


def test_settings_of_the_process_that_change_the_result_are_another_run(tmp_path):
    stopped(BASE, tmp_path, 3, saving=Saving(0, None, {"fast": True}))
    with pytest.raises(InputError, match="of another --fast: True, here it is False"):
        run(BASE, tmp_path, saving=Saving(0, None, {"fast": False}))


def test_a_checkpoint_that_was_cut_short_or_changed_is_a_line(tmp_path):
    stopped(BASE, tmp_path, 3)
    path = tmp_path / "seed-0" / FILE
    whole, places = path.read_bytes(), random.Random(0)
    for cut in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="truncated or damaged"):
            run(BASE, tmp_path, saving=OFTEN)
    for place in (places.randrange(len(whole)) for _ in range(20)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"truncated or damaged|of another|of other"):
            run(BASE, tmp_path, saving=OFTEN)


def test_a_full_disk_is_a_line_and_leaves_the_last_good_checkpoint(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(line: dict) -> None:
        if line["epoch"] == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(InputError, match=f"{FILE}: cannot be written"):
            run(BASE, tmp_path, hook=fill, saving=OFTEN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert standing(tmp_path, ["seed-0"])["seed-0"].epochs == 2
    run(BASE, tmp_path, saving=OFTEN)
    run(BASE, tmp_path / "whole")
    assert left(tmp_path) == left(tmp_path / "whole")


def test_how_often_is_checked():
    for wrong in ({"minutes": -1}, {"minutes": math.nan}, {"epochs": 0}):
        with pytest.raises(InputError, match="checkpoint_"):
            Saving(**wrong)


# --- The command line


def test_resume_goes_on_with_the_configuration_of_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "sbm", "--seeds", "1", "--epochs", "3", "--weak.dropout", "0.2", "--quiet"]
    assert command([*arguments, "--out", "whole"]) == 0
    stop_after(monkeypatch, 4)
    with pytest.raises(Stop):
        command([*arguments, "--checkpoint_minutes", "0"])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (folder,) = Path("runs").iterdir()
    assert command(["--resume", str(folder), "--quiet"]) == 0
    assert left(folder) == left(Path("whole"))
    with pytest.raises(InputError, match="that run has ended, nothing is left to do"):
        command(["--resume", str(folder)])
    for more in (["--lr", "0.1"], ["--weak", "gcn"], ["--out", "x"]):
        with pytest.raises(InputError, match=f"leave out {more[0]}"):
            command(["--resume", str(folder), *more])
    with pytest.raises(InputError, match="holds no run"):
        command(["--resume", "nowhere"])


def test_batches_that_memory_has_decided_stay_when_memory_has_changed(tmp_path, monkeypatch):
    arguments = ["--dataset", "sbm", "--seeds", "1", "--epochs", "2", "--quiet", "--checkpoint_minutes", "0"]
    assert command([*arguments, "--out", str(tmp_path / "whole"), "--batch", "parts(2)"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr("mowst.experiment.batching.chosen_batch", lambda *_: "parts(2)")
        stop_after(patched, 3)
        with pytest.raises(Stop):
            command([*arguments, "--out", str(tmp_path / "out")])
    assert command([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert left(tmp_path / "out") == left(tmp_path / "whole")


def test_a_run_that_replaces_another_goes_on_too(tmp_path, monkeypatch):
    arguments = ["--dataset", "sbm", "--seeds", "1", "--quiet", "--out", str(tmp_path / "out")]
    assert command([*arguments, "--epochs", "1"]) == 0
    before = left(tmp_path / "out")
    again = [*arguments, "--epochs", "3", "--overwrite", "--checkpoint_minutes", "0"]
    with monkeypatch.context() as patched:
        stop_after(patched, 4)
        with pytest.raises(Stop):
            command(again)
    assert left(tmp_path / "out") == before
    seen = []
    monkeypatch.setattr("mowst.reporting.Display.__call__", lambda self, line: seen.append(line["epoch"]))
    assert command(again) == 0
    assert seen[0] == 1  # of the second model: the first was there
    assert left(tmp_path / "out") != before
    assert not list((tmp_path / "out").glob(".mowst.new*"))


def stop_after(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """Let the display end the run after so many lines."""
    seen = []

    def show(self, line: dict) -> None:
        seen.append(line)
        if len(seen) == lines:
            raise Stop

    monkeypatch.setattr("mowst.reporting.Display.__call__", show)


# --- The file

NUMBERS = st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=5)
KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.builds(
    lambda shape, kind: torch.arange(math.prod(shape)).reshape(shape).to(kind),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(KINDS),
)
STATES = st.recursive(
    NUMBERS | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=3) | st.none(), inner, max_size=3)
    ),
    max_leaves=8,
)


def alike(one: object, other: object) -> bool:
    """Tell whether two states are the same, their types too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other or (one != one and other != other)


@settings(max_examples=60, deadline=None)
@given(state=STATES)
def test_a_state_comes_back_as_it_was(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "file"
    write_state(path, {"of": "this"}, state)
    assert alike(read_state(path), state)
    assert read_about(path) == {"of": "this"}


def test_a_tensor_that_is_met_twice_is_written_once(tmp_path):
    tensor = torch.rand(10_000)
    write_state(tmp_path / "file", {}, [tensor, {"again": tensor}])
    assert (tmp_path / "file").stat().st_size < 60_000


def test_what_is_no_plain_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match="a set is neither"):
        write_state(tmp_path / "file", {}, {"held": {1}})
    assert not list(tmp_path.iterdir())
