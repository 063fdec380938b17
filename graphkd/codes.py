"""VQGraph: codes for what surrounds a node, found in a teacher's hidden layer, and likeness to them as a target.

Yang et al., 2024, arXiv:2308.02117. The teacher's hidden layer has seen a node's neighbourhood; codes [K, H] stand for
the kinds of neighbourhood there are. There are more of them than classes, so they say more of a node than its class.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphkd.checks import WIDEST, finite, full, matrix, nodes, not_negative, options, whole
from graphkd.logit import kl, log_probs
from graphkd.signals import Signals
from graphkd.similarity import Hint

MOST_CODES = 16_384
"""The paper's largest codebook."""
NOTHING_NEW = 1e-6
"""One less the cosine to the nearest code of the row that is farthest from all: below, there is no further kind."""


def cosines(h: Tensor, codes: Tensor) -> Tensor:
    """Return how alike each row and each code are, [N, K] in [-1, 1]; a row of zeros is like none."""
    return F.normalize(full(h), dim=-1) @ F.normalize(full(codes), dim=-1).t()


def soft_codes(h: Tensor, codes: Tensor, temperature: float = 0.1) -> Tensor:
    """Return the soft code assignments log softmax(cos(h, e) / τ), [N, K] in nats."""
    return log_probs(cosines(h, codes), temperature)


@torch.no_grad()
def codebook(h: Tensor, size: int = 128, steps: int = 20) -> Tensor:
    """Return at most `size` directions that stand for the rows of a teacher's hidden layer [N, H], as [K, H].

    Each step moves a code to the mean direction of the rows that are nearest to it by cosine: the codebook's part of
    the tokenizer's loss, ‖sg[h] - e‖², of rows of length 1, all of which is left of that loss where the teacher is
    trained already (the reconstructions of features and edges, and the commitment, move the teacher). The first codes
    are rows, each the farthest from those before it; nothing is drawn, and the order of the nodes does not matter.
    """
    rows = F.normalize(full(h.detach()), dim=-1)
    codes = rows[_farthest(rows, size)]
    for _ in range(steps):
        nearest = (rows @ codes.t()).argmax(-1)
        total = torch.zeros_like(codes).index_add_(0, nearest, rows)
        moved = F.normalize(total, dim=-1)
        codes = torch.where(total.norm(dim=-1, keepdim=True) > 0, moved, codes)  # one that nobody is near stays
    return codes


def _farthest(rows: Tensor, size: int) -> Tensor:
    """Return the numbers of rows that are unlike each other, the first the one farthest from the mean."""
    nearest = torch.where((rows == 0).all(-1), torch.inf, -torch.inf).to(rows.dtype)  # nothing points nowhere
    chosen = [(rows @ rows.mean(0) + nearest.clamp(min=0)).argmin()]
    while True:
        nearest = torch.maximum(nearest, rows @ rows[chosen[-1]])
        farthest = nearest.argmin()
        if len(chosen) == size or nearest[farthest] > 1 - NOTHING_NEW:
            return torch.stack(chosen)
        chosen.append(farthest)


class VQGraph(Hint):
    """Learn which codes a node's surroundings are like (VQGraph; Yang et al., 2024, arXiv:2308.02117), [N] in nats.

    KL(softmax(cos(h_teacher, e) / τ) ‖ softmax(cos(W h + b, e) / τ)) of the last hidden layers, over the codes e that
    `prepare` finds in the teacher's (`codebook`), or those that `codes` was set to; W is trained along. It is to stand
    beside a loss on logits, such as GLNN. Where it differs: the paper trains its codes within a teacher made for them
    (`Tokenizer`); of that, a teacher that is trained already leaves nothing but `codebook`. Likeness is the cosine for
    both models (the authors' code takes distances for the student), and there is no τ², since τ scales a likeness that
    is bounded. `prepare` must see all of the teacher's nodes that are to count.
    """

    synonyms: ClassVar[set[str]] = set()
    search: ClassVar[dict[str, Any]] = {"size": [32, 128, 512], "temperature": (0.03, 1.0, "log")}
    found: ClassVar[str] = "codes"
    codes: Tensor

    def __init__(
        self,
        size: int = 128,
        temperature: float = 0.1,
        hidden_channels: int | None = None,
        teacher_channels: int | None = None,
    ):
        super().__init__(hidden_channels, teacher_channels)
        options(temperature=temperature)
        whole("size", size, 2, MOST_CODES)
        self.size, self.temperature = size, temperature
        self.register_buffer("codes", torch.empty(0, 0))

    def prepare(self, student: Signals, teacher: Signals | None = None) -> None:
        """Create the map between these layers and find the codes, where there are none yet.

        Raises:
            ValueError: these are no signals of two models with hidden layers, or the teacher's has no finite rows.
        """
        super().prepare(student, teacher)
        if teacher is not None and not self.codes.numel():
            h = matrix("VQGraph: teacher.hidden", teacher.hidden[-1])
            if not len(h):
                raise ValueError("VQGraph: the teacher has no nodes to find codes in")
            self.codes = codebook(finite("VQGraph: teacher.hidden", h), self.size)

    def compute(self, student: Signals, teacher: Signals, target: Tensor, edge_index: Tensor) -> Tensor:
        """Return nats per node, [N]."""
        mapped, wanted = self.mapped(student, teacher), teacher.hidden[-1]
        if self.codes.size(1) != wanted.size(1):
            raise ValueError(
                f"VQGraph has codes {list(self.codes.shape)}, the teacher's hidden layer {wanted.size(1)} columns; "
                "call prepare, or give it a codebook(h)"
            )
        p, q = (soft_codes(h, self.codes, self.temperature) for h in (wanted, mapped))
        return kl(p, q)


