"""Datasets defined outside the package, good and bad, for `--dataset tests.graphs:name`."""

import torch
from torch_geometric.data import Data

from mowst.models import EXPERTS, Learner, expert

SMALL = {"hidden_channels": 2, "num_layers": 2}
TRAINED = [name for name in EXPERTS.names if not isinstance(expert(name, 2, 2, **SMALL), Learner)]
"""Experts that are trained by gradients."""


def good() -> Data:
    generator = torch.Generator().manual_seed(0)
    N = 60
    y = torch.arange(N) % 3
    ring = torch.stack([torch.arange(N), (torch.arange(N) + 3) % N])
    fold = torch.randperm(N, generator=generator) % 4
    x = torch.randn(N, 8, generator=generator) + torch.eye(3, 8)[y]
    edge_index = torch.cat([ring, ring.flip(0)], dim=1)
    return Data(x=x, y=y, edge_index=edge_index, train_mask=fold < 2, val_mask=fold == 2, test_mask=fold == 3)


def changed(**parts) -> Data:
    data = good()
    for name, value in parts.items():
        data[name] = value
    return data


def isolated() -> Data:
    data = good()
    return changed(edge_index=data.edge_index[:, (data.edge_index > 20).all(dim=0)])


def not_a_number() -> Data:
    data = good()
    data.x[7, 2] = float("nan")
    return data


def infinite() -> Data:
    data = good()
    data.x[7, 2] = float("inf")
    return data


def missing_node() -> Data:
    return changed(edge_index=torch.cat([good().edge_index, torch.tensor([[60], [0]])], dim=1))


def overlapping() -> Data:
    return changed(val_mask=good().train_mask)


def untrained() -> Data:
    return changed(train_mask=torch.zeros(60, dtype=torch.bool))


def unvalidated() -> Data:
    return changed(val_mask=torch.zeros(60, dtype=torch.bool))


def untested() -> Data:
    return changed(test_mask=torch.zeros(60, dtype=torch.bool))


def label_out_of_range() -> Data:
    y = good().y
    y[5] = -7
    return changed(y=y)


def one_class() -> Data:
    return changed(y=torch.zeros(60, dtype=torch.long))


def no_edges() -> Data:
    return changed(edge_index=torch.empty(2, 0, dtype=torch.long))
