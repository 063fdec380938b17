"""An MLP on features averaged over the neighbourhood: SIGN (Frasca et al., 2020, arXiv 2004.11198).

Nothing is passed along edges while it trains. Its averages are made once (`mowst.models.averages`), and then a node is
a row like any other: where it is trained on its own, the rows of nodes with a label are all that is run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.resolver import normalization_resolver

from mowst.kernels import Averaged, norm_relu_dropout
from mowst.models.averages import averages
from mowst.models.known import Known
from mowst.models.options import layers, probability, whole
from mowst.models.reads import Reads, is_node_wise, suited_features


class Sign(nn.Module):
    """Ω(σ([X Θ_0, P X Θ_1, ..., P^K X Θ_K])), with P the average over neighbours and Ω an MLP (equation 4).

    Args:
        in_channels, hidden_channels, out_channels, dropout, norm, norm_kwargs: as in PyG's models.
        num_layers: linear maps that a node's features go through: Θ is one, the rest are Ω's; with one, Σ_k P^k X Θ_k.
        hops: K, averages over neighbours that are taken one after the other.

    Its edges have no gradient, since they are looked at once: PyG's explainers can explain its features alone.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        dropout: float = 0.5,
        norm: str | None = None,
        norm_kwargs: Mapping[str, Any] | None = None,
        *,
        hops: int = 3,
    ):
        super().__init__()
        self.in_channels, self.out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.hidden_channels, self.hops = whole("hidden_channels", hidden_channels), whole("hops", hops, most=64)
        self.num_layers = layers("num_layers", num_layers)
        self.dropout = nn.Dropout(probability("dropout", dropout))
        first = hidden_channels if num_layers > 1 else out_channels
        self.maps = nn.ModuleList(nn.Linear(in_channels, first) for _ in range(hops + 1))
        widths = [(hops + 1) * hidden_channels, *[hidden_channels] * (num_layers - 2)][: num_layers - 1]
        norms = (normalization_resolver(norm, width, **(norm_kwargs or {})) for width in widths)
        self.norms = nn.ModuleList(layer or nn.Identity() for layer in norms)
        self.lins = nn.ModuleList(map(nn.Linear, widths, [*widths[1:], out_channels]))
        self.by_row = all(map(is_node_wise, self.norms))
        self.reads = Reads(hops if self.by_row else None, adjacency=True, sparse=True, weights=True, averages=True)

    def forward(self, x: Tensor, edge_index: Tensor, *, averaged: Sequence[Tensor] | None = None) -> Tensor:
        """[N, F], [2, E] -> [N, C]; the edges are not looked at where `averaged`, [N, F] by hop, is known."""
        own = x.features if isinstance(x, Averaged) else x
        seen = [own, *(averages(x, edge_index, self.hops) if averaged is None else averaged)]
        mapped = [linear(each) for linear, each in zip(self.maps, seen, strict=True)]
        x = torch.cat(mapped, dim=-1) if len(self.lins) else torch.stack(mapped).sum(0)
        for norm, linear in zip(self.norms, self.lins, strict=True):
            x = linear(norm_relu_dropout(norm, x, self.dropout.p, self.dropout.training))
        return x

    @torch.no_grad()
    def known(self, x: Tensor, edge_index: Tensor, trains: Collection[str]) -> Known:
        """Return the averages, which no training changes, unless the features bring them along."""
        if isinstance(x, Averaged):
            return Known()
        x = suited_features(self.reads, x)
        return Known(averaged=tuple(averages(x, edge_index, self.hops)))

    def reach(self, known: Known) -> int | None:
        """Return from how many edges away anything is read once this is known: from none, where the averages are."""
        return self.reads.hops if self.reads.hops is None or not known.averaged else 0
