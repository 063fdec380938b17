"""A teacher for each graph and seed, and students in a plain loop: what `published.py` and `unseen.py` are made of.

Full batch; linear maps of features are multiplied in bfloat16, all else is float32. The teacher is SAGE in DGL's "gcn"
form (a layer is one map of the mean over a node and its neighbours), whose first mean is of the features alone and is
taken once. Whoever learns is stopped on the likelihood of the validation nodes, which is all that is asked of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models import MLP
from torch_geometric.utils import degree, remove_self_loops, scatter

import graphkd
from graphkd import Signals, hidden_of
from mowst.data import load

CARDS = Path(__file__).parent / "cards"
EPOCHS, PATIENCE, LR = 500, 50, 0.01
TEACHER_DECAY, STUDENT_DECAY = 5e-3, 5e-4
WIDTH, DROPOUT, SIZE = 128, 0.5, 64
BESIDE = 1.0  # the size of DeepWalk's positions beside that of the features, over all nodes
STEADY, MEMORY = 200, 0.98
NOISE, ASCENTS = 0.1, 2  # NOSMOG's adversarial features: their weight, as in the paper, and steps, there 5


class Lesson(NamedTuple):
    """A student: what it learns, and what it is given."""

    spec: str = "glnn"
    given: str = "x"
    """x, positions or deepwalk (positions beside x), or averages (of x over 0 to 3 hops): of the graph, once."""
    teacher: str = "teacher"
    """teacher, rebalanced (the same, told how frequent the classes are), averaged or rebalanced and averaged (over a
    node and its neighbours, see `averaged`), or tokens (one with a codebook inside)."""
    noise: bool = False
    veiled: bool = False
    """Hide the positions of half of the nodes, drawn anew in each step, so that features have to do without, too."""
    steady: bool = False
    """Train for `STEADY` epochs and take the running mean of the weights, without a look at validation nodes."""


class Case(NamedTuple):
    """A graph with its split and its teachers."""

    data: Data
    mean: Tensor  # [N, N] CSR, over a node and its neighbours
    taught: dict[str, Signals]
    codes: Tensor  # of the teacher with a codebook; [0, 0] where there is none
    seed: int
    at: Tensor | None = None  # [N, SIZE], positions by walks, where they are asked for


class Sage(nn.Module):
    """A teacher, on averaged features."""

    def __init__(self, columns: int, C: int, tokens: int = 0):
        super().__init__()
        self.first, self.last = nn.Linear(columns, WIDTH), nn.Linear(WIDTH, C)
        self.tokenizer = graphkd.Tokenizer(WIDTH, columns, tokens) if tokens else None
        self.asked = torch.zeros(())

    def forward(self, averaged: Tensor, mean: Tensor, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [N, C] and the hidden layer [N, H]."""
        hidden = mapped(self.first, averaged).relu()
        seen = hidden
        if self.tokenizer is not None:
            tokens = self.tokenizer(hidden, x, edge_index)
            seen, self.asked = tokens.hidden, tokens.loss
        return mean @ self.last(F.dropout(seen, DROPOUT, self.training)), hidden


