"""The last layer of an expert: what it reads, and what each training label does to it, in closed form.

Notation: f [N, D] what the layer reads, a 1 among it where it has a bias; W [D, C]; z = f W; p = softmax(z);
r_i = p_i - e_{y_i} the residual of training node i, S_i = diag(p_i) - p_i p_i^T. The layer minimises

    sum_i -log p_i[y_i] + l2/2 |W|^2,     with the Hessian H = sum_i f_i f_i^T (x) S_i + l2 I.

Where labels have weights, as of classes that count alike, those of node i multiply its term, r_i and S_i, and stay.

Without the label of node i one Newton step from the minimum leads to W + (H - f_i f_i^T (x) S_i)^-1 (f_i (x) r_i). With
K_i [C, C] the block of H^-1 at f_i this is H^-1 (f_i (x) (I - S_i K_i)^-1 r_i), so all nodes together cost one Cholesky
factor (Koh & Liang, 2017, arXiv 1703.04730; the step with node i's own Hessian taken out: Pregibon, 1981). The node
stays in the graph, and so what the layer reads does not change.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor, nn

from mowst.errors import InputError
from mowst.models import reads_of, run_module

LARGEST = 6000
"""Numbers in a last layer above which its Hessian takes too long."""


class LastLayer:
    """A last layer at its minimum, and the influence of each training label.

    Args:
        features: what it reads of every node, [N, D].
        y: labels [N]; only those of the training nodes are looked at.
        train: mask [N].
        num_classes: C.
        l2: weight of the penalty, against the sum of the training nodes' cross-entropies.
        weight: of each label in that sum, [N]; none: 1.

    Raises:
        InputError: the layer is too large.
    """

    def __init__(
        self,
        features: Tensor,
        y: Tensor,
        train: Tensor,
        num_classes: int,
        l2: float = 1.0,
        *,
        weight: Tensor | None = None,
    ):
        self.features, self.l2 = features.detach().cpu().double(), l2
        self.train = train.cpu().nonzero().squeeze(-1)
        """Ids of the training nodes, [n]."""
        self.y, self.num_classes = y.cpu()[self.train], num_classes
        if (size := self.features.size(-1) * num_classes) > LARGEST:
            raise InputError(
                f"influence: the last layer has {size:,} numbers, and at most {LARGEST:,} are exact; ask the network"
            )
        own = self.features[self.train]
        each = torch.ones(len(own)).double() if weight is None else weight.cpu()[self.train].double()
        self.weight = fitted(own, self.y, num_classes, l2, each)
        p = (own @ self.weight).softmax(dim=-1)
        self.residual = each.unsqueeze(-1) * (p - F.one_hot(self.y, num_classes))
        curvature = each.view(-1, 1, 1) * (torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2))
        self.factor = torch.linalg.cholesky(self._hessian(own, curvature))
        self.steps = self._steps(own, curvature)

    @property
    def logits(self) -> Tensor:
        """What the layer says of every node, [N, C]."""
        return self.features @ self.weight

    def influence(self, node: int, direction: Tensor | None = None) -> Tensor:
        """How far each training label raises a number made of a node's logits, [n], as `train` orders them.

        Args:
            node: the node asked about.
            direction: of its logits, [C]; by default the log-probability of the class predicted for it.
        """
        direction = towards(self.logits[node]) if direction is None else direction.double()
        asked = torch.outer(self.features[node], direction).flatten().unsqueeze(-1)
        answer = torch.cholesky_solve(asked, self.factor).view(-1, self.num_classes)
        return -((self.features[self.train] @ answer) * self.steps).sum(dim=-1)

    def without(self, place: int) -> Tensor:
        """Logits of every node without the label of the training node at a place of `train`, [N, C]."""
        moved = torch.outer(self.features[self.train[place]], self.steps[place]).flatten().unsqueeze(-1)
        return self.logits + self.features @ torch.cholesky_solve(moved, self.factor).view(-1, self.num_classes)

    def doubts(self) -> Tensor:
        """How little the other labels expect each training label, [n]: its negative log-probability without itself."""
        own = self.features[self.train]
        moved = torch.einsum("nij,nj->ni", self.blocks, self.steps)
        return F.cross_entropy(own @ self.weight + moved, self.y, reduction="none")

    def _hessian(self, own: Tensor, curvature: Tensor) -> Tensor:
        D, C = own.size(-1), self.num_classes
        found = torch.empty(D, C, D, C, dtype=torch.float64)
        for row in range(C):
            for column in range(C):
                found[:, row, :, column] = (own * curvature[:, row, column].unsqueeze(-1)).T @ own
        return found.view(D * C, D * C) + self.l2 * torch.eye(D * C, dtype=torch.float64)

    def _steps(self, own: Tensor, curvature: Tensor) -> Tensor:
        """(I - S_i K_i)^-1 r_i for every training node, [n, C]; K_i is kept in `blocks`, [n, C, C]."""
        C = self.num_classes
        identity = torch.eye(C, dtype=torch.float64)
        self.blocks = torch.empty(len(own), C, C, dtype=torch.float64)
        for rows in torch.split(torch.arange(len(own)), max(1, 4096 // C)):
            sides = torch.einsum("nd,ce->dcne", own[rows], identity).reshape(-1, len(rows) * C)
            half = torch.linalg.solve_triangular(self.factor, sides, upper=False).view(-1, len(rows), C)
            self.blocks[rows] = torch.einsum("knc,kne->nce", half, half)
        return torch.linalg.solve(identity - curvature @ self.blocks, self.residual)


def fitted(features: Tensor, y: Tensor, num_classes: int, l2: float, each: Tensor) -> Tensor:
    """Return the weights [D, C] at which a last layer on rows [n, D], labels [n], weighed [n], is at its minimum."""
    shape = (features.size(-1), num_classes)

    def value(flat: Any) -> Any:
        weight = torch.from_numpy(flat).view(shape)
        log_p = (features @ weight).log_softmax(dim=-1)
        loss = each @ F.nll_loss(log_p, y, reduction="none") + l2 / 2 * (weight**2).sum()
        gradient = features.T @ (each.unsqueeze(-1) * (log_p.exp() - F.one_hot(y, num_classes))) + l2 * weight
        return float(loss), gradient.flatten().numpy()

    start = torch.zeros(shape, dtype=torch.float64).flatten().numpy()
    options = {"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    return torch.from_numpy(minimize(value, start, jac=True, method="L-BFGS-B", options=options).x).view(shape)


def towards(logits: Tensor) -> Tensor:
    """Return the direction, [C], in which the log-probability of the class that logits [C] predict rises."""
    p = logits.double().softmax(dim=-1)
    return F.one_hot(p.argmax(), len(p)).double() - p


@torch.no_grad()
def read_out(model: nn.Module, x: Tensor, edge_index: Tensor) -> Tensor:
    """Return what an expert's last layer reads of every node, so that its logits are that times a matrix, [N, D].

    The layer is asked: with all its weights 0 but one for each class, the logits are what that weight is multiplied by.
    So aggregation in the layer, as a GCN's, is part of it.

    Args:
        model: an expert whose last layer is linear in its weights: all by name but gat and those without gradients.
        x, edge_index: the graph, as the expert takes it.

    Raises:
        InputError: it has no such layer.
    """
    probed = copy.deepcopy(model).eval()
    last = last_of(probed)
    reads = reads_of(probed)
    parameters = list(last.parameters())
    C = run_module(probed, reads, x, edge_index).size(-1)
    matrices = [each.data if each.dim() == 2 else each.data.unsqueeze(-1) for each in parameters]
    if any(matrix.dim() != 2 or matrix.size(0) != C for matrix in matrices):
        raise InputError("influence: the last layer is not linear in its weights; ask the whole network")
    for matrix in matrices:
        matrix.zero_()
    columns = []
    for matrix in matrices:
        for first in range(0, matrix.size(1), C):
            width = min(C, matrix.size(1) - first)
            place = torch.arange(width)
            matrix[place, first + place] = 1.0
            columns.append(run_module(probed, reads, x, edge_index)[:, :width].double())
            matrix[place, first + place] = 0.0
    found = torch.cat(columns, dim=-1)
    check_linear(probed, parameters, model, x, edge_index, found)
    return found


@torch.no_grad()
def refit(
    model: nn.Module,
    x: Tensor,
    edge_index: Tensor,
    y: Tensor,
    train: Tensor,
    l2: float = 1.0,
    *,
    weight: Tensor | None = None,
) -> None:
    """Put the last layer of an expert at its minimum on some labels; the layers below stay as they are.

    Args:
        model: as of `read_out`; it is changed.
        x, edge_index: the graph, as the expert takes it.
        y: labels [N]; only those of the training nodes are looked at.
        train: mask [N].
        l2, weight: as of `LastLayer`.

    Raises:
        InputError: as of `read_out`.
    """
    read, nodes = read_out(model, x, edge_index).cpu(), train.cpu()
    parameters = list(last_of(model).parameters())
    weighed = (torch.ones(len(nodes)) if weight is None else weight.cpu())[nodes].double()
    found = fitted(read[nodes], y.cpu()[nodes], len(parameters[0]), l2, weighed)
    for each, own in zip(parameters, torch.split(found, [each[0].numel() for each in parameters]), strict=True):
        each.copy_(own.T.reshape(each.shape))


def check_linear(
    probed: nn.Module, parameters: list[nn.Parameter], model: nn.Module, x: Tensor, edge_index: Tensor, found: Tensor
) -> None:
    """Raise an `InputError` unless the expert's own last weights times what was found are its logits."""
    weights = [
        each.detach() if each.dim() == 2 else each.detach().unsqueeze(-1) for each in last_of(model).parameters()
    ]
    logits = found @ torch.cat(weights, dim=-1).double().T
    said = run_module(copy.deepcopy(model).eval(), reads_of(model), x, edge_index).double()
    if not torch.allclose(logits, said, rtol=1e-3, atol=1e-3 * float(said.abs().max())):
        raise InputError("influence: the last layer is not linear in its weights; ask the whole network")


def last_of(model: nn.Module) -> nn.Module:
    """Return the last layer of one of our experts or PyG's, or the last linear layer of another module."""
    for name in ("lin_out", "lin"):
        if isinstance(found := dict(model.named_children()).get(name), nn.Module):
            return found
    for name in ("convs", "lins"):
        if isinstance(found := dict(model.named_children()).get(name), nn.ModuleList) and len(found):
            inner = dict(found[-1].named_children()).get("nn")  # a GIN layer's own MLP
            return found[-1] if inner is None else last_of(inner)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError(f"influence: {type(model).__name__} has no last layer with weights")
    return linear[-1]
