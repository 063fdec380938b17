"""What a run writes down of its predictions: OUT/seed-k/predictions.npz."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mowst.errors import unknown
from mowst.experiment.checks import Checked

PARTS = {"mixture": ("weak", "strong", "confidence", "scale", "tempered"), "final": ()}
"""What a model's output consists of beside its probabilities; of any other one `logits`."""
NODES = ("all", "split", "test")


@dataclass(frozen=True)
class PredictionsConfig(Checked):
    """What is written of the predictions."""

    arrays: list[str] = field(default_factory=list)
    """Arrays to write, such as [mixture, mixture_strong]: probabilities by model, and mixture_tempered, mixture_weak,
    mixture_strong, mixture_confidence, mixture_scale, weak_logits, strong_logits (of a panel: gcn_logits and so on),
    student_logits; by default all there are. A teacher of another run needs the logits, or of a mixture its parts."""
    float16: bool = False
    """Whether they are rounded to 16 bits."""
    nodes: str = "all"
    """Of which nodes: all, split (those in one of the three masks), or test; but for all, `nodes` has their numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes not in NODES:
            raise unknown("predictions.nodes", self.nodes, NODES)

    def check(self, models: Iterable[str]) -> None:
        """Refuse an array that no run of these models has.

        Raises:
            InputError: there is one.
        """
        models = list(models)
        there = models + [f"{name}_{part}" for name in models for part in PARTS.get(name, ("logits",))]
        for name in self.arrays:
            if name not in there:
                raise unknown("predictions.arrays", name, there)
