"""GLD, graph-on-logits distillation: the classes are nodes of a graph, weighted by how often they are active together.

Of the rows x [N, C] (a model's top-k probabilities, other entries 0) the co-activation graph is A = x'x / N. Two such
graphs are compared by their node features, the row means A1 / C: class by class ("identity"), which is what two
classifiers of the same classes want, or sorted. Sorted they give W₁ between the features, the paper's closed form of a
lower bound of the graphs' Gromov-Wasserstein distance, made for vocabularies that are not aligned. A need not be
formed: A1 = x's / N with s the row sums of x. Never use GLD alone: it does not see which row belongs to which node, and
with sorting not even which class is which: beside few labels it then pulls classes to each other's places.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import scatter

from graphkd.certificate import Certificate, certificate, node_features
from graphkd.checks import alike, choose, full, options, whole
from graphkd.contract import DistillationLoss, Scope
from graphkd.logit import is_target, standardize
from graphkd.signals import Signals, believed, signals

FORMS = ("global", "class", "neighbourhood")


def top(values: Tensor, k: int, support: Tensor | None = None) -> Tensor:
    """Keep the k largest entries of each row (all that tie with the k-th), or where `support` has its own, [N, C]."""
    support = (values if support is None else support).detach()
    return values * (support >= kth_largest(support, k))


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Return the k-th largest entry of each row, [N, 1]; on a CPU by numpy, whose partition is 5 times torch's topk."""
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        level = values.size(-1) - k
        return torch.from_numpy(np.partition(values.numpy(), level, axis=-1)[..., level : level + 1])
    return values.topk(k, dim=-1).values[..., -1:]


def coactivation(x: Tensor) -> Tensor:
    """Return the graph of classes x'x / N, [C, C], symmetric."""
    return x.t() @ x / x.size(0)


def global_features(x: Tensor, feature: str = "mean") -> Tensor:
    """Return the node features of the graph of all rows, [C], without forming it for the mean."""
    if feature == "mean":
        return x.t() @ x.sum(-1) / x.numel()
    return node_features(coactivation(x), feature)


def class_features(x: Tensor, group: Tensor) -> Tensor:
    """Return mean features of the graph of each class's rows, [C, C], zeros where it has none; `group` [N]: classes."""
    member = is_target(x, group).to(x.dtype)
    return member.t() @ (x * x.mean(-1, keepdim=True)) / member.sum(0).clamp(min=1).unsqueeze(-1)


def neighbourhood_features(x: Tensor, edge_index: Tensor) -> Tensor:
    """Return mean features of the graph of each node with its in-neighbours, [N, C]; O(E C) time and memory."""
    N = x.size(0)
    source, sink = edge_index
    own = x * x.mean(-1, keepdim=True)
    around = scatter(own.index_select(0, source), sink, dim=0, dim_size=N, reduce="sum")
    loops, degree = (scatter(it.to(x.dtype), sink, dim_size=N, reduce="sum") for it in (source == sink, source >= 0))
    return (around + (1 - loops).unsqueeze(-1) * own) / (degree - loops + 1).unsqueeze(-1)


def distance(first: Tensor, second: Tensor, matching: str = "identity") -> Tensor:
    """Return Σ|f - g| over the last axis times C, class by class or of sorted features (C² W₁), [...].

    The factor makes features that are means (A1 / C) sums (A1): for probabilities the result lies in [0, 2].
    """
    if matching == "sorted":
        first, second = first.sort(dim=-1).values, second.sort(dim=-1).values
    return (first - second).abs().sum(-1) * first.size(-1)


class GLD(DistillationLoss):
    """Graph-on-logits distillation (our reading of InfiGFusion, Wang et al., 2025, arXiv:2505.13893), see the module.

    `form`: one graph of all rows ("global"), one for each class the teacher predicts, averaged ("class"), or one for
    each node and its in-neighbours ("neighbourhood", [N]). `k`: entries kept a row, by default
    min(10, max(2, C // 2)). `support`: whose top k, each model's "own" or the "teacher"'s for both. `of`:
    "probabilities" or "standardized" logits. `matching`: "identity", or "sorted" as in the paper, see the module. Left
    out: the paper's token term (`kd` and the like stand beside instead).
    """

    search: ClassVar[dict[str, Any]] = {
        "k": (2, 10),
        "form": list(FORMS),
        "matching": ["identity", "sorted"],
        "temperature": (0.5, 4.0, "log"),
    }

    def __init__(
        self,
        form: str = "global",
        k: int | None = None,
        *,
        matching: str = "identity",
        feature: str = "mean",
        support: str = "own",
        of: str = "probabilities",
        temperature: float = 1.0,
    ):
        super().__init__()
        choose("form", form, FORMS)
        choose("support", support, ("own", "teacher"))
        choose("of", of, ("probabilities", "standardized"))
        options(feature=feature, matching=matching, temperature=temperature)
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
        return certificate(coactivation(x), coactivation(y), self.feature, self.matching)

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return C times the distance of the features: [N] for the neighbourhood form, else a scalar."""
        x, y = self.activations(student.logits, teacher.logits)
        if self.form == "global":
            return distance(global_features(x, self.feature), global_features(y, self.feature), self.matching)
        if self.form == "class":
            group = teacher.logits.argmax(-1)
            found = is_target(x, group).any(0).sum()
            return distance(class_features(x, group), class_features(y, group), self.matching).sum() / found
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
