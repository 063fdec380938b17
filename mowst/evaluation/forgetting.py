"""How near a model that forgot labels is to one that never saw them, and whether it can be told who was forgotten."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def apart(anew: Tensor, log_p: Tensor) -> float:
    """Return the mean of KL(retrained ‖ model) over rows of log-probabilities [n, C], in nats; none: not a number."""
    anew, log_p = anew.double(), log_p.double()
    return float((anew.exp() * (anew - log_p)).sum(dim=-1).mean()) if len(anew) else math.nan


def membership(log_p: Tensor, y: Tensor, members: Tensor, others: Tensor) -> float:
    """Return how well the likelihood of a label tells members from others: the area under the ROC curve, in [0, 1].

    One half: not at all (the attack by the loss: Yeom et al., 2018, arXiv 1709.01604).

    Args:
        log_p: log-probabilities [N, C].
        y: labels [N], looked at where one of the masks is.
        members, others: masks [N]; where one of them is empty the area is not a number.
    """
    members, others = (nodes.nonzero().squeeze(-1).cpu() for nodes in (members, others))
    if not (len(members) and len(others)):
        return math.nan
    from sklearn.metrics import roc_auc_score

    nodes = torch.cat([members, others])
    likely = log_p.cpu()[nodes].gather(-1, y.cpu()[nodes].unsqueeze(-1)).squeeze(-1)
    return float(roc_auc_score(torch.arange(len(nodes)) < len(members), likely.double()))
