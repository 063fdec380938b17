"""`load`: a name becomes a graph that is ready to train on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data, Dataset

from mowst.data import fetch, unpickling
from mowst.data.assembling import own_of, place_own
from mowst.data.cards import COUNTS, Card, Split, card
from mowst.data.columns import Columns
from mowst.data.given import MASKS, features, taken
from mowst.data.oddities import left_out
from mowst.data.own import card_of, is_own
from mowst.data.simple import distinct, on_device, simplified
from mowst.data.splits import SPLITS, label
from mowst.data.validation import check
from mowst.errors import InputError, unknown
from mowst.names import resolve
from mowst.system.memory import needing, out_of_memory
from mowst.system.typed import check_type_of

OTHER_FILES = {".txt", ".json", ".xlsx", ".npy", ".mat", ".pkl", ".edgelist", ".net", ".safetensors"}
"""What people's graphs end in, too, and is not read."""


READS_LESS = "a part of the graph, fewer features, and a machine with more memory: no option makes a graph smaller"
"""What takes less memory where a graph is read."""
CPU = torch.device("cpu")


class Graph:
    """A graph in memory, of which every seed has its split.

    Args:
        data: the graph, tidy.
        entry: its card.
        split: the protocol's name in the card.
        root, download: where the protocol's file is, and whether it may be fetched.
    """

    def __init__(self, data: Data, entry: Card, split: str, root: Path, download: bool | str):
        self.data, self.entry, self.split, self.root, self.download = data, entry, split, root, download
        self.count_mismatch = _count_mismatch(data, entry)

    @property
    def summary(self) -> tuple[str, ...]:
        """What was found in a person's own graph, in lines to read."""
        own = own_of(self.data)
        return () if own is None else own.summary

    def of_seed(self, seed: int) -> Data:
        """Return the graph with one seed's masks, checked; everything else is shared among the seeds."""
        check_type_of("seed", seed, int)
        data, entry = copy.copy(self.data), self.entry
        _apply_split(data, entry.splits[self.split], self.root, seed, bool(self.download))
        label(data, name=entry.name, metric=entry.metric, split=self.split, count_mismatch=self.count_mismatch)
        check(data)
        return data


def open_graph(
    name: str | Card,
    root: str | Path = "data",
    *,
    split: str | None = None,
    download: bool | str = True,
    device: torch.device = CPU,
) -> Graph:
    """Read a graph, whose splits are then a matter of a moment; arguments as in `load`, and `name` may be a card.

    Many edges are put in order on the `device`; the graph stays on the CPU.
    """
    for what, held, hint in (
        ("dataset", name, str | Card),
        ("root", root, str | Path),
        ("split", split, str | None),
        ("download", download, bool | str),
    ):
        check_type_of(what, held, hint)
    entry = name if isinstance(name, Card) else _entry(name)
    outside = entry.loader == entry.name
    chosen = split or next(iter(entry.splits))
    if chosen not in entry.splits:
        raise unknown(f"{entry.name}: split", chosen, entry.splits)
    with needing(f"read {entry.name}", READS_LESS):
        loaded = _read(entry, Path(root), entry.splits[chosen], download)
        data = tidy(loaded.clone() if outside else loaded, entry, device)
    own = own_of(loaded)
    place_own(data, own)
    if (outside or own) and split is None and all(data.get(mask) is None for mask in MASKS):
        chosen = "random"
    for line in own.odd if own else left_out(loaded, data) if outside else ():
        warnings.warn(line, stacklevel=2)
    return Graph(data, entry, chosen, Path(root), download)


def load(
    name: str, root: str | Path = "data", *, split: str | None = None, seed: int = 0, download: bool | str = True
) -> Data:
    """Load a graph by a card's name (any case), the path of a card, or "package.module:function" returning a `Data`.

    `split` is one of the card's protocols, by default its first; `seed` chooses among several masks or draws them.
    `download` is True (up to 1 GB), "large" (any size) or False. The result is checked, and also has `name`,
    `num_classes`, `metric`, `split`, and `count_mismatch`: None, or a sentence where the counts are not the card's.
    Raises InputError in one line, and then leaves nothing behind that was not there before.
    """
    return open_graph(name, root, split=split, download=download).of_seed(seed)


def tidy(data: Data, entry: Card, device: torch.device = CPU) -> Data:
    """Return a copy in the form all graphs here have: see the package's notation. Of edges it keeps the weight."""
    graph = taken(data, entry.name)
    _simplify(graph, entry, device)
    transforms = {**({} if graph.x is not None else entry.features), **entry.transforms}
    for name, options in transforms.items():
        graph = _transform(name, options, entry.name)(graph)
    graph.x = None if graph.x is None else features(graph.x)
    return graph


