"""The influence of each training label through all weights of an expert, by products with the Gauss-Newton matrix.

With J_i [C, P] the Jacobian of node i's logits, G = sum_i J_i^T S_i J_i + damping I, and a number q made of a node's
logits, the label of node i raises q by -grad(q)^T G^-1 J_i^T r_i (Koh & Liang, 2017, arXiv 1703.04730; with the
Gauss-Newton matrix as in Bae et al., 2022, arXiv 2209.05364). G^-1 grad(q) is found by conjugate gradients and no
matrix; the rest is one more product for all training nodes together. J v is a difference in float64, so that
the kernels of the experts, which have no second derivative, can be used as they are. What it tells is what a few damped
steps from the trained weights would do, not a training from scratch.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters

from mowst.errors import InputError
from mowst.influence.last_layer import towards
from mowst.kernels import Tabled, dense, prepare_features
from mowst.models import reads_of, run_module

STEP = 1e-7
"""Of the differences, against the norm of the weights."""


class Network:
    """An expert with trained weights, and the influence of each training label on it.

    Args:
        model: `(x, edge_index) -> logits [N, C]`, trained by gradients.
        x, edge_index: the graph, as the expert takes it.
        y: labels [N]; only those of the training nodes are looked at.
        train: mask [N].
        damping: added to the Gauss-Newton matrix of the summed losses; as a weight decay times the number of nodes.
        steps: most steps of conjugate gradients.
        tolerance: of their residual, against the right side.
        weight: of each label in the sum of the losses, [N]; none: 1.

    Raises:
        InputError: the expert has no weights.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        edge_index: Tensor,
        y: Tensor,
        train: Tensor,
        *,
        damping: float = 0.1,
        steps: int = 100,
        tolerance: float = 1e-3,
        weight: Tensor | None = None,
    ):
        model, precise = copy.deepcopy(model).eval().double(), prepare_features(dense(x).double())
        x = x.beside(precise) if isinstance(x, Tabled) else precise
        self.weights = [weight.requires_grad_() for weight in model.parameters()]
        if not self.weights:
            raise InputError(f"influence: {type(model).__name__} has no weights that were trained by gradients")
        self.train = train.nonzero().squeeze(-1)
        """Ids of the training nodes, [n]."""
        self.damping, self.most, self.tolerance = damping, steps, tolerance
        with torch.enable_grad():
            self.logits = run_module(model, reads_of(model), x, edge_index)
            self.own = self.logits[self.train]
        moved = copy.deepcopy(model)
        self.moved = list(moved.parameters())
        self.start = torch.cat([weight.detach().flatten() for weight in self.weights])
        self.said_when_moved = partial(run_module, moved, reads_of(moved), x, edge_index)
        self.p = self.own.detach().softmax(dim=-1)
        each = torch.ones_like(self.p[:, 0]) if weight is None else weight[self.train].to(self.p)
        self.each = each.unsqueeze(-1)
        self.residual = self.each * (self.p - F.one_hot(y[self.train], self.p.size(-1)).to(self.p))

    def influence(self, node: int, direction: Tensor | None = None) -> Tensor:
        """How far each training label raises a number made of a node's logits, [n], as `train` orders them.

        Args:
            node: the node asked about.
            direction: of its logits, [C]; by default the log-probability of the class predicted for it.
        """
        said = self.logits[node]
        direction = towards(said.detach()) if direction is None else direction
        asked = self._pulled(said, direction.to(said))
        return -(self._pushed(self._solved(asked)) * self.residual).sum(dim=-1).cpu()

    def _pulled(self, out: Tensor, cotangent: Tensor) -> Tensor:
        """J^T times a cotangent, as one vector [P]."""
        parts = torch.autograd.grad(out, self.weights, cotangent, retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    def _pushed(self, vector: Tensor) -> Tensor:
        """J times a vector [P] at the training nodes, [n, C], by a difference."""
        step = STEP * (1 + float(self.start.norm())) / max(float(vector.norm()), 1e-300)
        return (self._said_at(self.start + step * vector) - self.own.detach()) / step

    @torch.no_grad()
    def _said_at(self, weights: Tensor) -> Tensor:
        """Logits of the training nodes with other weights [P], [n, C]."""
        vector_to_parameters(weights, self.moved)
        return self.said_when_moved()[self.train]

    def _product(self, vector: Tensor) -> Tensor:
        """The damped Gauss-Newton matrix times a vector [P]."""
        pushed = self.each * self.p * self._pushed(vector)
        pushed = pushed - self.p * pushed.sum(dim=-1, keepdim=True)
        return self._pulled(self.own, pushed) + self.damping * vector

    def _solved(self, asked: Tensor) -> Tensor:
        """Conjugate gradients (Hestenes & Stiefel, 1952), [P] -> [P]."""
        found, left = torch.zeros_like(asked), asked.clone()
        toward, size = left.clone(), left @ left
        goal = self.tolerance**2 * float(size)
        for _ in range(self.most):
            if float(size) <= goal:
                break
            product = self._product(toward)
            bent = toward @ product
            if float(bent) <= 0:  # by rounding alone
                break
            step = size / bent
            found, left = found + step * toward, left - step * product
            size, before = left @ left, size
            toward = left + size / before * toward
        return found
