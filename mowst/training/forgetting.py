"""What a trained model does to forget labels, other than being trained anew: expert by expert, then the gates.

Notation: b, r [n, C] logits of the forgotten nodes, by the expert as it is, and by a copy that was reinforced: trained
on for some steps on their labels. The expert is led to softmax(b - α max(r - b, 0)), what is left of its opinion
without what reinforcing raises (Eldan & Russinovich, 2023, arXiv 2310.02238, equation 1), and held to its own opinion
at all other nodes. α is as large as makes the forgotten labels no likelier than those of validation nodes, which the
expert has not learned. (Log-probabilities in the place of logits are 0 already where an expert is certain of what it
learned, and cannot be raised.) Counts and trees are learned again, which is exact.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mowst.evaluation import descend, sharpness
from mowst.influence import refit
from mowst.models import ROLES, Learner, Mowst, Panel, parts_of, reads_of, run_module
from mowst.training.batches import Batch
from mowst.training.held_out import Twins, fit_expert, settle
from mowst.training.objectives import Loss
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer

REINFORCING, STEPS = 10, 20
"""Iterations of L-BFGS: so few that little else changes."""
LARGEST = 64.0
"""Of α."""


class Gone(NamedTuple):
    """Labels that are to be forgotten."""

    nodes: Tensor
    """[n] ids."""
    y: Tensor
    """[n] labels."""
    val: Tensor
    """[m] ids of validation nodes."""
    val_y: Tensor
    """[m] labels."""
    weight: Tensor | None = None
    """[N] of each label that is left, in the loss that the expert was trained by; none: all are alike."""


def by_steps(model: nn.Module, whole: Batch, gone: Gone) -> None:
    """Lead an expert a few steps from its trained weights to what is left of its opinion without the labels."""
    reads, others = reads_of(model), torch.ones_like(whole.train_mask)
    others[gone.nodes] = False
    share = float(whole.train_mask.sum()) / max(1, int((~whole.train_mask & others).sum()))
    weight = torch.where(whole.train_mask, 1.0, share)[others].unsqueeze(-1)  # training nodes count as much as the rest

    def said(asked: nn.Module) -> Tensor:
        return run_module(asked, reads, whole.x, whole.graph)

    reinforced = copy.deepcopy(model).eval()
    descend(reinforced.parameters(), lambda: F.cross_entropy(said(reinforced)[gone.nodes], gone.y), REINFORCING)
    with torch.no_grad():
        logits, raised = said(model), (said(reinforced) - said(model)).relu()[gone.nodes]
        base = logits.log_softmax(dim=-1)
        target = left_of(logits[gone.nodes], raised, gone.y, likely=float(likelihood(logits[gone.val], gone.val_y)))

    def loss() -> Tensor:
        now = said(model).log_softmax(dim=-1)
        moved = F.kl_div(now[gone.nodes], target, log_target=True, reduction="sum")
        held = weight * F.kl_div(now[others], base[others], log_target=True, reduction="none")
        return (moved + held.sum()) / (len(gone.nodes) + whole.train_mask.sum())

    descend(model.parameters(), loss, STEPS)


def left_of(logits: Tensor, raised: Tensor, y: Tensor, likely: float) -> Tensor:
    """Take as much of what was raised [n, C] from logits [n, C] as makes labels [n] no likelier than is said.

    Args:
        logits: of the expert.
        raised: by reinforcing it, at least 0.
        y: the labels.
        likely: a mean probability; where it is not a number all that was raised is taken once.

    Returns: log-probabilities [n, C].
    """
    if math.isnan(likely):
        return (logits - raised).log_softmax(dim=-1)
    low, high = 0.0, LARGEST
    for _ in range(40):
        alpha = (low + high) / 2
        low, high = (alpha, high) if float(likelihood(logits - alpha * raised, y)) > likely else (low, alpha)
    return (logits - low * raised).log_softmax(dim=-1)


def likelihood(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean probability of labels [n] by logits [n, C]; not a number where there are none."""
    return logits.softmax(dim=-1).gather(-1, y.unsqueeze(-1)).mean()


def by_last_layer(model: nn.Module, whole: Batch, gone: Gone) -> None:
    """Refit the last layer of an expert without the labels; the layers below stay as they are."""
    refit(model, whole.x, whole.graph, whole.y, whole.train_mask, weight=gone.weight)


WAYS: dict[str, Callable[[nn.Module, Batch, Gone], None]] = {"steps": by_steps, "last": by_last_layer}


def forget(trainer: Trainer, schedule: Schedule, gone: Gone, way: str, objective: Loss) -> None:
    """Let the trained model of a trainer, which does not see some labels, forget them, too.

    A member of a panel that is not heard gets its first weights. Gates, and the weights of members, are fitted anew on
    validation nodes alone; each expert gets the temperature at which it is as sharp as before.

    Args:
        trainer: of an expert, or of a mixture of experts that are each trained alone.
        schedule: of its phases.
        gone: the labels.
        way: of `WAYS`: `steps` through the whole of each expert that is trained by gradients, or its `last` layer.
        objective: by which the gate is fitted.

    Raises:
        InputError: an expert has no last layer that is linear in its weights.
    """
    model = trainer.model
    if not isinstance(model, Mowst):
        forget_alone(trainer, schedule, "", gone, way)
        trainer.consider()
        return
    heard = parts_of(model, ROLES, heard=True)
    sharp = {part: sharp_of(trainer, part) for part in heard}
    for part in parts_of(model, ROLES):
        if part in heard:
            forget_alone(trainer, schedule, part, gone, way)
        else:
            fresh = {name: value for name, value in trainer.fresh.items() if name.startswith(f"{part}.")}
            model.get_submodule(part).load_state_dict(
                {name.removeprefix(f"{part}."): value for name, value in fresh.items()}
            )
    trainer.restart()
    if len(trainer.val):
        nobody = torch.empty(0, dtype=torch.long, device=trainer.val.device)
        nothing = {part: trainer.sub(part).output().of("").values[nobody] for part in sharp}
        settle(model, trainer, Twins(nobody, nothing, sharp), objective)
    model.eval()


def forget_alone(trainer: Trainer, schedule: Schedule, part: str, gone: Gone, way: str) -> None:
    """Let one expert forget; one that learns by itself learns again."""
    expert = trainer.model.get_submodule(part)
    if isinstance(expert, Learner):
        fit_expert(trainer, schedule, f"forget {part}".strip(), part)
    else:
        weight = schedule.of(part).label_weights(trainer.whole.y)
        WAYS[way](expert.eval(), trainer.whole, gone._replace(weight=weight))


def sharp_of(trainer: Trainer, part: str) -> float:
    """Return the mean negentropy of a calibrated expert at nodes outside the training set, in [0, 1]."""
    role, _, place = part.partition(".members.")
    model = trainer.model
    assert isinstance(model, Mowst)
    expert = model.of(role)
    cooled = expert.temperature[int(place)] if isinstance(expert, Panel) else model.temperature[ROLES.index(role)]
    return sharpness(trainer.sub(part).output().of("").values[~trainer.whole.train_mask] / cooled)
