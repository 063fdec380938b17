"""The files that a teacher can be: arrays of floating-point numbers, and which split they are of."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mowst.errors import InputError

Contents = tuple[dict[str, Tensor], str | None]


def read_arrays(path: Path) -> Contents:
    """Read the floating-point arrays of an `.npz`, and its split's hash; objects, which could run code, are refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        split = str(arrays.pop("split_sha256").item()) if "split_sha256" in arrays else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"teacher {path}: cannot be read: {error}") from None
    return {key: torch.from_numpy(value).float() for key, value in arrays.items() if value.dtype.kind == "f"}, split


def read_tensors(path: Path) -> Contents:
    """Read the tensors of a `.safetensors` file, and its split's hash."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, (file.metadata() or {}).get("split_sha256")
    except (OSError, SafetensorError) as error:
        raise InputError(f"teacher {path}: cannot be read: {error}") from None


FILES: dict[str, Callable[[Path], Contents]] = {".npz": read_arrays, ".safetensors": read_tensors}
