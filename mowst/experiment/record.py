"""What a run says of itself: the record of a seed, and of all seeds together."""

from __future__ import annotations

import itertools
import json
import math
import platform
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch_geometric.data import Data

from mowst.data.assembling import own_of
from mowst.data.given import Scale
from mowst.data.splits import mismatch_of
from mowst.evaluation import averaged, together
from mowst.experiment.config import Config
from mowst.experiment.figures import figures_of
from mowst.experiment.folder import COLUMNS, as_json, dump
from mowst.experiment.identity import identity, own_version, text_hash
from mowst.experiment.plan import FINAL
from mowst.experiment.predictions import PredictionsConfig
from mowst.experiment.scoring import mixture_in, runs_of
from mowst.experiment.seed import SeedRun
from mowst.models import Mixture, Output, piecewise
from mowst.system import finite, in_place, write_arrays
from mowst.training import epochs_between

FOR_USE = (
    "Scores are of the mixture that training labels alone have fitted (--model mixture). What predict asks by default, "
    f"`{FINAL}`, was trained again on training and validation labels, and has no score: no label is left to measure it."
)
"""Said where there are two."""
NOT_SPREAD = (
    "Labels were not spread over the edges for comparison (label-propagation, correct-and-smooth): of so many nodes "
    "that takes too much memory."
)


