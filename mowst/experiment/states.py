"""Nested tensors and plain values as one file of safetensors, whose header holds all but the tensors as JSON.

Nothing in such a file is run when it is read, and a file that was cut short or changed is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mowst.errors import InputError
from mowst.system import whole_file

PLAIN = (str, int, bool, type(None))


class Tensors:
    """The tensors of a state, each once, by the numbers that stand in their place."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.found: list[Tensor] = []

    def encoded(self, value: Any) -> Any:
        """Return a value as what JSON can say, bit for bit.

        Raises:
            TypeError: it is neither a tensor nor a plain value.
        """
        if isinstance(value, Tensor):
            if id(value) not in self.places:
                self.places[id(value)] = len(self.found)
                self.found.append(value)
            return {"tensor": self.places[id(value)]}
        if isinstance(value, float):
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, dict):
            return {"items": [[self.encoded(key), self.encoded(each)] for key, each in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [self.encoded(each) for each in value]}
        if isinstance(value, list):
            return [self.encoded(each) for each in value]
        if isinstance(value, PLAIN):
            return value
        raise TypeError(f"a {type(value).__name__} is neither a tensor nor a plain value")


def decoded(value: Any, tensors: list[Tensor]) -> Any:
    """Return what `Tensors.encoded` was given."""
    if isinstance(value, list):
        return [decoded(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "tensor":
        return tensors[held]
    if kind == "float":
        return float(held)
    if kind == "tuple":
        return tuple(decoded(each, tensors) for each in held)
    assert kind == "items"
    return {decoded(key, tensors): decoded(each, tensors) for key, each in held}


def write_state(path: Path, about: dict[str, Any], state: Any) -> None:
    """Write a state beside its place, and move it there once the disk has it.

    Args:
        path: of the file.
        about: plain values that say what it is of, which can be read alone.
        state: tensors and plain values, in lists, tuples and dictionaries.

    Raises:
        InputError: it cannot be written; what was there is there still.
        TypeError: the state holds something else.
    """
    tensors = Tensors()
    said = json.dumps(tensors.encoded(state), allow_nan=False)
    found = [each.detach().cpu().contiguous() for each in tensors.found]
    header = {"about": json.dumps(about), "state": said, "sha256": digest(said, found)}
    with whole_file(path) as beside:
        save_file({str(place): each for place, each in enumerate(found)}, beside, metadata=header)
        with beside.open("rb+") as stream:
            os.fsync(stream.fileno())


def read_about(path: Path) -> dict[str, Any]:
    """Return what a state is of, without its tensors; raise `InputError` where that cannot be read."""
    about, _ = _read(path, whole=False)
    return about


def read_state(path: Path) -> Any:
    """Return a state; raise `InputError` where the file is damaged."""
    _, state = _read(path, whole=True)
    return state


def _read(path: Path, *, whole: bool) -> tuple[dict[str, Any], Any]:
    try:
        with safe_open(path, "pt") as held:
            header = held.metadata()
            about, said = json.loads(header["about"]), header["state"]
            if not isinstance(about, dict):
                raise ValueError("it does not say what it is of")
            if not whole:
                return about, None
            tensors = [held.get_tensor(str(place)) for place in range(len(held.keys()))]
        if header["sha256"] != digest(said, tensors):
            raise ValueError("its contents are not what was written")
        return about, decoded(json.loads(said), tensors)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise InputError(f"{path}: truncated or damaged ({reason})") from None


def digest(said: str, tensors: Iterable[Tensor]) -> str:
    """Return the hash (SHA-256) of a state."""
    found = hashlib.sha256(said.encode())
    for tensor in tensors:
        found.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
