"""The command that repeats a run, without its folder."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mowst.experiment.config import Config


def command_of(config: Mapping[str, Any]) -> str:
    """Return the command line that stands for the values of a configuration: what differs from the defaults, as flags.

    The values are not looked up, so that what another person's file names is not imported.
    """
    differing = flags_of(config, dataclasses.asdict(Config()))
    return shlex.join(["python", "-m", "mowst.run", *(word for pair in differing for word in pair)])


def flags_of(given: Mapping[str, Any], default: Mapping[str, Any], part: str = "") -> Iterator[tuple[str, str]]:
    """Yield a flag and its value for every field that differs; the fields of a part have its name before theirs."""
    for name, value in given.items():
        usual = default.get(name)
        if not part and isinstance(usual, Mapping) and isinstance(value, Mapping):
            yield from flags_of(value, usual, f"{name}.")
        elif value != usual:
            yield f"--{part}{name}", value if isinstance(value, str) else json.dumps(value)
