"""Weak and strong experts by name: modules `(x [N, F], edge_index) -> logits [N, C]`.

PyG's models are used as they are where they can be. Ours differ in this: GCN layers expect an adjacency that is
normalised already, and the model normalises it once per call (once per graph for a prepared `Adjacency`) instead of
once per layer; they multiply by it on their narrower side; GAT layers attend by products (`mowst.kernels.attention`);
and ReLU with dropout behind it is one step, with a batch norm before it, too.

| name     | model                                                                           |
|----------|---------------------------------------------------------------------------------|
| mlp      | PyG's MLP, which sees a node's own features only                                |
| gcn      | PyG's GCN (Kipf & Welling, 2017, arXiv 1609.02907)                              |
| sage     | PyG's GraphSAGE, mean aggregation (Hamilton et al., 2017, arXiv 1706.02216)     |
| gin      | PyG's GIN (Xu et al., 2019, arXiv 1810.00826)                                   |
| gat      | PyG's GAT (Veličković et al., 2018, arXiv 1710.10903)                           |
| gin-skip | GIN layers with skip connections, as in the Mowst paper                         |
| gcn-res, sage-res, gat-res | skip connections and the other options of Luo et al., 2024, arXiv 2406.08993 |
| trees    | boosted trees on a node's own features (`mowst.models.trees`)                   |
| hop-trees | boosted trees on features averaged over 0, 1 and 2 hops                        |
| sign     | an MLP on features averaged over 0 to 3 hops (`mowst.models.sign`)                 |
| neighbours | the classes of labelled nodes around (`mowst.models.neighbours`)              |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, MessagePassing, SAGEConv
from torch_geometric.nn.models import GCN as PyGCN
from torch_geometric.nn.models import GIN, MLP, GraphSAGE
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.nn.resolver import normalization_resolver

from mowst.errors import InputError
from mowst.kernels import GAT, norm_relu_dropout, normalized, normalized_edges
from mowst.models.layers import PAIRED, NarrowGCNConv, gat_conv, gin_conv
from mowst.models.neighbours import Neighbours
from mowst.models.one_step import in_one_step
from mowst.models.options import layers, one_line, probability, shown, whole
from mowst.models.reads import (
    Reads,
    goes_by_rows,
    is_node_wise,
    keeps_to_its_hops,
    multiplies_first,
    only_multiplies,
    weighs,
)
from mowst.models.rings import inward
from mowst.models.sign import Sign
from mowst.models.trees import Trees
from mowst.names import Names


class EdgelessMLP(MLP):
    """PyG's MLP called like a GNN; its own second argument would take the edges for a batch vector.

    With a norm over all nodes (graph norm, pair norm) it can no more be run for some of them alone than a GNN.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        strange = sorted(
            kwargs.keys() - inspect.signature(MLP.__init__).parameters.keys() - {"batch_norm", "relu_first"}
        )
        if strange:  # PyG's swallows what it does not know
            raise TypeError(f"got an unexpected keyword argument {strange[0]!r}")
        super().__init__(*args, **kwargs)
        self.reads = Reads(0 if all(map(is_node_wise, self.norms)) else None, sparse=True)

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """[N, F] -> [N, C]; the edges are not looked at."""
        return super().forward(x)


class GCN(PyGCN):
    """PyG's GCN on an adjacency that is normalised once per call, not once per layer; plain edges or an `Adjacency`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        known = type(self).forward is GCN.forward and keeps_to_its_hops(self)
        by_layer, hops = known and self.jk_mode in (None, "last"), int(self.num_layers) if known else None
        ringed = {"by_ring": known, "looked_up": known and multiplies_first(self.convs[0])}
        form = {"adjacency": True, "sparse": True, "normalised": True, "weights": True}
        self.reads = Reads(hops, by_layer=by_layer, by_block=by_layer, **ringed, **form)

    def init_conv(self, in_channels: int, out_channels: int, **kwargs: Any) -> GCNConv:
        """Make a layer, as PyG's models do."""
        return NarrowGCNConv(in_channels, out_channels, **kwargs)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, F], [2, E] -> [N, C]."""
        return super().forward(x, *normalized_for(self.convs, x, edge_index))

    def inference_per_layer(self, layer: int, x: Any, edge_index: Tensor, batch_size: int) -> Tensor:
        """One layer for the first nodes, as PyG's models have it; of a pair the sources are all that it looks at."""
        return super().inference_per_layer(layer, x[0] if isinstance(x, tuple) else x, edge_index, batch_size)


