"""Commands as programs: how they end, what they print, and what they leave of files."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import mowst.predict
from mowst import Config, ExpertConfig
from mowst.errors import InputError
from mowst.experiment.runs import run
from mowst.run import command as run_command
from mowst.system.files import in_place, try_place, whole_file, write_arrays, write_text
from mowst.system.main import STOPPING, main
from mowst.system.memory import needing

PROGRAM = """
import signal, sys, time
from mowst.system.main import imported, main
signal.signal(signal.SIGINT, signal.default_int_handler)
def command(arguments):
    {}
main(command)
"""


def program(*lines, **options):
    """Start a program whose command consists of some lines."""
    code = PROGRAM.format("\n    ".join(textwrap.dedent("\n".join(lines)).splitlines()))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-c", code], **pipes)


def said(process):
    """Return how a program ended, and what it said."""
    out, errors = process.communicate(timeout=60)
    return process.returncode, (out or b"").decode(), (errors or b"").decode()


# --- Signals

WAITS = "try: print('ready', flush=True); time.sleep(60)", "finally: print('undone')"


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("imports_done", [True, False])
def test_a_signal_undoes_what_is_half_done_and_ends_in_a_line(number, imports_done):
    process = program(*["imported()"] * imports_done, *WAITS)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert said(process) == (128 + number, "undone\n" * imports_done, f"{STOPPING[number]}\n")


@pytest.mark.parametrize("number", STOPPING)
def test_handlers_of_others_are_left_alone_and_ours_are_taken_back(number):
    before = signal.getsignal(number)
    for handler in (signal.SIG_IGN, lambda *_: None, before):
        signal.signal(number, handler)
        during = []
        try:
            with pytest.raises(SystemExit):
                main(lambda _, during=during, number=number: during.append(signal.getsignal(number)) or 0)
            assert signal.getsignal(number) is handler
        finally:
            signal.signal(number, before)
        assert (during[0] is handler) == (handler is not before)


# --- Output


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_text_that_a_terminal_cannot_show_is_spelled(stream):
    line = f"print('70 ± 1 é \\udcff', file=sys.{stream})"
    ascii_only = program(line, "return 0", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, errors = ascii_only.communicate(timeout=60)
    assert ascii_only.returncode == 0
    assert {"stdout": out, "stderr": errors}[stream] == b"70 +- 1 ? \xff\n"


def test_nobody_reading_ends_a_program_without_a_word():
    ours, theirs = os.pipe()
    os.close(ours)
    for lines in (["print('a line')", "return 0"], ["import rich", "rich.print('a line')", "return 0"]):
        assert said(program(*lines, stdout=theirs)) == (141, "", "")
    os.close(theirs)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_an_output_that_is_full_is_an_error():
    with open("/dev/full", "wb") as full:
        code, _, errors = said(program("print('a line')", "return 0", stdout=full))
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.endswith("No space left on device\n")
    assert errors.count("\n") == 1


# --- Errors


@pytest.mark.parametrize(
    ("given", "there"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_threads_look_for_work_a_moment_only_unless_somebody_says_otherwise(given, there):
    """It is said before torch is loaded: afterwards it would not count."""
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    line = "import os; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT', '')); return 0"
    process = program(line, env=kept | given, stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].strip() == there
    assert process.returncode == 0


def fails_with(error, capsys):
    def command(_):
        raise error

    with pytest.raises(SystemExit) as end:
        main(command)
    return end.value.code, capsys.readouterr().err


def test_a_file_that_fails_somewhere_is_a_line(capsys):
    code, line = fails_with(FileNotFoundError(2, "No such file", "some/file"), capsys)
    assert (code, line) == (2, "error: some/file: No such file\n")
    assert fails_with(OSError("a driver\nsays this"), capsys) == (2, "error: a driver says this\n")


def test_too_little_memory_is_a_line_that_says_what_takes_less(capsys):
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(2**50)
    for error in (MemoryError(), torchs.value, torch.OutOfMemoryError("CUDA out of memory")):
        code, line = fails_with(error, capsys)
        assert code == 2
        assert line.startswith("error: memory was too small")
        assert "hidden_channels" in line
        assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which "
                "256.00 MiB is free."
            ),
            "0.50 GiB more were asked for, and 0.25 GiB are free; less is taken by --batch",
        ),
        (MemoryError("Unable to allocate 3.00 TiB for an array with shape (1,)"), "3,072.00 GiB more were asked for"),
        (OSError(12, "Cannot allocate memory", "some/file"), "GiB are free; less is taken by --batch"),
    ],
)
def test_what_was_needed_and_what_there_is_is_said(error, said, capsys):
    code, line = fails_with(error, capsys)
    assert code == 2
    assert line.startswith("error: memory was too small: ")
    assert said in line


def test_memory_knows_what_it_was_for(capsys):
    with pytest.raises(MemoryError) as asked, needing("do this", "that"):
        raise MemoryError("Unable to allocate 1.00 GiB")
    assert fails_with(asked.value, capsys)[1].startswith("error: memory was too small to do this: 1.00 GiB more were")
    assert fails_with(asked.value, capsys)[1].endswith("GiB are free; less is taken by that\n")
    with pytest.raises(MemoryError) as inner, needing("do this", "that"), needing("read it", "a part of it"):
        raise MemoryError
    assert (inner.value.what, inner.value.less) == ("read it", "a part of it"), "who is nearest knows it best"
    with pytest.raises(ValueError, match=r"^other$"), needing("do this", "that"):
        raise ValueError("other")


def test_a_fault_of_ours_is_not_hidden(capsys):
    with pytest.raises(RuntimeError, match="a fault"):
        main(lambda _: exec('raise RuntimeError("a fault")'))


# --- Files


@contextmanager
def small_files():
    """Let no file have more than so many bytes, as if a disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_weights(path):
    with whole_file(path) as whole:
        save_file({"x": torch.rand(10_000)}, whole)


