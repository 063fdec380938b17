"""PyG's optional native extensions, where one that is installed would not work."""

from __future__ import annotations

import warnings

import torch
import torch_geometric.typing


def guard_scatter(device: torch.device) -> None:
    """Switch torch-scatter off, with a warning, where it is a CPU build and the device is a CUDA one.

    PyG calls it for CUDA tensors all the same, and then it fails; without it PyG uses torch's own operators.
    """
    if device.type != "cuda" or not torch_geometric.typing.WITH_TORCH_SCATTER:
        return
    if torch.ops.torch_scatter.cuda_version() == -1:
        torch_geometric.typing.WITH_TORCH_SCATTER = False
        warnings.warn(
            "torch-scatter is a CPU build and cannot serve a CUDA device: it is switched off; rebuild it where nvcc is",
            stacklevel=2,
        )
