"""What a phase cannot change, as its batches say it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mowst.models import InParts, Known
from mowst.training.batches import Batch
from mowst.training.phases import Phase, Watching


def said_by(parts: InParts, phase: Phase, batches: Iterable[Batch]) -> Iterator[Known]:
    """Say of the seeds of batches what a phase cannot change, the hidden layers that its losses watch included."""
    losses: list[Any] = [term.loss for term in phase.terms]
    watching: list[Watching] = [loss for loss in losses if isinstance(loss, Watching)]
    for batch in batches:
        known = parts.known(batch.x, batch.graph, phase.trains)
        layers = next((seen for each in watching if (seen := each.frozen_layers())), ())
        yield batch.of_seeds(known._replace(layers=layers))
