"""What a run leaves on disk, and how it is read again.

    OUT/config.yaml  result.json                      all seeds
    OUT/seed-0/      metrics.jsonl  result.json  model.safetensors  predictions.npz

Weights are safetensors, everything else is text or plain arrays: nothing here can run code when it is read. A folder
is written beside its place and moved there when it is whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.evaluation.diagnosis import together
from mowst.evaluation.metrics import predicted
from mowst.experiment.config import Config
from mowst.experiment.reading import config_of, parse, parser
from mowst.models.mixture import Mixture
from mowst.training.trainer import epochs_between

if TYPE_CHECKING:
    from mowst.experiment.seed import SeedRun


@contextmanager
def in_place(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, and move it there if nothing went wrong."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        whole = Path(made) / folder.name
        whole.mkdir()
        yield whole
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(whole, folder)


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there."""
    with whole_file(path) as beside:
        beside.write_text(text)


def write_arrays(path: Path, **found: np.ndarray) -> None:
    """Write a compressed `.npz` beside its place and move it there."""
    with whole_file(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, **found)  # type: ignore[arg-type]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path`, and move that file there if nothing went wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_seed(folder: Path, config: Config, run: SeedRun) -> dict[str, Any]:
    """Write one seed's folder and return its `result.json`."""
    record = seed_record(config, run)
    with in_place(folder) as whole:
        lines = [{"model": name, **line} for name, fitted in run.fitted.items() for line in fitted.history]
        (whole / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (whole / "result.json").write_text(json.dumps(record, indent=2) + "\n")
        weights = {
            f"{name}.{key}": value.contiguous().cpu()
            for name, fitted in run.fitted.items()
            for key, value in fitted.model.state_dict().items()
        }
        weights |= {
            f"kd.{key}": value.contiguous().cpu()
            for fitted in run.fitted.values()
            for key, value in fitted.losses.state_dict().items()
        }
        save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
        write_arrays(whole / "predictions.npz", **arrays(run))
        (whole / "config.yaml").write_text(dump(config))
    return record


def arrays(run: SeedRun) -> dict[str, np.ndarray]:
    """Return what was predicted for every node: probabilities [N, C] by model, and the mixture's parts."""
    found: dict[str, np.ndarray] = {}
    for name, fitted in run.fitted.items():
        found[name] = predicted(fitted.output).cpu().numpy()
        if isinstance(fitted.output, Mixture):
            parts = fitted.output._asdict().items()
            found |= {f"{name}_{part}": value.float().cpu().numpy() for part, value in parts if value is not None}
        else:
            found[f"{name}_logits"] = fitted.output.float().cpu().numpy()
    return found


def seed_record(config: Config, run: SeedRun) -> dict[str, Any]:
    """Return what is said of one seed: scores in percent, confidence on test nodes, sizes, times, versions."""
    record: dict[str, Any] = {
        "dataset": run.data.name,
        "metric": run.data.metric,
        "split": {"name": run.data.split, "sha256": split_hash(run.data)},
        "count_mismatch": getattr(run.data, "count_mismatch", None),
        "seed": run.seed,
        "scores": run.scores,
    }
    if "mixture" in run.fitted:
        confidence = run.fitted["mixture"].output.confidence[run.data.test_mask]  # type: ignore[union-attr]
        record["confidence"] = {
            "mean": float(confidence.mean()),
            "share_weak": float((confidence > 0.5).float().mean()),
        }
        record["diagnosis"] = run.diagnosis
    if run.teacher is not None:
        record["teacher"] = {"source": run.teacher.source, "same_split": run.teacher.same_split}
    record["parameters"] = {name: parameters(fitted.model) for name, fitted in run.fitted.items()}
    record["epochs"] = {
        name: sum(itertools.starmap(epochs_between, itertools.pairwise([None, *fitted.history])))
        for name, fitted in run.fitted.items()
    }
    record["seconds"] = {name: round(fitted.seconds, 3) for name, fitted in run.fitted.items()}
    record["seconds_together"] = round(sum(fitted.seconds - fitted.shared for fitted in run.fitted.values()), 3)
    output = next(iter(run.fitted.values())).output
    return record | environment(config, (output.strong if isinstance(output, Mixture) else output).device)


def environment(config: Config, device: torch.device) -> dict[str, Any]:
    """Return where a run took place: versions, threads, device."""
    packages = ("mowst", "torch", "torch-geometric", "numpy")
    versions = {name: version(name) for name in packages if name != "mowst"} | {"python": platform.python_version()}
    return {
        "versions": {"mowst": own_version(), **versions},
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": config.precision,
    }


def own_version() -> str:
    """Return this package's version; "uninstalled" in a checkout that was never installed."""
    try:
        return version("mowst")
    except ImportError:
        return "uninstalled"


def parameters(model: nn.Module) -> int:
    """Count the trainable numbers of a module."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def split_hash(data: Data) -> str:
    """Return the SHA-256 of the three masks: runs that share it were trained on the same split."""
    digest = hashlib.sha256()
    for mask in (data.train_mask, data.val_mask, data.test_mask):
        digest.update(np.packbits(mask.cpu().numpy()).tobytes())
    return digest.hexdigest()


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put several seeds together: `[mean, standard deviation]` of every score, in percent; means of the rest."""
    first = records[0]
    scores = {
        name: {split: spread([record["scores"][name][split] for record in records]) for split in ("val", "test")}
        for name in first["scores"]
    }
    result = {
        "dataset": first["dataset"],
        "metric": first["metric"],
        "split": first["split"]["name"],
        "count_mismatch": first["count_mismatch"],
        "seeds": [record["seed"] for record in records],
        "scores": scores,
    }
    if "confidence" in first:
        result["confidence"] = {
            key: statistics.fmean(record["confidence"][key] for record in records) for key in first["confidence"]
        }
        result["diagnosis"] = together([record["diagnosis"] for record in records])
    result["seconds"] = round(sum(record["seconds_together"] for record in records), 3)
    kept = ("parameters", "versions", "threads", "device", "precision")
    return result | {key: first[key] for key in kept} | {"runs": list(records)}


def spread(values: Sequence[float]) -> list[float]:
    """Return the mean and the sample standard deviation (0 for a single value)."""
    return [statistics.fmean(values), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]


def dump(config: Config) -> str:
    """Return a configuration as YAML that `--config` takes."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False)


def read_json(path: Path) -> Any:
    """Read a JSON file that a run wrote."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not the record of a run: {error}") from None


def read_config(folder: Path) -> Config:
    """Read the configuration that a run folder holds."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise InputError(f"{folder}: not a run of one seed (no config.yaml); give OUT/seed-0")
    return config_of(parse(parser("run", ""), ["--config", str(path)]))


def read_weights(folder: Path, name: str, model: nn.Module) -> nn.Module:
    """Load the weights of `weak`, `strong`, `student`, `mixture`, or `kd`'s losses, into a model built alike."""
    path = folder / "model.safetensors"
    try:
        weights = {
            key.split(".", 1)[1]: value for key, value in load_file(path).items() if key.split(".", 1)[0] == name
        }
        model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be read as the weights of {name!r}: {error}") from None
    return model
