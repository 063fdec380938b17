"""What a run left, loaded again and asked: its mixture, its student, or an expert by name."""

from __future__ import annotations

import dataclasses
import sys
import zipfile
import zlib
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch_geometric.data import Data

from mowst.errors import InputError, unknown
from mowst.experiment.building import build_model, classes_of, fabric_of, prepare
from mowst.experiment.calibrated import calibrating
from mowst.experiment.config import Config
from mowst.experiment.folder import read_json
from mowst.experiment.identity import graph_hash, labels_hash, split_hash, text_hash
from mowst.experiment.nodes import without
from mowst.experiment.opening import graph_of
from mowst.experiment.plan import FINAL
from mowst.experiment.weights import read_scale, read_weights
from mowst.inference import Answer, Touched, answer, answer_alone
from mowst.models import Mowst
from mowst.system import Matmul, check_type_of

SPEAKERS = (FINAL, "mixture", "student")
"""The models of a run that are asked where none is named, the first that it has."""
LARGEST_SEED = 2**63 - 1
"""Of torch's generators."""


class Record(NamedTuple):
    """What is read of the record of a seed."""

    seed: int
    split: str
    """Hash of its masks."""
    threads: int | None
    labels: str | None
    """Hash of its labels; older runs have none, as of the next two."""
    graph: str | None
    """Hash of its graph."""
    config: str | None
    """Hash of its configuration's file."""
    class_names: list[Hashable] | None
    width: dict[str, int]
    """Numbers of features and classes."""
    model: str
    """The name of the model that is asked."""
    matmul: Matmul = "highest"
    """Precision of float32 products where it was trained."""


def read_record(folder: Path, name: str | None = None) -> Record:
    """Read the record of one seed and choose its model of that name: by default as `SPEAKERS`, or the only one.

    Raises:
        InputError: the folder is not one seed's, has no such model or several and no name, or its record is damaged.
    """
    path = folder / "result.json"
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: not the record of a run: it is no table of names")
    if "runs" in found:
        raise InputError(f"{folder}: holds several seeds; give one of them, e.g. {folder / 'seed-0'}")
    try:
        models, scores = dict(found["parameters"]), dict(found["scores"])
        labels, graph, config = (found.get(f"{kind}_sha256") for kind in ("labels", "graph", "config"))
        names, width = found.get("class_names"), found.get("width", {})
        check_type_of("class_names", names, list[str | int | float | bool] | None)
        check_type_of("width", width, dict[str, int])
        seed, split, threads = found["seed"], found["split"]["sha256"], found.get("threads")
        check_type_of("matmul", matmul := found.get("matmul", "highest"), Matmul)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the record of a seed, or damaged: {type(error).__name__} {error}") from None
    check_seed(f"{path}: seed", seed)
    there = [model for model in (*models, FINAL) if model in scores or (model == FINAL and FINAL in found)]
    if name is not None and name not in there:
        raise unknown(f"{folder}: model", name, there)
    chosen = [name] if name else [speaker for speaker in SPEAKERS if speaker in there][:1] or there
    if name is None and len(chosen) != 1:
        what = f"{folder}: holds no mixture but {', '.join(there)}"
        raise InputError(f"{what}; say which, e.g. --model {there[0]}" if there else what)
    return Record(seed, split, threads, labels, graph, config, names, width, chosen[0], matmul)


def unedited(folder: Path, name: str | None = None) -> Record:
    """Read the record of one seed, whose configuration is still as the run wrote it; which model, as in `read_record`.

    Raises:
        InputError: it was edited, or as `read_record`.
    """
    record = read_record(folder, name)
    if record.config not in (None, text_hash((folder / "config.yaml").read_text(encoding="utf-8"))):
        raise InputError(
            f"{folder / 'config.yaml'}: is not as the run wrote it, and the weights belong to what it said; put it "
            "back, and give another place by --data_root and --device"
        )
    return record


def check_seed(what: str, seed: object) -> None:
    """Raise an `InputError` for what cannot be a seed."""
    if not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"{what} {seed!r}: must be a whole number from 0 to {LARGEST_SEED}")


