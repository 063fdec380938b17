"""`python -m mowst.predict OUT/seed-0`: load a trained mixture again and predict the nodes of its graph."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch_geometric.data import Data

from mowst.data import load
from mowst.errors import InputError
from mowst.experiment import (
    Config,
    build,
    classes_of,
    fabric_of,
    prepare,
    read_config,
    read_json,
    read_weights,
    reading,
    split_hash,
)
from mowst.inference import INFERENCE, Touched, answer
from mowst.models import Mowst
from mowst.system import write_arrays
from mowst.system.main import main

PURPOSE = "Load the mixture that a run left in a folder of one seed, and predict the nodes of its graph."


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


def ids_of(words: str | None) -> list[int] | None:
    """Read node ids, from a list with commas or from a text file of them.

    Raises:
        InputError: it is neither.
    """
    if words is None:
        return None
    try:
        if ids := numbers(words):
            return ids
    except ValueError:
        pass
    try:
        return numbers(Path(words).read_text())
    except (ValueError, OSError):
        raise InputError(f"--nodes {words}: must be ids like 0,5,9, or a text file of ids") from None


def numbers(text: str) -> list[int]:
    """Read whole numbers between commas or white space; a `ValueError` for anything else."""
    return [int(word) for word in text.replace(",", " ").split()]


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


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, predict, compare with what the run wrote, say what was read, and save if asked."""
    parser = reading.parser("predict", PURPOSE, config=False)
    parser.add_argument("folder", type=str, help="Folder of one seed, OUT/seed-0.")
    parser.add_argument(
        "--data_root", type=str | None, default=None, help="Folder of the graphs; the run's by default."
    )
    parser.add_argument("--device", type=str | None, default=None, help="auto, cpu, cuda; the run's by default.")
    parser.add_argument(
        "--nodes",
        type=str | None,
        default=None,
        help="Nodes to predict: ids like 0,5,9, or a text file; by default all.",
    )
    parser.add_argument("--how", type=str, default="pooled", help="pooled, sampled, or routed.")
    parser.add_argument(
        "--threshold",
        type=float | None,
        default=None,
        help="Confidence from which routed asks the weak expert; the model's own by default.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draws of sampled.")
    parser.add_argument("--save", type=str | None, default=None, help="A .npz file for probabilities and classes.")
    parsed = reading.parse(parser, arguments)
    folder, save = Path(parsed.folder), Path(parsed.save) if parsed.save else None
    if save is not None and save.suffix != ".npz":
        raise InputError(f"--save {save}: must end with .npz")
    INFERENCE.lookup(parsed.how)
    if parsed.threshold is not None and not math.isfinite(parsed.threshold):
        raise InputError(f"--threshold {parsed.threshold}: must be a number")
    nodes = ids_of(parsed.nodes)
    given = {name: value for name in ("data_root", "device") if (value := getattr(parsed, name)) is not None}
    config = fitting(dataclasses.replace(read_config(folder), **given))
    options = {"nodes": nodes, "how": parsed.how, "threshold": parsed.threshold, "seed": parsed.seed}
    found, touched = ask(folder, config, **options)
    console = Console(soft_wrap=True)
    if parsed.how == "pooled":
        console.print(f"{len(found)} nodes predicted, {compared(found, folder, nodes)}")
    console.print(f"the strong expert read {touched}")
    for node, probs in zip(nodes or (), found, strict=False):
        console.print(f"node {node}: class {probs.argmax()}, probability {probs.max():.3f}")
    classes, counts = np.unique(found.argmax(axis=1), return_counts=True)
    console.print(
        json.dumps({"nodes": len(found), "per_class": dict(zip(classes.tolist(), counts.tolist(), strict=True))})
    )
    if save is not None:
        ids = np.arange(len(found)) if nodes is None else np.array(nodes, dtype=np.int64)
        write_arrays(save, nodes=ids, probabilities=found, prediction=found.argmax(axis=1))
    return 0


if __name__ == "__main__":
    main(command)
