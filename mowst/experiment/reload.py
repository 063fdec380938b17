"""A mixture that a run left, loaded again and asked."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from mowst.data import load
from mowst.errors import InputError
from mowst.experiment.building import build, classes_of, fabric_of, prepare
from mowst.experiment.config import Config
from mowst.experiment.folder import read_json, read_weights, split_hash
from mowst.inference import Touched, answer
from mowst.models import Mowst


def reload(folder: Path, config: Config) -> tuple[Mowst, Data, Data]:
    """Return the trained mixture of one seed's folder, its graph, and the graph as the mixture takes it.

    Raises:
        InputError: the folder is not a run's, holds no mixture, or its graph has another split now.
    """
    record = read_json(folder / "result.json")
    if "seed" not in record:
        raise InputError(f"{folder}: holds several seeds; give one of them, e.g. {folder / 'seed-0'}")
    if "mixture" not in record["scores"]:
        there = ", ".join(record["parameters"])
        raise InputError(f"{folder}: holds no mixture but {there}; the README shows how to load one of these")
    data = load(config.dataset, config.data_root, split=config.split, seed=record["seed"])
    if split_hash(data) != record["split"]["sha256"]:
        raise InputError(f"{folder}: was trained on another split of {config.dataset} than this copy has")
    device = fabric_of(config).device
    ready = prepare(data, config, device)
    model = build(config, data.num_features, classes_of(data))
    read_weights(folder, "mixture", model)
    return model.to(device).eval(), data, ready


def ask(
    folder: Path, config: Config, *, nodes: list[int] | None, how: str, threshold: float | None, seed: int
) -> tuple[NDArray[np.float32], Touched]:
    """Predict some nodes, or all, with the mixture of one seed's folder: probabilities [n, C], and what it took."""
    model, _, ready = reload(folder, config)
    with torch.no_grad(), fabric_of(config).autocast():
        generator = torch.Generator().manual_seed(seed)
        found = answer(model, ready.x, ready.adj_t, nodes=nodes, how=how, threshold=threshold, generator=generator)
    return found.probabilities.cpu().numpy(), found.touched


def fitting(config: Config) -> Config:
    """Return the run's configuration, in float32 with a warning line where this device lacks the run's precision."""
    try:
        fabric_of(config)
    except InputError as error:
        plain = dataclasses.replace(config, precision="32-true")
        fabric_of(plain)
        print(f"warning: {error}, which is taken", file=sys.stderr)
        return plain
    return config


def compared(found: NDArray[np.float32], folder: Path, nodes: list[int] | None) -> str:
    """Say how near a pooled prediction is to what the run wrote."""
    if not (folder / "predictions.npz").exists():
        return "with nothing to compare them with: predictions.npz is not there"
    written = np.load(folder / "predictions.npz", allow_pickle=False)["mixture"]
    written = written if nodes is None else written[nodes]
    if np.array_equal(found, written):
        return "bit for bit as the run wrote them"
    difference = f"they differ by {np.abs(found - written).max():.1e} at most"
    return f"NOT bit for bit as the run wrote them: {difference}" if nodes is None else f"from the run's {difference}"
