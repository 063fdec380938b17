"""`load`: a name becomes a graph that is ready to train on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, Dataset
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.data import fetch, unpickling
from mowst.data.cards import COUNTS, Card, Split, card
from mowst.data.splits import MASKS, SPLITS, label
from mowst.data.validation import check
from mowst.errors import InputError, unknown
from mowst.names import resolve


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

    def of_seed(self, seed: int) -> Data:
        """Return the graph with one seed's masks, checked; everything else is shared among the seeds."""
        data, entry = copy.copy(self.data), self.entry
        _apply_split(data, entry.splits[self.split], self.root, seed, bool(self.download))
        label(data, name=entry.name, metric=entry.metric, split=self.split, count_mismatch=self.count_mismatch)
        check(data)
        return data


def open_graph(name: str, root: str | Path = "data", *, split: str | None = None, download: bool | str = True) -> Graph:
    """Read a graph, whose splits are then a matter of a moment; arguments as in `load`."""
    outside = (":" in name or "." in name) and not Path(name).exists() and Path(name).suffix not in (".yaml", ".yml")
    entry = _outside_card(name) if outside else card(name)
    chosen = split or next(iter(entry.splits))
    if chosen not in entry.splits:
        raise unknown(f"{entry.name}: split", chosen, entry.splits)
    loaded = _read(entry, Path(root), entry.splits[chosen], download)
    data = tidy(loaded.clone() if outside else loaded, entry)
    if outside and split is None and any(data.get(mask) is None for mask in MASKS):
        chosen = "random"
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


def tidy(data: Data, entry: Card) -> Data:
    """Return a copy in the form all graphs here have: see the package's notation. Leaves out edge attributes."""
    _require(data, entry.name)
    nodes = int(data.num_nodes or 0)
    kept = {key: data[key] for key in data.node_attrs() if key not in ("x", "y")}
    graph = Data(x=_features(data.x), edge_index=data.edge_index.long().clone(), y=_labels(data.y), **kept)
    graph.num_nodes = nodes
    inside = graph.edge_index.numel() > 0 and 0 <= int(graph.edge_index.min()) <= int(graph.edge_index.max()) < nodes
    if inside and entry.simple:
        graph.edge_index = coalesce(remove_self_loops(graph.edge_index)[0], num_nodes=nodes)
    if inside and entry.undirected:
        graph.edge_index = to_undirected(graph.edge_index, num_nodes=nodes)
    transforms = {**({} if graph.x is not None else entry.features), **entry.transforms}
    for name, options in transforms.items():
        graph = _transform(name, options, entry.name)(graph)
    graph.x = _features(graph.x)
    known = data.to_dict().get("num_classes")
    graph.num_classes = known if isinstance(known, int) else int(graph.y.max()) + 1 if graph.y.numel() else 0
    return graph


def _read(entry: Card, root: Path, protocol: Split, download: bool | str) -> Data:
    """Call the loader and return its graph, warnings of third parties switched off."""
    loader = resolve("loader", entry.loader)
    is_dataset = isinstance(loader, type) and issubclass(loader, Dataset)
    parameters = fetch.parameters(loader)
    given = {"root": str(root / entry.folder), "download": download}
    arguments = {key: value for key, value in given.items() if key in parameters}
    arguments |= {**entry.arguments, **protocol.arguments}
    if is_dataset:
        loader = fetch.sheltered(loader, entry.name, bool(download))
    with warnings.catch_warnings(), unpickling.plain_files():
        warnings.simplefilter("ignore")
        try:
            loaded = unpickling.loaded(loader, arguments)
        except OSError as error:
            raise InputError(
                f"{entry.name}: cannot read or write {error.filename or given['root']} ({error.strerror}); PyG keeps a "
                "processed copy beside the raw files, so the data root must be writable"
            ) from error
        except InputError:
            raise
        except Exception as error:  # damaged files, wrong arguments: PyG has no family of errors of its own
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{entry.name}: {entry.loader} failed with {arguments} ({reason})") from error
        graph = loaded[0] if isinstance(loaded, Dataset) else loaded
    if not isinstance(graph, Data):
        raise InputError(f"{entry.name}: {entry.loader} must return a torch_geometric Data, not {type(graph).__name__}")
    return graph


def _outside_card(name: str) -> Card:
    """Describe a loader of somebody else's: its own masks if it has them, else a random split."""
    splits = {"masks": Split("masks"), "random": Split("random"), "per-class": Split("per-class")}
    return Card(name, name, "accuracy", splits, "", "", undirected=False, simple=False)


def _require(data: Data, name: str) -> None:
    for field in ("edge_index", "y"):
        if not isinstance(data.get(field), Tensor):
            raise InputError(f"{name}: the data has no {field}")


def _features(x: Tensor | None) -> Tensor | None:
    """Return float32 features, dense or CSR; the same tensor where it is that already, for it may be large."""
    return None if x is None else x.to(torch.float32)


def _labels(y: Tensor) -> Tensor:
    """Return labels [N]: a single column is flattened, NaN becomes -1, whole numbers become long."""
    y = y.view(-1).clone() if y.dim() == 2 and y.size(1) == 1 else y.clone()
    if y.is_floating_point():
        y = y.nan_to_num(nan=-1.0)
    whole = not y.is_floating_point() or bool((y == y.round()).all())
    return y.long() if whole else y


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
    if not entry.counts:
        return None
    simple = coalesce(remove_self_loops(data.edge_index)[0]) if data.edge_index.numel() else data.edge_index
    found = {
        "nodes": int(data.num_nodes or 0),
        "edges": simple.size(1) // (2 if entry.undirected else 1),
        "features": 0 if data.x is None else data.x.size(1),
        "classes": int(data.num_classes),
    }
    if any(all(found[key] == value for key, value in variant.items()) for variant in entry.counts):
        return None
    expected = " or ".join(", ".join(f"{variant[k]} {k}" for k in COUNTS if k in variant) for variant in entry.counts)
    return f"{entry.name} has {', '.join(f'{found[key]} {key}' for key in COUNTS)}; the card expects {expected}"
