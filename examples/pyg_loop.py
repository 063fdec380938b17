"""Mowst inside a PyG loop: two experts, a gate between them, and a training loop that is yours.

python examples/pyg_loop.py [--epochs 100]
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.nn.models import GCN

from mowst import LearnedGate, Mowst, load
from mowst.inference import predict
from mowst.models import EdgelessMLP


def main(epochs: int) -> float:
    """Train Mowst* by hand and keep what validates best; return its test accuracy."""
    torch.manual_seed(0)
    data = load("sbm")  # any PyG Data with x, edge_index, y and masks
    weak = EdgelessMLP([data.num_features, 32, data.num_classes])  # sees a node's own columns
    strong = GCN(data.num_features, 32, 2, data.num_classes)  # sees the neighbours; any PyG model will do
    model = Mowst(weak, strong, LearnedGate())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def accuracy(mask: torch.Tensor) -> float:
        right = predict(model, data.x, data.edge_index).argmax(-1) == data.y
        return float(right[mask].float().mean())

    best, kept = -1.0, {}
    for _ in range(epochs):
        model.train()
        out = model(data.x, data.edge_index)  # a Mixture: weak [N, C], strong [N, C], confidence [N]
        losses = [F.cross_entropy(logits, data.y, reduction="none") for logits in (out.weak, out.strong)]
        loss = out.confidence * losses[0] + (1 - out.confidence) * losses[1]  # who is trusted more, learns more
        optimizer.zero_grad()
        loss[data.train_mask].mean().backward()
        optimizer.step()
        if (now := accuracy(data.val_mask)) > best:
            best, kept = now, {name: value.clone() for name, value in model.state_dict().items()}

    model.load_state_dict(kept)
    with torch.no_grad():
        confidence = model.eval()(data.x, data.edge_index).confidence
    score = accuracy(data.test_mask)  # the test nodes, once
    print(f"validation {best:.3f}, test {score:.3f}, mean confidence in the MLP {confidence.mean():.2f}")
    return score


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=100)
    main(parser.parse_args().epochs)
