"""The configuration of one expert, or of several that speak as one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from mowst.errors import InputError, unknown
from mowst.experiment.checks import Checked, setting

AUTO = "auto"
"""The kind of a strong expert that is chosen by the graph (`mowst.experiment.choosing`)."""
PACE = "optimizer", "lr", "weight_decay", "epochs", "patience", "eval_every", "ema_decay"
"""Fields of a run's configuration that an expert may have a value of its own for."""
MOST_SEEDS = 1000
"""Draws of one expert."""


@dataclass(frozen=True)
class ExpertConfig(Checked):
    """One expert."""

    kind: str = "gcn"
    """Expert by short name, or the dotted path of any PyG model (package.module:name); several that speak as one, each
    heard where it is worth it: gcn+sage-res+hop-trees; or, as strong expert, auto: who the preset says."""
    hidden_channels: int = setting(64, [32, 64, 128, 256], at_least=1, at_most=2**31 - 1)
    """Width of the hidden layers."""
    num_layers: int = setting(2, [2, 3, 4], at_least=1, at_most=1000)
    """Number of layers."""
    dropout: float = setting(0.5, (0.0, 0.7), at_least=0, below=1)
    """Probability of dropping a hidden activation in training."""
    norm: str = setting("batch_norm", ["none", "batch_norm", "layer_norm"])
    """Normalisation after each hidden layer, by PyG's name, or none."""
    unit_rows: bool = False
    """Whether it sees every node's features divided by the sum of their absolute values, whatever the others see: bags
    of few and of many words are alike then. A row of zeros stays one; neighbours looks at no features."""
    class_weight: Literal["none", "balanced"] = "none"
    """How the cross-entropy of its own training is weighted: none, or balanced, every class as much as any other (its
    nodes by n / (C n_c), with n_c of n training nodes of the class, and C classes)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the model's constructor."""
    seed: int = setting(0, at_least=0, at_most=MOST_SEEDS)
    """Number of its draw of first weights and dropout: two experts that are alike otherwise differ by it."""
    pace: dict[str, Any] = field(default_factory=dict)
    """How it is trained where that differs from the run: optimizer, lr, weight_decay, epochs, patience, eval_every,
    ema_decay."""
    each: list[dict[str, Any]] = field(default_factory=list)
    """Of several: in what each of them differs, in their order, such as [{norm: none}, {num_layers: 4}, {}]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = self.kind.split("+")
        if self.each and len(self.each) != len(kinds):
            raise InputError(
                f"each: must say it of all {len(kinds)} of {self.kind}, in their order; has {len(self.each)}"
            )
        may_differ = [entry.name for entry in fields(self) if entry.name not in {"kind", "each"}]
        for name in (name for differs in self.each for name in differs):
            if name not in may_differ:
                raise unknown("each", name, may_differ)
        for name in self.pace:
            if name not in PACE:
                raise unknown("pace", name, PACE)

    @property
    def training(self) -> dict[str, Any]:
        """How it is trained where that differs from the run: fields of a `Schedule`."""
        weighted = {} if self.class_weight == "none" else {"class_weight": self.class_weight}
        return self.pace | weighted

    @property
    def members(self) -> dict[str, ExpertConfig]:
        """The experts that it stands for, by what they are called: itself alone, or several; of `auto` none yet."""
        kinds = self.kind.split("+")
        if len(kinds) == 1:
            return {} if self.kind == AUTO else {self.kind: self}
        found = dict[str, ExpertConfig]()
        for place, kind in enumerate(kinds):
            differs = self.each[place] if self.each else {}
            again = sum(kind == other for other in kinds[:place])
            found[f"{kind} {again + 1}" if again else kind] = replace(self, kind=kind, each=[], **differs)
        return found
