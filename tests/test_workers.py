"""Several processes that share a job."""

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from rich.console import Console

from mowst import Config, ExpertConfig
from mowst.errors import InputError
from mowst.experiment.runs import run
from mowst.reporting.progress import Display
from mowst.system.files import in_place
from mowst.system.process import Settings
from mowst.system.workers import gpus, in_processes, take_share

QUICK = Config(
    dataset="sbm",
    epochs=5,
    seeds=3,
    weak=ExpertConfig("mlp", hidden_channels=4),
    strong=ExpertConfig("gcn", hidden_channels=4),
)


def seen_with_another(item, folder):
    """What a process is like, once two of them have been here."""
    (folder / str(os.getpid())).touch()
    wait_for(lambda: len(list(folder.iterdir())) > 1)
    return item, os.getpid(), torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.nn.functional.dropout


def wait_for(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def telling(item, tell):
    tell((item, "begins"))
    tell((item, "ends"))
    return -item


def chattering(item, tell):
    for number in range(20_000):
        tell((item, number))


def failing(item):
    if item == 1:
        raise InputError("item 1 is wrong")
    time.sleep(3600)


def killed(item, tell):
    tell(item)
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


def half_writing(item, tell, folder):
    """Have half of a folder written."""
    with in_place(folder / str(item)) as half:
        (half / "half").touch()
        tell(item)
        time.sleep(3600)


def test_results_come_in_the_order_of_the_items_from_processes_with_their_share_and_settings(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    items = [3, 1, 2, 0]
    found = in_processes(2, partial(seen_with_another, folder=tmp_path), items, settings=Settings(matmul="high"))
    assert [each[0] for each in found] == items
    assert len({each[1] for each in found} - {os.getpid()}) == 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert {each[2] for each in found} <= set(range(1, max(1, cores // 2) + 1))
    assert {each[3] for each in found} == {"high"}, "settings hold as long as the process"
    assert {each[4].__module__ for each in found} == {"mowst.kernels.dropout"}


def test_what_is_told_is_heard_before_the_results_are_there():
    heard = []
    assert in_processes(2, telling, range(4), told=heard.append) == [0, -1, -2, -3]
    for item in range(4):
        assert [words for who, words in heard if who == item] == ["begins", "ends"]


def test_an_error_is_raised_here_and_ends_the_others():
    with pytest.raises(InputError, match="item 1 is wrong"):
        in_processes(2, failing, range(9))
    assert not multiprocessing.active_children()


def test_what_hearing_raises_ends_the_job():
    """More is told than a pipe holds."""
    with pytest.raises(ZeroDivisionError):
        in_processes(2, chattering, range(9), told=lambda line: 1 / 0)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_process_is_said_in_a_line():
    with pytest.raises(InputError, match="one of 2 was killed"):
        in_processes(2, killed, range(2), told=lambda line: None)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_an_interrupt_ends_the_job():
    def interrupt(line):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        in_processes(2, killed, [0, 2, 3], told=interrupt)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_processes_that_are_ended_leave_nothing_half_written(tmp_path):
    heard = []

    def interrupt(item):
        heard.append(item)
        if len(heard) == 2:
            assert len(list(tmp_path.rglob("half"))) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_processes(2, partial(half_writing, folder=tmp_path), range(2), told=interrupt)
    assert not list(tmp_path.iterdir())
    assert not multiprocessing.active_children()


UNGUARDED = """
from mowst.system.workers import in_processes
print(in_processes(2, abs, [-1, -2]))
"""


def test_a_script_without_a_guard_is_told_so_once(tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1, "that of the script itself, to which it is raised"
    assert "InputError" in done.stderr.splitlines()[-1]
    assert 'if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert "memory" not in done.stderr
    assert not done.stdout


def test_a_run_of_several_processes_is_the_run_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before, heard = torch.get_num_threads(), {1: [], 2: []}
    torch.set_num_threads(1)
    try:
        results = {count: run(QUICK, tmp_path / str(count), hook=heard[count].append, workers=count) for count in heard}
    finally:
        torch.set_num_threads(before)
    assert results[1]["scores"] == results[2]["scores"]
    assert results[1]["seeds"] == results[2]["seeds"] == [0, 1, 2]
    steps = [[(line["seed"], line["model"], line["phase"], line["epoch"]) for line in heard[count]] for count in (1, 2)]
    assert sorted(steps[0]) == sorted(steps[1])
    files = [sorted(path.name for path in (tmp_path / str(count)).rglob("*")) for count in (1, 2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("visible", "taken"), [(["0"], "- - -"), ([], "- - -"), (["0", "1"], "0 1 0"), (["3", "5", "7"], "3 5 7")]
)
def test_processes_take_gpus_by_turns(monkeypatch, visible, taken):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    for place, expected in enumerate(taken.split()):
        monkeypatch.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": "-"})
        take_share(3, place, visible)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_gpus_are_those_that_this_process_sees(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "environ", {})
    assert gpus() == ["0", "1"]
    os.environ["CUDA_VISIBLE_DEVICES"] = "4,GPU-8a,9"  # the last of which is not there
    assert gpus() == ["4", "GPU-8a"]


@pytest.mark.slow
def test_the_command_shares_its_seeds(tmp_path):
    flags = "--dataset sbm --preset fast --epochs 3 --seeds 2 --workers 2"
    flags += " --weak.hidden_channels 4 --strong.hidden_channels 4"
    command = [sys.executable, "-m", "mowst.run", *flags.split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "seed 0, strong, trained alone: 3 epochs" in done.stderr
    assert "seed 1, strong, trained alone: 3 epochs" in done.stderr
    assert "2 seeds" in done.stdout
    assert (tmp_path / "run" / "seed-1" / "model.safetensors").exists()


def test_phases_are_shown_when_they_end_by_seed_where_seeds_come_mixed():
    lines = [{"seed": seed, "model": "m", "phase": phase, "epoch": 1, "val": 0.5, "best": 0.5} for seed, phase in ORDER]
    for mixed, expected in ((False, ["0 a", "1 a", "0 b", "1 b"]), (True, ["0 a", "1 a", "0 b", "1 b"])):
        console = Console(file=io.StringIO(), width=200)
        with Display(console, 1, workers=1 + mixed) as display:
            printed = []
            for line in lines:
                display(line)
                printed.append(len(console.file.getvalue().splitlines()))
        ended = [line.split(":")[0] for line in console.file.getvalue().splitlines()]
        assert ended == [f"seed {each[0]}, m, {each[2]}" for each in expected]
        assert printed == ([0, 1, 2, 3] if not mixed else [0, 0, 1, 2])


ORDER = ((0, "a"), (1, "a"), (0, "b"), (1, "b"))
