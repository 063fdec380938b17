"""A phase of an expert that learns by itself, in one go: one look at the labels instead of epochs."""

from __future__ import annotations

from mowst.errors import InputError
from mowst.models import Judged, Learner, Reading, suited_features
from mowst.training.batches import Batch
from mowst.training.objectives import cross_entropy
from mowst.training.phases import Phase


def learn(learner: Learner, phase: Phase, whole: Batch, judged: Judged) -> int:
    """Let an expert learn from the labels that a whole graph shows, and return after how many rounds it stands.

    The epochs of the phase are the rounds that it takes: at most so many, as the judged nodes like it best, or all of
    them where the last weights are kept.

    Raises:
        InputError: the phase has another loss than the cross-entropy of the labels.
    """
    if [term.loss for term in phase.terms] != [cross_entropy]:
        raise InputError(f"phase {phase.name}: an expert that learns by itself learns from labels, by no other loss")
    x = suited_features(learner.reads, whole.x) if isinstance(learner, Reading) else whole.x
    return learner.learn(x, whole.graph, whole.y, None if phase.last else judged, phase.epochs)
