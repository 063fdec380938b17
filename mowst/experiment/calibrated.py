"""What a run promises of a mixture's predictions: probabilities that can be believed, sets of classes with a coverage,
and a confidence to answer from.

Labels are spent once: training nodes fit, validation nodes select and fit the temperatures of the probabilities, and,
where sets or a risk are asked for, a part of the validation nodes, drawn at random and taken from the rest, calibrates
these. `trust.json` in the folder of a seed keeps what was found and the ids of these nodes. Each promise holds by
itself; both rest on the same nodes. The mixture for use (`final`), which is trained on the labels that select, too, and
on none that calibrates, has promises of its own.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from mowst.errors import InputError
from mowst.evaluation import CONFORMITY, SetRule, abstention, degrees, fewest, measured, routable, tempering, thirds
from mowst.evaluation.tempering import TemperatureGate
from mowst.experiment.config import Config
from mowst.experiment.folder import read_json
from mowst.experiment.plan import FINAL
from mowst.models import Logits, Mixture, Mowst, piecewise

STREAM = 0xCA1
"""Keeps the draw of calibrating nodes apart from what else is drawn with a run's seed."""


class Calibrated(NamedTuple):
    """What the validation nodes of one seed gave, beside the weights that they chose."""

    temperatures: TemperatureGate
    """By which log-probabilities are divided; fitted where validation selects."""
    output: Logits
    """What the mixture says after it; sets are made of it, and nodes are answered by it."""
    calibrating: list[int]
    """Ids of the nodes whose labels calibrated the rest."""
    rule: SetRule | None
    """Of the sets of classes, where a coverage was asked for."""
    answer_from: float | None
    """The confidence to answer from, where a risk was asked for; infinite: none."""
    report: dict[str, Any]
    """What comes of it on test nodes: `sets` and `answering`."""
    final: Calibrated | None = None
    """The same of the mixture for use, by the same temperatures without offsets, where there is one."""

    def recorded(self) -> dict[str, Any]:
        """Return what the record of a seed says of it."""
        if self.final is None or not self.report.keys() & {"sets", "answering"}:
            return self.report
        return self.report | {FINAL: self.final.report}

    def stored(self) -> dict[str, Any]:
        """Return what the folder of a seed keeps."""
        rule = None if self.rule is None else dataclasses.asdict(self.rule)
        asked = self.report.get("answering", {}).get("risk")
        found = {"temperatures": self.temperatures._asdict(), "rule": rule, "answer_from": self.answer_from}
        for_use = {} if self.final is None else {FINAL: self.final.stored()}
        return found | {"asked": {"abstain_risk": asked}, "calibrating": self.calibrating} | for_use


class Told(NamedTuple):
    """What is told of every node by what a run kept."""

    probs: Tensor
    """[N, C] calibrated probabilities."""
    sets: Tensor | None
    """[N, C] bool: which classes are in a node's set; none: the run made no sets."""
    unsure: Tensor | None
    """[N] bool: which nodes are not answered; none: the run was asked for no risk."""


@torch.no_grad()
def told(folder: Path, found: tuple[Mowst, Mixture], data: Data, name: str = "mixture") -> Told:
    """Apply what the folder of a seed keeps in `trust.json` to its mixture's output for all nodes of its graph.

    Args:
        folder: OUT/seed-0.
        found: the mixture, and what it says of every node.
        data: the graph, prepared.
        name: mixture, or final, the one for use.

    Raises:
        InputError: the file is not there, or damaged.
    """
    path, out, edge_index = folder / "trust.json", found[1].cpu(), data.edge_index.cpu()
    kept = read_json(path)
    try:
        kept = dict(kept).get(name, kept)  # `final` may have promises of its own
        gate, answer_from = TemperatureGate(**kept["temperatures"]), kept["answer_from"]
        probs = probs_of(output_after(gate, out, edge_index))
        sets = None
        if kept["rule"] is not None:
            if kept["rule"]["score"] not in CONFORMITY.names:  # a file names no code
                raise ValueError(f"score: unknown {kept['rule']['score']!r}")
            limits = [math.inf if each is None else float(each) for each in kept["rule"]["thresholds"]]
            rule = SetRule(**kept["rule"] | {"thresholds": tuple(limits)})
            sets = rule.sets(probs, edge_index, to_weak(found, data).long() if len(limits) > 1 else None)
        unsure = None
        if kept["asked"]["abstain_risk"] is not None:
            unsure = confidence_of(probs, out) < (math.inf if answer_from is None else float(answer_from))
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(f"{path}: not what a run kept, or damaged: {type(error).__name__} {error}") from None
    return Told(probs, sets, unsure)


def fewest_calibrating(config: Config) -> int:
    """Return how many calibrating nodes a configuration needs; 0: it asks for nothing that needs some."""
    sets = 0 if config.coverage is None else fewest(config.coverage)
    return max(sets, 0 if config.abstain_risk is None else abstention.fewest_answers(config.abstain_risk))