class Residual(nn.Module):
    """Graph convolutions with skip connections between a linear layer in front (if asked for) and one behind.

    Each layer is dropout(relu(norm(conv(h) + W h))), the skip optional; the layout of Luo et al., 2024
    (arXiv 2406.08993), with which plain GNNs reach what is published for them.

    Args:
        conv: `(in_channels, out_channels, **options) -> MessagePassing`.
        in_channels, hidden_channels, out_channels, num_layers, dropout, norm, norm_kwargs: as in PyG's models;
            `num_layers` counts convolutions.
        pre_linear: a linear layer in front of the first convolution.
        residual: the skip connection W h.
        normalize: whether the convolutions expect a GCN-normalised adjacency.
        options: of every convolution.
    """

    def __init__(
        self,
        conv: Callable[..., MessagePassing],
        in_channels: int,
        hidden_channels: int,
        num_layers: int,
        out_channels: int,
        dropout: float = 0.5,
        norm: str | None = "layer_norm",
        norm_kwargs: Mapping[str, Any] | None = None,
        *,
        pre_linear: bool = False,
        residual: bool = True,
        normalize: bool = False,
        **options: Any,
    ):
        super().__init__()
        if not callable(conv):
            raise InputError(f"conv must be a class of convolutions, or a function that makes one, got {shown(conv)}")
        self.in_channels, self.out_channels = whole("in_channels", in_channels), whole("out_channels", out_channels)
        self.hidden_channels = hidden_channels = whole("hidden_channels", hidden_channels)
        self.num_layers, self.normalize = layers("num_layers", num_layers), normalize
        self.lin_in = nn.Linear(in_channels, hidden_channels) if pre_linear else None
        first = hidden_channels if pre_linear else in_channels
        widths = [first, *[hidden_channels] * (num_layers - 1)]
        self.convs = nn.ModuleList(conv(width, hidden_channels, **options) for width in widths)
        self.skips = nn.ModuleList(nn.Linear(width, hidden_channels) for width in widths) if residual else None
        norm_kwargs = norm_options(norm) if norm_kwargs is None else norm_kwargs
        norms = (normalization_resolver(norm, hidden_channels, **norm_kwargs) for _ in widths)
        self.norms = nn.ModuleList(layer or nn.Identity() for layer in norms)
        self.dropout = nn.Dropout(probability("dropout", dropout))
        self.lin_out = nn.Linear(hidden_channels, out_channels)
        self.reads = self._read()

    def _read(self) -> Reads:
        """Find out what it reads."""
        known = type(self).forward is Residual.forward and keeps_to_its_hops(self)
        adjacency = all(map(only_multiplies, self.convs))
        return Reads(
            hops=self.num_layers if known else None,
            adjacency=adjacency,
            sparse=True,
            normalised=self.normalize,
            by_layer=known,
            by_block=known and adjacency and self.lin_in is None and all(map(goes_by_rows, self.convs)),
            weights=adjacency and any(map(weighs, self.convs)),
            by_ring=known and adjacency,
            looked_up=known and adjacency and self.lin_in is None and multiplies_first(self.convs[0]),
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, F], [2, E] -> [N, C]."""
        graph, *weight = normalized_for(self.convs, x, edge_index) if self.normalize else (edge_index,)
        x = self._enter(x)
        for layer, conv in enumerate(self.convs):
            seen, own, edges = inward(conv, x, graph, self.num_layers - layer)
            x = self._update(layer, conv(seen, edges, *weight), own)
        return self.lin_out(x)

    def inference_per_layer(self, layer: int, x: Any, edge_index: Tensor, batch_size: int) -> Tensor:
        """One layer for the first nodes, as PyG's models offer it; `x` is [N, F], or a pair of sources and targets."""
        if layer == 0:
            x = tuple(map(self._enter, x)) if isinstance(x, tuple) else self._enter(x)
        own = x[1] if isinstance(x, tuple) else x[:batch_size]
        if isinstance(x, tuple) and not isinstance(self.convs[layer], PAIRED):
            x = x[0]
        out = self._update(layer, self.convs[layer](x, edge_index)[:batch_size], own)
        return self.lin_out(out) if layer == self.num_layers - 1 else out

    def _enter(self, x: Tensor) -> Tensor:
        return x if self.lin_in is None else self.dropout(self.lin_in(x))

    def _update(self, layer: int, passed: Tensor, own: Tensor) -> Tensor:
        x = passed if self.skips is None else passed + self.skips[layer](own)
        return norm_relu_dropout(self.norms[layer], x, self.dropout.p, self.dropout.training)


