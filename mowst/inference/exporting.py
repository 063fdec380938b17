"""A trained mixture as one program of tensor operations, `(x, edge_index) -> probabilities`, which runs without
this code.

`torch.export` writes down what is computed for graphs of any size. Experts that are no tensor programs (boosted trees,
counts of labels) cannot be written down so.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mowst.errors import InputError
from mowst.inference.checks import check_parts, check_question
from mowst.kernels import Adjacency, dense
from mowst.models import EXPERTS, ROLES, Learner, Mowst, Panel, run_module, shown
from mowst.system import out_of_memory


class Pooled(nn.Module):
    """The pool of a mixture in evaluation mode, on plain edges: [N, F], [2, E] -> probabilities [N, C].

    Args:
        model: the mixture, which is copied.
        before: what is done to the features first, [N, F] -> [N, F].
    """

    def __init__(self, model: Mowst, before: nn.Module | None = None):
        super().__init__()
        self.model, self.before = copy.deepcopy(model).eval(), before or nn.Identity()
        panels = {role: part for role in ROLES if isinstance(part := self.model.of(role), Panel)}
        self.heard = {role: panel.active.nonzero().flatten().tolist() for role, panel in panels.items()}

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Predict every node."""
        x = self.before(x)
        weak, strong = (self.logits(role, x, edge_index) for role in ROLES)
        return self.model(x, edge_index, weak=weak, strong=strong).probs()

    def logits(self, role: str, x: Tensor, edge_index: Tensor) -> Tensor:
        """Calibrated logits of an expert, [N, C]; of a panel those who are heard, which is known beforehand."""
        part = self.model.of(role)
        if isinstance(part, Panel):
            places = self.heard[role]
            said = part.pool([part.member(place, x, edge_index) for place in places], places)
        else:
            said = run_module(part, self.model.experts_read[role], x, edge_index)
        return self.model.calibrated(role, said)


def exported(model: Mowst, x: Tensor, edge_index: Tensor, before: nn.Module | None = None) -> ExportedProgram:
    """Export the pool of a mixture as `(x [N, F], edge_index [2, E]) -> probabilities [N, C]`, for any N and E from 2.

    `torch.export.save(program, path)` writes it, `torch.export.load(path).module()(x, edge_index)` runs it. Weights of
    edges are no part of it. It is run on the graph that is given, and says there what the mixture says.

    Args:
        model: a trained mixture.
        x: features of a graph, [N, F].
        edge_index: its edges, [2, E].
        before: what is done to the features first; by default nothing.

    Raises:
        InputError: an expert cannot be exported, the program says something else, or an argument is unsound.
    """
    check_parts(model, x)
    if before is not None and not isinstance(before, nn.Module):
        raise InputError(f"before: must be a torch.nn.Module, or none, got {shown(before)}")
    x = dense(x)
    check_question(model, x if before is None else before(x), edge_index)
    if isinstance(edge_index, Adjacency):
        edge_index = edge_index.edge_index
    refuse_learners(model)
    whole = Pooled(model, before).to(x.device)
    ring = torch.arange(7, device=x.device) % 5
    example = x.new_zeros(5, x.size(1)), torch.stack([ring, (ring + 1) % 5])
    dynamic = ({0: Dim("nodes", min=2)}, {1: Dim("edges", min=2)})
    try:
        program = torch.export.export(whole, example, dynamic_shapes=dynamic)
        with torch.no_grad():
            said, right = program.module()(x, edge_index), whole(x, edge_index)
    except Exception as error:  # of whatever an expert does: anything
        if out_of_memory(error):
            raise
        raise InputError(f"model: torch.export cannot write it down: {type(error).__name__}: {error}") from None
    if not torch.allclose(said, right, rtol=1e-4, atol=1e-5):
        raise InputError("model: what torch.export wrote down says something else than the mixture")
    return program


def refuse_learners(model: Mowst) -> None:
    """Refuse experts that are heard and are no tensor programs, and say which are."""
    found = list[str]()
    for role in ROLES:
        part = model.of(role)
        members = {role: part}
        if isinstance(part, Panel):
            members = {part.names[place]: part.members[place] for place in part.active.nonzero().flatten().tolist()}
        found += [name for name, member in members.items() if isinstance(member, Learner)]
    if found:
        can = [name for name in EXPERTS.names if "trees" not in name and name != "neighbours"]
        raise InputError(
            f"model: {', '.join(found)} learned by counting or by trees, which torch.export cannot write down; "
            f"train with one of {', '.join(can)}, such as strong='gcn'"
        )
