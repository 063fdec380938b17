"""Rows of `speed.py` that are about mixtures: turns, epochs, exact metrics, and queries.

Graphs are drawn like ogbn-arxiv, or real ones by name where the folder in `SPEED_DATA_ROOT` (`--data_root`) holds them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from benchmarks.citation_like import ARXIV_NODES, CLASSES, citation_like
from mowst.data import load
from mowst.errors import InputError
from mowst.evaluation import accuracy, expected, signal
from mowst.experiment import Config, classes_of, prepare
from mowst.inference import Kept, predict
from mowst.models import LearnedGate, Mixture, Mowst, expert, run_module
from mowst.training import Schedule, Term, Trainer, cross_entropy, hide, joint, separate

Step = Callable[[], object]
SIZES = (1, 16, 256, 4096)
CPU = torch.device("cpu")


class NotRun(Exception):  # noqa: N818
    """A row whose graph is not on this machine."""


def graph(name: str) -> Data:
    """Return a graph ready for training: `citation-N`, drawn, or a real one from the data folder."""
    kind, _, size = name.rpartition("-")
    if kind == "citation":
        return prepare(citation_like(int(size)), Config(), CPU)
    try:
        return prepare(load(name, os.environ.get("SPEED_DATA_ROOT", "data")), Config(), CPU)
    except InputError as error:
        raise NotRun(str(error)) from None


def mixture(data: Data, width: int = 64, num_layers: int = 2, weak_width: int | None = None) -> Mowst:
    """Return a fresh mixture of an MLP and a GCN, with batch norm and dropout."""
    torch.manual_seed(0)
    num_classes = classes_of(data)
    options: dict[str, Any] = {"num_layers": num_layers, "norm": "batch_norm", "dropout": 0.5}
    weak = expert("mlp", data.num_features, num_classes, hidden_channels=weak_width or width, **options)
    strong = expert("gcn", data.num_features, num_classes, hidden_channels=width, **options)
    return Mowst(weak, strong, LearnedGate())


def trainer_of(model: torch.nn.Module, data: Data) -> Trainer:
    return Trainer(model, data, signal("metric", accuracy))


def turn_row(name: str, trains: tuple[str, ...], epochs: int = 10) -> dict[str, Step]:
    """Return one turn of ten epochs by the schedule of the authors' code and by ours; forwards of the GNN counted.

    Theirs: in each epoch both experts forward in training mode, and both again for the test; one of them learns.
    """
    data = graph(name)

    def counted(model: Mowst, turn: Step) -> Step:
        calls: list[int] = []
        model.strong.register_forward_hook(lambda *_: calls.append(1))

        def step() -> dict[str, float]:
            calls.clear()
            turn()
            return {"gnn_forwards": float(len(calls))}

        return step

    def theirs(edges: Tensor) -> Step:
        model = mixture(data)
        for part in ("weak", "strong", "gate"):
            model.get_submodule(part).requires_grad_(part in trains)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
        batch = data.clone()
        batch.y = hide(data.y, data.train_mask)
        best = [-1.0]

        def turn() -> None:
            for _ in range(epochs):
                optimizer.zero_grad()
                loss = separate(run_module(model.train(), model.reads, data.x, edges), batch)[data.train_mask].mean()
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    out = run_module(model.eval(), model.reads, data.x, edges)
                right = predictions(out)[data.val_mask] == data.y[data.val_mask]
                if (score := float(right.float().mean())) > best[0]:
                    best[0], _state = score, {k: v.clone() for k, v in model.state_dict().items()}

        return counted(model, turn)

    def ours() -> Step:
        model = mixture(data)
        trainer = trainer_of(model, data)
        phase = Schedule(epochs=epochs).phase("turn", trains, Term(separate))
        trainer.fit(phase)
        return counted(model, lambda: trainer.fit(phase))

    return {
        "their schedule, our adjacency": theirs(data.adj_t),
        "their schedule, edge_index": theirs(data.edge_index),
        "ours": ours(),
    }


def predictions(out: Mixture) -> Tensor:
    c = out.confidence.unsqueeze(-1)
    return (c * out.weak.softmax(-1) + (1 - c) * out.strong.softmax(-1)).argmax(-1)


def joint_row(name: str = f"citation-{ARXIV_NODES // 4}", epochs: int = 1) -> dict[str, Step]:
    """Return an epoch, with its evaluation, of a GCN of 3 x 256 alone and in Mowst*."""
    data = graph(name)

    def fit(model: torch.nn.Module, trains: tuple[str, ...], loss: Any) -> Step:
        trainer = trainer_of(model, data)
        phase = Schedule(epochs=epochs).phase("epochs", trains, Term(loss))
        return lambda: trainer.fit(phase)

    parts = ("weak", "strong", "gate")
    return {
        "GCN alone": fit(mixture(data, 256, 3).strong, ("",), cross_entropy),
        "Mowst*, equal widths": fit(mixture(data, 256, 3), parts, joint),
        "Mowst*, weak a quarter as wide": fit(mixture(data, 256, 3, 64), parts, joint),
    }


def expected_row(num_nodes: int = ARXIV_NODES // 4, draws: int = 50) -> dict[str, Step]:
    """Return the accuracy of random routing by drawing 50 times, and exactly; both from logits."""
    generator = torch.Generator().manual_seed(0)
    weak, strong = (torch.randn(num_nodes, CLASSES, generator=generator) for _ in range(2))
    y = torch.randint(CLASSES, (num_nodes,), generator=generator)
    out = Mixture(weak, strong, torch.rand(num_nodes, generator=generator))

    def drawn() -> float:
        right = out.weak.argmax(-1) == y, out.strong.argmax(-1) == y
        scores = [torch.where(torch.rand(num_nodes) < out.confidence, *right).float().mean() for _ in range(draws)]
        return float(torch.stack(scores).mean())

    def authors() -> float:
        """Chooses logits, not hits, as the authors' simulation does."""
        scores = []
        for _ in range(draws):
            choice = (torch.rand(num_nodes) < out.confidence).unsqueeze(-1)
            scores.append((torch.where(choice, out.weak, out.strong).argmax(-1) == y).float().mean())
        return float(torch.stack(scores).mean())

    return {
        "50 draws of logits": authors,
        "50 draws of hits": drawn,
        "exact": lambda: expected(out, y, accuracy),
    }


