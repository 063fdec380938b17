"""One experiment, top to bottom: data, experts, regime, scores.

`run_seed` does one seed and returns everything there is to know of it; writing it down is `mowst.experiment.record`'s part. The
test labels are taken away before training starts and looked at once, when everything is trained.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data

from graphkd import Weighted
from mowst.data import load
from mowst.errors import InputError
from mowst.evaluation import fusion
from mowst.evaluation.diagnosis import diagnose, threshold
from mowst.evaluation.metrics import METRICS, Metric, Output, expected, hit, pooled, rows, signal
from mowst.experiment.building import build, build_model, classes_of, fabric_of, prepare, seeded
from mowst.experiment.config import Config
from mowst.experiment.teachers import Teacher, read_teacher, taught
from mowst.kernels.sparse_features import take_rows
from mowst.models.mixture import EXPERTS, Mixture, Mowst, hard, weigh
from mowst.training.distillation import attached, parse, ride
from mowst.training.held_out import Twins, mixed
from mowst.training.objectives import OBJECTIVES
from mowst.training.regimes import REGIMES, alone, solo
from mowst.training.trainer import HIDDEN, Trained, Trainer

Hook = Callable[[dict[str, Any]], None]


class Fitted(NamedTuple):
    """One trained model, with its weights as validation chose them."""

    model: nn.Module
    output: Output
    """What it says of every node, in evaluation mode."""
    history: list[dict[str, Any]]
    seconds: float
    twins: Twins | None = None
    """What twins of the experts said of held-out training nodes, where the regime has some."""
    losses: nn.Module = nn.ModuleList()
    """The distillation losses it was trained with, which may have parameters."""
    best_epoch: int = 0
    """The epoch of its phase after which it validated best; 0: its first weights did."""
    shared: float = 0.0
    """The part of `seconds` in which experts were trained alone that are there on their own, too."""


@dataclass(frozen=True)
class SeedRun:
    """What one seed gave."""

    seed: int
    data: Data
    fitted: dict[str, Fitted]
    """`weak` and `strong`, each trained alone, and `mixture`, or `student`; what the configuration leaves out is not
    there."""
    scores: dict[str, dict[str, float]]
    """In percent, by predictor and split."""
    diagnosis: dict[str, Any] | None = None
    """Of the mixture (`mowst.evaluation.diagnosis`)."""
    teacher: Teacher | None = None
    """The teacher, if it was not trained here."""


def run_seed(config: Config, seed: int, hook: Hook | None = None) -> SeedRun:
    """Train and score the mixture, and each expert alone, for one seed.

    Args:
        config: the experiment.
        seed: chooses initial weights, dropout and, by the split's protocol, the masks.
        hook: called with the record of every validation, with its seed and model.

    Raises:
        InputError: the configuration or the data does not allow it.
        FloatingPointError: training diverged.
    """
    fabric = fabric_of(config)
    data, ready, teacher = opened(config, seed, fabric)
    fitted: dict[str, Fitted] = {}
    for name in planned(config):
        fitted[name] = fit(name, config, ready, seed, fabric, hook, fitted)
        if name == own_teacher(config):
            ready = taught(config, ready, fitted[name].model, seed, fabric)
    diagnosis = diagnosis_of(fitted.get("mixture"), ready)
    return SeedRun(seed, data, fitted, scores_of(fitted, ready), diagnosis, teacher)


def opened(config: Config, seed: int, fabric: Fabric) -> tuple[Data, Data, Teacher | None]:
    """Return one seed's graph, the same prepared, and its teacher; what cannot work is said before any training."""
    data = load(config.dataset, config.data_root, split=config.split, seed=seed)
    with seeded(seed, fabric.device):
        build(config, data.num_features, classes_of(data))
    teacher = read_teacher(config, seed, data, fabric)
    ready = prepare(data, config, fabric.device)
    if teacher is not None:
        ready = ride(ready, teacher.signals)
    if config.kd is not None:
        try_losses(config, ready, seed, fabric)
    if config.objective is not None and planned(config)[-1] not in EXPERTS:
        try_objective(config, ready, seed, fabric)
    return data, ready, teacher


def planned(config: Config) -> list[str]:
    """Return what is trained, in order: experts alone, and last the mixture or the student."""
    student = alone(REGIMES.lookup(config.regime))
    if student is None:
        return [*EXPERTS * config.baselines, *("mixture",) * config.mixture]
    without = (student,) * (config.baselines or config.kd is None)
    teacher = own_teacher(config)
    return [*dict.fromkeys((*without, *((teacher,) if teacher else ()))), *("student",) * (config.kd is not None)]