def _simplify(graph: Data, entry: Card, device: torch.device) -> None:
    """Take self-loops, repeats and directions away, as far as the card says so: repeats add up, directions average."""
    nodes, index, weight = int(graph.num_nodes or 0), graph.edge_index, graph.get("edge_weight")
    if not index.numel() or int(index.min()) < 0 or int(index.max()) >= nodes:
        return  # what is wrong with it is said by `check`
    change = partial(simplified, nodes=nodes, simple=entry.simple, undirected=entry.undirected)
    index, weight = on_device(device, change, index, weight)
    graph.edge_index = index
    if weight is not None:
        graph.edge_weight = weight


def _read(entry: Card, root: Path, protocol: Split, download: bool | str) -> Data:
    """Call the loader and return its graph, warnings of third parties switched off."""
    loader = resolve("loader", entry.loader)
    is_dataset = isinstance(loader, type) and issubclass(loader, Dataset)
    parameters = fetch.parameters(loader)
    given = {"root": str(root / entry.folder), "download": download}
    arguments = {key: value for key, value in given.items() if key in parameters}
    arguments |= {**entry.arguments, **protocol.arguments}
    with warnings.catch_warnings(), unpickling.plain_files():
        warnings.simplefilter("ignore")
        try:
            loaded = _called(loader, entry.name, bool(download), arguments) if is_dataset else loader(**arguments)
            graph = loaded[0] if isinstance(loaded, Dataset) else loaded
        except OSError as error:
            if out_of_memory(error):
                raise
            raise InputError(
                f"{entry.name}: cannot read or write {error.filename or given['root']} ({error.strerror}); PyG keeps a "
                "processed copy beside the raw files, or where that cannot be written in the user's cache folder"
            ) from error
        except InputError:
            raise
        except Exception as error:  # damaged files, wrong arguments: PyG has no family of errors of its own
            if out_of_memory(error):
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{entry.name}: {entry.loader} failed with {arguments} ({reason})") from error
    if not isinstance(graph, Data):
        raise InputError(f"{entry.name}: {entry.loader} must return a torch_geometric Data, not {type(graph).__name__}")
    return graph


def _called(loader: type[Dataset], name: str, download: bool, arguments: Mapping[str, Any]) -> Dataset:
    """Make a dataset; a processed copy that is damaged, or holds more than tensors, is made anew from the raw files."""
    kept = fetch.sheltered(loader, name, download)
    try:
        return kept(**arguments)
    except (InputError, OSError):
        raise
    except Exception as error:  # of whatever reads the copy
        if kept.fresh or out_of_memory(error):
            raise
        return fetch.sheltered(loader, name, download, anew=True)(**arguments)


def _entry(name: str) -> Card:
    """Return the card of a graph by name, of a person's own by its path, or of a loader by its dotted path."""
    if ":" not in name and (is_own(name) or Path(name).suffix.lower() in OTHER_FILES):
        return card_of(name, Columns())
    is_card = Path(name).exists() or Path(name).suffix in (".yaml", ".yml")
    is_code = ":" in name or ("." in name and not is_card and "/" not in name)
    return _outside_card(name) if is_code else card(name)


def _outside_card(name: str) -> Card:
    """Describe a loader of somebody else's: its own masks if it has them, else a random split."""
    splits = {"masks": Split("masks"), "random": Split("random"), "per-class": Split("per-class")}
    return Card(name, name, "accuracy", splits, "", "", undirected=False, simple=False)


def _transform(name: str, options: Mapping[str, Any], dataset: str) -> Any:
    transform = resolve("transform", name if ":" in name else f"torch_geometric.transforms:{name}")
    try:
        return transform(**options)
    except TypeError as error:
        raise InputError(f"{dataset}: transform {name} does not take {dict(options)}: {error}") from error


def _apply_split(data: Data, protocol: Split, root: Path, seed: int, download: bool) -> None:
    options = dict(protocol.options)
    if protocol.file is not None:
        options["path"] = fetch.index_file(protocol.file, root, download)
    try:
        data.train_mask, data.val_mask, data.test_mask = SPLITS[protocol.kind](data, seed, **options)
    except TypeError as error:
        raise InputError(f"split {protocol.kind}: {error}; check the options {protocol.options}") from None


def _count_mismatch(data: Data, entry: Card) -> str | None:
    index, nodes = data.edge_index, int(data.num_nodes or 0)
    if not entry.counts or (index.numel() and not 0 <= int(index.min()) <= int(index.max()) < nodes):
        return None  # what is wrong with the edges is said by `check`
    found = {
        "nodes": int(data.num_nodes or 0),
        "edges": distinct(index, nodes) // (2 if entry.undirected else 1),
        "features": 0 if data.x is None else data.x.size(1),
        "classes": int(data.num_classes),
    }
    if any(all(found[key] == value for key, value in variant.items()) for variant in entry.counts):
        return None
    expected = " or ".join(", ".join(f"{variant[k]} {k}" for k in COUNTS if k in variant) for variant in entry.counts)
    return f"{entry.name} has {', '.join(f'{found[key]} {key}' for key in COUNTS)}; the card expects {expected}"
