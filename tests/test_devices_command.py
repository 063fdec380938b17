"""`--devices`, and torchrun: one run by several processes, of which one speaks and writes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

SMALL = ["--dataset", "tests.graphs:good", "--trust", "tests", "--device", "cpu", "--seeds", "1", "--strong", "sage"]
SMALL += ["--report", "false", "--quiet", "--weak.hidden_channels", "4", "--strong.hidden_channels", "4"]
RUN = ["-m", "mowst.run", *SMALL]


def command(*words, program=(sys.executable,)):
    return subprocess.run([*program, *RUN, *words], capture_output=True, text=True, timeout=240, check=False)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--batch", "parts(3)"), r"error: batch: parts(3): 2 devices take 2 parts a step; take parts(4)"),
        (
            ("--batch", "full"),
            "error: devices: a step on the whole graph is not divided among 2, and there is one",
        ),
        (("--workers", "2"), "error: devices: 2 train every seed together; leave out --workers and --advise"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, words, line):
    from mowst.run import command as run
    from mowst.system.main import main

    with pytest.raises(SystemExit) as end:
        main(run, [*SMALL, "--devices", "2", "--out", str(tmp_path / "out"), *words])
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert len(said) == 1
    assert said[0].startswith(line)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_of_two_that_is_stopped_goes_on_as_if_it_never_had_been(tmp_path):
    words = ["--batch", "parts(2)", "--devices", "2", "--epochs", "60", "--patience", "60", "--checkpoint_minutes", "0"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert command(*words, "--out", str(whole)).returncode == 0
    process = subprocess.Popen(
        [sys.executable, *RUN, *words, "--out", str(parts)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while process.poll() is None and not (parts / "seed-0" / "checkpoint.safetensors").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "the same command goes on" in said
    other = command(*words[:2], *words[4:], "--out", str(parts))
    assert other.returncode == 2
    assert "of another number of --devices: 2, here it is 1" in other.stderr
    program = [sys.executable, "-m", "mowst.run", "--resume", str(parts), "--trust", "tests", "--report", "false"]
    again = subprocess.run(program, capture_output=True, text=True, timeout=240, check=False)
    assert again.returncode == 0, again.stderr
    assert "goes on: seed 0 after" in again.stdout
    expected, found = (load_file(folder / "seed-0" / "model.safetensors") for folder in (whole, parts))
    assert expected.keys() == found.keys()
    assert all(expected[name].numpy().tobytes() == found[name].numpy().tobytes() for name in expected)
    assert json.loads((parts / "result.json").read_text())["devices"] == 2


@pytest.mark.slow
def test_processes_of_torchrun_do_what_processes_of_ours_do(tmp_path):
    words = ["--batch", "neighbors(3,2,size=16)", "--epochs", "6"]
    there = ("--rdzv-backend", "static", "--master-addr", "127.0.0.1", "--master-port", free_port())
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *there)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    first = command(*words, "--devices", "2", "--out", str(ours))
    second = command(*words, "--out", str(theirs), program=torchrun)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert second.stdout.count("written to") == first.stdout.count("written to") == 1
    expected, found = (load_file(folder / "seed-0" / "model.safetensors") for folder in (ours, theirs))
    assert all(expected[name].numpy().tobytes() == found[name].numpy().tobytes() for name in expected)
    assert sorted(os.listdir(ours)) == sorted(os.listdir(theirs))
    wrong = command(*words[2:], "--batch", "full", "--out", str(tmp_path / "wrong"), program=torchrun)
    assert wrong.returncode != 0
    assert wrong.stderr.count("error: devices: a step on the whole graph is not divided among 2") == 1
