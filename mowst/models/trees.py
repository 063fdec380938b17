"""Boosted trees as experts: on the features alone, or on their averages over the neighbourhood, too.

They are grown by gradient boosting on histograms (Friedman, 2001; Ke et al., 2017; `mowst.models.boosting`). On tables
of numbers trees are hard to beat, and with the features averaged over one and two hops beside a node's own they rival
graph neural networks (GraphLand, arXiv 2409.14500). A missing value is a value to them, and a category is divided into
two groups of values; where a graph came from a table they see its columns as they were there, and beside them the
averages of the features that were made of these: shares of each category among the neighbours.

What is kept are the trees as arrays, which the module walks through by itself: no pickle, and the same anywhere,
whoever grew them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from mowst.errors import InputError, unknown
from mowst.kernels import Averaged, SparseFeatures, Tabled, dense
from mowst.models.averages import averages
from mowst.models.boosting import VALUES, WAYS, Wish, grower
from mowst.models.learners import ABSENT, Judged, Learned
from mowst.models.options import number, whole
from mowst.models.reads import Reads

WIDEST, REDUCED = 300, 64
"""More columns than this become so many by a truncated singular value decomposition."""
AT_ONCE = 4_000_000
"""Places in trees that are walked through at a time."""


class Trees(Learned):
    """Boosted trees on features averaged over 0 to `hops` edges, [N, F (hops + 1)]; without hops no edge is looked at.

    Args:
        in_channels, out_channels: features F and classes C.
        hops: averages over neighbours that are taken one after the other.
        learning_rate: how much of each tree is taken.
        leaves: of a tree, at most.
        smallest: nodes in a leaf, at least.
        rounds: of growing a tree for each class, at most.
        by: who grows them, "scikit-learn" or "xgboost"; "auto" is xgboost where it is installed and the graph is on a
            GPU, else scikit-learn.
    """

    feature: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    missing_left: Tensor
    value: Tensor
    divides: Tensor
    goes_left: Tensor
    columns: Tensor
    tells_of: Tensor
    seen: Tensor
    base: Tensor
    projection: Tensor
    sizes: ClassVar[dict[str, torch.dtype]] = {
        "feature": torch.int64,  # [T, M] column asked at a place of a tree, by tree
        "threshold": torch.float64,  # [T, M] up to here it goes on to the left; infinite at a leaf
        "left": torch.int64,  # [T, M] where it goes on; a leaf leads to itself
        "right": torch.int64,
        "missing_left": torch.bool,  # [T, M] whether a missing value goes to the left
        "value": torch.float64,  # [T, M] what a leaf says
        "divides": torch.int64,  # [T, M] row of `goes_left` where a category is asked, else -1
        "goes_left": torch.bool,  # [D, VALUES] whether a value goes to the left
        "columns": torch.int64,  # [2] columns of the table that it learned from, and how many of them are categories
        "tells_of": torch.int64,  # [T] place among the classes seen
        "seen": torch.int64,  # [K] classes that there were nodes of
        "base": torch.float64,  # [K or 1] what is said before any tree
        "projection": torch.float32,  # [REDUCED, F] where features are wide
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        hops: int = 0,
        learning_rate: float = 0.1,
        leaves: int = 15,
        smallest: int = 5,
        rounds: int = 150,
        by: str = "auto",
    ):
        super().__init__()
        self.in_channels, self.out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.hops, self.leaves = whole("hops", hops, least=0, most=8), whole("leaves", leaves, least=2, most=10_000)
        self.smallest, self.rounds = whole("smallest", smallest), whole("rounds", rounds, most=100_000)
        self.learning_rate = number("learning_rate", learning_rate, lambda rate: 0 < rate <= 1, "a number above 0 to 1")
        if by not in WAYS:
            raise unknown("by", by, WAYS)
        self.by = by
        self.reads = Reads(hops, adjacency=True, sparse=True, weights=hops > 0, table=True, averages=True)

    def learn(self, x: Tensor, graph: Tensor, y: Tensor, judged: Judged | None, rounds: int) -> int:
        """Grow the trees on the nodes with a label, and keep those up to the round that `judged` nodes like best."""
        labels = y.cpu().numpy()
        if len(np.unique(labels[labels >= 0])) < 2:
            raise InputError("trees: labelled nodes are of one class only; at least two are needed")
        self.hold(**{name: torch.empty(0) for name in self.sizes})
        held = x.features if isinstance(x, Averaged) else x
        if isinstance(held, Tabled):
            self.hold(columns=torch.tensor([held.raw.values.size(1), held.raw.categories]))
        self._project(held)
        wish = Wish(
            self.learning_rate,
            self.leaves,
            self.smallest,
            min(rounds, self.rounds),
            held.raw.categories if isinstance(held, Tabled) else 0,
        )
        grown = grower(self.by, graph.device)(self.table(x, graph).numpy(), labels, wish, judged, graph.device)
        self.hold(**grown.arrays)
        return grown.rounds

    def table(self, x: Tensor, graph: Tensor) -> Tensor:
        """Return what the trees see of each node, [N, D] float64, on the CPU."""
        known = x.averages(self.hops) if isinstance(x, Averaged) else None
        x = x.features if isinstance(x, Averaged) else x
        own = reduced(x.features if isinstance(x, Tabled) else x, self.projection)
        if known is None:
            around = averages(own.to(graph.device), graph, self.hops)
        else:  # the reduced average is the average of what is reduced
            around = [reduced(each, self.projection) for each in known]
        return torch.cat([self._own(x, own).double(), *(each.cpu().double() for each in around)], 1)

    def _own(self, x: Tensor, made: Tensor) -> Tensor:
        """Return what it sees of a node itself: the table's columns where it learned from a table, else features."""
        if not len(self.columns):
            return made.cpu()
        if not isinstance(x, Tabled) or [x.raw.values.size(1), x.raw.categories] != self.columns.tolist():
            raise InputError("trees: learned from the columns of a table, and this graph has other ones, or none")
        return x.raw.values

    @torch.no_grad()
    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """[N, F], [2, E] -> [N, C]; zeros before anything was learned."""
        if not len(self.seen):
            return torch.zeros(len(x), self.out_channels, device=x.device)
        graph = torch.empty(2, 0, dtype=torch.long) if edge_index is None else edge_index
        raw = self.base + self._walked(self.table(x, graph).to(self.base.device))
        raw = torch.cat([torch.zeros_like(raw), raw], 1) if len(self.seen) == 2 else raw
        least = raw.logsumexp(1, keepdim=True) + np.log(ABSENT)
        found = least.expand(-1, self.out_channels).clone()
        found[:, self.seen] = torch.maximum(raw, least)
        return found.to(x.device, torch.get_default_dtype())

    def _walked(self, table: Tensor) -> Tensor:
        """Return the sum of the leaves that each row [D] of a table ends in, [N, K], or [N, 1] of two classes."""
        device = table.device
        found = torch.zeros(len(table), len(self.base), dtype=torch.float64, device=device)
        rows = max(1, AT_ONCE // max(1, len(self.tells_of)))
        tree = torch.arange(len(self.tells_of), device=device)[:, None]
        for start in range(0, len(table), rows):
            columns = table[start : start + rows].t()
            row = torch.arange(columns.size(1), device=device)[None]
            place = torch.zeros(len(tree), columns.size(1), dtype=torch.long, device=device)
            while True:
                asked = columns[self.feature[tree, place], row]
                below = asked <= self.threshold[tree, place]
                if len(self.goes_left):
                    division = self.divides[tree, place]
                    value = asked.nan_to_num(0.0).clamp(0, VALUES - 1).long()
                    below = torch.where(division >= 0, self.goes_left[division.clamp_min(0), value], below)
                goes_left = torch.where(asked.isnan(), self.missing_left[tree, place], below)
                after = torch.where(goes_left, self.left[tree, place], self.right[tree, place])
                if torch.equal(after, place):
                    break
                place = after
            said = self.value[tree, place]
            found[start : start + rows] = torch.zeros_like(found[start : start + rows]).index_add_(
                1, self.tells_of, said.t()
            )
        return found

    def _project(self, x: Tensor) -> None:
        """Find the directions that wide features are reduced to."""
        if x.size(1) <= WIDEST:
            return
        from sklearn.decomposition import TruncatedSVD

        found = TruncatedSVD(min(REDUCED, len(x) - 1), random_state=0).fit(
            as_scipy(x.features if isinstance(x, Tabled) else x)
        )
        self.hold(projection=torch.from_numpy(found.components_))


def reduced(x: Tensor, projection: Tensor) -> Tensor:
    """Return features [N, F], or what is left of them in a few directions [D, F], dense."""
    if not len(projection):
        return dense(x)
    return torch.from_numpy(np.asarray(as_scipy(x) @ projection.cpu().numpy().T))


def as_scipy(x: Tensor) -> Any:
    """Return features [N, F] as scipy or numpy has them, sparse where they are."""
    if isinstance(x, SparseFeatures):
        rows = x.rows
        value = np.ones(len(rows.column), np.float32) if rows.value is None else rows.value.numpy()
        return scipy.sparse.csr_matrix((value, rows.column.numpy(), rows.start.numpy()), shape=tuple(x.shape))
    return x.to_dense().detach().cpu().numpy()
