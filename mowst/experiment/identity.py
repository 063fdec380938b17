"""What a run was made of, in hashes (SHA-256), so that another graph, split, numbering or configuration is noticed."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphkd import Signals


def split_hash(data: Data) -> str:
    """Return the hash of the three masks: runs that share it were trained on the same split."""
    digest = hashlib.sha256()
    for mask in (data.train_mask, data.val_mask, data.test_mask):
        digest.update(np.packbits(mask.cpu().numpy()).tobytes())
    return digest.hexdigest()


def labels_hash(data: Data) -> str:
    """Return the hash of the training and validation labels: runs that share it number the classes alike."""
    return tensors_hash(data.y[data.train_mask | data.val_mask])


def graph_hash(data: Data) -> str:
    """Return the hash of features, edges and their weights."""
    x = data.x
    parts = (x,) if x.layout == torch.strided else (x.crow_indices(), x.col_indices(), x.values())
    weight = data.get("edge_weight")
    return tensors_hash(*parts, data.edge_index, *(() if weight is None else (weight,)))


def signals_hash(signals: Signals) -> str:
    """Return the hash of what a teacher has to say."""
    given = (signals.logits, *signals.hidden, signals.reliability)
    return tensors_hash(*(each for each in given if each is not None))


def text_hash(text: str) -> str:
    """Return the hash of a file's text, such as that of a configuration."""
    return hashlib.sha256(text.encode()).hexdigest()


def identity(data: Data) -> dict[str, Any]:
    """Return what the record of a seed says of its graph: these hashes, and the names of its classes if it has some."""
    names = data.get("class_names")
    return {
        "split": {"name": data.split, "sha256": split_hash(data)},
        "labels_sha256": labels_hash(data),
        "graph_sha256": graph_hash(data),
        "width": {"features": int(data.x.size(1)), "classes": int(data.num_classes)},
        **({} if names is None else {"class_names": list(names)}),
    }


def tensors_hash(*tensors: Tensor) -> str:
    """Return the hash of numbers, with their kind and shape."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def own_version() -> str:
    """Return this package's version; "uninstalled" in a checkout that was never installed."""
    try:
        return version("mowst")
    except ImportError:
        return "uninstalled"
