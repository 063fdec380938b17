"""Losses on relations between nodes: along edges (LSP) and between sampled or linked pairs (RKD).

`edge_index` [2, E] carries messages from row 0 (source) to row 1 (sink). Sums and softmaxes over edges are PyG's
`scatter` and `softmax`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import remove_self_loops, scatter, softmax

from graphkd.checks import choose, full, options, whole
from graphkd.contract import DistillationLoss, Scope
from graphkd.signals import Signals

SHORTEST = 1e-12
"""Of a squared distance: below, it has no gradient."""
MOST_SAMPLES = 10_000_000
"""Pairs and triples that a call may draw: of so many, rows of 40 classes are some gigabytes."""


def local_structure(h: Tensor, edge_index: Tensor, width: float = 100.0) -> Tensor:
    """Return how a node's similarity is spread over its incoming edges, [E]: sums to 1 at each sink.

    A softmax of exp(-‖h_i - h_j‖₁ / width), itself an exponential: in (0, 1], so no weight is ever tiny.
    """
    source, sink = edge_index
    similarity = (-(h.index_select(0, source) - h.index_select(0, sink)).abs().sum(-1) / width).exp()
    return softmax(similarity, sink, num_nodes=h.size(0))


def lsp(student: Tensor, teacher: Tensor, edge_index: Tensor, width: float = 100.0) -> Tensor:
    """Preserve local structure (Yang et al., 2020, arXiv:2003.10477): KL of the `local_structure` of each node, [N].

    `student` [N, H] and `teacher` [N, H'] need not be equally wide. A node with fewer than two incoming edges gives 0.
    Left out: the paper's Euclidean, linear and polynomial kernels; this is the one of the authors' code.
    """
    p = local_structure(full(teacher.detach()), edge_index, width)
    q = local_structure(full(student), edge_index, width)
    return scatter(p * (p.log() - q.log()), edge_index[1], dim_size=student.size(0), reduce="sum")


def rkd_distance(student: Tensor, teacher: Tensor, pairs: Tensor) -> Tensor:
    """Match distances relative to their mean (RKD; Park et al., 2019, arXiv:1904.05068) over pairs [2, P], a scalar.

    The means are over the pairs given; the authors' code averages the loss over all N², N zeros among them, and the
    distances over those that are not 0.
    """
    if pairs.size(1) == 0:
        return student.sum() * 0
    wanted, got = (_relative_distances(full(h), pairs) for h in (teacher.detach(), student))
    return F.smooth_l1_loss(got, wanted)


def rkd_angle(student: Tensor, teacher: Tensor, triples: Tensor) -> Tensor:
    """Match the cosine at the middle node j of triples (i, j, k) [3, P] (RKD, as above), a scalar."""
    if triples.size(1) == 0:
        return student.sum() * 0
    wanted, got = (_cosines(full(h), triples) for h in (teacher.detach(), student))
    return F.smooth_l1_loss(got, wanted)


def all_or_sampled(
    N: int, size: int, samples: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Return node pairs (size 2) or triples (size 3) [size, P]: all where they are at most `samples`, else drawn.

    They are drawn on the device where they are wanted, or by a generator, and then on its device.

    Each unordered pair occurs once, each triple once for every choice of its middle; no node is paired with itself.
    """
    if math.comb(N, size) * (1 if size == 2 else 3) <= samples:
        if size == 2:
            return torch.triu_indices(N, N, 1, device=device)
        every = torch.combinations(torch.arange(N, device=device), r=size).t()
        return torch.cat([every, every.roll(1, 0), every.roll(2, 0)], dim=1)
    return sampled(N, size, samples, generator, device).to(device)


def sampled(
    N: int, size: int, samples: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Draw pairs (size 2) or triples (size 3) of distinct nodes [size, samples], each as likely as any other."""
    draw = partial(torch.randint, size=(samples,), generator=generator, device=device if generator is None else None)
    first = draw(0, N)
    ahead = draw(1, N)  # from the first to the second, round the circle
    if size == 2:
        return torch.stack([first, (first + ahead) % N])
    third = draw(1, N - 1)
    return torch.stack([first, first + ahead, first + third + (third >= ahead).long()]) % N


def wedges(edge_index: Tensor) -> Tensor:
    """Return paths (i, j, k) of two edges that meet in j, [3, P < E]: each incoming edge of j with the next one."""
    source, sink = edge_index[:, edge_index[1].argsort(stable=True)]
    meet = (sink[1:] == sink[:-1]) & (source[1:] != source[:-1])
    return torch.stack([source[:-1], sink[1:], source[1:]])[:, meet]


def _relative_distances(h: Tensor, pairs: Tensor) -> Tensor:
    distances = _lengths(h.index_select(0, pairs[0]) - h.index_select(0, pairs[1]))
    return distances / distances.mean()


def _cosines(h: Tensor, triples: Tensor) -> Tensor:
    i, j, k = (h.index_select(0, nodes) for nodes in triples)
    first, second = i - j, k - j
    return (first / _lengths(first).unsqueeze(-1) * (second / _lengths(second).unsqueeze(-1))).sum(-1)


def _lengths(difference: Tensor) -> Tensor:
    return difference.square().sum(-1).clamp(min=SHORTEST).sqrt()


def _mean_l1(h: Tensor, edge_index: Tensor) -> float:
    """Return the mean distance ‖h_i - h_j‖₁ along an edge."""
    return float((h[edge_index[0]] - h[edge_index[1]]).abs().sum(-1).mean())


class Relation(DistillationLoss):
    """A loss on representations: the logits, or the last hidden layers of both models (`of`)."""

    def __init__(self, of: str):
        super().__init__()
        choose("of", of, ("logits", "hidden"))
        self.of = of
        if of == "hidden":
            self.needs = self.needs | {"hidden", "teacher_hidden"}

    def views(self, student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
        """Return both models' representations, [N, H] and [N, H']."""
        return (student.logits, teacher.logits) if self.of == "logits" else (student.hidden[-1], teacher.hidden[-1])


class LSP(Relation):
    """Local-structure preserving distillation, see `lsp`.

    `width` belongs to the scale of the representation: 100, the authors', to hidden layers of some hundred columns. At
    a width far above the distances of linked nodes the loss is as good as constant, which is said once.
    """

    scope = Scope.EDGES
    needs = frozenset({"teacher", "edge_index"})
    search: ClassVar[dict[str, Any]] = {"width": (0.5, 100.0, "log"), "of": ["logits", "hidden"]}

    def __init__(self, width: float = 100.0, of: str = "logits"):
        super().__init__(of)
        options(width=width)
        self.width = width

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        s, t = self.views(student, teacher)
        self.notice("structure", lambda: self._constant(full(s), full(t), edge_index))
        return lsp(s, t, edge_index, self.width)

    @torch.no_grad()
    def _constant(self, student: Tensor, teacher: Tensor, edge_index: Tensor) -> str:
        """Say why the loss does not move where it stands, if it does not."""
        linked = remove_self_loops(edge_index)[0]
        if linked.size(1) == 0:
            return "LSP: there is no edge between two nodes, so the loss is 0; give it a graph (on all nodes)"
        mine, theirs = (_mean_l1(h, linked) for h in (student, teacher))
        if mine == 0:
            return (
                f"LSP: the student's {self.of} are equal along every edge, where |h_i - h_j| has no gradient; "
                "begin from a random layer, or let another loss come first (warmup)"
            )
        if self.width > 10 * theirs > 0:
            return (
                f"LSP: width {self.width:g} is {self.width / theirs:.0f} times the teacher's mean distance along an "
                f"edge, so all neighbours look alike and the loss is as good as constant; try width={theirs:.2g}"
            )
        return ""


class RKD(Relation):
    """Relational KD, see `rkd_distance` and `rkd_angle`, over sampled pairs and triples or over edges and wedges.

    At most `samples` of each are drawn a call, from torch's global generator, or always the same ones with a `seed`;
    a set that is smaller than that is taken whole. `pairs` "edges" is the graph's own choice, O(E). Means are over
    distinct pairs and over triples of three nodes: left out are the zeros that the authors' code counts along, of a
    node with itself (see `rkd_distance`).
    """

    scope = Scope.ALL
    search: ClassVar[dict[str, Any]] = {"distance": (0.0, 2.0), "angle": (0.0, 4.0), "pairs": ["sampled", "edges"]}

    def __init__(
        self,
        distance: float = 1.0,
        angle: float = 2.0,
        *,
        pairs: str = "sampled",
        samples: int = 4096,
        seed: int | None = None,
        of: str = "logits",
    ):
        super().__init__(of)
        choose("pairs", pairs, ("sampled", "edges"))
        options(distance=distance, angle=angle)
        whole("samples", samples, 1, MOST_SAMPLES)
        if seed is not None:
            whole("seed", seed)
        self.distance, self.angle, self.pairs, self.samples, self.seed = distance, angle, pairs, samples, seed
        if pairs == "edges":
            self.needs = self.needs | {"edge_index"}

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return a scalar."""
        s, t = self.views(student, teacher)
        self.notice("distances", lambda: self._constant(full(s), edge_index))
        if self.pairs == "edges":
            linked = remove_self_loops(edge_index)[0]
            pairs, triples = linked, wedges(linked)
        else:
            generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
            pairs, triples = (all_or_sampled(len(s), size, self.samples, generator, s.device) for size in (2, 3))
        return self.distance * rkd_distance(s, t, pairs) + self.angle * rkd_angle(s, t, triples)

    @torch.no_grad()
    def _constant(self, student: Tensor, edge_index: Tensor) -> str:
        """Say why the loss does not move where it stands, if it does not."""
        if self.pairs == "edges" and remove_self_loops(edge_index)[0].size(1) == 0:
            return "RKD: there is no edge between two nodes, so the loss is 0; give it a graph, or take pairs=sampled"
        if student.size(0) < 2:
            return "RKD: one node has no pairs, so the loss is 0; give it more nodes"
        if float((student - student[:1]).square().sum(-1).max()) <= SHORTEST:
            return (
                f"RKD: the student's {self.of} are the same for every node, where a distance has no gradient; "
                "begin from a random layer, or let another loss come first (warmup)"
            )
        return ""


LOSSES = (LSP, RKD)
"""The losses of this family; a new one is found by its name from here on."""
