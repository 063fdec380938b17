"""Graph attention as a sparse product whose entries are learned.

PyG's GAT layer gathers what is sent along every edge, [E, H, C], weighs it, and scatters it; its gradient does so once
more. On a CPU nearly all of its time is that memory. Here the weights of a head are the entries of the adjacency's
rows, the layer is their product with the nodes, and no message is ever written down: the gradient with respect to the
nodes is the product with the transpose, that with respect to the weights a product sampled at the edges. On a CUDA
device kernels that do not even write the weights down are taken where they pay (`mowst.kernels.row_attention`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.nn import GATConv, MessagePassing
from torch_geometric.nn.models import GAT as PyGGAT

from mowst.kernels.adjacency import Adjacency
from mowst.kernels.choosing import by_triton, milliseconds, pays, worth_trying
from mowst.kernels.sparse import Rows

DEVICES = ("cpu", "cuda")
"""Kinds of device on which attention is computed by products; on others PyG's own way is taken."""

Way = Callable[..., Tensor]
"""Takes what `attend` takes, nodes [M, H, C] and scores in float32 or finer."""

with warnings.catch_warnings():  # The first tensor of this layout in a process says once that the layout is in beta.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)


class _Softmax(torch.autograd.Function):
    """Softmax over the edges into each node of leaky_relu(source + target), one head after the other."""

    @staticmethod
    def forward(adjacency: Adjacency, source: Tensor, target: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        rows = adjacency.rows
        before = source.index_select(1, rows.column) + spread(target, rows)
        weights = torch.empty_like(before)
        for head, score in enumerate(F.leaky_relu(before, slope)):
            score -= spread(reduced(score, rows, "max"), rows)
            torch.div(score.exp_(), spread(reduced(score, rows, "sum"), rows), out=weights[head])
        return weights, before > 0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.adjacency, *_, ctx.slope = inputs
        ctx.save_for_backward(*output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[None, Tensor, Tensor, None]:
        weights, positive = ctx.saved_tensors
        rows, columns, turn = ctx.adjacency.rows, ctx.adjacency.columns, ctx.adjacency.turn
        heads, (n, m) = len(weights), ctx.adjacency.shape
        source, target = gradient.new_empty(heads, m), gradient.new_empty(heads, n)
        for head, (weight, above) in enumerate(zip(weights, positive, strict=True)):
            pushed = weight * gradient[head]
            pushed -= weight * spread(reduced(pushed, rows, "sum"), rows)
            pushed = torch.where(above, pushed, ctx.slope * pushed)
            target[head] = reduced(pushed, rows, "sum")
            source[head] = reduced(pushed.index_select(0, turn), columns, "sum")
        return None, source, target, None


class _Weighted(torch.autograd.Function):
    """For each head, the adjacency with these entries times the nodes."""

    @staticmethod
    def forward(adjacency: Adjacency, weights: Tensor, x: Tensor) -> Tensor:
        return torch.stack([times(adjacency.rows, entries, each) for entries, each in zip(weights, x, strict=True)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.adjacency, *saved = inputs
        ctx.save_for_backward(*saved)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        weights, x = ctx.saved_tensors
        adjacency, gradient = ctx.adjacency, gradient.contiguous()
        rows, dtype = adjacency.rows, weights.dtype
        entries, nodes = torch.empty_like(weights), torch.empty_like(x)
        for head, pushed in enumerate(gradient):
            entries[head] = at_entries(rows, pushed.to(dtype), x[head].to(dtype))
            nodes[head] = times(adjacency.columns, weights[head].index_select(0, adjacency.turn), pushed)
        return None, entries, nodes


_softmax: Callable[..., tuple[Tensor, Tensor]] = _Softmax.apply
_weighted: Callable[..., Tensor] = _Weighted.apply


def spread(x: Tensor, rows: Rows) -> Tensor:
    """Repeat the number of each row, [..., N], for each of its entries, [..., E]."""
    return x.index_select(-1, rows.row)


def reduced(entries: Tensor, rows: Rows, how: str) -> Tensor:
    """Reduce the entries [E] of each row to one number, [N]."""
    return torch.segment_reduce(entries, how, offsets=rows.start.long())


def times(rows: Rows, entries: Tensor, x: Tensor) -> Tensor:
    """Multiply the rows, with these entries [E], by `x` [N, C] in its precision."""
    return Rows(rows.start, rows.column, entries).times(x)


def at_entries(rows: Rows, left: Tensor, right: Tensor) -> Tensor:
    """Return left @ right.T of [N, C] and [N, C] at the entries of the rows alone, [E]."""
    zeros, shape = left.new_zeros(len(rows.column)), (len(left), len(right))  # 0 times not-a-number would stay
    pattern = torch.sparse_csr_tensor(rows.start, rows.column, zeros, shape, check_invariants=False)
    return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()


def with_loops(adjacency: Adjacency) -> Adjacency:
    """Return the edges with one from every target to itself; of a graph, [N, N], they are kept."""
    n, m = adjacency.shape
    if n == m:
        return adjacency.gcn()
    (target, source), each = adjacency.rows.entries(), torch.arange(n, device=adjacency.device)
    others = target != source
    entries = torch.cat([target[others], each]), torch.cat([source[others], each])
    return Adjacency(Rows.from_entries(*entries, None, (n, m)), m, adjacency.dtype)


def attend(
    adjacency: Adjacency, x: Tensor, source: Tensor, target: Tensor, *, slope: float = 0.2, dropout: float = 0.0
) -> Tensor:
    """Average what nodes say over the edges into each node, by attention (arXiv 1710.10903, equations 3 to 5).

    Args:
        adjacency: [N, M], whose structure alone counts; targets and sources are the same nodes, or these come first.
        x: [M, H, C] what each node says to its neighbours, by head.
        source, target: [M, H], [N, H] scores of a node as source and as target; the weight of an edge is the softmax
            of leaky_relu(source + target), over the edges into the same target.
        slope: of the leaky ReLU below zero.
        dropout: probability of dropping an edge of a head.

    Returns: [N, H, C]; zeros where no edge leads.
    """
    kept = torch.promote_types(x.dtype, torch.float32)
    source, target = source.to(kept), target.to(kept)
    way = _own(adjacency, (x, source, target), slope) or by_products
    return way(adjacency, x, source, target, slope=slope, dropout=dropout)


def by_products(
    adjacency: Adjacency, x: Tensor, source: Tensor, target: Tensor, *, slope: float, dropout: float
) -> Tensor:
    """Do what `attend` does, by products, one head after the other."""
    weights, _ = _softmax(adjacency, source.t().contiguous(), target.t().contiguous(), slope)
    weights = F.dropout(weights, dropout, training=dropout > 0)
    return _weighted(adjacency, weights, x.transpose(0, 1).contiguous()).transpose(0, 1)


def own_attention() -> Way | None:
    """Return our own kernels for attention; none where there is no Triton."""
    module = by_triton("row_attention")
    return None if module is None else module.attend_by_rows


def _own(adjacency: Adjacency, given: tuple[Tensor, ...], slope: float) -> Way | None:
    """Return our own kernels where they were found to pay; tried where gradients are computed, too."""
    found, x = adjacency.rows.own, given[0]
    kind = "attention", x.dtype, *x.shape[1:]
    if kind not in found and torch.is_grad_enabled() and x.requires_grad and worth_trying(x):
        found[kind] = _paying(adjacency, given, slope)
    return found.get(kind)


def _paying(adjacency: Adjacency, given: tuple[Tensor, ...], slope: float) -> Way | None:
    """Return our own kernels if they pay for nodes and scores like these."""
    own = own_attention()
    if own is None:
        return None
    ours, theirs = (partial(_there_and_back, way, adjacency, given, slope) for way in (own, by_products))
    return own if pays(ours, theirs, milliseconds) else None


def _there_and_back(way: Way, adjacency: Adjacency, given: tuple[Tensor, ...], slope: float) -> tuple[Tensor, ...]:
    """Return the output of attention, and the gradients of its squares: for nodes, and for sources and targets in one.

    A softmax asks for no common height of its scores: alone, the gradient for targets can be next to nothing.
    """
    leaves = [each.detach().requires_grad_() for each in given]
    out = way(adjacency, *leaves, slope=slope, dropout=0.0)
    nodes, *scores = torch.autograd.grad(out, leaves, out.detach())
    return out.detach(), nodes, torch.cat(scores)


class AttentionConv(GATConv):
    """PyG's GAT layer, which on a prepared adjacency attends by products; elsewhere it is PyG's as it is.

    It is PyG's, too, while a layer is being explained (`torch_geometric.explain`), edge by edge.
    """

    propagate = MessagePassing.propagate  # PyG compiles it; left to GATConv's compiled one it could not explain

    def forward(self, x: Any, edge_index: Tensor, *args: Any, **kwargs: Any) -> Any:
        """[N, F], [2, E] or an `Adjacency` [N, N] -> [N, H * C], or [N, C] where heads are averaged.

        As PyG's, it takes a pair, too: the features of sources [M, F] and of targets [N, F], with [N, M] edges.
        """
        if not isinstance(edge_index, Adjacency):
            return super().forward(x, edge_index, *args, **kwargs)
        plain = self.flow == "source_to_target" and self.lin is not None
        seen, own = x if isinstance(x, tuple) else (x, x)
        asked = self.explain or any(value is not None for value in (*args, *kwargs.values()))
        if asked or not plain or own is None or edge_index.device.type not in DEVICES:
            return super().forward(x, edge_index.edge_index, *args, **kwargs)
        heads = self.lin(seen).view(-1, self.heads, self.out_channels)
        theirs = heads if own is seen else self.lin(own).view(-1, self.heads, self.out_channels)
        source, target = (heads * self.att_src).sum(-1), (theirs * self.att_dst).sum(-1)
        adjacency = with_loops(edge_index) if self.add_self_loops else edge_index
        dropout = self.dropout if self.training else 0.0
        out = attend(adjacency, heads, source, target, slope=self.negative_slope, dropout=dropout)
        out = out.flatten(1) if self.concat else out.mean(1)
        out = out if self.res is None else out + self.res(own)
        return out if self.bias is None else out + self.bias.to(out.dtype)


class GAT(PyGGAT):
    """PyG's GAT with layers that take a prepared adjacency; those of its second version are PyG's own."""

    def init_conv(self, in_channels: Any, out_channels: int, **kwargs: Any) -> GATConv:
        """Make a layer, as PyG's models do."""
        conv = super().init_conv(in_channels, out_channels, **kwargs)
        if type(conv) is GATConv:
            conv.__class__ = AttentionConv  # it has the same parameters, and nothing to set up
        return conv
