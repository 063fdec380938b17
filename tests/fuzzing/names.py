"""What the scripts of cases are written with: a small graph, the commands, files that get damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import networkx as nx
import numpy as np
import pandas as pd
import scipy.sparse as sparse
import torch
from safetensors.torch import load_file, save_file
from torch_geometric.data import Data

from mowst import InputError, MowstClassifier, from_networkx
from mowst.system.main import main

__all__ = ["from_networkx", "nx", "pd", "sparse"]

N, F, C = 24, 4, 3
draw = np.random.default_rng(0)
Y = np.arange(N) % C
X = (draw.normal(size=(N, F)) + np.eye(C, F)[Y]).astype(np.float32)
E = np.concatenate([np.stack([np.arange(N), (np.arange(N) + step) % N]) for step in (3, 1, -3, -1)], axis=1)
W = draw.random(E.shape[1]).astype(np.float32)
FOLD = draw.permutation(N) % 4
TRAIN, VAL, TEST = FOLD < 2, FOLD == 2, FOLD == 3
GIVEN = {"x": X, "edge_index": E, "y": Y, "train_mask": TRAIN, "val_mask": VAL, "test_mask": TEST}
TINY = {"epochs": 2, "patience": 2, "folds": 2, "regime": "joint"}
CARD = """loader: mowst.data.built_in:sbm
arguments: {num_nodes: 48, num_features: 6, num_classes: 3, degree: 4, seed: 0}
undirected: true
splits:
  random: {kind: random, train: 0.5, val: 0.25}
  per-class: {kind: per-class, train: 4, val: 12}
metric: accuracy
licence: MIT
homepage: here
"""
LINE = "--dataset good.yaml --seeds 1 --epochs 2 --patience 2 --folds 2"
LINE += " --weak.hidden_channels 8 --strong.hidden_channels 8"


kept = Path()
"""Where the run and the study are that cases damage."""


class WrongEndError(Exception):
    """A command ended as none may."""


def start(place: Path) -> None:
    """Say where the run is kept that cases damage, and cut the network off."""
    global kept
    kept = place
    socket.getaddrinfo = nowhere


def nowhere(host: str, *_: Any, **__: Any) -> NoReturn:
    """Find no machine of any name.

    Raises:
        OSError: always.
    """
    raise socket.gaierror(socket.EAI_NONAME, f"{host} is not looked up in a test")


def make_kept() -> None:
    """Make the run and the study that cases damage, by which everything is imported."""
    import mowst.predict
    import mowst.run
    import mowst.tune

    kept.mkdir()
    write("good.yaml", CARD)
    rows, raw = np.arange(N), kept / "data/Twitch/PT/raw/PT.npz"
    raw.parent.mkdir(parents=True)
    np.savez(raw, features=np.eye(N), target=rows % 2, edges=np.stack([rows, np.roll(rows, 1)], 1))
    plain = ("--quiet", "--no-fast")
    runs = (
        (mowst.run, [*LINE.split(), *plain, "--out", str(kept / "r")]),
        (mowst.run, [*LINE.split(), *plain, "--out", "t", "--dataset", "twitch-pt", "--data_root", str(kept / "data")]),
        (mowst.predict, [str(kept / "r/seed-0")]),
        (mowst.tune, [*LINE.split(), *TUNE, "--quiet", "--fast", "false", "--study", str(kept / "s.log")]),
    )
    for module, arguments in runs:
        assert module.command(arguments) == 0
    for options in ({"strong": "sage", "gate": "power"}, {"strong": "gat"}, {"regime": "held-out"}):
        trained(**options).predict(data())


NOTES = r"note: |warning: |Processing\.\.\.$|Done!$|Downloading "
"""How lines on standard error begin that are no errors; the last ones are PyG's."""
TUNE = ("--trials", "1", "--retrain", "0")


def command(name: str, *arguments: str) -> None:
    """Run a command as a program does; a refusal is an `InputError`, divergence a `FloatingPointError`.

    Raises:
        WrongEndError: it ended with another code, or said something else than one line of error beside notes.
    """
    if not Path("good.yaml").exists():
        write("good.yaml", CARD)
    before = Path("said.err").stat().st_size
    code: Any = 0
    try:
        main(import_module(f"mowst.{name}").command, list(arguments))
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    said = Path("said.err").read_bytes()[before:].decode(errors="replace")
    lines = [line for line in said.splitlines() if not re.match(NOTES, line)]
    errors = [line for line in lines if line.startswith("error: ")]
    alone = lines == errors or "--quiet" not in arguments
    right = len(errors) == bool(code) and (alone or not code) and code in (None, 0, 1, 2)
    if not right or "Traceback" in said:
        raise WrongEndError(f"exit code {code}: {said}")
    if code == 1 and not errors[0].startswith("error: training diverged"):
        raise WrongEndError(f"exit code 1: {said}")
    if code:
        raise (FloatingPointError if code == 1 else InputError)(errors[0].removeprefix("error: "))
    for folder in re.findall(
        r"^written to (.*?)(?:; .*)?$", Path("said.out").read_text(errors="replace"), re.MULTILINE
    ):
        if name == "run":
            json.loads((Path(folder) / "result.json").read_text(), parse_constant=refuse)


