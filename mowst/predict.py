"""`python -m mowst.predict OUT/seed-0`: load a trained mixture or student again and predict the nodes of its graph."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mowst.errors import InputError
from mowst.system.main import imported, main

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

PURPOSE = "Load the mixture, or the student, that a run left in a folder of one seed, and predict its graph's nodes."


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


def flags() -> ArgumentParser:
    """Return the parser of the command line."""
    from mowst.experiment import reading

    parser = reading.parser("predict", PURPOSE, config=False)
    reading.add_trust(parser)
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
    parser.add_argument(
        "--model",
        type=str | None,
        default=None,
        help="Which model of the run: by default its mixture, else its student, else the only one.",
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
    return parser


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, predict, compare with what the run wrote, say what was read, and save if asked."""
    from mowst.experiment import reading

    parsed = reading.parse(flags(), arguments)

    import numpy as np
    from rich.console import Console

    from mowst.experiment.folder import read_config
    from mowst.experiment.reload import ask, check_save, check_seed, compared, fitting, read_record
    from mowst.inference import INFERENCE
    from mowst.system import hush_libraries, take_threads, write_arrays

    imported()
    hush_libraries()
    folder, save = Path(parsed.folder), Path(parsed.save) if parsed.save else None
    if save is not None:
        check_save(save, folder)
    check_seed("--seed", parsed.seed)
    INFERENCE.lookup(parsed.how)
    if parsed.threshold is not None and not math.isfinite(parsed.threshold):
        raise InputError(f"--threshold {parsed.threshold}: must be a number")
    nodes = ids_of(parsed.nodes)
    given = {name: value for name in ("data_root", "device") if (value := getattr(parsed, name)) is not None}
    config = fitting(dataclasses.replace(read_config(folder), **given))
    record = read_record(folder, parsed.model)
    take_threads(record.threads)
    options = {"nodes": nodes, "how": parsed.how, "threshold": parsed.threshold, "seed": parsed.seed}
    found, touched = ask(folder, config, **options, model=parsed.model)
    console = Console(soft_wrap=True)
    if parsed.how == "pooled":
        console.print(f"{len(found)} nodes predicted, {compared(found, folder, nodes, record.model)}")
    console.print(f"the {'strong expert' if record.model == 'mixture' else record.model} read {touched}")
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