class Channels(NamedTuple):
    """What goes into an expert and comes out of it; none where that is not known."""

    features: int | None = None
    classes: int | None = None


def channels_of(module: nn.Module) -> Channels:
    """Return F and C of one of our experts, or of PyG's; of anything else nothing is known."""
    if not isinstance(module, (Residual, Sign, BasicGNN, MLP)):
        return Channels()
    found = (module.in_channels, module.out_channels)
    return Channels(*(count if isinstance(count, int) and count > 0 else None for count in found))


def normalized_for(convs: Any, x: Tensor, edge_index: Tensor) -> tuple[Tensor, ...]:
    """Return what GCN layers are called with: the normalised adjacency; explained or exported, edges and weights."""
    if torch.compiler.is_exporting() or any(conv.explain for conv in convs):
        return normalized_edges(edge_index, x.size(0), x.dtype)
    return (normalized(edge_index, x.size(0)),)


def norm_options(norm: str | None) -> dict[str, Any]:
    """Return the arguments that make PyG's layer norm work per node, as everywhere else, not over the whole graph."""
    return {"mode": "node"} if norm == "layer_norm" else {}


EXPERTS: Names[Callable[..., nn.Module]] = Names(
    "experts",
    {
        "mlp": in_one_step(EdgelessMLP),
        "gcn": in_one_step(GCN),
        "sage": in_one_step(GraphSAGE),
        "gin": in_one_step(GIN),
        "gat": in_one_step(GAT),
        "gin-skip": partial(Residual, gin_conv),
        "gcn-res": partial(Residual, NarrowGCNConv, normalize=True),
        "sage-res": partial(Residual, SAGEConv),
        "gat-res": partial(Residual, gat_conv),
        "trees": Trees,
        "hop-trees": partial(Trees, hops=2),
        "sign": Sign,
        "neighbours": Neighbours,
    },
)


def expert(
    kind: str, in_channels: int, out_channels: int, *, norm: str | None = "none", dropout: float = 0.0, **options: Any
) -> nn.Module:
    """Build an expert by name.

    Args:
        kind: a name of `EXPERTS`, or the dotted path of a class or function that takes PyG's argument names.
        in_channels, out_channels: features F and classes C.
        norm: PyG's name of a normalisation, or "none".
        dropout: probability of dropping a hidden activation in training.
        options: `hidden_channels`, `num_layers` and whatever else the constructor takes.

    Raises:
        InputError: the name is unknown, a number is none or too small, or the constructor refuses an argument.
    """
    factory, name = EXPERTS.lookup(kind), f"expert {one_line(str(kind))}"
    checks = {"in_channels": whole, "out_channels": whole, "hidden_channels": whole, "num_layers": layers}
    options |= {"in_channels": in_channels, "out_channels": out_channels}
    options |= {key: check(f"{name}: {key}", options[key]) for key, check in checks.items() if key in options}
    if not (norm is None or isinstance(norm, str) or callable(norm)):
        raise InputError(f"{name}: norm must be PyG's name of one, got {shown(norm)}")
    norm = None if isinstance(norm, str) and norm == "none" else norm
    options |= {"norm": norm, "norm_kwargs": norm_options(norm), "dropout": probability(f"{name}: dropout", dropout)}
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        optional = {"norm", "norm_kwargs", "hidden_channels", "num_layers", "dropout"}
        options = {key: value for key, value in options.items() if key in parameters or key not in optional}
    try:
        return factory(**options)
    except Exception as error:  # of a third party's constructor: anything
        raise InputError(f"{name}: {one_line(str(error)) or type(error).__name__}") from error
