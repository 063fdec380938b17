"""GLD, graph-on-logits distillation: the classes are nodes of a graph, weighted by how often they are active together.

Of the rows x [N, C] (a model's top-k probabilities, other entries 0) the co-activation graph is A = x'x / N. Two such
graphs are compared by W₁ between their node features, the row means A1 / C: a closed form (sorting) of a lower bound
of their Gromov-Wasserstein distance. A need not be formed: A1 = x's / N with s the row sums of x. Never use GLD alone:
it does not see which row belongs to which node, and with sorting not even which class is which.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import remove_self_loops, scatter, segment

from graphkd.checks import alike, choose, full, options, whole
from graphkd.contract import DistillationLoss, Scope, Signals, believed, signals
from graphkd.logit import standardize

FORMS = ("global", "class", "neighbourhood")


class Certificate(NamedTuple):
    """What a sorted matching proves about the (squared-loss) Gromov-Wasserstein cost of two graphs."""

    lower: Tensor  # W₂² of the node features
    upper: Tensor  # the cost of the matching itself
    gap: Tensor  # upper - lower: how far off the closed form may be


def top(values: Tensor, k: int, support: Tensor | None = None) -> Tensor:
    """Keep the k largest entries of each row (all that tie with the k-th), or where `support` has its own, [N, C]."""
    support = (values if support is None else support).detach()
    return values * (support >= kth_largest(support, k))


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Return the k-th largest entry of each row, [N, 1]; on a CPU by numpy, whose partition is 5 times torch's topk."""
    if values.device.type == "cpu":
        level = values.size(-1) - k
        return torch.from_numpy(np.partition(values.numpy(), level, axis=-1)[..., level : level + 1])
    return values.topk(k, dim=-1).values[..., -1:]


def coactivation(x: Tensor) -> Tensor:
    """Return the graph of classes x'x / N, [C, C], symmetric."""
    return x.t() @ x / x.size(0)


def node_features(graph: Tensor, feature: str = "mean") -> Tensor:
    """Compress a graph [C, C] to a number a node, [C]: the mean of its row, or the root of its mean square."""
    if feature == "mean":
        return graph.mean(-1)
    return graph.square().mean(-1).clamp(min=torch.finfo(graph.dtype).tiny).sqrt()


def global_features(x: Tensor, feature: str = "mean") -> Tensor:
    """Return the node features of the graph of all rows, [C], without forming it for the mean."""
    if feature == "mean":
        return x.t() @ x.sum(-1) / x.numel()
    return node_features(coactivation(x), feature)


def class_features(x: Tensor, group: Tensor) -> Tensor:
    """Return mean features of the graph of each group of rows, [groups, C]; `group` [N] counts from 0."""
    order = group.argsort(stable=True)
    ptr = torch.cat([group.new_zeros(1), group.bincount().cumsum(0)])
    return segment((x * x.mean(-1, keepdim=True))[order], ptr, reduce="mean")


def neighbourhood_features(x: Tensor, edge_index: Tensor) -> Tensor:
    """Return mean features of the graph of each node with its in-neighbours, [N, C]; O(E C) time and memory."""
    N = x.size(0)
    source, sink = remove_self_loops(edge_index)[0]
    own = x * x.mean(-1, keepdim=True)
    around = scatter(own.index_select(0, source), sink, dim=0, dim_size=N, reduce="sum")
    degree = scatter(x.new_ones(source.size(0)), sink, dim_size=N, reduce="sum")
    return (own + around) / (degree + 1).unsqueeze(-1)


def distance(first: Tensor, second: Tensor, matching: str = "sorted") -> Tensor:
    """Return Σ|f - g| over the last axis times C, of sorted features (C² W₁) or class by class, [...].

    The factor makes features that are means (A1 / C) sums (A1): for probabilities the result lies in [0, 2].
    """
    if matching == "sorted":
        first, second = first.sort(dim=-1).values, second.sort(dim=-1).values
    return (first - second).abs().sum(-1) * first.size(-1)


def certificate(first: Tensor, second: Tensor, feature: str = "mean") -> Certificate:
    """Bracket the Gromov-Wasserstein cost of two graphs [k, k], uniform weights: lower <= GW <= upper.

    The lower bound holds for every coupling (Jensen; for "rms" Mémoli's first bound), the upper one is the cost of
    matching nodes in the order of their features. For "mean" the gap is the mean over i of Var_j (C_ij - D_π(i)π(j)).
    """
    f, g = node_features(first, feature), node_features(second, feature)
    i, j = f.argsort(stable=True), g.argsort(stable=True)
    lower = (f[i] - g[j]).square().mean()
    upper = (first[i][:, i] - second[j][:, j]).square().mean()
    return Certificate(lower, upper, upper - lower)


