"""Experts that learn by themselves, in one go, and not by gradients.

Such an expert is a module like any other, `(x, edge_index) -> logits [N, C]`, whose buffers hold what it has learned:
they are saved, copied and put back as weights are. Its first buffers are empty; `Learned` lets them take any size.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

ABSENT = 1e-4
"""Probability of a class that an expert has seen no node of."""


class Judged(NamedTuple):
    """Nodes by which an expert may choose how long it learns, and their labels."""

    nodes: Tensor
    """[n] ids."""
    y: Tensor
    """[n]"""


@runtime_checkable
class Learner(Protocol):
    """An expert that learns by itself."""

    def learn(self, x: Tensor, graph: Tensor, y: Tensor, judged: Judged | None, rounds: int) -> int:
        """Learn from scratch, and return after how many rounds it stands.

        Args:
            x: features [N, F], as a graph is prepared.
            graph: an `Adjacency` or an `edge_index`.
            y: labels [N], below 0 where none is to be seen.
            judged: chooses the number of rounds; none: all of them are taken.
            rounds: at most so many.
        """


class Learned(nn.Module):
    """A module whose buffers have the size of what was learned: it takes a state of any size."""

    sizes: ClassVar[dict[str, torch.dtype]] = {}
    """Types of its buffers by name."""

    def __init__(self) -> None:
        super().__init__()
        for name, dtype in self.sizes.items():
            self.register_buffer(name, torch.empty(0, dtype=dtype))

    def hold(self, **found: Tensor) -> None:
        """Put what was learned in place."""
        for name, value in found.items():
            self.register_buffer(name, value.to(self.sizes[name]))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self.sizes:
            if prefix + name in state_dict:
                held = self.get_buffer(name)
                self.register_buffer(name, torch.empty_like(state_dict[prefix + name], device=held.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
