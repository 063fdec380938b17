"""Several processes that share a job."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from mowst import Config, ExpertConfig
from mowst.errors import InputError
from mowst.process import Settings
from mowst.run import run
from mowst.workers import gpus, in_processes, take_share

QUICK = Config(
    dataset="sbm",
    epochs=5,
    seeds=3,
    weak=ExpertConfig("mlp", hidden_channels=4),
    strong=ExpertConfig("gcn", hidden_channels=4),
)


def seen(item, folder):
    """What a process is like, once two of them have been here."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    return item, os.getpid(), torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.nn.functional.dropout


def telling(item, tell):
    tell((item, "begins"))
    tell((item, "ends"))
    return -item


def failing(item):
    if item == 1:
        raise InputError("item 1 is wrong")


def test_results_come_in_the_order_of_the_items_from_processes_with_their_share_and_settings(tmp_path):
    items = [3, 1, 2, 0]
    found = in_processes(2, partial(seen, folder=tmp_path), items, settings=Settings(matmul="high"))
    assert [each[0] for each in found] == items
    assert len({each[1] for each in found} - {os.getpid()}) == 2
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert {each[2] for each in found} <= set(range(1, max(1, cores // 2) + 1))
    assert {each[3] for each in found} == {"high"}, "settings hold as long as the process"
    assert {each[4].__module__ for each in found} == {"mowst.dropout"}


def test_what_is_told_is_heard_before_the_results_are_there():
    heard = []
    assert in_processes(2, telling, range(4), told=heard.append) == [0, -1, -2, -3]
    for item in range(4):
        assert [words for who, words in heard if who == item] == ["begins", "ends"]


def test_an_error_is_raised_here():
    with pytest.raises(InputError, match="item 1 is wrong"):
        in_processes(2, failing, range(3))


def test_a_run_of_several_processes_is_the_run_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr("mowst.workers.torch.get_num_threads", lambda: 1)
    heard = {1: [], 2: []}
    results = {count: run(QUICK, tmp_path / str(count), hook=heard[count].append, workers=count) for count in (1, 2)}
    assert results[1]["scores"] == results[2]["scores"]
    assert results[1]["seeds"] == results[2]["seeds"] == [0, 1, 2]
    steps = [[(line["seed"], line["model"], line["phase"], line["epoch"]) for line in heard[count]] for count in (1, 2)]
    assert sorted(steps[0]) == sorted(steps[1])
    files = [sorted(path.name for path in (tmp_path / str(count)).rglob("*")) for count in (1, 2)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("visible", "seen"), [(["0"], None), ([], None), (["0", "1"], "0 1 0"), (["3", "5", "7"], "3 5 7")]
)
def test_processes_take_gpus_by_turns(monkeypatch, visible, seen):
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    taken = []
    for place in range(3):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        take_share(3, place, visible)
        taken.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert taken == ([None] * 3 if seen is None else seen.split())


def test_gpus_are_those_that_this_process_may_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8a")
    assert gpus() == ["4", "GPU-8a"]


@pytest.mark.slow
def test_the_command_shares_its_seeds(tmp_path):
    flags = "--dataset sbm --epochs 3 --seeds 2 --workers 2 --weak.hidden_channels 4 --strong.hidden_channels 4"
    command = [sys.executable, "-m", "mowst.run", *flags.split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "seed 0, strong, solo: 3 epochs" in done.stderr
    assert "seed 1, strong, solo: 3 epochs" in done.stderr
    assert "2 seeds" in done.stdout
    assert (tmp_path / "run" / "seed-1" / "model.safetensors").exists()
