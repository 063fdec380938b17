"""`python -m mowst.predict OUT/seed-0`: load a trained mixture again and predict every node of its graph."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch_geometric.data import Data

from mowst import cli
from mowst.config import Config
from mowst.data import load
from mowst.errors import InputError
from mowst.experiment import build, classes_of, fabric_of, prepare
from mowst.inference import INFERENCE, predict
from mowst.mixture import Mowst
from mowst.record import read_config, read_json, read_weights, split_hash, write_arrays

PURPOSE = "Load the mixture that a run left in a folder of one seed, and predict every node of its graph."


def reload(folder: Path, config: Config) -> tuple[Mowst, Data, Data]:
    """Return the trained mixture of one seed's folder, its graph, and the graph as the mixture takes it.

    Raises:
        InputError: the folder is not a run's, holds no mixture, or its graph has another split now.
    """
    record = read_json(folder / "result.json")
    if "mixture" not in record["scores"]:
        raise InputError(f"{folder}: was run without a mixture, so there is none to load")
    data = load(config.dataset, config.data_root, split=config.split, seed=record["seed"])
    if split_hash(data) != record["split"]["sha256"]:
        raise InputError(f"{folder}: was trained on another split of {config.dataset} than this copy has")
    device = fabric_of(config).device
    ready = prepare(data, config, device)
    model = read_weights(folder, "mixture", build(config, data.num_features, classes_of(data)))
    return model.to(device).eval(), data, ready  # type: ignore[return-value]


def probabilities(folder: Path, config: Config, *, how: str, threshold: float, seed: int) -> NDArray[np.float32]:
    """Predict every node with the mixture of one seed's folder, [N, C]."""
    model, _, ready = reload(folder, config)
    with torch.no_grad(), fabric_of(config).autocast():
        generator = torch.Generator().manual_seed(seed)
        found = predict(model, ready.x, ready.adj_t, how=how, threshold=threshold, generator=generator)
    return found.cpu().numpy()


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, predict, compare with what the run wrote, and save if asked."""
    parser = cli.parser("predict", PURPOSE, config=False)
    parser.add_argument("folder", type=str, help="Folder of one seed, OUT/seed-0.")
    parser.add_argument(
        "--data_root", type=str | None, default=None, help="Folder of the graphs; the run's by default."
    )
    parser.add_argument("--device", type=str | None, default=None, help="auto, cpu, cuda; the run's by default.")
    parser.add_argument("--how", type=str, default="pooled", help="pooled, sampled, or routed.")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="Confidence from which routed asks the weak expert."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the draws of sampled.")
    parser.add_argument("--save", type=str | None, default=None, help="A .npz file for probabilities and classes.")
    parsed = cli.parse(parser, arguments)
    folder, save = Path(parsed.folder), Path(parsed.save) if parsed.save else None
    if save is not None and save.suffix != ".npz":
        raise InputError(f"--save {save}: must end with .npz")
    INFERENCE.lookup(parsed.how)
    given = {name: value for name in ("data_root", "device") if (value := getattr(parsed, name)) is not None}
    config = dataclasses.replace(read_config(folder), **given)
    found = probabilities(folder, config, how=parsed.how, threshold=parsed.threshold, seed=parsed.seed)
    console = Console(soft_wrap=True)
    if parsed.how == "pooled":
        same = np.array_equal(found, np.load(folder / "predictions.npz", allow_pickle=False)["mixture"])
        console.print(f"{len(found)} nodes predicted, {'bit for bit' if same else 'NOT'} as the run wrote them")
    classes, counts = np.unique(found.argmax(axis=1), return_counts=True)
    console.print(
        json.dumps({"nodes": len(found), "per_class": dict(zip(classes.tolist(), counts.tolist(), strict=True))})
    )
    if save is not None:
        write_arrays(save, probabilities=found, prediction=found.argmax(axis=1))
    return 0


if __name__ == "__main__":
    cli.main(command)
