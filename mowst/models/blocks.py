"""A GNN on a large graph without gradients: layer by layer, and of each layer some rows at a time.

Run at once, a layer holds several matrices as large as its output. In blocks there is what it reads, its output, and
what one block of rows needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mowst.kernels import Adjacency, Rows
from mowst.models.layers import NarrowGCNConv

ROWS = 131_072
"""Nodes of a block; a graph of no more is run at once."""


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
    for layer in range(module.num_layers):
        out: Tensor | None = None
        for first in range(0, len(x), ROWS):
            last = min(first + ROWS, len(x))
            part = _rows(module, layer, x, matrix.between(first, last), first, last)
            out = part.new_empty(len(x), part.size(1)) if out is None else out
            out[first:last] = part
        assert out is not None
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
