"""Cards: what is known of a dataset, one YAML file each, and the catalogue of them all."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from mowst.data.fetch import IndexFile, stored
from mowst.data.splits import SPLITS, check_options
from mowst.errors import InputError, meant, unknown
from mowst.names import is_path, resolve, vet
from mowst.system.documents import read_yaml
from mowst.system.resources import folder
from mowst.system.typed import check_type_of

METRICS = ("accuracy", "rocauc")
COUNTS = ("nodes", "edges", "features", "classes")


@dataclass(frozen=True)
class Split:
    """One protocol of a card: a key of `SPLITS`, what it is told, and what the loader is told for its sake."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    file: IndexFile | None = None


@dataclass(frozen=True)
class Card:
    """A dataset. The first of `splits` is the default; of `counts` the first is the official copy."""

    name: str  # the file's name without .yaml
    loader: str  # "package.module:name", a PyG dataset class or a function that returns a Data
    metric: str  # accuracy or rocauc
    splits: Mapping[str, Split]
    licence: str
    homepage: str
    source: str = ""  # paper, and what is worth knowing about the copies
    folder: str = ""  # under the data root; what PyG calls `root`
    raw: str = ""  # only where the loader is a function: a file, relative to `folder`, that is there if the data is
    arguments: Mapping[str, Any] = field(default_factory=dict)
    undirected: bool = True  # symmetrise
    simple: bool = True  # drop self-loops and repeated edges
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stand-in transform where x is missing
    transforms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of torch_geometric.transforms
    counts: tuple[Mapping[str, int], ...] = ()  # distinct edges without self-loops; one count a pair if undirected
    exercised: str = "never"  # "real": these very files were loaded; "fixture": only a small file of the same layout


class Row(NamedTuple):
    """A line of the catalogue; a count that no card states is None."""

    name: str
    nodes: int | None
    edges: int | None
    features: int | None
    classes: int | None
    metric: str
    split: str
    splits: tuple[str, ...]
    on_disk: bool
    exercised: str


def names() -> list[str]:
    """Return the names of all cards that come with the package."""
    return sorted((path.stem for path in folder("datasets").glob("*.yaml")), key=str.lower)


def card(name: str) -> Card:
    """Return the card of a name, in any case, or of a path to a card's file."""
    check_type_of("dataset", name, str)
    if Path(name).suffix in (".yaml", ".yml"):
        return read_card(Path(name))
    spelling = {known.lower(): known for known in names()}
    if name.lower() not in spelling and Path(name).exists():
        raise InputError(
            f"dataset: {name} is of no kind that is read: a folder with nodes.csv and edges.csv, or a file such as "
            ".csv, .graphml, .json, .npz or .pt (docs/own-data.md)"
        )
    if name.lower() not in spelling:
        near = meant(name, names())
        raise InputError(
            f"dataset: there is no file or folder {name}, and no graph of that name; {near}--list names them"
        )
    return read_card(folder("datasets") / f"{spelling[name.lower()]}.yaml")


def read_card(path: Path) -> Card:
    """Read one card, refusing what it must not hold."""
    entries, what = read_yaml("card", path), f"card {path.name}"
    if not isinstance(entries, dict):
        raise InputError(f"{what}: must be a mapping of keys, is {type(entries).__name__}")
    known = {entry.name: entry for entry in fields(Card) if entry.name != "name"}
    _refuse_unknown(f"{what}: key", entries, known)
    absent = [key for key, entry in known.items() if key not in entries and _required(entry)]
    if absent:
        raise InputError(f"{what}: missing {', '.join(absent)}")
    if not isinstance(entries["metric"], str) or entries["metric"] not in METRICS:
        raise unknown(f"{what}: metric", entries["metric"], METRICS)
    if not isinstance(entries["splits"], dict) or not entries["splits"]:
        raise InputError(f"{what}: splits must name at least one protocol, the default first")
    entries["splits"] = {name: _split(f"{what}: split {name}", split) for name, split in entries["splits"].items()}
    counts = entries.get("counts", [])
    entries["counts"] = tuple(counts) if isinstance(counts, list) else counts
    entries |= {key: entries[key] or {} for key in ("arguments", "features", "transforms") if key in entries}
    for key in ("features", "transforms"):
        if isinstance(held := entries.get(key), dict):
            entries[key] = {name: {} if options is None else options for name, options in held.items()}
    check_options(what, Card, entries)
    for count in entries["counts"]:
        _refuse_unknown(f"{what}: count", count, COUNTS)
    made = Card(name=path.stem, **entries)
    _check_safe(what, made)
    return made


def catalogue(root: str | Path = "data") -> list[Row]:
    """Return a row for every card, in order of name, saying which are on disk under `root`; loads nothing."""
    check_type_of("root", root, str | Path)
    return [_row(card(name), Path(root)) for name in names()]


def on_disk(entry: Card, root: Path) -> bool:
    """Say whether the files of a dataset are there, or none are needed."""
    if entry.raw:
        return any((root / place / entry.raw).exists() for place in (entry.folder, "."))
    return stored(resolve("loader", entry.loader), root / entry.folder, entry.arguments)


def _check_safe(what: str, entry: Card) -> None:
    """Refuse a card that names code of others, or files outside of the data root."""
    vet(f"{what}: loader", "loader", entry.loader)
    for name in (*entry.features, *entry.transforms):
        vet(f"{what}: transform", "transform", name if is_path(name) else f"torch_geometric.transforms:{name}")
    for split in ("", *entry.splits):
        given = entry.splits[split].arguments if split else entry.arguments
        if taken := sorted({"root", "download", "force_reload"} & set(given)):
            raise InputError(f"{what}: arguments: {taken[0]} is for the data root and the command line to say")
    files = [each.file.path for each in entry.splits.values() if each.file]
    for place in (entry.folder, entry.raw, *files):
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise InputError(f"{what}: {place!r} leads out of the data root; give a path within it")


def _row(entry: Card, root: Path) -> Row:
    nodes, edges, features, classes = ((entry.counts or ({},))[0].get(key) for key in COUNTS)
    default, *others = entry.splits
    there = on_disk(entry, root)
    return Row(
        entry.name, nodes, edges, features, classes, entry.metric, default, tuple(others), there, entry.exercised
    )


def _split(what: str, given: Any) -> Split:
    if not isinstance(given, dict):
        raise InputError(f"{what}: must be a mapping with a kind, is {given!r}")
    entries = dict(given)
    kind = entries.pop("kind", None)
    if not isinstance(kind, str) or kind not in SPLITS:
        raise unknown(f"{what}: kind", kind, SPLITS)
    arguments = entries.pop("arguments", {})
    check_type_of(f"{what}: arguments", arguments, dict[str, Any])
    if kind == "file":
        _refuse_unknown(f"{what}: key", entries, [entry.name for entry in fields(IndexFile)])
        if absent := [entry.name for entry in fields(IndexFile) if _required(entry) and entry.name not in entries]:
            raise InputError(f"{what}: missing {', '.join(absent)}")
        check_options(what, IndexFile, entries)
        return Split(kind, {}, arguments, IndexFile(**entries))
    _refuse_unknown(f"{what}: key", entries, list(inspect.signature(SPLITS[kind]).parameters)[2:])
    check_options(what, SPLITS[kind], entries)
    return Split(kind, entries, arguments)


def _refuse_unknown(what: str, entries: Any, known: Any) -> None:
    for key in entries:
        if key not in known:
            raise unknown(what, key, known)


def _required(entry: Any) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING
