"""Node features that know their averages over the neighbourhood, so that a node's row is all that is asked of a graph.

`Averaged` goes where features go, and is the features to everyone who does not ask for more, as `Tabled` is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mowst.kernels.sparse_features import Factor, dense, rows_of

Hop = Callable[[int], Tensor]
"""From a number of hops, from 1, to features averaged over them, [N, F]."""


class Averaged(Factor):
    """Features [N, F] with a function that returns them averaged over so many hops."""

    features: Tensor
    hop: Hop
    nodes: Tensor | None
    unit_hop: Callable[[], Hop] | None

    @staticmethod
    def __new__(
        cls, features: Tensor, hop: Hop, nodes: Tensor | None = None, unit_hop: Callable[[], Hop] | None = None
    ) -> Averaged:
        """Put the averages beside the features, dense or prepared.

        Args:
            features: [N, F].
            hop: returns the averages over so many hops.
            nodes: which rows of the averages are theirs; none: all in order.
            unit_hop: returns another such function, of averages of the features with `unit_rows`.
        """
        self: Averaged = Tensor._make_wrapper_subclass(
            cls, features.shape, dtype=features.dtype, device=features.device
        )
        self.features, self.hop, self.nodes, self.unit_hop = features, hop, nodes, unit_hop
        return self

    def beside_unit(self, features: Tensor) -> Averaged:
        """Return the features with unit rows, [N, F], with the averages of such features."""
        assert self.unit_hop is not None, "nothing says where averages of features with unit rows are"
        return Averaged(features, self.unit_hop(), self.nodes)

    def averages(self, hops: int) -> list[Tensor]:
        """Return the features averaged over 1 to `hops` hops, dense, [N, F] each; they are read now."""
        found = [self.hop(hop) for hop in range(1, hops + 1)]
        if self.nodes is not None:
            nodes = self.nodes.cpu()
            found = [each.index_select(0, nodes) for each in found]
        return [each.to(self.device) for each in found]

    def dense(self) -> Tensor:
        """Return the features alone, dense."""
        return dense(self.features)

    def times(self, x: Tensor) -> Tensor:
        """Multiply the features by a dense matrix [F, H]."""
        return self.features @ x

    def take(self, index: Tensor) -> Tensor:
        """Return rows [n], with their averages, which are not read yet."""
        nodes = index if self.nodes is None else self.nodes[index]
        return Averaged(rows_of(self.features, index), self.hop, nodes, self.unit_hop)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Return it with the features on another device; the averages stay where they are until they are read."""
        return Averaged(self.features.to(*args, **kwargs), self.hop, self.nodes, self.unit_hop)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Keep the averages beside copies."""
        if func is torch.ops.aten.clone.default:
            return Averaged(args[0].features.clone(), args[0].hop, args[0].nodes, args[0].unit_hop)
        return super().__torch_dispatch__(func, types, args, kwargs)
