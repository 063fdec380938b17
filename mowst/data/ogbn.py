"""OGB's node-property graphs through ogb's own loader, made safe; features and edges stay in their file, mapped.

ogb 1.3.6 as it is unpickles without an allow-list (which torch refuses since 2.6), asks questions on stdin, asks PyPI
for a newer version in a thread that nothing ends, and leaves empty folders where a download fails.
"""

from __future__ import annotations

import os
import shutil
import sys
import urllib.request
import warnings
import zipfile
from contextlib import redirect_stdout
from pathlib import Path, PurePosixPath
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils.serialization import config
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from mowst.data.fetch import INSTEAD, unreachable
from mowst.data.preparing import prepared, scratch, turn
from mowst.data.unpickling import allowing
from mowst.errors import InputError, unknown
from mowst.kernels import private

LARGE = 2**30  # bytes; more is downloaded only when asked for


def ogbn(root: str, name: str, download: bool | str = True) -> Data:
    """Load `ogbn-*` from `root` or, where it is there, from the data root above; y [N, 1] and masks as OGB has them.

    `download` is False, True (up to 1 GB) or "large"; the environment variable MOWST_YES=1 also stands for "large".
    """
    package = _import_ogb()
    meta = _meta(package, name)
    home = _home(Path(root), name)
    raw = home / "raw" / ("data.npz" if meta["binary"] == "True" else "edge.csv.gz")
    if not raw.exists():
        missing = f"{name}: {raw} is missing (unzip {meta['url']} to {home})"
        if not download:
            raise InputError(f"{missing}, {INSTEAD}")
        _download(meta, home, missing, download == "large" or os.environ.get("MOWST_YES") == "1")
    release = home / f"RELEASE_v{meta['version']}.txt"
    if not release.exists():  # without it ogb asks on stdin whether to delete the data
        release.touch()
    return _read(package, name, home)


def _import_ogb() -> Any:
    """Import ogb without its version check: it takes a missing `outdated` for 'do not check'."""
    if "ogb" not in sys.modules:
        kept = sys.modules.get("outdated")
        sys.modules["outdated"] = None  # type: ignore[assignment]
        try:
            import ogb.nodeproppred
        finally:
            del sys.modules["outdated"]
            if kept is not None:
                sys.modules["outdated"] = kept
    import ogb.nodeproppred

    return ogb.nodeproppred


def _meta(package: Any, name: str) -> Any:
    import pandas as pd

    table = pd.read_csv(Path(package.__file__).parent / "master.csv", index_col=0, keep_default_na=False)
    if name not in table:
        raise unknown("ogbn: name", name, table)
    return table[name]


def _home(root: Path, name: str) -> Path:
    """Return the dataset's folder: ogb itself also takes one whose name ends in _pyg."""
    folder = name.replace("-", "_")
    places = [place / f"{folder}{suffix}" for place in (root, root.parent) for suffix in ("_pyg", "")]
    return next((place for place in places if (place / "raw").is_dir()), root / folder)


def _read(package: Any, name: str, home: Path) -> Data:
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    allowed: list[Any] = [DataEdgeAttr, DataTensorAttr, GlobalStorage]
    if any(home.glob("split/*/split_dict.pt")):
        allowed += _numpy_globals()
    with allowing(*allowed), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        with mock.patch.object(config.load, "mmap", True):
            dataset = prepared(package.PygNodePropPredDataset)(name, root=str(home.parent))
        data = dataset[0]
        split = dataset.get_idx_split()
    for ours, theirs in (("train_mask", "train"), ("val_mask", "valid"), ("test_mask", "test")):
        data[ours] = index_to_mask(torch.as_tensor(split[theirs]).long(), size=data.num_nodes)
    data.num_classes = int(dataset.num_classes)
    for key in ("x", "edge_index"):
        if isinstance(data[key], Tensor):
            private(data[key])
    return data


def _numpy_globals() -> list[Any]:
    """Return what a pickled numpy array of integers needs, by its names of before and after numpy 2."""
    import numpy as np
    from numpy._core.multiarray import _reconstruct as rebuild

    return [(rebuild, "numpy.core.multiarray._reconstruct"), rebuild, np.ndarray, np.dtype, type(np.dtype("int64"))]


def _download(meta: Any, home: Path, missing: str, large: bool) -> None:
    """Download and unzip beside `home`, and move the result there when it is complete."""
    with turn(home.parent), scratch(home) as folder, unreachable(missing):
        if (home / "raw").is_dir():
            return  # another process has brought it
        archive = folder / "archive.zip"
        with urllib.request.urlopen(meta["url"]) as answer, archive.open("wb") as out:
            size = int(answer.headers.get("Content-Length") or 0)
            if size > LARGE and not large:
                raise InputError(f"{missing}, and is {size / 2**30:.1f} GB: set MOWST_YES=1 to download it, {INSTEAD}")
            shutil.copyfileobj(answer, out, 1 << 20)
        unzip(archive, folder)
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home, ignore_errors=True)
        shutil.move(folder / meta["download_name"], home)


def unzip(archive: Path, folder: Path) -> None:
    """Extract an archive from the network, refusing member names that lead out of `folder`."""
    with zipfile.ZipFile(archive) as members:
        for name in members.namelist():
            path = PurePosixPath(name.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
                raise InputError(f"{archive.name}: holds {name!r}, which leads out of the folder; not extracted")
        members.extractall(folder)
