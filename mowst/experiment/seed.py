"""One seed of an experiment, top to bottom: graph, plan, models, scores.

`run_seed` returns everything there is to know of it; writing it down is the part of `mowst.experiment.record`. The test
labels are taken away before training starts and looked at once, when everything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch_geometric.data import Data

from mowst.experiment.bench import Bench, Fitted
from mowst.experiment.calibrated import Calibrated, calibrated
from mowst.experiment.config import Config
from mowst.experiment.opening import Opened
from mowst.experiment.plan import FINAL
from mowst.experiment.sampled import Sampled, sampled_score
from mowst.experiment.scoring import Plain, diagnosis_of, mixture_in, routed_output, scores_of
from mowst.experiment.teachers import Teacher
from mowst.experiment.trust import trust_of
from mowst.models import Mixture
from mowst.training import Hook, Journal


@dataclass(frozen=True)
class SeedRun:
    """What one seed gave."""

    seed: int
    data: Data
    fitted: dict[str, Fitted]
    """`weak` and `strong`, each trained alone, and `mixture`, or `student`; what the configuration leaves out is not
    there."""
    scores: dict[str, dict[str, float]]
    """In percent, by predictor and split; not a number where the metric has no value."""
    seconds: float
    """Of all training."""
    diagnosis: dict[str, Any] | None = None
    """Of the mixture (`mowst.evaluation.diagnosis`)."""
    teacher: Teacher | None = None
    """The teacher, if it was not trained here."""
    routed: Mixture | None = None
    """The mixture's output with the confidence that routes nodes."""
    trust: dict[str, Any] = field(default_factory=dict)
    """How far its predictions can be trusted (`mowst.experiment.trust`)."""
    final: Fitted | None = None
    """The mixture for use, trained again with validation labels, where that was asked for."""
    promised: Calibrated | None = None
    """Calibrated probabilities of the mixture; sets of classes and a confidence to answer from, where asked for."""
    forgotten: Mapping[str, Any] = field(default_factory=lambda: {"how": "retrain"})
    """How the labels that the configuration forgets were forgotten: by training without them."""
    sampled: Sampled | None = None
    """By what sample of the validation nodes training stopped; none: by all of them."""
    plain: Mapping[str, Plain] = field(default_factory=dict)
    """How answers without a model compare with the models on validation nodes, by what they are called."""
    devices: int = 1
    """That took its steps together."""


def train_seed(
    opened: Opened, seed: int, hook: Hook | None = None, journal: Journal | None = None
) -> tuple[Bench, Fitted | None]:
    """Train what one seed trains, and return it on its bench, with the mixture for use, where there is one."""
    bench = opened.bench(seed, hook)
    bench.journal = journal or bench.journal
    for name in opened.plan.models:
        bench.train(name)
    return bench, bench.final() if opened.plan.final else None


def run_seed(
    config: Config,
    seed: int,
    hook: Hook | None = None,
    *,
    opened: Opened | None = None,
    journal: Journal | None = None,
) -> SeedRun:
    """Train and score the mixture, and each expert alone, for one seed.

    Args:
        config: the experiment.
        seed: chooses initial weights, dropout, folds and, by the split's protocol, the masks.
        hook: called with the record of every validation, with its seed and model.
        opened: the same experiment, if it is open already.
        journal: of finished phases, which are skipped.

    Raises:
        InputError: the configuration or the data does not allow it.
        FloatingPointError: training diverged.
    """
    opened = opened or Opened(config)
    bench, final = train_seed(opened, seed, hook, journal)
    return judged(opened, bench, {name: bench.train(name) for name in opened.plan.models}, final)


def judged(opened: Opened, bench: Bench, fitted: dict[str, Fitted], final: Fitted | None = None) -> SeedRun:
    """Look at the test labels, once, and say what is to be known of the trained models of a seed."""
    seed, one = bench.seed, opened.seed(bench.seed)
    seconds = sum(each.own_seconds for each in (bench.fitted or fitted).values())
    seconds += 0.0 if final is None else final.own_seconds
    (scores, plain), diagnosis = scores_of(fitted, one.ready, bench.teacher), diagnosis_of(fitted, one.ready)
    for_use = None if final is None else mixture_in({FINAL: final}, FINAL)
    promised = calibrated(mixture_in(fitted), one.ready, opened.config, seed, for_use)
    trust = trust_of(fitted, one.ready, None if promised is None else promised.output)
    routed = routed_output(fitted, one.ready)
    found = SeedRun(seed, one.data, fitted, scores, seconds, diagnosis, one.teacher, routed, trust, final, promised)
    *_, last = fitted.values()  # what is judged
    sampled = sampled_score(opened.config, seed, last.output, one.ready)
    return replace(found, devices=opened.fabric.world_size, sampled=sampled, plain=plain)