def write_folder(path):
    with in_place(path) as folder:
        (folder / "small").write_text("")
        write_arrays(folder / "large.npz", [("x", np.random.default_rng(0).random(10_000))])


WRITERS = {
    "text": lambda path: write_text(path, "x" * 10_000),
    "arrays": lambda path: write_arrays(path, [("x", np.random.default_rng(0).random(10_000))]),
    "weights": write_weights,
    "folder": write_folder,
}


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, write, there):
    path = tmp_path / "results"
    if there:
        (path.mkdir if write is write_folder else path.touch)()
    before = path.stat().st_ino if there else None
    with pytest.raises(InputError) as error, small_files():
        write(path)
    assert str(error.value).startswith(f"{path}: cannot be written: ")
    assert "arge" in str(error.value), "File too large, whoever says it"
    assert "\n" not in str(error.value)
    assert [each.stat().st_ino for each in tmp_path.iterdir()] == [before] * there


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "a\0b.npz", "file/b.npz", "folder.npz", "/proc/none.npz"])
@pytest.mark.parametrize("write", [WRITERS["arrays"], try_place])
def test_a_name_that_the_system_refuses_is_said(tmp_path, name, write):
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "folder.npz" / "of somebody").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.npz", "of somebody"]


@pytest.mark.parametrize("name", ["a\x01", "ü±", "a b\n", "x" * 255, "é" * 120, "-", "~", "%s{0}"])
def test_a_name_that_the_system_allows_is_taken(tmp_path, name):
    try_place(tmp_path / name)
    write_text(tmp_path / name, "text")
    write_text(tmp_path / name, "another")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "another")]


def test_a_folder_takes_the_place_of_another(tmp_path):
    for number in (1, 2):
        with in_place(tmp_path / "folder") as folder:
            (folder / f"file {number}").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "file 2"]


# --- Predictions of a run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two seeds, by the command."""
    out = tmp_path_factory.mktemp("program") / "out"
    small = "--weak.hidden_channels 4 --strong.hidden_channels 4"
    run_command(f"--dataset sbm --epochs 2 --seeds 2 --no-baselines --quiet {small} --out {out}".split())
    return out


def predict(*arguments):
    return mowst.predict.command([str(each) for each in arguments])


PLACES = ("seed-0/predictions.npz", "seed-0/new.npz", "seed-1/a/b.npz", "seed-1/../seed-0/x.npz", "link/x.npz")


@pytest.mark.parametrize("place", PLACES)
def test_predictions_never_go_among_the_files_of_a_run(finished, place, monkeypatch):
    monkeypatch.setattr("mowst.experiment.reload.ask", None)  # and nothing is computed before that is said
    if place.startswith("link") and not (finished / "link").exists():
        (finished / "link").symlink_to(finished / "seed-0")
    before = (finished / "seed-0" / "predictions.npz").read_bytes()
    with pytest.raises(InputError, match="among the files of a run"):
        predict(finished / "seed-0", "--save", finished / place)
    assert (finished / "seed-0" / "predictions.npz").read_bytes() == before


@pytest.mark.parametrize("place", ["folder.npz", "file/x.npz", "x" * 300 + ".npz"])
def test_predictions_that_could_not_be_written_are_not_computed(finished, tmp_path, place, monkeypatch):
    monkeypatch.setattr("mowst.experiment.reload.ask", None)
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        predict(finished / "seed-0", "--save", tmp_path / place)


def test_predictions_go_beside_a_run(finished):
    assert predict(finished / "seed-0", "--save", finished / "new" / "mine.npz") == 0
    assert np.load(finished / "new" / "mine.npz")["prediction"].ndim == 1


@pytest.mark.parametrize("seed", [10**30, -1, 2**63])
def test_a_seed_that_no_generator_takes_is_said(finished, seed):
    with pytest.raises(InputError, match="--seed"):
        predict(finished / "seed-0", "--how", "sampled", f"--seed={seed}")


