"""One expert on its own, such as a student that was distilled: a prediction for some nodes, without a mixture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mowst.inference.checks import check_expert
from mowst.inference.frontier import at_nodes
from mowst.inference.modes import Answer, Nodes, distinct_ids, evaluating
from mowst.models import probabilities, reads_of


@torch.no_grad()
def answer_alone(expert: nn.Module, x: Tensor, graph: Tensor, nodes: Nodes | None = None) -> Answer:
    """Predict with one expert in evaluation mode, and say what of the graph it read; arguments as in `answer`.

    Raises:
        InputError: a node id is not one of the graph, or an argument is not what it must be.
    """
    check_expert(expert, x, graph)
    distinct, place = distinct_ids(nodes, len(x), x.device)
    with evaluating(expert):
        logits, touched = at_nodes(expert, reads_of(expert), x, graph, distinct)
    found = probabilities(logits)
    return Answer(found if place is None else found[place], touched)
