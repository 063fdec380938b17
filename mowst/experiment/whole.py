"""A trained mixture in a folder, with all that is needed to ask it of a graph; nothing in it is run when it is read.

    config.json        sizes, classes and their names, versions, scores, and the hash of the weights
    config.yaml        how it was trained, with the experts that a preset chose
    model.safetensors  its weights, and where the features lay if they were standardised
    columns.json       how the columns of a person's own graph became features, if it was one
    metrics.jsonl      its validations, one a line
    README.md          a model card

The layout is one that `huggingface_hub` pushes and loads. A run's seed is read, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from mowst.data.fitted import Fitted
from mowst.data.given import Scale
from mowst.errors import InputError
from mowst.experiment.asking import seed_folder
from mowst.experiment.building import build_model, fabric_of, seeded
from mowst.experiment.config import Config
from mowst.experiment.folder import COLUMNS, MODEL_CARD, dump, read_config, read_json
from mowst.experiment.identity import own_version
from mowst.experiment.plan import FINAL
from mowst.experiment.reload import read_record, unedited
from mowst.experiment.reports import read_lines
from mowst.experiment.weights import WEIGHTS, read_columns, read_scale, read_weights
from mowst.models import Mowst
from mowst.reporting import is_card, model_card
from mowst.system import check_type_of, finite, in_place

ABOUT, CONFIG, LINES = "config.json", "config.yaml", "metrics.jsonl"
FILES = (ABOUT, CONFIG, WEIGHTS, COLUMNS, LINES, MODEL_CARD)
"""What such a folder may hold; one that holds anything else is nobody's to replace."""
FORMAT = 1
NAME = str | int | float | bool
"""What a class may be called in a file."""


class Whole(NamedTuple):
    """A trained mixture, and what it knows of the graph that it was trained on."""

    model: Mowst
    config: Config
    """In it `auto` has become the experts that were chosen."""
    seed: int
    features: int
    """F."""
    classes: list[int]
    """What a prediction says, for each column of the probabilities."""
    class_names: list[Hashable]
    """What these columns are called."""
    fitted: Fitted | None
    """How columns became features."""
    scale: Scale | None
    history: list[dict[str, Any]]
    about: dict[str, Any]
    """Counts of the graph and validation score, for the card."""


