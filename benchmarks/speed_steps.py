"""Rows of `speed.py` that are about single steps: message passing, first layers, epochs by hand and by the trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import GCN, GraphSAGE
from torch_geometric.utils import to_torch_csr_tensor

from benchmarks.citation_like import ARXIV_NODES, citation_like
from mowst.evaluation import accuracy, signal
from mowst.kernels import Adjacency, prepare_features
from mowst.models import expert, reads_of
from mowst.models.reads import suited
from mowst.training import Schedule, Trainer, solo

Step = Callable[[], object]
PYG_GCN = "torch_geometric.nn.models.GCN"


def training_step(
    x: Tensor, y: Tensor, graph: Tensor, precision: str = "32-true", kind: str = "gcn", **options: Any
) -> Step:
    """Return one step of a GNN, if not said otherwise 3 layers of 256, batch norm, dropout 0.5, AdamW, on all nodes."""
    torch.manual_seed(0)
    options = {"hidden_channels": 256, "num_layers": 3, "dropout": 0.5, "norm": "batch_norm", **options}
    model = expert(kind, x.size(1), 40, **options).to(x.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    graph = suited(reads_of(model), graph)

    def step() -> None:
        torch.set_float32_matmul_precision("medium" if precision == "32-medium" else "highest")
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
            out = model(x, graph)
        F.cross_entropy(out.float(), y).backward()
        optimizer.step()
        torch.set_float32_matmul_precision("highest")

    return step


def step_row(num_nodes: int, device: str = "cpu") -> dict[str, Step]:
    data = citation_like(num_nodes).to(device)
    x, y = data.x, data.y
    adjacency = Adjacency.from_edge_index(data.edge_index.cpu(), num_nodes).to(device)
    csr = to_torch_csr_tensor(*gcn_norm(data.edge_index, num_nodes=num_nodes), (num_nodes, num_nodes))
    steps = {
        "PyG, edge_index, cached": training_step(x, y, data.edge_index, kind=PYG_GCN, cached=True),
        "PyG, torch CSR, normalised": training_step(x, y, csr, kind=PYG_GCN, normalize=False),
        "ours": training_step(x, y, adjacency),
        "ours, float32 products medium": training_step(x, y, adjacency, "32-medium"),
        "ours, bf16-mixed": training_step(x, y, adjacency, "bf16-mixed"),
    }
    return {name: _waits(step) for name, step in steps.items()} if device != "cpu" else steps


def trainer_row(num_nodes: int = 10_000, epochs: int = 10) -> dict[str, Step]:
    """Return ten epochs of a solo GCN, one evaluation in each: by hand on PyG's paths and on ours, and our trainer."""
    data = citation_like(num_nodes)
    masks = torch.rand(num_nodes, generator=torch.Generator().manual_seed(0))
    data.train_mask, data.val_mask = masks < 0.5, masks > 0.75
    data.adj_t = Adjacency.from_edge_index(data.edge_index, num_nodes)
    csr = to_torch_csr_tensor(*gcn_norm(data.edge_index, num_nodes=num_nodes), (num_nodes, num_nodes))
    options: dict[str, Any] = {"dropout": 0.5, "norm": "batch_norm"}

    def by_hand(graph: Tensor) -> Step:
        model = GCN(data.x.size(1), 64, 2, 40, normalize=False, **options)

        def loop() -> None:
            optimizer, best = torch.optim.AdamW(model.parameters(), lr=0.01), -1.0
            for _ in range(epochs):
                model.train()
                optimizer.zero_grad()
                out = model(data.x, graph)
                F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
                optimizer.step()
                model.eval()
                with torch.no_grad():
                    right = model(data.x, graph).argmax(-1)[data.val_mask] == data.y[data.val_mask]
                if (score := float(right.float().mean())) > best:
                    best, _state = score, {k: v.clone() for k, v in model.state_dict().items()}

        return loop

    def trained() -> None:
        model = expert("gcn", data.x.size(1), 40, hidden_channels=64, num_layers=2, **options)
        solo(Trainer(model, data, signal("metric", accuracy)), Schedule(epochs=epochs))

    return {"by hand, torch CSR": by_hand(csr), "by hand, our adjacency": by_hand(data.adj_t.gcn()), "trainer": trained}


def _waits(step: Step) -> Step:
    return lambda: (step(), torch.cuda.synchronize())


