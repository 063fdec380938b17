"""What batch norm, ReLU and dropout cost on a CUDA device: a part of `benchmarks/gpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu_bench import Bench
from benchmarks.speed_steps import training_step
from mowst.kernels import measuring, norm_relu_dropout, normed
from mowst.kernels.choosing import by_triton

PRODUCTS = 2_449_029
"""Nodes of ogbn-products."""
Way = Callable[[nn.BatchNorm1d, Tensor], Tensor]


def norms(bench: Bench) -> list[dict[str, Any]]:
    """Compare the three, forward and backward, by torch, compiled by torch, and in one pass; and a step with either."""
    found, rows = list[dict[str, Any]](), {"arxiv": bench.sizes[-1], "products": 400 if bench.tiny else PRODUCTS}
    for name, count in rows.items():
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(count, 256, device=bench.device).to(dtype)
            record = {"rows": name, "dtype": str(dtype)}
            for title, way in ways(bench).items():
                try:
                    work = there_and_back(way, x)
                    found.append(record | {"way": title, "ms": bench.ms(work), "GiB": bench.peak(work)})
                except Exception as error:  # no compiler
                    found.append(record | {"way": title, "failed": str(error)[-300:]})
            with measuring():
                there_and_back(norm_relu_dropout, x)()
    said = [f"{kind}: {passes is not None}" for kind, passes in normed._found.items()]
    return [*found, {"own is taken": said}, *steps(bench)]


def ways(bench: Bench) -> dict[str, Way]:
    """Return the ways of computing the three."""

    def plain(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
        return F.dropout(norm(x).relu(), 0.5)

    def own(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
        settings = normed.Settings(norm.eps, normed._tracked(norm), normed.dropping(0.5, x.device))
        return normed.one_pass(x, norm.weight, norm.bias, passes, settings)[0]

    passes = by_triton("norm_passes") if bench.device.type == "cuda" else None
    found: dict[str, Way] = {"torch": plain, "torch.compile": torch.compile(plain, dynamic=False)}
    return found if passes is None else found | {"own": own}


def there_and_back(way: Way, x: Tensor) -> Callable[[], object]:
    """Return a forward and a backward pass, to `x` as well."""
    norm, x, gradient = nn.BatchNorm1d(x.size(1)).to(x.device), x.detach().requires_grad_(), torch.randn_like(x)
    return lambda: torch.autograd.grad(way(norm, x), [x, *norm.parameters()], gradient)


def steps(bench: Bench) -> list[dict[str, Any]]:
    """Compare steps at the size of ogbn-arxiv, with the same sparse products: in one pass where that pays, and not."""
    data, found = bench.graph(bench.sizes[-1]), list[dict[str, Any]]()
    for precision in ("32-true", "32-medium", "bf16-mixed"):
        step = training_step(data.x, data.y, data.adj_t, precision)
        with measuring():
            step()
            held = dict(normed._found)
            for one_pass in (True, False):
                normed._found.update(held if one_pass else dict.fromkeys(held))
                record = {"step": precision, "one pass": one_pass and any(each is not None for each in held.values())}
                found.append(record | {"ms": bench.ms(step), "GiB": bench.peak(step)})
            normed._found.update(held)
    return found