def write_whole(folder: Path, whole: Whole) -> None:
    """Write a trained mixture beside its place, and move it there; one that was there gives way.

    Raises:
        InputError: another thing is there, the place cannot be written, or a class has a name that a file cannot say.
    """
    refuse_others(folder)
    check_type_of("class_names", whole.class_names, list[NAME])
    with in_place(folder) as beside:
        tensors = {f"mixture.{key}": value for key, value in whole.model.state_dict().items()}
        if whole.scale is not None:
            tensors |= {"features.mean": whole.scale.mean, "features.deviation": whole.scale.deviation}
        save_file({key: own_copy(value) for key, value in tensors.items()}, beside / WEIGHTS, {"format": "pt"})
        about = {
            "library": "mowst",
            "format": FORMAT,
            "versions": {"mowst": own_version(), "torch": torch.__version__},
            "seed": whole.seed,
            "width": {"features": whole.features, "classes": len(whole.classes)},
            "classes": whole.classes,
            "class_names": whole.class_names,
            "about": whole.about,
            "weights_sha256": file_hash(beside / WEIGHTS),
        }
        (beside / ABOUT).write_text(json.dumps(finite(about), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (beside / CONFIG).write_text(dump(whole.config), encoding="utf-8")
        (beside / LINES).write_text("".join(json.dumps(line) + "\n" for line in whole.history), encoding="utf-8")
        if whole.fitted is not None:
            (beside / COLUMNS).write_text(whole.fitted.text(), encoding="utf-8")
        (beside / MODEL_CARD).write_text(model_card(about, dump(whole.config)), encoding="utf-8")


def refuse_others(folder: Path) -> None:
    """Refuse to replace a file, or a folder that holds anything but a trained mixture.

    Raises:
        InputError: it is one.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    held = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    others = [name for name in held if name not in FILES or (name == MODEL_CARD and not is_card(folder / name))]
    if others:
        raise InputError(f"{folder}: holds {others[0]}, which is no part of a classifier; give another folder")


def own_copy(value: Tensor) -> Tensor:
    """Return a tensor that shares its memory with no other."""
    return value.detach().cpu().clone().contiguous()


def file_hash(path: Path) -> str:
    """Return the hash (SHA-256) of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_whole(folder: Path, device: str | None = None) -> Whole:
    """Read a trained mixture that `write_whole` wrote, or the one of a run: of its seed that validates best.

    Args:
        folder: where it lies.
        device: auto, cpu, cuda; none: the one it was trained on.

    Raises:
        InputError: there is none, it is damaged, or it names code of others that is not trusted.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give one that classifier.save wrote, or the folder of a run")
    if not (folder / ABOUT).exists():
        return of_run(seed_folder(folder), device)
    held = read_json(folder / ABOUT)
    try:
        if held["library"] != "mowst" or held["format"] != FORMAT:
            raise InputError(f"is of format {held['format']} of {held['library']}, and {FORMAT} of mowst is read here")
        seed, width, classes, names = (held[key] for key in ("seed", "width", "classes", "class_names"))
        hints = {"seed": int, "width": dict[str, int], "classes": list[int], "class_names": list[NAME]}
        for name, hint in {**hints, "about": dict[str, Any], "weights_sha256": str}.items():
            check_type_of(name, held[name], hint)
        if not len(classes) == len(names) == width["classes"]:
            raise InputError("classes, class_names and width are not of the same number of classes")
        features, sha256 = width["features"], held["weights_sha256"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / ABOUT}: not of a classifier, or damaged: {type(error).__name__} {error}") from None
    except InputError as error:
        raise InputError(f"{folder / ABOUT}: {error}") from None
    if (folder / WEIGHTS).exists() and file_hash(folder / WEIGHTS) != sha256:
        raise InputError(
            f"{folder / WEIGHTS}: is not what was written with {ABOUT}; it is damaged, or of another model"
        )
    return rebuilt(folder, placed(folder, device), seed, features, classes, names)._replace(about=held["about"])


def of_run(folder: Path, device: str | None = None) -> Whole:
    """Read the mixture of one seed's folder of a run.

    Raises:
        InputError: it has none, or is damaged.
    """
    record = unedited(folder, speaker(folder))
    if not {"features", "classes"} <= record.width.keys():
        raise InputError(f"{folder}: is of an older version, which does not say how wide its graph was; train it anew")
    classes = list(range(record.width["classes"]))
    found = rebuilt(
        folder,
        placed(folder, device),
        record.seed,
        record.width["features"],
        classes,
        record.class_names or classes,
        record.model,
    )
    held = read_json(folder / "result.json")
    history = [line for line in found.history if line.get("model") == "mixture"]
    about = {"dataset": held["dataset"], "validation": held["scores"]["mixture"]["val"], "metric": held["metric"]}
    return found._replace(history=history, about=about)


def placed(folder: Path, device: str | None) -> Config:
    """Read the configuration of a trained mixture, for another device if one is given."""
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: has no {CONFIG}, and is no classifier or a damaged one")
    with said_of(folder / CONFIG):
        config = read_config(folder)
    return config if device is None else dataclasses.replace(config, device=device)


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Say of which file or folder it is that something is wrong."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def speaker(folder: Path) -> str:
    """Return what the mixture of a seed's folder is called: `final` where it was trained again for use."""
    return FINAL if read_record(folder).model == FINAL else "mixture"


def rebuilt(
    folder: Path, config: Config, seed: int, features: int, classes: list[int], class_names: Any, name: str = "mixture"
) -> Whole:
    """Build the mixture of a configuration, and load its weights, which go by a name."""
    device = fabric_of(config).device
    with said_of(folder), seeded(0, device):
        model = build_model("mixture", config, features, len(classes))
    read_weights(folder, name, model)
    assert isinstance(model, Mowst)
    try:
        history = read_lines(folder / LINES) if (folder / LINES).exists() else []
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / LINES}: not the validations of a model, or damaged: {error}") from None
    scale = read_scale(folder) if config.standardize else None
    fitted = read_columns(folder)
    if fitted is not None and len(fitted.names) != features:
        raise InputError(f"{folder / COLUMNS}: is of {len(fitted.names)} features, and the model takes {features}")
    return Whole(
        model.to(device).eval(), config, seed, features, classes, list(class_names), fitted, scale, history, {}
    )
