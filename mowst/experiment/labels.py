"""How many labels are enough: what a run judges, trained on parts of its labels and judged on validation nodes."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.evaluation.more_labels import Doubling, doubling, excess_risk
from mowst.experiment.bench import Bench
from mowst.experiment.building import classes_of
from mowst.experiment.opening import Opened
from mowst.models import ROLES, Mowst, Neighbours, parts_of

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
DRAWS = 2
"""Of each part of the labels."""
FEWEST = 2
"""Labels of a class in the smallest part, below which nothing is drawn on."""


class Table(NamedTuple):
    """A table of classes by classes that `neighbours` counted on all training labels."""

    steps: int
    """How far apart the nodes of a pair are."""
    numbers: int
    """Free ones among its entries, C (C - 1)."""
    pairs: float
    """Of labelled nodes; a pair counts from both ends."""

    def sentence(self) -> str:
        """Say it."""
        of = f"The table of classes that meet, {self.steps} step{'s' * (self.steps > 1)} apart, has {self.numbers:,}"
        if not self.pairs:
            return f"{of} numbers, and no two labelled nodes are so near: it says nothing yet."
        risk = excess_risk(self.numbers, self.pairs)
        return (
            f"{of} numbers from {self.pairs:,.0f} pairs of labelled nodes: some {risk:.2g} nats a neighbour are lost "
            "to chance (p / 2n); twice the labels make four times the pairs, and a quarter of that."
        )


class Needed(NamedTuple):
    """What twice the training labels would bring."""

    labels: list[int]
    """Training labels of each training."""
    errors: list[float]
    """Share of validation nodes that were wrong, in percent."""
    overall: Doubling
    """Points of accuracy on validation nodes."""
    by_class: dict[str, Doubling]
    """Points of accuracy of each class's validation nodes, times their share: they add up to the overall gain."""
    tables: list[Table]
    """Of counts, where the model has some and hears them."""

    def sentences(self) -> list[str]:
        """Say it."""
        found, most = self.overall, max(self.labels)
        said = f"Twice the {most:,} training labels: {found.gain:+.1f} points of accuracy on nodes like the validation "
        said += f"nodes (95 % interval {found.low:+.1f} to {found.high:+.1f}), by the line error = a + b / √labels "
        said += f"through {len(self.labels)} trainings on {min(self.labels):,} to {most:,} labels."
        counted = [each.sentence() for each in self.tables]
        if found.low <= 0:
            return [said, "That cannot be told from nothing.", *counted]
        best = max(self.by_class, key=lambda name: self.by_class[name].gain)
        gain = self.by_class[best].gain
        said += f" Most of it, {gain:+.1f} points, would come from class {best}: label nodes of that class first."
        return [said, *counted]


def needed(opened: Opened, seed: int) -> Needed:
    """Train what a run judges anew on 20, 40, 60, 80 and 100 % of its training labels, and draw the errors on.

    Labels are drawn class by class; validation nodes select each model, and judge it; test nodes are not looked at.

    Raises:
        InputError: a class has too few labels to be parted.
    """
    ready, name = opened.seed(seed).ready, opened.plan.judged
    y, val = ready.y[ready.val_mask], ready.val_mask
    check(ready)
    labels, wrong = list[int](), list[Tensor]()
    for draw, share in itertools.product(range(DRAWS), SHARES):
        part = copy.copy(ready)
        part.train_mask = part_of(ready, share, draw)
        teacher = opened.seed(seed).teacher
        signals = None if teacher is None else teacher.signals
        bench = Bench(opened.config, opened.plan, part, seed + draw, opened.fabric, teacher=signals)
        if opened.plan.teacher is not None:
            bench.train(opened.plan.teacher)
        fitted = bench.train(name)
        labels.append(int(part.train_mask.sum()))
        wrong.append(100 * (fitted.output.rows(val).probs().argmax(dim=-1) != y).double().cpu())
    errors = [float(each.mean()) for each in wrong]
    names = ready.get("class_names") or range(classes_of(ready))
    parts = {str(called): (y == place).double().cpu() for place, called in enumerate(names)}
    by_class = {
        called: doubling(labels, [float((each * inside).mean()) for each in wrong]) for called, inside in parts.items()
    }
    return Needed(labels, errors, doubling(labels, errors), by_class, tables_of(fitted.model, ready.adj_t))


def tables_of(model: nn.Module, graph: Any) -> list[Table]:
    """Return the tables of counts of a model, of a mixture those that are heard, with the pairs that they saw."""
    parts = parts_of(model, ROLES, heard=True) if isinstance(model, Mowst) else ("",)
    tables = list[Table]()
    for part in parts:
        if isinstance(expert := model.get_submodule(part), Neighbours):
            numbers = expert.out_channels * (expert.out_channels - 1)
            tables += [Table(steps, numbers, pairs) for steps, pairs in enumerate(expert.pairs(graph), start=1)]
    return tables


def check(ready: Data) -> None:
    """Raise an `InputError` where the smallest part would have too few labels of a class."""
    counts = ready.y[ready.train_mask].bincount(minlength=classes_of(ready))
    few, place = int(counts.min()), int(counts.argmin())
    least = math.ceil((FEWEST - 0.5) / SHARES[0])
    if few < least:
        raise InputError(f"--advise: needs {least} training labels of each class, and of class {place} there are {few}")


def part_of(ready: Data, share: float, draw: int) -> Tensor:
    """Draw a share of the training nodes of each class, mask [N]."""
    generator = torch.Generator().manual_seed(draw)
    mask = torch.zeros_like(ready.train_mask, device="cpu")
    train = ready.train_mask.cpu().nonzero().squeeze(-1)
    y = ready.y.cpu()[train]
    for label in y.unique().tolist():
        own = train[y == label]
        mask[own[torch.randperm(len(own), generator=generator)[: round(share * len(own))]]] = True
    return mask.to(ready.train_mask.device)
