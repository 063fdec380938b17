"""What becomes of an input: a result, a refusal in one line, or a fault. Each is tried in a process of its own.

A case is a script in two parts: one that makes the input, one that hands it over; what both are
written with is in `tests.fuzzing.names`.
A `Judge` is a process that has imported everything; it forks for each case, and kills what takes too long or too much.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import psutil


class Limits(NamedTuple):
    """What a case may take."""

    seconds: float = 10.0
    resident: int = 4 * 2**30
    """Bytes of memory at once."""


LONGEST = 2000
"""Characters of a line that somebody can still read."""
ROOT = Path(__file__).parents[2]
FINE = ("result", "refused", "diverged", "void")
"""How a case may end; void: the first part failed, so that nothing was handed over."""


class Case(NamedTuple):
    """An input."""

    kind: str
    given: str
    """Script that makes the input."""
    asked: str
    """Script that hands it over."""

    def __str__(self) -> str:
        return f"{self.given}\n{HANDED}\n{self.asked}"

    @classmethod
    def of(cls, text: str) -> Case:
        """Read what `str` writes."""
        given, _, asked = text.partition(f"{HANDED}\n")
        return cls("given", given.removesuffix("\n"), asked)


HANDED = "# ---"


class Verdict(NamedTuple):
    """How a case ended."""

    outcome: str
    """One of `FINE`, or fault, slow, large, died."""
    said: str
    """The line of a refusal, or the traceback of a fault."""
    seconds: float
    megabytes: float

    @property
    def fine(self) -> bool:
        """Whether it may end so."""
        return self.outcome in FINE


class Judge:
    """A process that has imported everything and judges cases one by one."""

    def __init__(self) -> None:
        alone = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ | alone, **pipes)

    def __call__(self, case: Case, limits: Limits = Limits()) -> Verdict:  # noqa: B008
        """Try a case; one that took too long gets a second try, for the machine may have been busy."""
        for _ in range(2):
            self.process.stdin.write(json.dumps([case, limits]) + "\n")
            self.process.stdin.flush()
            verdict = Verdict(*json.loads(self.process.stdout.readline()))
            if verdict.outcome != "slow":
                break
        return verdict

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


@contextlib.contextmanager
def judging() -> Iterator[Judge]:
    """Give a judge for as long as it is needed."""
    judge = Judge()
    try:
        yield judge
    finally:
        judge.close()


# --- In the judge's process


def serve() -> None:
    """Import everything, then read cases and answer with verdicts, a line each, until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as place:
        warm(Path(place))
        for line in sys.stdin:
            case, limits = json.loads(line)
            answers.write(json.dumps(judged(Case(*case), Limits(*limits))) + "\n")
            answers.flush()


def warm(place: Path) -> None:
    """Run every command once, so that a fork finds all imported; what they leave is what cases damage."""
    from tests.fuzzing import names

    os.chdir(place)
    names.start(place / "kept")
    with open("said", "w") as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        names.make_kept()


def judged(case: Case, limits: Limits) -> Verdict:
    """Try a case in a fork of this process, within time and memory."""
    scratch = tempfile.mkdtemp()
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        act(case, Path(scratch), writing)
    os.close(writing)
    ended, used = watched(child, reading, limits)
    seconds, megabytes = time.monotonic() - began, used.ru_maxrss / 1024
    with os.fdopen(reading) as pipe:
        answer = "" if ended in ("slow", "large") else pipe.read()
    shutil.rmtree(scratch, ignore_errors=True)
    if ended == "" and megabytes * 2**20 > limits.resident:
        ended = "large"
    outcome, said = json.loads(answer) if answer and not ended else (ended or "died", f"took {megabytes:.0f} MiB")
    return Verdict(outcome, said, seconds, megabytes)


def watched(child: int, reading: int, limits: Limits) -> tuple[str, resource.struct_rusage]:
    """Wait for a process; say why it was ended if it had to be, and what it used."""
    why, process, began = "", psutil.Process(child), time.monotonic()
    while True:
        select.select([reading], [], [], 0.02)
        pid, _, used = os.wait4(child, os.WNOHANG)
        if pid:
            break
        with contextlib.suppress(psutil.Error):
            size = sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
            why = "large" if size > limits.resident else "slow" if time.monotonic() - began > limits.seconds else why
        if why:
            kill(child)
            _, _, used = os.wait4(child, 0)
            break
    kill(child)
    return why, used


def kill(child: int) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)


def act(case: Case, scratch: Path, writing: int) -> NoReturn:
    """Be the fork: try the case in a scratch folder, write how it ended into a pipe, and be gone."""
    try:
        os.setsid()
        os.chdir(scratch)
        for stream, name in ((0, os.devnull), (1, "said.out"), (2, "said.err")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), stream)
        os.write(writing, json.dumps(tried(case)).encode())
    except BaseException:
        os.write(writing, json.dumps(["fault", traceback.format_exc()[-5000:]]).encode())
    finally:
        os._exit(0)


def tried(case: Case) -> tuple[str, str]:
    """Run a case here and now: how it ended, and what it said."""
    from mowst.errors import InputError
    from tests.fuzzing import names

    held = dict(vars(names))
    try:
        exec(case.given, held)
    except Exception as error:
        return "void", f"{type(error).__name__}: {error}"[:LONGEST]
    try:
        exec(case.asked, held)
    except InputError as error:
        line = str(error)
        clear = "\n" not in line and 0 < len(line) <= LONGEST
        return ("refused", line) if clear else ("fault", f"no clear line, {len(line)} characters: {line[:500]}")
    except FloatingPointError as error:
        return "diverged", str(error)[:LONGEST]
    except BaseException:
        return "fault", traceback.format_exc()[-5000:]
    return "result", ""
