"""The folder that a study's result goes to: marked as the study's own before anything is run.

    OUT/best.yaml  default.yaml  result.json  study.html  best/  default/  front/  judged/

A hidden file says of which study these are, so that nothing that a person or another study wrote is ever replaced.
Several commands may work on one study, and share its folder.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mowst.errors import InputError
from mowst.system import OF_A_RUN, write_text
from mowst.tuning.plan import Plan

MARK = ".mowst-study.json"
NAMES = ("best.yaml", "default.yaml", "result.json", "study.html", "best", "default", "front", "judged")
"""What a study writes there."""


def default_place(plan: Plan) -> Path:
    """Return the folder beside a study's file; for an address, one in the working directory."""
    if plan.file is None:
        return Path(f"{plan.name}-best")
    return Path(f"{plan.file.with_suffix('') if plan.file.name else plan.file}-best")


@contextmanager
def claimed(out: Path, plan: Plan) -> Iterator[None]:
    """Hold a folder for a study; one that was made for nothing is taken away again.

    Raises:
        InputError: as `claim`.
    """
    made = [folder for folder in (out, *out.parents) if not os.path.lexists(folder)]
    ours = not os.path.lexists(out / MARK)
    try:
        claim(out, plan)
        yield
    finally:
        if ours and not held(out):
            with suppress(OSError):
                (out / MARK).unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()


def claim(out: Path, plan: Plan) -> None:
    """Mark a folder as a study's, which it may be already.

    Raises:
        InputError: the folder cannot be written, is or holds the study itself, or holds what this study did not write.
    """
    owner = {"study": address(out, plan), "name": plan.name}
    with writing(out):
        apart(out, plan)
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out}: is a file; give a folder")
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
        before = owner_of(out)
        if before is None and (foreign := held(out)):
            found = "holds a run" if OF_A_RUN in foreign else f"{', '.join(foreign)} there is no study's"
            raise InputError(f"--out {out}: {found}; give another folder")
        if before not in (None, {}, owner):
            found = f"{before.get('study')} ({before.get('name')})" if isinstance(before, dict) else "another study"
            raise InputError(f"--out {out}: holds what came of {found}, not of this study; give another folder")
        if before != owner:
            write_text(out / MARK, json.dumps(owner, indent=2) + "\n")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Say in a line that a folder cannot be written, or no longer."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written ({error.strerror or error}); make room, or give another"
        ) from None


def apart(out: Path, plan: Plan) -> None:
    """Refuse a folder that is the study's file, lies in it, or in which it would be replaced."""
    if plan.file is None:
        return
    if os.path.isdir(plan.file):
        raise InputError(f"study {plan.study}: is a folder; give a journal file, a database URL, or grpc://host:port")
    file, folder = plan.file.absolute(), out.absolute()
    if file in (folder, *folder.parents):
        raise InputError(f"--out {out}: lies where the study is, {plan.study}; give another folder")
    if any(folder / name in (file, *file.parents) for name in NAMES):
        raise InputError(f"study {plan.study}: lies where the result is written, in {out}; give another --out")


def address(out: Path, plan: Plan) -> str:
    """Return where a study is: a file as seen from the folder, so that both may be moved together; no password."""
    if plan.file is None:
        return re.sub(r"://[^/@]*@", "://", plan.study)
    return os.path.relpath(plan.file.absolute(), out.absolute())


def held(out: Path) -> list[str]:
    """Return which names of ours, and whether a run, a folder holds."""
    return [name for name in (*NAMES, OF_A_RUN) if os.path.lexists(out / name)]


def owner_of(out: Path) -> Any:
    """Return what a folder's mark says; none: it has none; {}: a study of before there were marks left it."""
    try:
        return json.loads((out / MARK).read_text())
    except (FileNotFoundError, NotADirectoryError):
        pass
    except ValueError:
        return "?"
    try:
        asked = json.loads((out / "result.json").read_text())["asked"]
        return {} if {"trials", "default", "seeds"} <= asked.keys() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
