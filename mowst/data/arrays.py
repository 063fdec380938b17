"""Graphs in arrays: `.npz`, a folder of them, and a PyG `Data` or a dictionary that was saved by `torch.save`.

Nothing is unpickled but tensors and plain values, and nothing that says it is larger than it is, or than memory.
"""

from __future__ import annotations

import math
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

from mowst.data.given import MASKS
from mowst.data.tables import refuse_large
from mowst.data.unpickling import allowing
from mowst.errors import InputError

ARRAYS, TENSORS = (".npz",), (".pt", ".pth")
SPELLED = {
    "x": "x",
    "features": "x",
    "feat": "x",
    "feats": "x",
    "attr": "x",
    "node_features": "x",
    "edge_index": "edge_index",
    "edges": "edge_index",
    "edge_weight": "edge_weight",
    "weights": "edge_weight",
    "y": "y",
    "labels": "y",
    "label": "y",
    "target": "y",
    "class_names": "class_names",
    "train": "train_mask",
    "val": "val_mask",
    "valid": "val_mask",
    "test": "test_mask",
    **{mask: mask for mask in MASKS},
}
"""What an array of a name is."""
MATRICES = {"adj": "adjacency", "adjacency": "adjacency", **{name: "x" for name in SPELLED if SPELLED[name] == "x"}}
PARTS = ("data", "indices", "indptr", "shape")
"""Of a sparse matrix as scipy saves it, alone in a file or with a prefix: adj_data, adj_indices, ..."""
DENSEST, SMALL = 200, 2**26
"""How many times its own size a part of an archive may unpack to, where that is more than so many bytes."""


def read_arrays(path: Path) -> Data:
    """Read a graph from an `.npz`, or from all of them in a folder.

    Raises:
        InputError: they hold no graph, are damaged, or hold more than numbers and text.
    """
    held: dict[str, Any] = {}
    for file in sorted(path.glob("*.npz")) if path.is_dir() else [path]:
        for name, array in arrays_of(file).items():
            if name in held:
                raise InputError(f"{file}: {name} is in another file of the folder, too")
            held[name] = array
    return data_of(held, path)


def arrays_of(path: Path) -> dict[str, Any]:
    """Return the arrays of an `.npz` by name, sparse matrices put together."""
    check_archive(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            if isinstance(file, np.ndarray):
                raise InputError(f"{path}: is a single array, not an archive of several")
            check_shapes(path)
            found = {name: file[name] for name in file.files}
        return matrices_in(found, path.stem)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, SyntaxError) as error:
        raise InputError(f"{path}: cannot be read as arrays: {error}") from None
    except (NotImplementedError, RuntimeError, MemoryError) as error:  # compressed otherwise, or with a password
        raise InputError(f"{path}: cannot be read as arrays: {error}") from None


