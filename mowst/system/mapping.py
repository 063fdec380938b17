"""Arrays that are made once and then mapped from files: processes on one machine that read the same share its memory.

FOLDER/KEY/gcn/0.npy  1.npy  2.npy  sha256.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mowst.system.files import UnwritableError, in_place

HASHES = "sha256.json"

Tensors = tuple[Tensor, ...]


class Mapped:
    """Makes tensors, or finds them in a folder where they were made before.

    Args:
        folder: for all that is kept.
        key: what tells that of which these are made from anything else, such as a hash of it.
    """

    def __init__(self, folder: Path, key: str):
        self.folder = folder / key

    def __call__(self, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Return what `make` returns, mapped; where nothing can be written, as it is.

        Files that are damaged are made anew: their hashes are looked at.
        """
        place = self.folder / name
        if (found := read(place)) is not None:
            return found
        made = make()
        try:
            write(place, made)
        except UnwritableError:
            return made
        return read(place) or made


def write(place: Path, tensors: Tensors) -> None:
    """Write tensors into a folder, whole or not at all."""
    with in_place(place) as folder:
        for number, tensor in enumerate(tensors):
            np.save(folder / f"{number}.npy", tensor.numpy(), allow_pickle=False)
        hashes = [hash_of(tensor) for tensor in tensors]
        (folder / HASHES).write_text(json.dumps(hashes), encoding="utf-8")


def read(place: Path) -> Tensors | None:
    """Map the tensors in a folder; none if they are not there, or not as they were written."""
    try:
        hashes = json.loads((place / HASHES).read_text(encoding="utf-8"))
        held = [np.load(place / f"{number}.npy", mmap_mode="c", allow_pickle=False) for number in range(len(hashes))]
        found = tuple(torch.from_numpy(array) for array in held)
    except (OSError, ValueError, TypeError, EOFError):
        return None
    return found if hashes and [hash_of(tensor) for tensor in found] == hashes else None


def hash_of(tensor: Tensor) -> str:
    """Return the hash (SHA-256) of numbers, with their kind and shape."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
