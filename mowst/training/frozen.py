"""What frozen experts say of all nodes: in memory, or, where it is much of that, in a file that is mapped.

The file lies in the system's folder for temporary ones (TMPDIR names another), and is gone with the process.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mowst.models import InParts, Known, joined
from mowst.system import free_memory, take_room
from mowst.training.batches import Batch
from mowst.training.phases import Phase, Watching

SHARE = 0.1
"""Of the free memory, above which it lies in a file."""


def said_by(parts: InParts, phase: Phase, batches: Iterable[Batch]) -> Iterator[Known]:
    """Say of the seeds of batches what a phase cannot change, the hidden layers that its losses watch included."""
    losses: list[Any] = [term.loss for term in phase.terms]
    watching: list[Watching] = [loss for loss in losses if isinstance(loss, Watching)]
    for batch in batches:
        known = parts.known(batch.x, batch.graph, phase.trains)
        layers = next((seen for each in watching if (seen := each.frozen_layers())), ())
        yield batch.of_seeds(known._replace(layers=layers))


@torch.no_grad()
def gathered(parts: Iterable[Known], nodes: int) -> Known:
    """Return what is known of so many nodes, of what is known of some after the others, [n, ...] and so on.

    Raises:
        OSError: it does not fit on the disk.
    """
    rest = iter(parts)
    first = next(rest)
    held = tensors_of(first)
    size = sum(tensor.numel() * tensor.element_size() for tensor in held) / max(1, len(held[0]) if held else 1) * nodes
    if size <= SHARE * free_memory() or any(tensor.device.type != "cpu" for tensor in held):
        return joined([first, *rest])
    room: Known = changed(first, lambda tensor: on_disk(tensor, nodes))
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


def on_disk(like: Tensor, rows: int) -> Tensor:
    """Return room for so many rows of a tensor's kind, [rows, ...], in a file that nobody else sees."""
    shape = (rows, *like.shape[1:])
    with tempfile.TemporaryFile(prefix="mowst-") as file:
        take_room(file.fileno(), math.prod(shape) * like.element_size())
        bits = np.memmap(file, np.uint8, "r+")  # bfloat16 has no type in numpy
        return torch.from_numpy(bits).view(like.dtype).view(shape)