def predict_row(name: str) -> dict[str, Step]:
    """Return `predict` for the whole graph and for some nodes of it."""
    data = graph(name)
    model = mixture(data).eval()
    steps: dict[str, Step] = {"whole graph": lambda: predict(model, data.x, data.adj_t)}
    return steps | {f"{n} nodes": asked(partial(predict, model, data.x, data.adj_t), data, n) for n in SIZES}


def asked(ask: Callable[..., Any], data: Data, n: int) -> Step:
    """Ask about `n` nodes, others in every step."""
    order = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(n))
    starts = cycled(range(0, data.num_nodes - min(n, data.num_nodes) + 1, n))
    return lambda: ask(nodes=order[(start := next(starts)) : start + n])


def cycled(values: Iterable[int]) -> Any:
    while True:
        yield from values


def query_row(name: str = f"citation-{ARXIV_NODES // 4}") -> dict[str, Step]:
    """Return queries of one node: from the graph, and from kept logits; a hundred in a step."""
    data = graph(name)
    model = mixture(data).eval()
    kept = Kept(model, data.x, data.adj_t)

    def hundred(step: Step) -> Step:
        return lambda: [step() for _ in range(100)]

    return {
        "predict, 100 x 1 node": hundred(asked(partial(predict, model, data.x, data.adj_t), data, 1)),
        "kept, 100 x 1 node": hundred(asked(kept.query, data, 1)),
        "kept, 100 x 256 nodes": hundred(asked(kept.query, data, 256)),
        "kept, routed, 100 x 1 node": hundred(asked(partial(kept.query, how="routed"), data, 1)),
    }


ARXIV_QUARTER = f"citation-{ARXIV_NODES // 4}"
PREDICTED = (ARXIV_QUARTER, "tolokers", "pubmed", "amherst41")
ROWS: dict[str, Callable[[], dict[str, Step]]] = {
    "weak-turn": partial(turn_row, ARXIV_QUARTER, ("weak", "gate")),
    "strong-turn": partial(turn_row, ARXIV_QUARTER, ("strong",)),
    "weak-turn-tolokers": partial(turn_row, "tolokers", ("weak", "gate")),
    "strong-turn-tolokers": partial(turn_row, "tolokers", ("strong",)),
    "mowst-star": joint_row,
    "expected-accuracy": expected_row,
    "query": query_row,
    **{f"predict-{name}": partial(predict_row, name) for name in PREDICTED},
}
