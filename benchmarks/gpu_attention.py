"""What a layer of attention costs on a CUDA device: a part of `benchmarks/gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import GATConv

from benchmarks.gpu_bench import Bench
from mowst.kernels import measuring
from mowst.kernels.attention import AttentionConv, own_attention

SHAPES = (8, 32), (1, 64)
"""Heads, and how wide each is."""


def attention(bench: Bench) -> list[dict[str, Any]]:
    """Compare one layer, forward and backward: by products, by our own kernels, and PyG's; and say what is chosen."""
    data, found = bench.graph(bench.sizes[-1]), list[dict[str, Any]]()
    own = own_attention() if bench.device.type == "cuda" else None
    kernels = data.adj_t.gcn().rows.own
    for heads, width in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            kind = "attention", dtype, heads, width
            for dropout in (0.0, 0.5):
                record = {"heads": heads, "width": width, "dtype": str(dtype), "dropout": dropout}
                ours, theirs = (
                    step(layer(data.x.size(1), width, heads=heads, dropout=dropout), data.x, graph, dtype)
                    for layer, graph in ((AttentionConv, data.adj_t), (GATConv, data.edge_index))
                )
                for name, kernel in {"products": None, "own kernels": own}.items():
                    kernels[kind] = kernel
                    if name == "products" or own is not None:
                        found.append(record | {"way": name, "ms": bench.ms(ours), "GiB": bench.peak(ours)})
                found.append(record | {"way": "PyG, edge_index", "ms": bench.ms(theirs), "GiB": bench.peak(theirs)})
            del kernels[kind]
            with measuring():
                ours()
            found.append({"heads": heads, "width": width, "dtype": str(dtype), "own": kernels.get(kind) is not None})
    return found


def step(layer: GATConv, x: Tensor, graph: Tensor, dtype: torch.dtype) -> Callable[[], object]:
    """Return a forward and a backward pass of a layer, to the nodes' features as well."""
    layer, x = layer.to(x.device), x.clone().requires_grad_()
    leaves = [x, *layer.parameters()]

    def once() -> object:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = layer(x, graph)
        return torch.autograd.grad(out, leaves, out.detach())

    return once