def refuse(word: str) -> NoReturn:
    """Refuse NaN and infinity in a record.

    Raises:
        WrongEndError: always.
    """
    raise WrongEndError(f"result.json holds {word}")


def run(*arguments: str) -> None:
    """Run `mowst.run` on the small graph, with further arguments."""
    command("run", *LINE.split(), "--quiet", *arguments)


def tune(*arguments: str) -> None:
    """Run `mowst.tune` with one trial on the small graph, with further arguments."""
    command("tune", *LINE.split(), *TUNE, "--quiet", "--study", "s.log", *arguments)


# --- The library


def data(**changed: Any) -> Data:
    """Return the small graph with some parts changed; None: taken away."""
    parts = {name: torch.tensor(value) for name, value in GIVEN.items()} | changed
    return Data(**{name: value for name, value in parts.items() if value is not None})


def trained(graph: Any = None, **options: Any) -> MowstClassifier:
    """Train a classifier shortly on the small graph or another."""
    return MowstClassifier(**TINY | options).fit(data() if graph is None else graph)


def proper(found: Any) -> None:
    """See that a prediction is one."""
    if isinstance(found, float):
        assert 0 <= found <= 1, f"score {found}"
    elif found.is_floating_point():
        assert found.isfinite().all(), "probabilities that are no numbers"
        assert torch.allclose(found.sum(-1), torch.ones(len(found)), atol=1e-4), "probabilities that do not add up"


def at(array: Any, value: Any, place: int = 0) -> Any:
    """Return an array with another value in one place, of a type that holds it."""
    found = np.array(array, dtype=np.result_type(array, type(value)) if isinstance(value, int | float) else object)
    if found.size:
        found.flat[place % found.size] = value
    return found


def full(array: Any, value: Any) -> Any:
    """Return an array of the same shape with one value everywhere."""
    return np.full(np.shape(array), value)


def marked(G: Any, name: str, values: Any, every: int = 1) -> Any:
    """Give every so many nodes of a graph an attribute, of some values in turn."""
    for place, node in enumerate(G.nodes):
        if place % every == 0:
            G.nodes[node][name] = values[place % len(values)]
    return G


def joined(G: Any, name: str, values: Any) -> Any:
    """Give the edges of a graph an attribute."""
    for place, (*_, held) in enumerate(G.edges(data=True)):
        held[name] = values[place % len(values)]
    return G


# --- Files


def write(name: str, content: str | bytes) -> None:
    """Write a file."""
    Path(name).write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def copied() -> None:
    """Put a whole run in the folder r, and a study in s.log with its result in s-best."""
    shutil.copytree(kept / "r", "r")
    shutil.copy(kept / "s.log", "s.log")
    shutil.copytree(kept / "s-best", "s-best")


def prepared() -> None:
    """Put a graph's raw files, and what PyG has made of them, in the folder data."""
    shutil.copytree(kept / "data", "data")


def cut(name: str, share: float) -> None:
    """Leave the first part of a file."""
    content = Path(name).read_bytes()
    write(name, content[: int(share * len(content))])


def flip(name: str, place: int) -> None:
    """Change one byte of a file."""
    content = bytearray(Path(name).read_bytes())
    content[place % len(content)] ^= 0x55
    write(name, bytes(content))


def becomes_folder(name: str) -> None:
    """Put a folder in a file's place."""
    Path(name).unlink()
    Path(name).mkdir()


def becomes_link(name: str, target: str) -> None:
    """Put a link in a file's place."""
    Path(name).unlink()
    os.symlink(target, name)


def edit(name: str, place: int, *value: Any) -> None:
    """Put another value, or none, in one of all places of a JSON file."""
    held = json.loads(Path(name).read_text())
    places = list(_places(held))
    holder, key = places[place % len(places)]
    if value:
        holder[key] = value[0]
    else:
        del holder[key]
    write(name, json.dumps(held))


def _places(held: Any) -> Any:
    for key in list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ():
        yield held, key
        yield from _places(held[key])


def edit_weights(name: str, place: int, change: Any) -> None:
    """Change one tensor of a file of weights; none: take it away."""
    held = load_file(name)
    key = sorted(held)[place % len(held)]
    value = held.pop(key)
    if change is not None:
        held[key] = change(value).contiguous()
    save_file(held, name)


def edit_arrays(name: str, change: Any) -> None:
    """Write a file of arrays anew, after a change of what it holds by name."""
    with np.load(name, allow_pickle=True) as arrays:
        held = dict(arrays)
    np.savez(name, **(change(held) or {}))