def check_archive(path: Path) -> None:
    """Refuse an archive that unpacks to more than memory, or to suspiciously much.

    Raises:
        InputError: it does, or is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: is no archive of arrays: {error}") from None
    for part in parts:
        if part.file_size > max(SMALL, DENSEST * part.compress_size):
            raise InputError(
                f"{path}: {part.filename} unpacks to {part.file_size:,} bytes out of {part.compress_size:,}"
            )
    refuse_large(path, sum(part.file_size for part in parts))


def check_shapes(path: Path) -> None:
    """Refuse an archive with an array whose header promises more than there is.

    Raises:
        InputError: it does.
    """
    with zipfile.ZipFile(path) as archive:
        for part in archive.infolist():
            with archive.open(part) as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                if version not in read:
                    raise InputError(f"{path}: {part.filename} is of version {version} of numpy's format")
                shape, _, dtype = read[version](file)
                if dtype.hasobject:
                    raise InputError(f"{path}: {part.filename} holds Python objects; numbers and text alone are read")
                if math.prod(shape) * dtype.itemsize > part.file_size:
                    raise InputError(f"{path}: {part.filename} must have shape {list(shape)}, and ends before")


def matrices_in(found: Mapping[str, Any], stem: str) -> dict[str, Any]:
    """Put sparse matrices together of their parts."""
    left = dict(found)
    if set(PARTS) <= left.keys():
        left = {f"{stem}_{name}": array for name, array in left.items() if name in PARTS}
    for prefix in {name.rpartition("_")[0] for name in left}:
        if all(f"{prefix}_{part}" in left for part in PARTS):
            data, indices, indptr, shape = (left[f"{prefix}_{part}"] for part in PARTS)
            rows, columns = (int(size) for size in shape)
            if rows != len(indptr) - 1:
                raise InputError(f"{prefix}: has {rows} rows, and starts of {len(indptr) - 1}")
            matrix = scipy.sparse.csr_array((data, indices, indptr), (rows, columns))
            matrix.check_format()
            left = {name: array for name, array in left.items() if name not in {f"{prefix}_{part}" for part in PARTS}}
            left[prefix] = matrix
    return left


def read_tensors(path: Path) -> Data:
    """Read a PyG `Data`, or a dictionary of tensors, that `torch.save` wrote.

    Raises:
        InputError: it is damaged, holds something else, or tensors of more than there is.
    """
    check_archive(path)
    try:
        with allowing(Data, DataEdgeAttr, DataTensorAttr, EdgeStorage, NodeStorage, GlobalStorage):
            held = torch.load(path, map_location="cpu", weights_only=True)
        mapping = held.to_dict() if isinstance(held, Data) else held
    except pickle.UnpicklingError:  # torch's own words say how to read it nevertheless, which may run code
        raise InputError(f"{path}: holds more than a PyG Data of tensors and plain values, or is damaged") from None
    except Exception as error:  # of torch: whatever its reader makes of a damaged file
        raise InputError(f"{path}: cannot be read as tensors: {str(error).splitlines()[0][:200]}") from None
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping):
        raise InputError(f"{path}: must hold a PyG Data or a dictionary of tensors, holds a {type(held).__name__}")
    for name, value in mapping.items():
        check_stored(name, value, path)
    return data_of(mapping, path)


def check_stored(name: str, value: Any, path: Path) -> None:
    """Refuse a tensor that is larger than what is stored of it."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise InputError(f"{path}: {name} of shape {list(value.shape)} is larger than what is stored of it")
    elif isinstance(value, Tensor) and math.prod(value.shape[:1]) > MOST_ROWS:
        raise InputError(f"{path}: {name} has {value.shape[0]:,} rows")


MOST_ROWS = 2**31
"""Of a sparse tensor."""


def data_of(held: Mapping[str, Any], path: Path) -> Data:
    """Return a graph of arrays by the names that are usual.

    Raises:
        InputError: there are no edges, or it is not known how many nodes.
    """
    data, names = Data(), list(held)
    for name, value in held.items():
        if scipy.sparse.issparse(value) and MATRICES.get(name) == "adjacency":
            matrix = value.tocoo()
            data.edge_index = torch.from_numpy(np.stack([matrix.row, matrix.col])).long()
            if not bool((matrix.data == 1).all()):
                data.edge_weight = matrix.data
        elif name in SPELLED or name in MATRICES:
            key = SPELLED.get(name) or MATRICES[name]
            data[key] = value.tolist() if key == "class_names" and isinstance(value, np.ndarray) else value
        elif isinstance(value, Tensor | np.ndarray) or name in ("num_nodes", "num_classes"):
            data[name] = (
                torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "iufb" else value
            )
    if data.get("edge_index") is None:
        raise InputError(f"{path}: has no edge_index, edges or adj; it has {', '.join(names[:9]) or 'nothing'}")
    if data.get("x") is None and data.get("y") is None:
        raise InputError(f"{path}: has neither x nor y, and so does not say how many nodes there are")
    return data
