"""Distil to a graph-free MLP: a GNN teaches, an MLP learns from all nodes, and answers without a graph.

python examples/graph_free.py [--epochs 200]
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models import GCN, MLP

from graphkd import GLNN, Signals
from mowst import load


def trained(model: nn.Module, data: Data, epochs: int, teacher: Signals | None = None) -> tuple[Tensor, Tensor]:
    """Train on labels, and with a teacher on its soft labels of all nodes; return logits of all nodes, and accuracies.

    The epoch that validates best is kept. The accuracies are those on validation and test nodes.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    seen = data.y.masked_fill(~data.train_mask, -100)  # cross_entropy passes over -100
    given = (data.x, data.edge_index) if isinstance(model, GCN) else (data.x,)  # the MLP never sees an edge
    best, kept = -1.0, torch.zeros(0)
    for _ in range(epochs):
        logits = model.train()(*given)
        loss = F.cross_entropy(logits, seen)
        if teacher is not None:
            loss = loss + GLNN()(Signals(logits), teacher).mean()  # one number a node, on all nodes
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            now = model.eval()(*given)
        if (score := float((now.argmax(-1) == data.y)[data.val_mask].float().mean())) > best:
            best, kept = score, now
    right = (kept.argmax(-1) == data.y).float()
    return kept, torch.stack([right[data.val_mask].mean(), right[data.test_mask].mean()])


def main(epochs: int) -> dict[str, float]:
    """Train a teacher, a student alone, and a student that is taught; return test accuracies."""
    torch.manual_seed(0)
    data = load("digits")  # half of each image is its columns; the other half says who is alike
    F_, C = data.num_features, data.num_classes
    taught_by, of_teacher = trained(GCN(F_, 64, 2, C, dropout=0.5), data, epochs)
    _, alone = trained(MLP([F_, 64, C], dropout=0.5), data, epochs)
    _, taught = trained(MLP([F_, 64, C], dropout=0.5), data, epochs, Signals(taught_by))
    scores = {"teacher": of_teacher, "student alone": alone, "student taught": taught}
    for name, (val, test) in scores.items():
        print(f"{name:15} validation {val:.3f}, test {test:.3f}")
    return {name: float(test) for name, (_, test) in scores.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    main(parser.parse_args().epochs)
