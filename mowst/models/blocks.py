"""A GNN on a large graph without gradients: layer by layer, and of each layer some rows at a time.

Run at once, a layer holds several matrices as large as its output. In blocks there is what it reads, its output, and
what one block of rows needs. Processes that run the same module on the same graph take blocks by turns (`Turns`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mowst.kernels import Adjacency, Rows
from mowst.models.layers import NarrowGCNConv

ROWS = 131_072
"""Nodes of a block; a graph of no more is run at once."""


class Turns(NamedTuple):
    """Which blocks this process runs, of several processes that run the same at the same time."""

    rank: int = 0
    size: int = 1
    """Processes that there are."""
    tell: Callable[[Tensor, int], None] = lambda rows, owner: None
    """Gives all of them, in place, the rows that the one of a rank has."""


_turns: ContextVar[Turns] = ContextVar("turns", default=Turns())  # noqa: B039 - it does not change


@contextmanager
def by_turns(turns: Turns) -> Iterator[None]:
    """Let modules be run so inside; every process must run the same ones."""
    token = _turns.set(turns)
    try:
        yield
    finally:
        _turns.reset(token)


def in_blocks(module: nn.Module, x: Tensor) -> bool:
    """Tell whether a module whose layers can be run for some rows (`Reads.by_block`) is run so on features [N, F].

    Not where gradients are wanted, or somebody looks at its layers (a hook): they would see some rows.
    """
    if len(x) <= ROWS or type(x) is not Tensor or torch.is_grad_enabled() or module.training:
        return False
    return not watched(module)


def watched(module: nn.Module) -> bool:
    """Tell whether somebody looks at the layers of a module (a hook)."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def by_block(module: Any, x: Tensor, matrix: Adjacency) -> Tensor:
    """Run a module on all nodes, [N, F] -> [N, C].

    Args:
        module: one with `convs`, `num_layers` and `inference_per_layer`, for which `in_blocks` is true.
        x: features.
        matrix: what its layers multiply by, [N, N].
    """
    turns, blocks = _turns.get(), [(first, min(first + ROWS, len(x))) for first in range(0, len(x), ROWS)]
    turns = turns if turns.size <= len(blocks) else Turns()
    for layer in range(module.num_layers):
        out: Tensor | None = None
        for first, last in blocks[turns.rank :: turns.size]:
            part = _rows(module, layer, x, matrix.between(first, last), first, last)
            out = part.new_empty(len(x), part.size(1)) if out is None else out
            out[first:last] = part
        assert out is not None
        for number, (first, last) in enumerate(blocks):
            turns.tell(out[first:last], number % turns.size)
        x = out
    return x


def _rows(module: Any, layer: int, x: Tensor, matrix: Adjacency, first: int, last: int) -> Tensor:
    """Run a layer for some rows of a matrix, [n, N]."""
    n, own = last - first, x[first:last]
    if not isinstance(module.convs[layer], NarrowGCNConv):
        return module.inference_per_layer(layer, (x, own), matrix, n)
    each = torch.arange(n + 1, device=x.device)
    itself = Adjacency(Rows(each, each[:-1]), n)  # the product is done, and of as many columns as what it multiplies
    passed = matrix.times(x)
    return module.inference_per_layer(layer, (passed, own), itself, n)
