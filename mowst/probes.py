"""What each layer of an expert knows: linear probes for labels, degree and local homophily (Alain & Bengio, 2016, arXiv
1610.01644).

A probe is a linear model on what a layer says of each node, fitted on training nodes and scored on validation nodes;
test labels are not looked at. Its control is fitted to the same numbers in random order, and shows what a probe of that
width reaches by chance (Hewitt & Liang, 2019, arXiv 1909.03368).

| column    | of a node                                             | probe              | score           |
|-----------|-------------------------------------------------------|--------------------|-----------------|
| label     | its class                                             | logistic, C = 1    | share right     |
| degree    | log(1 + number of neighbours)                         | ridge              | R^2, at most 1  |
| homophily | share of its labelled neighbours that have its label  | ridge              | R^2, at most 1  |

Where the score of labels no longer rises from a layer to the next, depth has stopped helping.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import hidden_of
from mowst.errors import InputError
from mowst.evaluation import degrees, local_homophily
from mowst.kernels import take_rows
from mowst.models import ROLES, Learner, Mowst, Panel, reads_of, run_module

if TYPE_CHECKING:
    from rich.table import Table

STRENGTHS = [10.0**power for power in range(-2, 5)]
"""Of the ridge, among which leave-one-out errors on the training nodes choose."""
FEWEST = 10
"""Nodes to fit on, and to score on, below which nothing is said."""


class Score(NamedTuple):
    """What a probe reached on validation nodes."""

    found: float
    """Share right, or R^2; not a number where there are too few nodes, or all are alike."""
    control: float
    """The same of a probe that was fitted to the numbers in random order."""


class Probed(NamedTuple):
    """What one layer of one expert knows."""

    expert: str
    """`weak`, `strong`, or of a panel `strong: sage`; empty for a model that is one expert."""
    layer: str
    """`features`, `hidden 1` and so on, or `logits`."""
    width: int
    label: Score
    degree: Score
    homophily: Score


def probe(model: nn.Module, data: Data, *, seed: int = 0) -> list[Probed]:
    """Probe the features and every layer of an expert, or of both experts of a mixture.

    Args:
        model: an expert `(x, edge_index) -> logits`, a panel, or a `Mowst`, trained.
        data: the graph as the model takes it, with `y`, `train_mask` and `val_mask`; other labels are not looked at.
        seed: of the order of the controls.

    Raises:
        InputError: there are too few training or validation nodes.
    """
    fit, held = (mask.cpu().nonzero().squeeze(-1) for mask in (data.train_mask, data.val_mask))
    if min(len(fit), len(held)) < FEWEST:
        raise InputError(f"probes: need {FEWEST} training and validation nodes, got {len(fit)} and {len(held)}")
    wanted = wanted_of(data)
    order = torch.randperm(len(fit), generator=torch.Generator().manual_seed(seed))

    def probed(name: str, layer: str, said: Tensor) -> Probed:
        rows = [take_rows(said, nodes.to(said.device)).float().cpu() for nodes in (fit, held)]
        scores = [score(rows, [each[fit], each[held]], order) for each in wanted]
        return Probed(name, layer, said.size(1), *scores)

    found = [probed("", "features", data.x)]
    for name, expert in experts_of(model):
        found += [probed(name, layer, said) for layer, said in layers_of(expert, data)]
    return found


def wanted_of(data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is asked of every node: its label, degree and homophily, each [N]; what is not known is NaN or -1."""
    known = (data.train_mask | data.val_mask).cpu()
    y, edge_index = data.y.cpu().masked_fill(~known, -1), data.edge_index.cpu()
    return y, degrees(edge_index, len(y)).double().log1p(), local_homophily(edge_index, y)


def experts_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the experts that a model is made of, by name."""
    parts = [(role, model.of(role)) for role in ROLES] if isinstance(model, Mowst) else [("", model)]
    for role, part in parts:
        if isinstance(part, Panel):
            for place in part.active.nonzero().flatten().tolist():
                yield ": ".join(filter(None, (role, part.names[place]))), part.members[place]
        else:
            yield role, part


@torch.no_grad()
def layers_of(expert: nn.Module, data: Data) -> list[tuple[str, Tensor]]:
    """Return what each layer of an expert says of all nodes, [N, H] by name; of one without gradients its logits."""
    graph, expert = data.adj_t if "adj_t" in data else data.edge_index, expert.eval()
    if isinstance(expert, Learner):
        return [("logits", run_module(expert, reads_of(expert), data.x, graph))]
    with hidden_of(expert) as hidden:
        logits = run_module(expert, reads_of(expert), data.x, graph)
        seen = [each for each in hidden[:] if each.dim() == 2 and len(each) == len(logits)]
    return [*((f"hidden {place}", each) for place, each in enumerate(seen, start=1)), ("logits", logits)]


def score(rows: list[Tensor], targets: list[Tensor], order: Tensor) -> Score:
    """Fit a probe and its control on the first of two groups of nodes, and score both on the second.

    Args:
        rows: what a layer says of the nodes of each group, [n, H].
        targets: what is asked of them, [n]: whole numbers are classes, others are predicted by a ridge.
        order: of the control, a permutation of the first group.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = [~each.isnan() if each.is_floating_point() else each >= 0 for each in targets]
    x, held = (said[there].double().numpy() for said, there in zip(rows, known, strict=True))
    y, asked = (each[there].numpy() for each, there in zip(targets, known, strict=True))
    if min(len(y), len(asked)) < FEWEST or len(set(y.tolist())) < 2 or len(set(asked.tolist())) < 2:
        return Score(math.nan, math.nan)
    mixed = y[order[known[0][order]].argsort().argsort().numpy()]
    found = []
    for fitted in (y, mixed):
        last: Any = RidgeCV(STRENGTHS) if targets[0].is_floating_point() else LogisticRegression(max_iter=1000)
        found.append(float(make_pipeline(StandardScaler(), last).fit(x, fitted).score(held, asked)))
    return Score(*found)


def as_table(found: list[Probed]) -> Table:
    """Write what was found for a terminal; the control's score stands in brackets."""
    from rich.table import Table

    heads = ("label, right", "degree, R²", "homophily, R²")
    table = Table("expert", "layer", "width", *heads, title="what each layer knows of validation nodes (control)")
    for row in found:
        cells = (f"{each.found:.2f} ({each.control:.2f})" for each in (row.label, row.degree, row.homophily))
        table.add_row(row.expert, row.layer, f"{row.width:,}", *cells)
    return table
