"""Weights, and what goes with them, as the folder of a seed holds them."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mowst.data.fitted import Fitted
from mowst.data.given import Scale
from mowst.errors import InputError
from mowst.experiment.folder import COLUMNS, read_json

WEIGHTS = "model.safetensors"


def read_weights(folder: Path, name: str, model: nn.Module) -> nn.Module:
    """Load the weights of `weak`, `strong`, `student`, `mixture`, or `kd`'s losses, into a model built alike."""
    try:
        model.load_state_dict(weights_of(folder, name))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder / WEIGHTS}: cannot be read as the weights of {name!r}: {reason}") from None
    return model


def read_scale(folder: Path) -> Scale:
    """Read where the columns of the features lay that a run was trained on, if it standardised them.

    Raises:
        InputError: it did not.
    """
    held = weights_of(folder, "features")
    if held.keys() != {"mean", "deviation"}:
        raise InputError(f"{folder / WEIGHTS}: does not say how the features were standardised")
    return Scale(**held)


def read_columns(folder: Path) -> Fitted | None:
    """Read how the columns of the graph that a run was trained on became features; none where they came as numbers.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / COLUMNS
    return Fitted.read(read_json(path), str(path)) if path.exists() else None


def weights_of(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the tensors of one part of what a run left."""
    try:
        held = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read: {error}") from None
    return {key.split(".", 1)[1]: value for key, value in held.items() if key.startswith(f"{name}.")}