def mapped(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer or a model in bfloat16, and return float32."""
    with torch.autocast("cpu", torch.bfloat16):
        out: Tensor = layer(x)
    return out.float()


def fit(model: nn.Module, lesson: Callable[[], Tensor], held: Callable[[], Tensor], decay: float) -> None:
    """Train all that `model` holds, and leave it as it was where the validation nodes were likeliest."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=decay)
    least, since, best = float("inf"), 0, model.state_dict()
    for _ in range(EPOCHS):
        model.train()
        value = lesson()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            now = float(held())
        since = 0 if now < least else since + 1
        if since == 0:
            least, best = now, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        elif since == PATIENCE:
            break
    model.load_state_dict(best)
    model.eval()


def load_graph(graph: str, root: str, seed: int) -> Data:
    """Load a graph with a seed's split and dense features."""
    data = load(str(CARDS / f"{graph}-published.yaml"), root, seed=seed)
    data.x = data.x if data.x.layout == torch.strided else data.x.to_dense()
    return data


def mean_of(data: Data) -> Tensor:
    """Return the matrix that takes the mean over a node and its neighbours, [N, N] CSR."""
    N, (source, sink) = data.num_nodes, data.edge_index
    weight = 1 / degree(sink, N)[sink]
    return torch.sparse_coo_tensor(torch.stack([sink, source]), weight, (N, N)).coalesce().to_sparse_csr()


def fit_steadily(model: nn.Module, lesson: Callable[[], Tensor], decay: float) -> None:
    """Train all that `model` holds for a fixed time, and leave it at the running mean of its weights."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=decay)
    mean = [weight.detach().clone() for weight in model.parameters()]
    for _ in range(STEADY):
        model.train()
        value = lesson()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        for kept, weight in zip(mean, model.parameters(), strict=True):
            kept.lerp_(weight.detach(), 1 - MEMORY)
    for kept, weight in zip(mean, model.parameters(), strict=True):
        weight.data.copy_(kept)
    model.eval()


def case(data: Data, seed: int, folder: Path, kinds: set[str], walks: Path | None = None) -> Case:
    """Return the teachers of these kinds, trained where `folder` (of this graph, split and seed) has them not yet.

    Positions by walks are of the graph alone, and kept in the file `walks`, if one is given.
    """
    mean, taught, codes = mean_of(data), {}, torch.empty(0, 0)
    for kind in sorted({"tokens" if kind == "tokens" else "teacher" for kind in kinds}):
        path = folder / f"{kind}.pt"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            model = teacher(data, mean, seed, kind)
            torch.save(
                {
                    **says(model, data, mean),
                    **({} if model.tokenizer is None else {"codes": model.tokenizer.codes.detach()}),
                },
                path,
            )
        kept = torch.load(path, weights_only=True)
        taught[kind] = Signals(kept["logits"], (kept["hidden"],), kept["reliability"])
        codes = kept.get("codes", codes)
    if "teacher" in taught:
        taught["rebalanced"] = rebalanced(taught["teacher"], data)
        taught["averaged"] = averaged(taught["teacher"], data)
        taught["rebalanced and averaged"] = averaged(taught["rebalanced"], data)
    return Case(data, mean, taught, codes, seed, deepwalk(data, walks) if walks else None)


def deepwalk(data: Data, path: Path) -> Tensor:
    """Return positions by walks, [N, SIZE], made where they are not kept yet."""
    if not path.exists():
        linked = remove_self_loops(data.edge_index)[0]
        torch.save(graphkd.positions(linked, data.num_nodes, SIZE, "deepwalk"), path)
    at: Tensor = torch.load(path, weights_only=True)
    return at


def rebalanced(taught: Signals, data: Data) -> Signals:
    """Tell a teacher how frequent the classes are."""
    return taught._replace(logits=graphkd.rebalance(taught.logits, torch.bincount(data.y[data.train_mask])))


def averaged(taught: Signals, data: Data) -> Signals:
    """Average what a teacher says of a node and its neighbours, each weighed by one over its own degree.

    So each node has as much to say as any other, whether one node listens or a thousand do.
    """
    source, sink = data.edge_index
    p = taught.logits.softmax(-1) / degree(source, data.num_nodes).unsqueeze(-1)
    total = scatter(p[source], sink, dim_size=data.num_nodes)
    return taught._replace(logits=(total / total.sum(-1, keepdim=True)).clamp(min=1e-12).log())


def teacher(data: Data, mean: Tensor, seed: int, kind: str = "teacher") -> Sage:
    """Train a teacher, with a codebook if it is of the kind "tokens"."""
    torch.manual_seed(seed)
    model = Sage(data.num_features, int(data.y.max()) + 1, 128 if kind == "tokens" else 0)
    rest = mean, data.x, data.edge_index
    averaged = (mean @ data.x).bfloat16()
    if model.tokenizer is not None:
        with torch.no_grad():
            model.tokenizer.prepare(model(averaged, *rest)[1])

    def labels(rows: Tensor) -> Tensor:
        logits, _ = model(averaged, *rest)
        return F.cross_entropy(logits[rows], data.y[rows])

    fit(model, lambda: labels(data.train_mask) + model.asked, lambda: labels(data.val_mask), TEACHER_DECAY)
    return model


@torch.no_grad()
def says(model: Sage, data: Data, mean: Tensor) -> dict[str, Tensor]:
    """Return what a trained teacher says of a graph, and how far it can be believed."""
    rest = mean, data.x, data.edge_index
    logits, hidden = model((mean @ data.x).bfloat16(), *rest)
    noisy, _ = model(mean @ (data.x + torch.randn_like(data.x)), *rest)
    return {"logits": logits, "hidden": hidden, "reliability": graphkd.reliability(logits, noisy)}


def features(of: Case, given: str) -> Tensor:
    """Return what a student is given, [N, F]."""
    x, N = of.data.x, of.data.num_nodes
    if given == "positions":
        at = graphkd.positions(remove_self_loops(of.data.edge_index)[0], N, SIZE)
        return torch.cat([x, 0.1 * at], dim=1)  # of about the size of a feature
    if given == "deepwalk":
        assert of.at is not None, "where positions are asked for, there is a folder to keep them in"
        return torch.cat([x, BESIDE * x.norm() / of.at.norm() * of.at], dim=1)
    if given == "averages":
        hops = [x]
        for _ in range(3):
            hops.append(of.mean @ hops[-1])
        return torch.cat(hops, dim=1)
    return x


def student(of: Case, lesson: Lesson | None) -> MLP:
    """Train a student, on labels alone without a lesson."""
    data, x = of.data, features(of, lesson.given if lesson else "x")
    torch.manual_seed(of.seed)
    model = MLP([x.size(1), WIDTH, int(data.y.max()) + 1], dropout=DROPOUT, norm=None)
    held, train = x[data.val_mask].bfloat16(), x[data.train_mask].bfloat16()

    def known() -> Tensor:
        return F.cross_entropy(mapped(model, held), data.y[data.val_mask])

    if lesson is None:
        fit(model, lambda: F.cross_entropy(mapped(model, train), data.y[data.train_mask]), known, TEACHER_DECAY)
        return model
    with hidden_of(model) as layers:
        learned = learning(of, lesson, model, x, layers)
        if lesson.steady:
            fit_steadily(model, learned, STUDENT_DECAY)
        else:
            fit(model, learned, known, STUDENT_DECAY)
    return model


def learning(of: Case, lesson: Lesson, model: MLP, x: Tensor, layers: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Return what a student is to make small, whenever it is asked."""
    data, taught, rounded = of.data, of.taught[lesson.teacher], x.bfloat16()
    terms, seen = graphkd.build(lesson.spec), data.y.masked_fill(~data.train_mask, -100)
    for term in terms:
        if lesson.teacher == "tokens" and isinstance(term.loss, graphkd.VQGraph):
            term.loss.codes = of.codes
        term.loss.prepare(Signals(mapped(model, rounded), tuple(layers)), taught)
    model.losses = nn.ModuleList(term.loss for term in terms)  # whose parameters are trained along

    def shown() -> Tensor:
        if not lesson.veiled:
            return rounded
        seen = torch.rand(len(x), 1) > 0.5
        return torch.cat([rounded[:, :-SIZE], rounded[:, -SIZE:] * seen], dim=1)

    def soft(given: Tensor) -> Tensor:
        return graphkd.GLNN()(mapped(model, given), taught).mean()

    def learned() -> Tensor:
        now, total = Signals(mapped(model, shown()), tuple(layers)), torch.zeros(())
        for term in terms:
            total = total + term.weight * term.loss(now, taught, target=seen, edge_index=data.edge_index).mean()
        return total + NOISE * soft(x + graphkd.worst_noise(x, soft, steps=ASCENTS)) if lesson.noise else total

    return learned


@torch.no_grad()
def answers(model: MLP, x: Tensor) -> Tensor:
    """Return what a student says of features, [N, C]."""
    return mapped(model, x.bfloat16())
