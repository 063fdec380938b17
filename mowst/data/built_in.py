"""Graphs that need no file and no network: scikit-learn's digits, in two ways, and a stochastic block model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.data.given import MASKS
from mowst.data.splits import label, per_class, random
from mowst.errors import InputError, unknown
from mowst.system.typed import check_type_of

Array = np.ndarray[Any, Any]


def digits(neighbours: int = 10) -> Data:
    """Show the left halves of scikit-learn's 1,797 images of digits (8 x 8), joined where the right halves are alike.

    Two kinds of evidence about one thing: what a node shows, and whom it is near to by what it does not show. Each is
    joined to its nearest ones, in either direction; of several that are equally far the first ones are taken.
    The split is fixed: 20 a class to train, 300 to validate, the rest to test. x [1797, 32] in [0, 1].
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    left, right = (half.reshape(len(half), -1) for half in np.split(found.images, 2, axis=2))
    return _images(left, right, found.target, "digits", neighbours, train=20, val=300)


def digits_knn(neighbours: int = 10) -> Data:
    """Join each of scikit-learn's 1,797 images of digits (8 x 8) to its nearest ones, in either direction.

    Of several that are equally far the first ones are taken: the graph is the same on every machine.
    The split is fixed, with few labels: 5 a class to train, 100 to validate, the rest to test, the sizes of
    Franceschi et al. 2019 (LDS, arXiv 1903.11960). x [1797, 64] in [0, 1].
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    return _images(found.data, found.data, found.target, "digits-knn", neighbours, train=5, val=100)


def _images(shown: Array, joined: Array, y: Array, name: str, neighbours: int, **split: int) -> Data:
    """Return images that show some pixels and are joined by others."""
    edge_index = _nearest(joined, neighbours)
    x = torch.tensor(shown / shown.max(), dtype=torch.float)
    data = Data(x=x, edge_index=to_undirected(edge_index, num_nodes=len(x)), y=torch.tensor(y).long())
    return _finish(data, name, per_class(data, seed=0, **split), classes=10)


def _nearest(images: Array, count: int) -> Tensor:
    """Return edges [2, E] from each row to its nearest ones by Euclidean distance; the numbers are whole, so exact."""
    check_type_of("digits: neighbours", count, int)
    if not 1 <= count < len(images):
        raise InputError(f"digits: neighbours must be in 1 to {len(images) - 1}, is {count}")
    products = images @ images.T
    squares = products.diagonal()
    distances = squares[:, None] + squares - 2 * products
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argsort(axis=1, kind="stable")[:, :count]
    return torch.stack([torch.arange(len(images)).repeat_interleave(count), torch.from_numpy(nearest).reshape(-1)])


@dataclass(frozen=True)
class BlockModel:
    """A graph whose nodes differ in what is worth asking: their features, or their neighbours.

    A share of nodes has features drawn without regard to their class, another share (other nodes) has neighbours drawn
    so. A weak expert can be right on the latter only, a strong one where the neighbours can be trusted.
    """

    num_nodes: int = 3000
    num_classes: int = 4
    num_features: int = 16
    degree: float = 10.0  # mean; each node draws half of it
    signal: float = 3.0  # distance of class centres from the origin, in standard deviations of the noise
    homophily: float = 0.8  # share of same-class ends among the edges that nodes with useful neighbours draw
    useless_features: float = 0.4  # share of nodes
    useless_edges: float = 0.4  # share of nodes

    def __post_init__(self) -> None:
        for entry, hint in get_type_hints(BlockModel).items():
            check_type_of(f"sbm: {entry}", getattr(self, entry), hint)
        for name in ("homophily", "useless_features", "useless_edges"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"sbm: {name} must be in [0, 1], is {getattr(self, name)}")
        if self.useless_features + self.useless_edges > 1:
            raise InputError("sbm: useless_features + useless_edges must be at most 1, so that each node has a way")
        if not 2 <= self.num_classes <= min(self.num_features, self.num_nodes // 2):
            raise InputError(f"sbm: num_classes must be in 2 to num_features, is {self.num_classes}")
        if self.degree <= 0 or self.signal < 0:
            raise InputError(f"sbm: degree and signal must be positive, are {self.degree} and {self.signal}")


def sbm(seed: int = 0, **settings: Any) -> Data:
    """Draw a graph of a `BlockModel` with these settings, split 50/25/25 at random.

    The truth per node is in the masks `feature_useless [N]` and `edges_useless [N]`; they are disjoint.
    """
    check_type_of("seed", seed, int)
    known = [entry.name for entry in fields(BlockModel)]
    for name in settings:
        if name not in known:
            raise unknown("sbm: setting", name, known)
    model, draw = BlockModel(**settings), torch.Generator().manual_seed(seed)
    y = torch.arange(model.num_nodes) % model.num_classes
    y = y[torch.randperm(model.num_nodes, generator=draw)]
    order = torch.randperm(model.num_nodes, generator=draw)
    place = torch.empty_like(order)
    place[order] = torch.arange(model.num_nodes)
    feature_useless = place < round(model.useless_features * model.num_nodes)
    edges_useless = place >= model.num_nodes - round(model.useless_edges * model.num_nodes)
    edges_useless &= ~feature_useless
    data = Data(x=_block_features(model, y, feature_useless, draw), y=y, num_nodes=model.num_nodes)
    data.edge_index = _block_edges(model, y, edges_useless, draw)
    data.feature_useless, data.edges_useless = feature_useless, edges_useless
    return _finish(data, "sbm", random(data, seed), model.num_classes)


def _block_features(model: BlockModel, y: Tensor, useless: Tensor, draw: torch.Generator) -> Tensor:
    """Draw class centre plus noise, [N, F]; noise alone for useless nodes."""
    centres = torch.linalg.qr(torch.randn(model.num_features, model.num_classes, generator=draw)).Q.T * model.signal
    noise = torch.randn(model.num_nodes, model.num_features, generator=draw)
    return noise + centres[y] * ~useless.unsqueeze(1)


def _block_edges(model: BlockModel, y: Tensor, useless: Tensor, draw: torch.Generator) -> Tensor:
    """Draw edges, [2, E]: useful nodes choose among useful ones by class, useless ones choose among all by chance."""
    sources = torch.randint(model.num_nodes, (round(model.num_nodes * model.degree / 2),), generator=draw)
    shift = torch.randint(1, model.num_classes, sources.shape, generator=draw)
    same = torch.rand(sources.shape, generator=draw) < model.homophily
    wanted = torch.where(same, y[sources], (y[sources] + shift) % model.num_classes)
    targets = torch.randint(model.num_nodes, sources.shape, generator=draw)
    for block in range(model.num_classes):
        pool = ((y == block) & ~useless).nonzero().view(-1)
        choosing = ((wanted == block) & ~useless[sources]).nonzero().view(-1)
        if len(pool):
            targets[choosing] = pool[torch.randint(len(pool), choosing.shape, generator=draw)]
    edge_index = remove_self_loops(torch.stack([sources, targets]))[0]
    return coalesce(to_undirected(edge_index, num_nodes=model.num_nodes), num_nodes=model.num_nodes)


def _finish(data: Data, name: str, masks: tuple[Tensor, Tensor, Tensor], classes: int) -> Data:
    for key, mask in zip(MASKS, masks, strict=True):
        data[key] = mask
    data.num_classes = classes
    label(data, name=name, metric="accuracy", split="fixed" if name.startswith("digits") else "random")
    return data
