"""Ranges as people write them, in a space file or on the command line.

lr: 1e-3..1e-1:log              a range, on a logarithmic scale if it says so
strong.num_layers: [2, 3]       choices; on the command line strong.num_layers=2,3
strong.options.heads: [1, 4]    a parameter of the constructor, which becomes a dimension
weak: {dropout: 0.3}            no dimension: fixed
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from mowst.errors import InputError, unknown
from mowst.experiment.config import Config
from mowst.experiment.reading import CODE, config_of, parse, parser
from mowst.names import vet
from mowst.system.documents import Plain, read_yaml
from mowst.tuning.arguments import checked
from mowst.tuning.fields import JUDGES, PARTS, flat, taken


@checked
def read_search(path: str | Path | None, flags: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a space file and flags such as lr=1e-3..1e-1:log or strong.num_layers=2,3 ask for.

    Raises:
        InputError: the file cannot be read, or one of them asks for nothing.
    """
    found: Any = read_yaml("--space", Path(path)) if path else None
    found = {} if found is None else found
    if not isinstance(found, dict):
        raise InputError(f"--space {path}: must map fields to ranges, such as lr: 1e-3..1e-1:log")
    for field, given in flat(found):
        for each in given if field in CODE and isinstance(given, list) else [given] * (field in CODE):
            vet(f"--space {path}: {field}", CODE[field], each)
    for flag in flags:
        name, equals, text = flag.partition("=")
        if not equals:
            raise InputError(f"--search {flag}: write FIELD=low..high, FIELD=low..high:log, or FIELD=one,two")
        words = [plain(word) for word in text.split(",") if word]
        found[name] = text if ".." in text else words[0] if len(words) == 1 else words
    return found


def asked_for(path: str, given: Any) -> Any:
    """Return the distribution, or the one value, that a person wrote for a field."""
    check_known(path)
    if isinstance(given, str) and ".." in given:
        low, _, rest = given.partition("..")
        high, _, scale = rest.partition(":")
        return distribution(path, (typed(path, low), typed(path, high), *([scale] if scale else [])))
    return distribution(path, [typed(path, each) for each in given]) if isinstance(given, list) else typed(path, given)


def check_known(path: str) -> None:
    """Refuse a path that is no field, or one by which trials are judged."""
    head, *rest = path.split(".")
    if head in JUDGES:
        raise InputError(f"space: {path} is the same for all trials of a study; give it as --{head}")
    names = {entry.name for entry in dataclasses.fields(Config)} - JUDGES
    choices = names - set(PARTS)
    for part in PARTS:
        inner = {entry.name for entry in dataclasses.fields(getattr(Config(), part))} - {"options", "dispersions"}
        choices |= {f"{part}.{name}" for name in inner}
    inside_part = head in PARTS and len(rest) == 2 and rest[0] == "options"
    if path not in choices and not inside_part and not (head == "kd" and len(rest) == 2):
        further = [*(f"{part}.options.NAME" for part in PARTS), "kd.LOSS.NAME"]
        raise unknown("space: field", path, [*choices, *further])


def distribution(path: str, given: Sequence[Any]) -> BaseDistribution:
    """Return Optuna's distribution for a list of choices, or for a tuple `(low, high)` or `(low, high, "log")`."""
    if isinstance(given, list):
        if not given or not all(isinstance(value, None | bool | int | float | str) for value in given):
            raise InputError(f"space: {path}: no choices in {given}; give numbers, words, true, false or null")
        return CategoricalDistribution(tuple(dict.fromkeys(given)))
    low, high, *scale = given
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (low, high))
    if not numbers or scale not in ([], ["log"]):
        written = ":".join([f"{low}..{high}", *scale])
        raise InputError(f"space: {path}: {written!r} is no range; write low..high or low..high:log, of numbers")
    if not low < high or (scale and not low > 0):
        needed = "a range needs low < high" + (", and low > 0 for log" if scale else "")
        raise InputError(f"space: {path}: the range {low}..{high} is empty; {needed}")
    whole = isinstance(low, int) and isinstance(high, int)
    try:
        return (IntDistribution if whole else FloatDistribution)(low, high, log=bool(scale))
    except (ValueError, OverflowError) as error:
        raise InputError(f"space: {path}: the range {low}..{high} is none: {' '.join(str(error).split())}") from None


def ends(given: BaseDistribution) -> Sequence[Any]:
    """Return the choices, or the two ends of a range."""
    if isinstance(given, CategoricalDistribution):
        return given.choices
    assert isinstance(given, IntDistribution | FloatDistribution)
    return given.low, given.high


def inside(value: Any, given: BaseDistribution) -> bool:
    """Tell whether a value is one of the choices, or in the range."""
    if isinstance(given, CategoricalDistribution):
        return any(value == choice and type(value) is type(choice) for choice in given.choices)
    low, high = ends(given)
    return isinstance(value, int | float) and low <= value <= high


def typed(path: str, value: Any) -> Any:
    """Return a value in the field's type; what is wrong is said as on the command line.

    Parameters of constructors have no types here: building a model shows what is wrong with them.
    """
    if ".options." in path or path.startswith("kd."):
        return plain(value) if isinstance(value, str) else value
    if not isinstance(value, None | bool | int | float | str | list):
        raise InputError(f"space: {path}: must be a range, choices or a value, got {value!r}")
    try:
        text = value if isinstance(value, str) else json.dumps(value)
        return taken(config_of(parse(flags(), [f"--{path}", text])), path)
    except (InputError, TypeError, RecursionError) as error:
        said = str(error)
        raise InputError(f"space: {said if said.startswith(f'{path}: ') else f'{path}: {said}'}") from None


@cache
def flags() -> ArgumentParser:
    """Return a parser of all fields."""
    return parser("tune", "")


def plain(text: str) -> Any:
    """Read a word as YAML does, and 1e-3 as a number too."""
    try:
        return float(text) if "e" in text.lower() else yaml.load(text, Plain)
    except (ValueError, yaml.YAMLError, RecursionError):
        return text
