"""A run's mixture asked of any graph: the one it was trained on, or another of the same kind; answers by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch_geometric.data import Data

from mowst.data import Columns, card, check_form, open_graph
from mowst.data.assembling import Like
from mowst.data.cards import Card
from mowst.data.own import LOADER, card_of, graph_of_files, is_own
from mowst.errors import InputError
from mowst.experiment.building import build_model, fabric_of, prepare
from mowst.experiment.calibrated import Told, told
from mowst.experiment.config import Config
from mowst.experiment.folder import read_json
from mowst.experiment.nodes import names_of, numbers_of
from mowst.experiment.reload import SPEAKERS, read_record, reload, respond, unedited
from mowst.experiment.weights import read_columns, read_scale, read_weights
from mowst.inference import Answer
from mowst.models import ROLES, Mowst
from mowst.system import needing


class Query(NamedTuple):
    """A trained model and a graph to ask it of."""

    name: str
    """What the model is called in its run: mixture, student, weak, or an expert's name."""
    model: nn.Module
    data: Data
    ready: Data
    """The same, as the model takes it."""
    names: pd.Index
    """What the nodes are called."""
    class_names: list[Hashable]


def seed_folder(folder: Path) -> Path:
    """Return the folder of a seed: the one that is given, or of a run that with the best validation score.

    Raises:
        InputError: the run's record is damaged.
    """
    found = read_json(folder / "result.json") if (folder / "result.json").exists() else None
    if not isinstance(found, dict) or "seed" in found or "runs" not in found:
        return folder
    try:
        best = max(found["runs"], key=validated)
        return folder / f"seed-{int(best['seed'])}"
    except (TypeError, KeyError, ValueError, AttributeError):
        raise InputError(f"{folder / 'result.json'}: not the record of a run, or damaged") from None


def validated(record: dict[str, Any]) -> float:
    """Return how well a seed's mixture validates, or its student, or, where it has neither, its best model."""
    scores = record["scores"]
    speaker = next((name for name in SPEAKERS if name in scores), None)
    return max(scores[name]["val"] or 0.0 for name in ([speaker] if speaker else scores))


def trained_on(folder: Path, config: Config, name: str | None = None) -> Query:
    """Load a model of a seed's folder, by default as `read_record` chooses, on the graph that it was trained on."""
    model, data, ready = reload(folder, config, name)
    return Query(
        read_record(folder, name).model,
        model,
        data,
        ready,
        names_of(data),
        data.get("class_names") or list(range(data.num_classes)),
    )


def on_another(folder: Path, config: Config, graph: str, name: str | None = None, **files: str) -> Query:
    """Load a model of a seed's folder on another graph, whose columns become features as the first one's did.

    Args:
        folder: of one seed.
        config: of the run.
        graph: a file or folder, or the name of a card.
        name: of the model, by default as `read_record` chooses.
        files: `nodes_file` and `edges_file`, where they are called otherwise.

    Raises:
        InputError: the graph cannot be read, or has other features.
    """
    record = unedited(folder, name)
    fitted = read_columns(folder)
    entry = card_of(graph, Columns()) if is_own(graph) else card(graph)
    if entry.loader == LOADER:
        told = columns_of(config) | {key: entry.arguments[key] for key in entry.arguments if key != "path"} | files
        data = graph_of_files(str(entry.arguments["path"]), Like(fitted, record.class_names), **told)
    else:
        data = open_graph(entry, config.data_root).data
    check_form(data)
    width = record.width
    if not {"features", "classes"} <= width.keys():
        raise InputError(f"{folder}: is of an older version, which does not say how wide its graph was; train it anew")
    if data.x.size(1) != width["features"]:
        raise InputError(
            f"--graph {graph}: has {data.x.size(1)} features, and the run was trained on {width['features']}"
        )
    device = fabric_of(config).device
    ready = prepare(data, config, device, read_scale(folder) if config.standardize else None)
    model = build_model(record.model, config, width["features"], width["classes"])
    read_weights(folder, record.model, model)
    classes = record.class_names or list(range(width["classes"]))
    return Query(record.model, model.to(device).eval(), data, ready, names_of(data), classes)