def asked(wanted: PredictionsConfig, run: SeedRun) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Yield what is to be written of the predictions, array by array."""
    masks = {"test": run.data.test_mask, "split": run.data.train_mask | run.data.val_mask | run.data.test_mask}
    nodes = None if wanted.nodes == "all" else masks[wanted.nodes].nonzero().squeeze(-1).cpu()
    count = len(run.data.y) if nodes is None else len(nodes)

    def written(said: Callable[[Tensor | slice], Tensor], rows: slice) -> Tensor:
        some = said(rows if nodes is None else nodes[rows]).cpu()
        return some.half() if wanted.float16 else some

    for name, said in arrays(run).items():
        if not wanted.arrays or name in wanted.arrays:
            yield name, piecewise(partial(written, said), count).numpy()
    if nodes is not None:
        yield "nodes", nodes.numpy()


def write_seed(folder: Path, config: Config, run: SeedRun, *, figures: bool = True) -> dict[str, Any]:
    """Write one seed's folder, with what a report draws if asked for, and return its `result.json`."""
    record = seed_record(config, run)
    models = {**run.fitted, **({} if run.final is None else {FINAL: run.final})}
    with in_place(folder) as whole:
        lines = [{"model": name, **line} for name, fitted in run.fitted.items() for line in fitted.history]
        (whole / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (whole / "result.json").write_text(as_json(record))
        if figures and (drawn := figures_or_none(run)) is not None:
            (whole / "figures.json").write_text(json.dumps(drawn, separators=(",", ":")))
        weights = {
            f"{name}.{key}": value.contiguous().cpu()
            for name, fitted in models.items()
            for key, value in fitted.model.state_dict().items()
        }
        weights |= {
            f"kd.{key}": value.contiguous().cpu()
            for fitted in run.fitted.values()
            for key, value in fitted.losses.state_dict().items()
        }
        if config.standardize:
            scale = Scale.of(run.data.x)
            weights |= {"features.mean": scale.mean, "features.deviation": scale.deviation}
        save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
        write_arrays(whole / "predictions.npz", asked(config.predictions, run))
        if run.promised is not None:
            (whole / "trust.json").write_text(as_json(run.promised.stored()))
        (whole / "config.yaml").write_text(dump(config))
        if (own := own_of(run.data)) is not None and own.fitted is not None:
            (whole / COLUMNS).write_text(own.fitted.text(), encoding="utf-8")
    return record


def figures_or_none(run: SeedRun) -> dict[str, Any] | None:
    """Return what a report draws of a seed; a failure there, as of somebody's metric, costs no trained seed."""
    try:
        return figures_of(run)
    except Exception as error:
        warnings.warn(f"report: cannot be drawn of seed {run.seed}: {type(error).__name__}: {error}", stacklevel=3)
        return None


def arrays(run: SeedRun) -> dict[str, Callable[[Tensor | slice], Tensor]]:
    """Return what was predicted, as functions of nodes: probabilities [n, C] by model, and the mixture's parts."""
    found = dict[str, Callable[[Tensor | slice], Tensor]]()
    for name, fitted in run.fitted.items():
        found[name] = partial(probs_at, fitted.output)
        parts = fitted.output._asdict() if isinstance(fitted.output, Mixture) else {"logits": fitted.output.values}
        found |= {f"{name}_{part}": partial(floats_at, value) for part, value in parts.items() if value is not None}
    if run.final is not None:
        found[FINAL] = partial(probs_at, run.final.output)
    if run.promised is not None:
        tempered = run.promised.output
        found["mixture_tempered"] = lambda nodes: probs_at(tempered, nodes).float()
    return found


def probs_at(out: Output, nodes: Tensor | slice) -> Tensor:
    """Return the probabilities of some nodes, [n, C]."""
    return out.rows(nodes).probs()


def floats_at(values: Tensor, nodes: Tensor | slice) -> Tensor:
    """Return some rows in float32."""
    return values[nodes].float()


def seed_record(config: Config, run: SeedRun) -> dict[str, Any]:
    """Return what is said of one seed: scores in percent, confidence on test nodes, sizes, times, versions."""
    record: dict[str, Any] = {
        "dataset": run.data.name,
        "metric": run.data.metric,
        **identity(run.data),
        "config_sha256": text_hash(dump(config)),
        "count_mismatch": mismatch_of(run.data),
        "seed": run.seed,
        "scores": run.scores,
        "plain": {name: each._asdict() for name, each in run.plain.items()},
    }
    record |= mixture_record(run)
    record["trust"] = finite(run.trust | ({} if run.promised is None else run.promised.recorded()))
    if config.forget:
        record["forgotten"] = finite({"nodes": list(config.forget), **run.forgotten})
    if run.teacher is not None:
        record["teacher"] = {"source": run.teacher.source, "same_split": run.teacher.same_split}
    record["parameters"] = {name: parameters(fitted.model) for name, fitted in run.fitted.items()}
    record["epochs"] = {
        name: sum(itertools.starmap(epochs_between, itertools.pairwise([None, *fitted.history])))
        for name, fitted in run.fitted.items()
    }
    record["seconds"] = {name: round(fitted.seconds, 3) for name, fitted in run.fitted.items()}
    record["seconds_together"] = round(run.seconds, 3)
    notes = without_value(run.scores, run.data)
    notes += [NOT_SPREAD] * (len(run.fitted) > 1 and "label-propagation" not in run.scores)
    if run.final is not None:
        calibrating = [] if run.promised is None else run.promised.calibrating
        labels = int((run.data.train_mask | run.data.val_mask).sum()) - len(calibrating)
        record[FINAL] = {"labels": labels, "seconds": round(run.final.own_seconds, 3)}
        notes.append(FOR_USE)
    if run.sampled is not None:
        record["validation_sample"] = finite(run.sampled._asdict())
        notes.append(str(run.sampled))
    if notes:
        record["notes"] = notes
    together = {"devices": run.devices} if run.devices > 1 else {}
    return record | environment(config, next(iter(run.fitted.values())).output[0].device) | together


def mixture_record(run: SeedRun) -> dict[str, Any]:
    """Return what is said of a seed's mixture alone; nothing where there is none."""
    if (found := mixture_in(run.fitted)) is None:
        return {}
    assert run.routed is not None
    confidence = found[1].confidence[run.data.test_mask]
    return {
        "confidence": {"mean": float(confidence.mean()), "share_weak": float((confidence > 0.5).float().mean())},
        "diagnosis": run.diagnosis,
        "run_for": runs_of(found, run.routed, run.data.test_mask),
    }


def without_value(scores: Mapping[str, Mapping[str, float]], data: Data) -> list[str]:
    """Say in a sentence for each split in which the metric has no value, why that is."""
    said = []
    for split, mask in {"validation": data.val_mask, "test": data.test_mask}.items():
        key = "val" if split == "validation" else split
        if any(math.isnan(values[key]) for values in scores.values()):
            classes = int(data.num_classes) - len(data.y[mask].unique())
            why = "there is no such node" if not bool(mask.any()) else f"{classes} of the classes have no node there"
            said.append(f"The {data.metric} on {split} nodes has no value: {why}.")
    return said


def environment(config: Config, device: torch.device) -> dict[str, Any]:
    """Return where a run took place: versions, threads, device, precisions."""
    versions = {"python": platform.python_version()}
    for name in ("torch", "torch-geometric", "numpy", "scikit-learn", "xgboost"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "versions": {"mowst": own_version(), **versions},
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": config.precision,
        "matmul": torch.get_float32_matmul_precision() if device.type == "cuda" else "highest",
        "batch": config.batch,
        "preset": config.preset,
    }


def parameters(model: nn.Module) -> int:
    """Count the trainable numbers of a module."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


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
            key: spread([record["confidence"][key] for record in records])[0] for key in first["confidence"]
        }
        result["diagnosis"] = together([record["diagnosis"] for record in records])
    if all("trust" in record for record in records):
        result["trust"] = finite(averaged([record["trust"] for record in records]))
    if all("run_for" in record for record in records):
        result["run_for"] = finite(averaged([record["run_for"] for record in records]))
    if "forgotten" in first:
        told = averaged([record["forgotten"] for record in records])
        result["forgotten"] = finite({"nodes": first["forgotten"]["nodes"], **told})
    if notes := sorted({note for record in records for note in record.get("notes", ())}):
        result["notes"] = notes
    result["seconds"] = round(sum(record["seconds_together"] for record in records), 3)
    kept = ("parameters", "versions", "threads", "device", "precision", "matmul", "batch", "preset", "devices")
    return result | {key: first[key] for key in kept if key in first} | {"runs": list(records)}


def spread(found: Sequence[float | None]) -> list[float]:
    """Return the mean and the sample standard deviation (0 for a single value); without a value, not a number."""
    values = [math.nan if value is None else value for value in found]
    return [statistics.fmean(values), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0]
