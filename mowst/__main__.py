"""The command `mowst`: `mowst run`, `mowst tune`, `mowst predict`, `mowst report`; or `python -m mowst run`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from mowst.errors import unknown
from mowst.system.main import main

COMMANDS = {
    "run": "train a mixture on a graph, and each model alone to compare with",
    "predict": "predict nodes with what a run left, of its graph or of another one",
    "report": "show one run as a page, or several side by side",
    "tune": "search for better settings, and judge them on fresh seeds",
}


def usage() -> str:
    """Return what the command does without a word."""
    lines = ["usage: mowst COMMAND [options]", ""]
    lines += [f"  {name:8} {about}" for name, about in COMMANDS.items()]
    lines += ["", "mowst COMMAND --help shows the options that people use first, --help all all of them.", ""]
    return "\n".join([*lines, "  --version", "  --help"])


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first word names."""
    word, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    if word in ("-h", "--help"):
        print(usage())
        return 0
    if word == "--version":
        from importlib.metadata import version

        print(f"mowst {version('mowst')}")
        return 0
    if word not in COMMANDS:
        raise unknown("command", word, COMMANDS)
    return int(import_module(f"mowst.{word}").command(rest))


def enter() -> None:
    """Be the program `mowst`."""
    main(command)


if __name__ == "__main__":
    enter()