ARRAYS = {
    "nothing": None,
    "another shape": {"mixture": np.ones((3, 10))},
    "one axis": {"mixture": np.ones(3)},
    "words": {"mixture": np.array([["a"]])},
    "objects": {"mixture": np.array([{}], dtype=object)},
}


@pytest.mark.parametrize("nodes", [[], ["--nodes", "0,5"]])
@pytest.mark.parametrize("arrays", ARRAYS.values(), ids=ARRAYS)
def test_damaged_predictions_are_said(finished, tmp_path, arrays, nodes):
    folder = shutil.copytree(finished / "seed-0", tmp_path / "copy")
    (folder / "predictions.npz").write_bytes(b"")
    if arrays is not None:
        np.savez(folder / "predictions.npz", **arrays)
    with pytest.raises(InputError, match="predictions") as error:
        predict(folder, *nodes)
    assert "\n" not in str(error.value)


def test_predictions_cut_or_changed_anywhere_are_said_or_compared(finished, tmp_path):
    folder = shutil.copytree(finished / "seed-0", tmp_path / "copy")
    whole, refused = (folder / "predictions.npz").read_bytes(), []
    for place in range(0, len(whole), len(whole) // 8):
        for damaged in (whole[:place], whole[:place] + b"\xff\xff\xff\xff" + whole[place + 4 :]):
            (folder / "predictions.npz").write_bytes(damaged)
            try:
                predict(folder, "--nodes", "0")
            except InputError as error:
                refused.append(str(error))
    assert refused
    assert all("predictions.npz" in line and "\n" not in line for line in refused)


@pytest.mark.parametrize(
    "changed",
    [None, [], {"seed": 0}, {"seed": "a"}, {"seed": 10**30}, {"split": None}, {"scores": 3}, {"threads": 10**9}],
)
def test_a_damaged_record_is_said(finished, tmp_path, changed, monkeypatch):
    folder = shutil.copytree(finished / "seed-0", tmp_path / "copy")
    record = json.loads((folder / "result.json").read_text())
    kept = isinstance(changed, dict) and changed != {"seed": 0}
    (folder / "result.json").write_text(json.dumps(record | changed if kept else changed))
    with pytest.raises(InputError) as error:
        predict(folder)
    assert "\n" not in str(error.value)


# --- Threads of a run


@pytest.fixture
def taken(monkeypatch):
    """The numbers of threads that are taken, on an idle machine, where nobody has chosen one."""
    numbers = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("mowst.system.threads.free_cpus", lambda: 2.0)
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


def test_predict_takes_the_threads_of_the_run(finished, tmp_path, taken):
    folder = shutil.copytree(finished / "seed-0", tmp_path / "copy")
    record = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(record | {"threads": 2}))
    predict(folder)
    assert taken == [2]


def test_a_run_that_goes_on_takes_the_threads_that_it_had(finished, tmp_path, taken):
    out = shutil.copytree(finished, tmp_path / "copy", symlinks=True)
    record = json.loads((out / "seed-0" / "result.json").read_text())
    (out / "seed-0" / "result.json").write_text(json.dumps(record | {"threads": 2}))
    (out / "result.json").unlink()
    shutil.rmtree(out / "seed-1")
    run_command(["--config", str(out / "config.yaml"), "--quiet", "--out", str(out)])
    assert taken == [2]
    assert (out / "seed-1").is_dir()


def test_a_library_function_takes_no_threads(taken):
    small = ExpertConfig("mlp", hidden_channels=4)
    run(Config(dataset="sbm", epochs=1, seeds=1, baselines=False, weak=small, strong=small))
    assert not taken


# --- A whole run


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminated_run_keeps_finished_seeds_and_nothing_else(tmp_path, workers):
    out = tmp_path / "out"
    flags = f"--dataset sbm --preset fast --epochs 60 --seeds 5 --quiet --workers {workers} --out {out}".split()
    process = subprocess.Popen([sys.executable, "-m", "mowst.run", *flags], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "seed-0" / "result.json").exists():
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == "terminated"
    assert "Traceback" not in errors
    end = time.monotonic() + 10  # Python's own tracker of resources ends a moment later
    while any(os.path.exists(f"/proc/{child}") for child in children):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not [path for path in out.iterdir() if path.name.startswith(".seed")]
    for path in out.glob("seed-*"):
        held = {each.name for each in path.iterdir()}
        assert "config.yaml" in held or held == {"checkpoint.safetensors"}, "whole, or where it stood"
    assert not (out / "result.json").exists()


@pytest.mark.slow
def test_a_run_on_a_full_disk_is_a_line(tmp_path):
    flags = f"--dataset sbm --epochs 3 --seeds 1 --quiet --out {tmp_path / 'out'}".split()
    limited = [sys.executable, "-c", LIMITED, *flags]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'out' / 'seed-0'}: cannot be written: ")
    assert "File too large" in line
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, sys
from mowst.run import command
from mowst.system.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
main(command)
"""
