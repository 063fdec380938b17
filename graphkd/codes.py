"""VQGraph: codes for what surrounds a node, found in a teacher's hidden layer, and likeness to them as a target.

Yang et al., 2024, arXiv:2308.02117. The teacher's hidden layer has seen a node's neighbourhood; codes [K, H] stand for
the kinds of neighbourhood there are. There are more of them than classes, so they say more of a node than its class.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from graphkd.checks import finite, full, matrix, options, whole
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
    chosen, nearest = [(rows @ rows.mean(0)).argmin()], rows.new_full((len(rows),), -torch.inf)
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
    beside a loss on logits, such as GLNN. Where it differs: the paper trains its codes within a teacher made for them,
    with reconstructions; of that, a teacher that is trained already leaves nothing but `codebook`. Likeness is the
    cosine for both models (the authors' code takes distances for the student), and there is no τ², since τ scales a
    likeness that is bounded. `prepare` must see all of the teacher's nodes that are to count.
    """

    synonyms: ClassVar[set[str]] = set()
    search: ClassVar[dict[str, Any]] = {"size": [32, 128, 512], "temperature": (0.03, 1.0, "log")}
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


LOSSES = (VQGraph,)
"""The losses of this family; a new one is found by its name from here on."""