def own_teacher(config: Config) -> str | None:
    """Return the expert of this run that is first trained alone and then teaches the student, if that is so."""
    return config.teacher if config.teacher in EXPERTS and alone(REGIMES.lookup(config.regime)) else None


def fit(
    name: str,
    config: Config,
    ready: Data,
    seed: int,
    fabric: Fabric,
    hook: Hook | None = None,
    alone: Mapping[str, Fitted] | None = None,
) -> Fitted:
    """Train one model on a prepared graph: the `weak` or `strong` expert alone, the `mixture`, or the `student`.

    Only training and validation labels are seen. Where a regime trains an expert alone first, it takes the one in
    `alone`; the seconds that took are counted for both.
    """
    start = time.perf_counter()
    told = None if hook is None else lambda line: hook({"seed": seed, "model": name, **line})
    with seeded(seed, fabric.device):
        trainer = trainer_of(name, config, ready, fabric, told)
        trainer.trained = {
            part: Trained(each.model.state_dict(), each.best_epoch) for part, each in (alone or {}).items()
        }
        losses: tuple[Weighted, ...] = ()
        if name in EXPERTS:
            solo(trainer, config.schedule)
        else:
            losses = follow(trainer, config)
    kept = nn.ModuleList(weighted.loss for weighted in losses)
    shared = sum((alone or {})[part].seconds for part in trainer.taken)
    seconds = time.perf_counter() - start + shared
    model, out = trainer.model, trainer.output()
    if isinstance(model, Mowst) and (model.router is None or bool(model.threshold.isnan())):
        choose_threshold(model, routable(model, out, ready), ready)  # type: ignore[arg-type]
    return Fitted(model, out, trainer.history, seconds, trainer.twins, kept, trainer.best_epoch, shared)


def choose_threshold(model: Mowst, out: Mixture, data: Data) -> None:
    """Take the threshold with which routing scores best on validation nodes.

    By a metric that is a mean over nodes the best of all (`mowst.evaluation.diagnosis.threshold`), by another one the best of the
    percentiles; where that one has no value, by accuracy. It is for a mixture without a router (one half of the
    confidence of any other gate means nothing), and for one whose experts have changed since its router was fitted.
    """
    seen: Mixture = rows(out, data.val_mask)  # type: ignore[assignment]
    metric, y = metric_of(data), data.y[data.val_mask]
    each = getattr(metric, "mean_of", None)
    if each is None:
        steps = torch.linspace(0, 0.99, 100, device=seen.confidence.device)
        places = [*torch.unique(seen.confidence.float().quantile(steps)).tolist(), math.inf]
        scores = [pooled(hard(seen, place), y, metric) for place in places]
        best: float | None = places[scores.index(max(scores))]
        each = hit if any(map(math.isnan, scores)) else None
    if each is not None:
        best = threshold(seen.confidence, *(each(logits, y) for logits in (seen.weak, seen.strong)))
    model.threshold.fill_(math.inf if best is None else best)


def trainer_of(name: str, config: Config, ready: Data, fabric: Fabric, hook: Hook | None = None) -> Trainer:
    """Return a trainer of a fresh model on a graph without its test labels."""
    seen = copy.copy(ready)
    seen.y = ready.y.masked_fill(~(ready.train_mask | ready.val_mask), HIDDEN)
    score = signal(config.signal, metric_of(ready))
    model = build_model(name, config, ready.num_features, classes_of(ready))
    return Trainer(model.to(fabric.device), seen, score, fabric=fabric, hook=hook)


def try_losses(config: Config, ready: Data, seed: int, fabric: Fabric) -> None:
    """Attach the losses once to models that are not trained yet."""
    with seeded(seed, fabric.device):
        if teacher := own_teacher(config):
            ready = taught(config, ready, trainer_of(teacher, config, ready, fabric).model, seed, fabric)
        trainer = trainer_of(planned(config)[-1], config, ready, fabric)
        with attached(parse(config.kd or ()), trainer, *roles(config)):
            pass


def try_objective(config: Config, ready: Data, seed: int, fabric: Fabric) -> None:
    """Evaluate the objective once on what a model that is not trained yet says.

    Raises:
        InputError: it fails, or does not return a number per node.
    """
    with seeded(seed, fabric.device):
        trainer = trainer_of(planned(config)[-1], config, ready, fabric)
        out = trainer.output()
    try:
        values = OBJECTIVES.lookup(config.objective)(out, trainer.batch)
    except Exception as error:
        what = type(out).__name__ if isinstance(out, Mixture) else "logits [N, C]"
        raise InputError(f"objective {config.objective}: fails on a {what}: {type(error).__name__}: {error}") from None
    if not isinstance(values, Tensor) or values.shape not in (trainer.batch.y.shape, ()):
        said = f"shape {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise InputError(f"objective {config.objective}: must return a number per node, [N], and returned {said}")