class GLD(DistillationLoss):
    """Graph-on-logits distillation (our reading of InfiGFusion, Wang et al., 2025, arXiv:2505.13893), see the module.

    `form`: one graph of all rows ("global"), one for each class the teacher predicts, averaged ("class"), or one for
    each node and its in-neighbours ("neighbourhood", [N]). `k`: entries kept a row, by default
    min(10, max(2, C // 2)). `support`: whose top k, each model's "own" or the "teacher"'s for both. `of`:
    "probabilities" or "standardized" logits.
    """

    search: ClassVar[dict[str, Any]] = {
        "k": (2, 10),
        "form": list(FORMS),
        "matching": ["sorted", "identity"],
        "temperature": (0.5, 4.0, "log"),
    }

    def __init__(
        self,
        form: str = "global",
        k: int | None = None,
        *,
        matching: str = "sorted",
        feature: str = "mean",
        support: str = "own",
        of: str = "probabilities",
        temperature: float = 1.0,
    ):
        super().__init__()
        choose("form", form, FORMS)
        choose("matching", matching, ("sorted", "identity"))
        choose("support", support, ("own", "teacher"))
        choose("of", of, ("probabilities", "standardized"))
        options(feature=feature, temperature=temperature)
        if k is not None:
            whole("k", k, 1)
        if feature == "rms" and form != "global":
            raise ValueError(f"GLD: feature 'rms' needs each graph in full, which form {form!r} never has; use 'mean'")
        self.form, self.k, self.matching, self.feature = form, k, matching, feature
        self.support, self.of, self.temperature = support, of, temperature
        self.scope = Scope.EDGES if form == "neighbourhood" else Scope.ALL
        self.needs = frozenset({"teacher"}) if self.scope is Scope.ALL else frozenset({"teacher", "edge_index"})

    def activations(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return both models' x [N, C] from their logits."""
        k = self._kept(student.size(-1))
        student, teacher = self._values(student), self._values(teacher.detach())
        if k == student.size(-1):
            return student, teacher
        return top(student, k, teacher if self.support == "teacher" else None), top(teacher, k)

    def diagnose(self, student: Signals, teacher: Signals) -> Certificate:
        """Bracket the true Gromov-Wasserstein cost between the two global graphs.

        Raises:
            ValueError: these are no signals of two models on the same nodes and classes, or no finite ones.
        """
        seen = (("student", student), ("teacher", teacher))
        student, teacher = (believed(f"GLD: {name}", signals(name, given)) for name, given in seen)
        alike("GLD", student=student.logits, teacher=teacher.logits)
        x, y = self.activations(student.logits, teacher.logits)
        return certificate(coactivation(x), coactivation(y), self.feature)

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return C² W₁ of the node features: [N] for the neighbourhood form, else a scalar."""
        x, y = self.activations(student.logits, teacher.logits)
        if self.form == "global":
            return distance(global_features(x, self.feature), global_features(y, self.feature), self.matching)
        if self.form == "class":
            group = torch.unique(teacher.logits.argmax(-1), return_inverse=True)[1]
            return distance(class_features(x, group), class_features(y, group), self.matching).mean()
        with torch.no_grad():
            wanted = neighbourhood_features(y, edge_index)
        return distance(neighbourhood_features(x, edge_index), wanted, self.matching)

    def _values(self, logits: Tensor) -> Tensor:
        return (full(logits) / self.temperature).softmax(-1) if self.of == "probabilities" else standardize(logits)

    def _kept(self, C: int) -> int:
        k = min(10, max(2, C // 2)) if self.k is None else self.k
        if k < C or self.feature == "rms":
            return min(k, C)
        if self.of == "standardized":
            raise ValueError(
                f"GLD: standardized rows with all {C} classes kept sum to 0, so the loss is 0; take k < {C}"
            )
        self.warn_once(
            f"GLD: with all {C} classes kept the graph is the classes' marginals and nothing more; take k < {C}"
        )
        return C


LOSSES = (GLD,)
"""The losses of this family; a new one is found by its name from here on."""
