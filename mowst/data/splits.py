"""Split protocols: functions `(data, seed, **options) -> Masks`. Nodes without a label are in no mask.

The protocols that draw (`random`, `per-class`) draw from a generator of their own, so equal seeds give equal masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from mowst.data.given import MASKS, as_mask
from mowst.errors import InputError
from mowst.system.typed import check_type_of


class Masks(NamedTuple):
    """Three disjoint masks, [N] bool each."""

    train: Tensor
    val: Tensor
    test: Tensor


Protocol = Callable[..., Masks]


def shipped_masks(data: Data, seed: int) -> Masks:
    """Take the masks that come with the data, in any form that `mowst.data.given.as_mask` knows; of several the seed's.

    Without a test mask there are no test nodes. Without a validation mask a fifth of the training nodes, drawn with the
    seed, become validation nodes, and that is said.

    Raises:
        InputError: one cannot be used, or there is none to train on.
    """
    check_type_of("seed", seed, int)
    given = {name: data.get(name) for name in MASKS}
    if given["train_mask"] is None:
        raise InputError("split: the data has no train_mask; use a random or per-class split")
    nodes = len(data.y)
    nothing, place = torch.zeros(nodes, dtype=torch.bool), data.y.device
    found = (nothing if held is None else as_mask(held, name, nodes, seed) for name, held in given.items())
    train, val, test = (mask.to(place) for mask in found)
    if given["val_mask"] is None:
        drawn = _shuffled(train, seed)
        val = index_to_mask(drawn[: round(len(drawn) / 5)], size=nodes)
        train = train & ~val
        warnings.warn(
            f"val_mask: the data has none; {int(val.sum())} of its {len(drawn)} training nodes validate instead",
            stacklevel=2,
        )
    return Masks(train, val, test)


def random(data: Data, seed: int, *, train: float = 0.5, val: float = 0.25) -> Masks:
    """Split the labelled nodes at random into fractions, the rest is test; not stratified, as in LINKX (2110.14446)."""
    if not (0 < train < 1 and 0 <= val < 1 and train + val <= 1):
        raise InputError(f"split: train={train} and val={val} must be fractions whose sum is at most 1")
    nodes = _shuffled(data.y >= 0, seed)
    first, second = round(train * len(nodes)), round((train + val) * len(nodes))
    return _masks(data, nodes[:first], nodes[first:second], nodes[second:])


def per_class(
    data: Data, seed: int, *, train: int = 20, val: int | None = 500, val_per_class: int | None = None
) -> Masks:
    """Draw `train` nodes of each class, then `val` in all or `val_per_class` of each; the rest is test.

    Source: Shchur et al. 2018, arXiv 1811.05868 (20 and 30 per class); Planetoid's counts are 20 per class and 500.
    A class with fewer labelled nodes gives what it has.
    """
    for name, count in {"train": train, "val": val, "val_per_class": val_per_class}.items():
        if count is not None and count < (name == "train"):
            raise InputError(f"split: {name} must be at least {int(name == 'train')} nodes, is {count}")
    nodes = _shuffled(data.y >= 0, seed)
    place = torch.empty_like(nodes)  # how many nodes of its own class come before each
    for label in data.y[nodes].unique():
        of_class = data.y[nodes] == label
        place[of_class] = torch.arange(int(of_class.sum()))
    rest = nodes[place >= train]
    if val_per_class is None:
        chosen, left = rest[: val or 0], rest[val or 0 :]
    else:
        late = place[place >= train] >= train + val_per_class
        chosen, left = rest[~late], rest[late]
    return _masks(data, nodes[place < train], chosen, left)


def index_file(data: Data, seed: int, *, path: Path) -> Masks:
    """Read node ids from the arrays `train`, `valid`, `test` of an .npz file; of several rows, row `seed` modulo K."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            rows = [np.atleast_2d(arrays[name]) for name in ("train", "valid", "test")]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"split: {path} is no .npz file with train, valid and test: {error}") from error
    chosen = (row[seed % len(row)] if len(row) else row.reshape(-1) for row in rows)
    parts = ("train", "valid", "test")
    named = (as_mask(ids, f"split: {path}: {part}", len(data.y), seed) for part, ids in zip(parts, chosen, strict=True))
    return Masks(*(found & (data.y >= 0) for found in named))


def check_options(what: str, holder: Any, options: Mapping[str, Any]) -> None:
    """Refuse an option of another type than a class or function has for it; unknown ones are for others to say."""
    hints = get_type_hints(holder)
    for key in options.keys() & hints.keys():
        check_type_of(f"{what}: {key}", options[key], hints[key])


def label(data: Data, *, name: str, metric: str, split: str, count_mismatch: str | None = None) -> None:
    """Write on a graph what it is called, how it is scored and how it was split."""
    data.name, data.metric, data.split = name, metric, split
    vars(data)["count_mismatch"] = count_mismatch  # not as an attribute: PyG drops those that are None


def mismatch_of(data: Data) -> str | None:
    """Return the sentence on a graph whose counts are not those of its card, if there is one (`label`)."""
    return vars(data).get("count_mismatch")


def _shuffled(among: Tensor, seed: int) -> Tensor:
    check_type_of("seed", seed, int)
    nodes = among.nonzero().view(-1)
    return nodes[torch.randperm(len(nodes), generator=torch.Generator().manual_seed(seed))]


def _masks(data: Data, train: Tensor, val: Tensor, test: Tensor) -> Masks:
    return Masks(*(index_to_mask(index, size=len(data.y)) for index in (train, val, test)))


SPLITS: dict[str, Protocol] = {
    "masks": shipped_masks,
    "random": random,
    "per-class": per_class,
    "file": index_file,
}
