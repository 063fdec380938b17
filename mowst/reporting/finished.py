"""A run as its folder tells it: what reports and comparisons are made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mowst.evaluation import p_words, paired
from mowst.reporting.table import ROWS
from mowst.reporting.trust import judged_of


class Finished(NamedTuple):
    """A finished run."""

    name: str
    """Of its folder."""
    result: dict[str, Any]
    """Its `result.json`."""
    figures: list[dict[str, Any]]
    """What it kept for drawing, seed by seed (`mowst.experiment.figures`); empty: nothing."""
    histories: list[list[dict[str, Any]]]
    """The records of its validations, seed by seed."""
    config: str
    """Its configuration, as YAML."""
    command: str
    """What repeats it."""
    signal: str = "metric"
    """What validation nodes are scored by."""

    @property
    def judged(self) -> str:
        """The model that it is about."""
        return judged_of(self.result)

    @property
    def routes(self) -> bool:
        """Whether there is a mixture that can give each node to one expert, and figures of it."""
        return bool(self.figures) and all("routing" in each for each in self.figures)

    @property
    def where(self) -> str:
        """The nodes that its figures are about."""
        return "validation" if self.figures and self.figures[0]["on"] == "val" else "test"


def gain_cells(ones: Sequence[float | None], others: Sequence[float | None]) -> list[str]:
    """Write what one model is better by than another over the same seeds, and whether that may be luck."""
    known = [each for each in (*ones, *others) if each is not None]
    if len(known) < len(ones) + len(others):
        return ["no value", ""]
    gain = paired(known[: len(ones)], known[len(ones) :])
    spread = "" if math.isnan(gain.deviation) else f" ± {gain.deviation:.2f}"
    return [f"{gain.mean:+.2f}{spread}", "" if math.isnan(gain.p) else p_words(gain.p)]


class Line(NamedTuple):
    """A curve over seeds."""

    mean: list[float]
    deviation: list[float]
    """Sample deviation; zeros for one seed."""


def words_of(name: str) -> str:
    """Name a row of scores for people."""
    return ROWS.get(name, f"{name} alone")


def expert_words(name: str) -> str:
    """Name an expert, or the mixture, for people in a chart."""
    return {"weak": "weak expert", "strong": "strong expert"}.get(name, name)


def over_seeds(found: Sequence[Sequence[float | None]]) -> Line:
    """Average curves point by point; what has no value is left out."""
    mean, deviation = [], []
    for column in itertools.zip_longest(*found):
        values = [each for each in column if each is not None]
        middle = sum(values) / len(values) if values else math.nan
        spread = sum((each - middle) ** 2 for each in values) / (len(values) - 1) if len(values) > 1 else 0.0
        mean.append(middle)
        deviation.append(spread**0.5)
    return Line(mean, deviation)


def added_bins(found: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """Add up the bins of several seeds that have the same limits, from the lowest on."""
    sums = dict[tuple[float, float], dict[str, float]]()
    for each in itertools.chain.from_iterable(found):
        into = sums.setdefault((each["low"], each["high"]), {"low": each["low"], "high": each["high"]})
        for name in each.keys() - {"low", "high"}:
            into[name] = into.get(name, 0.0) + each[name]
    return [sums[limits] for limits in sorted(sums)]


def phase_words(phase: str) -> str:
    """Name a phase of training for people."""
    first, _, part = phase.partition(" ")
    role, _, member = part.partition(".members.")
    who = f"{role} expert" + (f", member {int(member) + 1}" if member else "")
    words = {"pretrain": f"{who}, trained alone", "rehearse": "copies of the experts, for the gate"}
    plain = {"solo": "trained alone", "joint": "both experts together"}
    return words.get(first, phase) if part else plain.get(phase, phase)


def curves(history: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, list[int], list[float]]]:
    """Yield the model, phase, epochs (counted on through a model's phases) and validation scores of each phase."""
    begun = dict[str, int]()
    for (model, phase), lines in itertools.groupby(history, key=lambda line: (line["model"], line["phase"])):
        start, kept = begun.get(model, 0), list(lines)
        yield model, phase, [start + line["epoch"] for line in kept], [line["val"] for line in kept]
        begun[model] = start + kept[-1]["epoch"]