def reload(folder: Path, config: Config, name: str | None = None) -> tuple[nn.Module, Data, Data]:
    """Return a trained model of one seed's folder, its graph, and the graph as the model takes it.

    Raises:
        InputError: the folder is not a run's, holds no such model, was edited, or its graph has another split or other
            class numbers now.
    """
    record = unedited(folder, name)
    device = fabric_of(config).device
    known = graph_of(config, device).of_seed(record.seed)
    data = without(known, config.forget, record.seed, validation=config.use_validation)
    if split_hash(data) != record.split:
        raise InputError(f"{folder}: was trained on another split of {config.dataset} than this copy has")
    if record.labels not in (None, labels_hash(data)):
        raise InputError(f"{folder}: was trained on {config.dataset} with its classes numbered otherwise")
    if record.graph not in (None, graph_hash(data)):
        print(f"note: {config.dataset} is another graph than the run was trained on", file=sys.stderr)
    ready = prepare(data, config, device, read_scale(folder) if config.standardize else None)
    if record.model == FINAL:
        apart = calibrating(config, data.val_mask, record.seed)
        learned = ready.val_mask if apart is None else ready.val_mask & ~apart.to(device)
        ready.train_mask = ready.train_mask | learned
    model = build_model(record.model, config, data.num_features, classes_of(data))
    read_weights(folder, record.model, model)
    return model.to(device).eval(), data, ready


def ask(
    folder: Path,
    config: Config,
    *,
    nodes: list[int] | None,
    how: str,
    threshold: float | None,
    seed: int,
    model: str | None = None,
) -> tuple[NDArray[np.float32], Touched]:
    """Predict with a model of one seed's folder: probabilities [n, C], and what the strong or only expert read.

    Raises:
        InputError: as of `reload`; or a model that is no mixture is asked for anything but its one prediction.
    """
    asked, _, ready = reload(folder, config, model)
    generator = torch.Generator().manual_seed(seed)
    found = respond(asked, ready, config, nodes=nodes, how=how, threshold=threshold, generator=generator)
    return found.probabilities.cpu().numpy(), found.touched


@torch.no_grad()
def respond(model: nn.Module, ready: Data, config: Config, *, nodes: list[int] | None, **options: Any) -> Answer:
    """Ask a mixture, or one expert, about some nodes of a prepared graph, or all; options as of `answer`.

    Raises:
        InputError: one expert is asked for anything but its one prediction.
    """
    with fabric_of(config).autocast():
        if isinstance(model, Mowst):
            return answer(model, ready.x, ready.adj_t, nodes=nodes, **options)
        if (how := options.get("how", "pooled")) != "pooled" or options.get("threshold") is not None:
            raise InputError(f"--how {how}: one expert is asked, which has no mode and no threshold")
        return answer_alone(model, ready.x, ready.adj_t, nodes)


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


def compared(found: NDArray[np.float32], folder: Path, nodes: list[int] | None, name: str = "mixture") -> str:
    """Say how near the (pooled) prediction of a model is to what the run wrote.

    Raises:
        InputError: what it wrote is damaged, or of another graph.
    """
    path = folder / "predictions.npz"
    if not path.exists():
        return "with nothing to compare them with: predictions.npz is not there"
    try:
        written, ids = read_written(path, name)
        if ids is not None:
            asked = np.arange(len(found)) if nodes is None else np.asarray(nodes)
            there = np.isin(asked, ids)
            found, written = found[there], written[np.searchsorted(ids, asked[there])]
        elif nodes is not None:
            written = written[nodes]
        if not len(found):
            return "with nothing to compare them with: predictions.npz has other nodes"
        found = found.astype(written.dtype)
        if written.shape != found.shape:
            raise ValueError(f"{name} has shape {list(written.shape)}, and must have {list(found.shape)}")
    except KeyError:  # the run was asked for other arrays
        return f"with nothing to compare them with: predictions.npz has no {name}"
    except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: not the predictions of this run, or damaged: {error}; take it away to predict"
        ) from None
    if np.array_equal(found, written):
        return "bit for bit as the run wrote them"
    difference = f"they differ by {np.abs(found - written).max():.1e} at most"
    return f"NOT bit for bit as the run wrote them: {difference}" if nodes is None else f"from the run's {difference}"


def read_written(path: Path, name: str) -> tuple[NDArray[np.floating], NDArray[np.integer] | None]:
    """Read what a model of a run predicted, [n, C], and of which nodes [n], in order; none: of all.

    What is damaged raises whatever numpy makes of it, and so does what was not written.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if isinstance(arrays, np.ndarray):
            raise ValueError("it is a single array")
        found, ids = arrays[name], arrays.get("nodes")
    if found.ndim != 2 or found.dtype.kind != "f":
        raise ValueError(f"{name} is {found.dtype} of shape {list(found.shape)}, and must be real numbers [N, C]")
    if ids is not None and (ids.shape != found.shape[:1] or ids.dtype.kind != "i" or bool((np.diff(ids) <= 0).any())):
        raise ValueError("nodes are not the numbers of its nodes, in order")
    return found, ids