def calibrating(config: Config, val: Tensor, seed: int) -> Tensor | None:
    """Draw half of the validation nodes, mask [N], to calibrate with; none where nothing is asked for.

    Raises:
        InputError: they are too few.
    """
    if not (least := 2 * fewest_calibrating(config)):
        return None
    nodes = val.nonzero().squeeze(-1)
    if len(nodes) < least:
        asked = {"coverage": config.coverage, "abstain_risk": config.abstain_risk}
        what = " and ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
        raise InputError(
            f"{what}: needs {least} validation nodes, half of them to calibrate with, and there are {len(nodes)}"
        )
    generator = torch.Generator().manual_seed(seed ^ STREAM)
    drawn = nodes[torch.randperm(len(nodes), generator=generator)[: len(nodes) // 2]]
    return index_to_mask(drawn, size=len(val))


def to_weak(found: tuple[Mowst, Mixture], data: Data) -> Tensor:
    """Tell which nodes are routed to the weak expert, mask [N] on the CPU."""
    model, out = found
    return (routable(model, out, data.x).confidence >= model.threshold).cpu()


def predicted(out: Mixture) -> Tensor:
    """Return the classes that a mixture predicts, [N]; calibration does not change them."""
    return piecewise(lambda rows: out.rows(rows).log_probs().argmax(dim=-1), len(out.weak))


def output_after(temperatures: TemperatureGate, out: Mixture, edge_index: Tensor) -> Logits:
    """Return what a mixture says of all nodes once it is calibrated, as logits [N, C]."""
    seen = tempering.signals(out, edge_index)
    return piecewise(lambda rows: temperatures.calibrated(out.rows(rows), seen[rows]), len(seen))


def probs_of(out: Logits) -> Tensor:
    """Return probabilities of all nodes, [N, C]."""
    return piecewise(lambda rows: out.rows(rows).probs(), len(out.values))


def confidence_of(probs: Tensor, out: Mixture) -> Tensor:
    """Return the calibrated probability [N] of the class that a mixture predicts, from probabilities [N, C]."""
    return probs.gather(-1, predicted(out).unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def calibrated(
    found: tuple[Mowst, Mixture] | None, data: Data, config: Config, seed: int, final: tuple[Mowst, Mixture] | None
) -> Calibrated | None:
    """Calibrate the probabilities of a mixture and what was asked for, and measure this on test nodes.

    Args:
        found: the mixture, and what it says of every node; none: there is nothing to calibrate.
        data: the graph.
        config: what is asked for.
        seed: of the noise.
        final: the mixture for use, which learned the labels that select, and none that calibrates.
    """
    if found is None:
        return None
    out, seen = found[1], tempering.signals(found[1].cpu(), data.edge_index.cpu())
    temperatures = tempering.surest(out, data.y, data.val_mask, seen)
    promised = promise(found, temperatures, data, config, seed)
    if final is None:
        return promised
    without = temperatures._replace(offsets=())  # it has learned from the same labels how frequent classes are
    return promised._replace(final=promise(final, without, data, config, seed))


def promise(
    found: tuple[Mowst, Mixture], temperatures: TemperatureGate, data: Data, config: Config, seed: int
) -> Calibrated:
    """Make of a mixture's tempered probabilities what was asked for, by labels that it has not seen."""
    out, edge_index, val = found[1].cpu(), data.edge_index.cpu(), data.val_mask.cpu()
    output, nodes = output_after(temperatures, out, edge_index), torch.zeros_like(val)
    if "calibration_mask" in data:
        nodes = data.calibration_mask.cpu()
    report: dict[str, Any] = {"nodes": {"select": int(val.sum()), "calibrate": int(nodes.sum())}}
    rule = answer_from = None
    if config.coverage is not None:
        weak, probs = to_weak(found, data), probs_of(output)
        group = weak.long() if config.mondrian else None
        plain = SetRule(config.coverage, config.conformal, config.diffusion, seed, ())
        rule = plain.fit(probs, edge_index, data.y, nodes, group)
        sets = rule.sets(probs, edge_index, group)
        said = {"coverage": rule.coverage, "score": rule.score, "diffusion": rule.diffusion}
        report["sets"] = said | {"by": "route" if config.mondrian else "all", "thresholds": rule.thresholds}
        report["sets"]["test"] = sets_on_test(sets, weak, data)
    if config.abstain_risk is not None:
        probs, guess = probs_of(output), predicted(out)
        confidence = probs.gather(-1, guess.unsqueeze(-1)).squeeze(-1)
        others = confidence[~(nodes | val | data.train_mask.cpu())]
        right = (guess[nodes] == data.y.cpu()[nodes]).double()
        tried = others if len(others) else confidence
        answer_from = abstention.answers_from(confidence[nodes], right, tried, config.abstain_risk)
        report["answering"] = {"risk": config.abstain_risk, "doubt": abstention.DOUBT, "from": answer_from}
        report["answering"]["test"] = answers_on_test(probs, guess, confidence >= answer_from, data)
    return Calibrated(temperatures, output, nodes.nonzero().squeeze(-1).tolist(), rule, answer_from, report)


def sets_on_test(sets: Tensor, weak: Tensor, data: Data) -> dict[str, Any]:
    """Measure sets [N, C] on test nodes: all, by the expert that a node is routed to, class and third of degree."""
    test, y = data.test_mask.cpu(), data.y.cpu()
    groups = {
        "route": {"weak": test & weak, "strong": test & ~weak},
        "class": {str(label): test & (y == label) for label in range(sets.size(-1))},
        "degree": thirds(torch.where(test, degrees(data.edge_index.cpu(), len(test)).double(), torch.nan)),
    }
    found = {by: {name: measured(sets[mask], y[mask]) for name, mask in masks.items()} for by, masks in groups.items()}
    return {"all": measured(sets[test], y[test]), **found}


def answers_on_test(probs: Tensor, guess: Tensor, answered: Tensor, data: Data) -> dict[str, float]:
    """Measure answers on test nodes: share `answered`, `risk`, mean `correctness`; of [N, C], [N] and bool [N]."""
    test, y = data.test_mask.cpu(), data.y.cpu()
    given, wrong = answered[test], (guess[test] != y[test]).double()
    score = abstention.distributional_correctness(abstention.extended(probs[test], given), y[test])
    return {
        "answered": float(given.double().mean()),
        "risk": float(wrong[given].mean()) if given.any() else math.nan,
        "correctness": float(score.mean()),
    }