def metric_of(data: Data) -> Metric:
    """Return the metric that a graph names; accuracy if it names none."""
    return METRICS.lookup(getattr(data, "metric", "accuracy"))


def follow(trainer: Trainer, config: Config) -> tuple[Weighted, ...]:
    """Follow the regime, and return the distillation losses that took part."""
    regime = REGIMES.lookup(config.regime)
    options = {} if config.objective is None else {"objective": OBJECTIVES.lookup(config.objective)}
    losses = parse(config.kd or ())
    with attached(losses, trainer, *roles(config)) as terms:
        regime(trainer, config.schedule, **options, **({"extra": terms} if terms else {}))
    return losses


def roles(config: Config) -> tuple[str, str]:
    """Return which expert of the mixture learns and which teaches; "" for the whole model, and for a frozen teacher."""
    if alone(REGIMES.lookup(config.regime)):
        return "", ""
    return "weak", "strong" if config.teacher in EXPERTS else ""


def scores_of(fitted: dict[str, Fitted], data: Data) -> dict[str, dict[str, float]]:
    """Score each expert alone, the plain fusions of both, and the mixture pooled, routed and sampled, in percent."""
    metric = metric_of(data)
    outputs = {name: each.output for name, each in fitted.items()} | fusions(fitted, data)
    if "teacher_logits" in data:
        outputs["teacher"] = data.teacher_logits
    scores = {name: score(out, data, metric, pooled) for name, out in outputs.items()}
    if "mixture" in fitted:
        model: Mowst = fitted["mixture"].model  # type: ignore[assignment]
        out: Mixture = fitted["mixture"].output  # type: ignore[assignment]
        by_node = routable(model, out, data)
        scores["routed"] = score(hard(by_node, float(model.threshold)), data, metric, pooled)
        scores["sampled"] = score(by_node, data, metric, expected)
        if any(fitted["mixture"].losses.children()):
            scores["taught"] = score(out.weak, data, metric, pooled)
    return scores


def fusions(fitted: dict[str, Fitted], data: Data) -> dict[str, Output]:
    """Put the experts trained alone together in the plain ways of `mowst.evaluation.fusion`."""
    if not {"weak", "strong"} <= fitted.keys():
        return {}
    weak, strong = (fitted[part].output for part in EXPERTS)
    assert isinstance(weak, Tensor)
    assert isinstance(strong, Tensor)
    found: dict[str, Output] = {"average": fusion.average(weak, strong)}
    found["stacked-on-val"] = fusion.stacked(weak, strong, data.y, data.val_mask.nonzero().squeeze(-1))
    model = fitted["mixture"].model if "mixture" in fitted else None
    if isinstance(model, Mowst) and bool((model.temperature != 1).any()):
        weak, strong = weak / model.temperature[0], strong / model.temperature[1]
        if any(fitted["mixture"].losses.children()):  # the weak expert was taught, and its temperature is another one's
            weak = fitted["mixture"].output.weak  # type: ignore[union-attr]
        found |= {"calibrated": fusion.average(weak, strong), "evidence": fusion.evidence(weak, strong)}
    return found


@torch.no_grad()
def diagnosis_of(mixture: Fitted | None, data: Data) -> dict[str, Any] | None:
    """Diagnose a mixture by the confidence that routes its nodes."""
    if mixture is None:
        return None
    model: Mowst = mixture.model  # type: ignore[assignment]
    out = routable(model, mixture.output, data)  # type: ignore[arg-type]
    held = None
    if mixture.twins is not None:
        gate: Any = model.router or model.gate
        held = mixed(gate, mixture.twins, take_rows(data.x, mixture.twins.nodes)).confidence
    return diagnose(out, data.y, data.train_mask, data.val_mask, held, routes_from=float(model.threshold))


@torch.no_grad()
def routable(model: Mowst, out: Mixture, data: Data) -> Mixture:
    """Return the output with the confidence by which nodes are routed: the router's, where the mixture has one."""
    if model.router is None:
        return out
    return out._replace(confidence=weigh(model.router, out.weak, data.x, None).confidence, scale=None)


def score(out: Output, data: Data, metric: Metric, how: Callable[[Output, Tensor, Metric], float]) -> dict[str, float]:
    """Score an output on validation and test nodes, in percent."""
    masks = {"val": data.val_mask, "test": data.test_mask}
    return {split: 100 * how(rows(out, mask), data.y[mask], metric) for split, mask in masks.items()}