def product_row(num_nodes: int = ARXIV_NODES // 4, width: int = 256) -> dict[str, Step]:
    """Return products forward and backward: the normalised adjacency times [N, 256]."""
    edge_index = citation_like(num_nodes).edge_index
    adjacency = Adjacency.from_edge_index(edge_index, num_nodes).gcn()
    csr = to_torch_csr_tensor(*gcn_norm(edge_index, num_nodes=num_nodes), (num_nodes, num_nodes))
    x, gradient = torch.randn(num_nodes, width), torch.randn(num_nodes, width)

    def product(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Step:
        dense, seed = x.to(dtype).requires_grad_(), gradient.to(dtype)
        return lambda: torch.autograd.grad(torch.sparse.mm(matrix, dense), dense, seed)

    return {
        "torch CSR, autograd": product(csr),
        "ours": product(adjacency),
        "ours, bfloat16": product(adjacency, torch.bfloat16),
    }


def first_layer_row(num_nodes: int, width: int, ones_per_node: int, hidden: int) -> dict[str, Step]:
    """Return X W and its gradient X^T G for random 0/1 features with as many ones per node as a real graph has."""
    x = bags(num_nodes, width, ones_per_node)
    weight, gradient = torch.randn(hidden, width).requires_grad_(), torch.randn(num_nodes, hidden)
    prepared = prepare_features(x)
    return {
        "dense": lambda: torch.autograd.grad(F.linear(x, weight), weight, gradient),
        "ours": lambda: torch.autograd.grad(F.linear(prepared, weight), weight, gradient),
    }


def bags(num_nodes: int, width: int, ones_per_node: int) -> Tensor:
    """Draw features [N, F] with at most so many ones per node and zeros else."""
    column = torch.randint(width, (num_nodes, ones_per_node), generator=torch.Generator().manual_seed(0))
    return torch.zeros(num_nodes, width).scatter_(1, column, 1.0)


def sage_row(num_nodes: int = 18_333, width: int = 6_805, ones_per_node: int = 60, hidden: int = 64) -> dict[str, Step]:
    """Return a step of PyG's GraphSAGE, 2 layers, on wide sparse features (the shape of Coauthor CS)."""
    data, x = citation_like(num_nodes), bags(num_nodes, width, ones_per_node)
    adjacency = Adjacency.from_edge_index(data.edge_index, num_nodes)

    def step(features: Tensor, graph: Tensor) -> Step:
        model = GraphSAGE(width, hidden, 2, 40)
        parameters = list(model.parameters())
        return lambda: torch.autograd.grad(F.cross_entropy(model(features, graph), data.y), parameters)

    return {
        "PyG, edge_index": step(x, data.edge_index),
        "A X dense, kept": step(x, adjacency),
        "ours": step(prepare_features(x), adjacency),
    }


def attention_row(num_nodes: int = ARXIV_NODES // 4, heads: int = 8, device: str = "cpu") -> dict[str, Step]:
    """Return a step of GAT, 2 layers of 64: PyG's on `edge_index`, and the same model on our adjacency by products."""
    data = citation_like(num_nodes).to(device)
    adjacency = Adjacency.from_edge_index(data.edge_index.cpu(), num_nodes).to(device)
    step = partial(training_step, data.x, data.y, kind="gat", hidden_channels=64, num_layers=2, heads=heads)
    steps = {
        "PyG, edge_index": step(data.edge_index),
        "ours": step(adjacency),
        "ours, bf16-mixed": step(adjacency, "bf16-mixed"),
    }
    return {name: _waits(step) for name, step in steps.items()} if device != "cpu" else steps


def scaling_row(sizes: tuple[float, ...] = (0.25, 0.5, 1, 2)) -> dict[str, Step]:
    """Return our training step on graphs of growing size; the variant's name is the number of nodes."""
    steps: dict[str, Step] = {}
    for size in sizes:
        num_nodes = int(size * ARXIV_NODES)
        data = citation_like(num_nodes)
        steps[str(num_nodes)] = training_step(data.x, data.y, Adjacency.from_edge_index(data.edge_index, num_nodes))
    return steps


ROWS: dict[str, Callable[[], dict[str, Step]]] = {
    "step": lambda: step_row(ARXIV_NODES // 4),
    "step-full-size": lambda: step_row(ARXIV_NODES),
    "step-cuda": lambda: step_row(ARXIV_NODES, "cuda"),
    "product": product_row,
    "first-layer-cora": lambda: first_layer_row(2_708, 1_433, 18, 64),
    "first-layer-cornell5": lambda: first_layer_row(18_660, 4_735, 6, 64),
    "sage-sparse": sage_row,
    "attention": lambda: attention_row(heads=1),
    "attention-8-heads": attention_row,
    "attention-cuda": lambda: attention_row(ARXIV_NODES, 1, "cuda"),
    "attention-8-heads-cuda": lambda: attention_row(ARXIV_NODES, 8, "cuda"),
    "scaling": scaling_row,
    "trainer": trainer_row,
    "trainer-small": lambda: trainer_row(500, 50),
}