def columns_of(config: Config) -> dict[str, Any]:
    """Return what is what in the files of the graph that a run was trained on, as far as it is another one's, too."""
    plain: dict[str, Any] = dataclasses.asdict(config.columns)
    if not config.own and config.dataset.endswith((".yaml", ".yml")) and Path(config.dataset).exists():
        entry: Card = card(config.dataset)
        plain |= {key: entry.arguments[key] for key in plain.keys() & entry.arguments.keys()}
    return {key: value for key, value in plain.items() if key not in ("nodes_file", "edges_file", "features")}


def nodes_named(query: Query, words: Sequence[str], flag: str = "--nodes") -> list[int]:
    """Return the numbers of nodes by what they are called, as a flag gave them.

    Raises:
        InputError: no node is called so.
    """
    if query.names.dtype.kind == "i":
        words = [part for word in words for part in word.split()]
    return numbers_of(query.names, words, flag)


def unlabelled(data: Data) -> list[int] | None:
    """Return the nodes of a graph that have no label; none: all of them have one, or none has."""
    if data.get("y") is None:
        return None
    nodes = (data.y < 0).nonzero().flatten().tolist()
    return nodes if 0 < len(nodes) < len(data.y) else None


def asked(query: Query, config: Config, nodes: list[int] | None, **options: Any) -> Answer:
    """Predict some nodes, or all, and say who answered; options as of `mowst.inference.answer`."""
    with needing("predict", "asking of fewer nodes (--nodes), and by a machine with more memory"):
        return respond(query.model, query.ready, config, nodes=nodes, whose=True, **options)


@torch.no_grad()
def promises_of(query: Query, folder: Path, config: Config) -> Told | None:
    """Return what the folder of a seed promises of its mixture's pooled prediction of every node of a graph.

    None: the model is no mixture, or the run is of a version that promised nothing.

    Raises:
        InputError: what the folder keeps is damaged.
    """
    if not isinstance(query.model, Mowst) or not (folder / "trust.json").exists():
        return None
    with fabric_of(config).autocast():
        out = query.model(query.ready.x, query.ready.adj_t)
    return told(folder, (query.model, out), query.ready, query.name)


def table_of(query: Query, found: Answer, nodes: list[int] | None, promised: Told | None = None) -> pd.DataFrame:
    """Return predictions by name: a row for each node, with the probability of each class, and who answered.

    Columns: id, predicted (the class), probability (of it), confidence (the weak expert's share of the weight, from 0
    to 1), expert (weak or strong: who answered, or in a pool has the greater weight), and one for each class. Where
    one expert is asked there is no confidence. What a run promised of all nodes adds: calibrated (the probability of
    the class after calibration), set (the classes that may be the label, as a JSON list), and unsure (true or false).
    """
    probs = found.probabilities.float().cpu().numpy()
    best = probs.argmax(axis=1)
    called = np.array([str(name) for name in query.class_names], dtype=object)
    weak, strong = ROLES
    columns: dict[str, Any] = {
        "id": query.names if nodes is None else query.names[nodes],
        "predicted": called[best],
        "probability": probs.max(axis=1),
    }
    if found.confidence is None or found.weak is None:
        columns["expert"] = query.name
    else:
        columns["confidence"] = found.confidence.float().cpu().numpy()
        columns["expert"] = np.where(found.weak.cpu().numpy(), weak, strong)
    rows = slice(None) if nodes is None else nodes
    if promised is not None:
        columns["calibrated"] = promised.probs[rows].numpy()[np.arange(len(best)), best]
        if promised.sets is not None:
            sets = [called[inside].tolist() for inside in promised.sets[rows].numpy()]
            columns["set"] = [json.dumps(names, ensure_ascii=False) for names in sets]
        if promised.unsure is not None:
            columns["unsure"] = promised.unsure[rows].numpy()
    of_classes = {f"probability of {name}": probs[:, place] for place, name in enumerate(called)}
    return pd.DataFrame(columns | of_classes)


def right_of(query: Query, found: Answer, nodes: list[int] | None) -> str:
    """Say how many of the predicted nodes have a label, and how many are right; "" where none has one."""
    if query.data.get("y") is None:
        return ""
    y = query.data.y if nodes is None else query.data.y[nodes]
    known = y >= 0
    if not bool(known.any()):
        return ""
    right = (found.probabilities.argmax(dim=-1).cpu() == y)[known].float().mean()
    return f"of {int(known.sum()):,} of them the label is known: {float(right):.1%} are right"