class Tokens(NamedTuple):
    """What a tokenizer makes of a hidden layer."""

    hidden: Tensor
    """[N, H], each row the code nearest to it, at its own length; the gradient passes as if nothing had been done."""
    nearest: Tensor
    """[N], that code's number."""
    loss: Tensor
    """A scalar, to be added to the teacher's loss."""


class Tokenizer(nn.Module):
    """A codebook that is learned along with a teacher (VQGraph; Yang et al., 2024, arXiv:2308.02117, eq. 2 and 3).

    Put it behind a hidden layer: the teacher goes on with `hidden`, and adds `loss` to its own, which is the sum of
    ‖sg[h] - e‖² and `commitment` ‖h - sg[e]‖² for rows of length 1, of 1 - cos(x, x̂) with the features x̂ decoded from
    the codes, and of the squared error of σ(â_i · â_j), decoded likewise, on edges (1) and on as many random pairs (0),
    drawn from torch's generator; each a mean. Where it differs: the paper's error of all pairs is on [N, N], its code's
    codebook follows moving averages, and its code decodes the teacher's hidden layer instead of the features. Then
    `VQGraph.codes` is set to `codes.detach()`.

    Args:
        hidden_channels: H, of the hidden layer.
        in_channels: F, of the features.
        size: codes K; `prepare(h)` brings them where the rows are, before the optimiser is built.
        commitment: how strongly rows are held to their codes.

    Raises:
        ValueError: a size is no whole number above 0, or `commitment` is negative.
    """

    def __init__(self, hidden_channels: int, in_channels: int, size: int = 128, commitment: float = 0.25):
        super().__init__()
        for name, width in (("hidden_channels", hidden_channels), ("in_channels", in_channels)):
            whole(f"Tokenizer: {name}", width, 1, WIDEST)
        whole("Tokenizer: size", size, 2, MOST_CODES)
        not_negative("Tokenizer: commitment", commitment)
        self.commitment = commitment
        self.codes = nn.Parameter(F.normalize(torch.randn(size, hidden_channels), dim=-1))
        self.features, self.edges = nn.Linear(hidden_channels, in_channels), nn.Linear(hidden_channels, hidden_channels)

    @torch.no_grad()
    def prepare(self, h: Tensor) -> None:
        """Put the codes where rows [N, H] are; where there are fewer kinds of them than codes, the rest stay.

        Raises:
            ValueError: these are no finite rows of that width.
        """
        found = codebook(self._layer(h), len(self.codes))
        self.codes[: len(found)] = found.to(self.codes)

    def forward(self, h: Tensor, x: Tensor, edge_index: Tensor) -> Tokens:
        """Quantise a hidden layer [N, H] of a graph with features [N, F].

        Raises:
            ValueError: an argument is none of these.
        """
        h = self._layer(h)
        x = matrix("Tokenizer: x", x, len(h))
        if x.size(1) != self.features.out_features:
            raise ValueError(f"Tokenizer: x must have {self.features.out_features} columns, got {list(x.shape)}")
        edge_index = nodes("Tokenizer: edge_index", edge_index, 2, len(h))
        nearest = cosines(h, self.codes).argmax(-1)
        codes, rows = F.normalize(self.codes, dim=-1)[nearest], F.normalize(h, dim=-1)
        found = h + (codes * h.norm(dim=-1, keepdim=True) - h).detach()
        kept = (rows.detach() - codes).square().sum(-1) + self.commitment * (rows - codes.detach()).square().sum(-1)
        passed = rows + (codes - rows).detach()
        again = 1 - F.cosine_similarity(self.features(passed), x, dim=-1)
        return Tokens(found, nearest, kept.mean() + again.mean() + self._linked(passed, edge_index))

    def _linked(self, rows: Tensor, edge_index: Tensor) -> Tensor:
        """Return the error of which nodes are linked, a scalar; 0 without edges."""
        decoded, count = self.edges(rows), edge_index.size(1)
        pairs = torch.cat([edge_index, torch.randint(len(rows), (2, count), device=rows.device)], dim=1)
        wanted = (torch.arange(2 * count, device=rows.device) < count).to(rows.dtype)
        said = (decoded[pairs[0]] * decoded[pairs[1]]).sum(-1).sigmoid()
        return (said - wanted).square().sum() / max(1, count)

    def _layer(self, h: Tensor) -> Tensor:
        """Check a hidden layer."""
        h = finite("Tokenizer: h", matrix("Tokenizer: h", h))
        if not len(h) or h.size(1) != self.codes.size(1):
            raise ValueError(f"Tokenizer: h must be [N, {self.codes.size(1)}] with a node or more, got {list(h.shape)}")
        return h


LOSSES = (VQGraph,)
"""The losses of this family; a new one is found by its name from here on."""
