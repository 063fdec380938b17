"""What is said of all nodes of a large graph: made some rows at a time, and held in memory, or in a mapped file.

A file is for what is a large part of the memory that is free. It lies in the system's folder for temporary ones (TMPDIR
names another), and is gone with the process. How many rows are made at a time follows from their number alone, so that
what is in a file is bit for bit what it would be in memory.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from mowst.system import free_memory, take_room

SHARE = 0.1
"""Of the free memory, above which it lies in a file."""
ROWS = 131_072
"""That are made at a time."""

Said = TypeVar("Said")
"""A tensor [n, ...], or named ones."""


def pieces(nodes: int) -> Iterator[slice]:
    """Yield so many rows some at a time; none of them is one piece, too."""
    for first in range(0, max(1, nodes), ROWS):
        yield slice(first, min(first + ROWS, nodes))


@torch.no_grad()
def piecewise(make: Callable[[slice], Said], nodes: int) -> Said:
    """Return what `make` says of so many nodes, asked of some after the others.

    Raises:
        OSError: it does not fit on the disk.
    """
    return gathered(map(make, pieces(nodes)), nodes)


@torch.no_grad()
def gathered(parts: Iterable[Said], nodes: int) -> Said:
    """Return what is said of so many nodes, of what is said of some after the others, [n, ...] and so on.

    Raises:
        OSError: it does not fit on the disk.
    """
    rest = iter(parts)
    first = next(rest)
    held = tensors_of(first)
    size = sum(tensor.numel() * tensor.element_size() for tensor in held) / max(1, len(held[0]) if held else 1) * nodes
    on_cpu = all(tensor.device.type == "cpu" for tensor in held)
    in_file = on_cpu and size > SHARE * free_memory()
    if not in_file and (not held or len(held[0]) == nodes):
        return first
    room: Said = changed(first, lambda tensor: on_disk(tensor, nodes) if in_file else in_memory(tensor, nodes))
    begin = 0
    for part in chain([first], rest):
        said = tensors_of(part)
        for whole, some in zip(tensors_of(room), said, strict=True):
            whole[begin : begin + len(some)] = some
        begin += len(said[0])
    return room


def changed(held: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the same names and places with every tensor changed."""
    if isinstance(held, Tensor):
        return change(held)
    if held is None:
        return None
    found = [changed(each, change) for each in held]
    return tuple(found) if type(held) is tuple else type(held)(*found)


def tensors_of(held: Any) -> list[Tensor]:
    """Return the tensors in named places, in their order."""
    if isinstance(held, Tensor):
        return [held]
    return [] if held is None else [tensor for each in held for tensor in tensors_of(each)]


def in_memory(like: Tensor, rows: int) -> Tensor:
    """Return room for so many rows of a tensor's kind, [rows, ...]."""
    return like.new_empty((rows, *like.shape[1:]))


def on_disk(like: Tensor, rows: int) -> Tensor:
    """Return the same in a file that nobody else sees."""
    shape = (rows, *like.shape[1:])
    with tempfile.TemporaryFile(prefix="mowst-") as file:
        take_room(file.fileno(), math.prod(shape) * like.element_size())
        bits = np.memmap(file, np.uint8, "r+")  # bfloat16 has no type in numpy
        return torch.from_numpy(bits).view(like.dtype).view(shape)
