"""What a person reads at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from mowst.data import catalogue
from mowst.evaluation import advise
from mowst.reporting.trust import believed
from mowst.reporting.trust import percent as in_percent

ROWS = {
    "largest-class": "always the largest class",
    "label-propagation": "labels spread over the edges",
    "weak": "weak expert alone",
    "strong": "strong expert alone",
    "average": "plain average of both",
    "calibrated": "average, calibrated",
    "evidence": "sum of log-probabilities, calibrated",
    "correct-and-smooth": "weak expert, corrected and smoothed",
    "stacked-on-val": "stacking fitted on validation nodes",
    "mixture": "mixture",
    "routed": "one expert per node (routed)",
    "sampled": "random routing (exact)",
    "taught": "weak expert, distilled",
    "student": "student, distilled",
    "teacher": "its teacher",
}


def scores_table(result: dict[str, Any]) -> Table:
    """Return the scores of a `result.json`, in percent, mean and standard deviation over its seeds."""
    seeds = len(result["seeds"])
    title = f"{result['dataset']}, {result['metric']} in %, {seeds} seed{'s' if seeds > 1 else ''}"
    table = Table("", "validation", "test", title=title, title_justify="left", min_width=len(title))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, label in ordered(result).items():
        cells = (result["scores"][name][split] for split in ("val", "test"))
        table.add_row(label, *(percent(*cell, alone=seeds == 1) for cell in cells))
    return table


def ordered(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows of a table of scores from top to bottom, by name with their words."""
    members = {name: f"{name} alone" for name in result["scores"] if name not in ROWS}  # of a panel
    rows = dict[str, str]()
    for name, words in ROWS.items():
        rows |= {name: words} | (members if name == "weak" else {})
    return {name: words for name, words in rows.items() if name in result["scores"]}


def percent(mean: float, deviation: float, *, alone: bool) -> str:
    """Write a mean and its deviation, which a single run does not have."""
    if math.isnan(mean):
        return "no value"
    return f"{mean:.2f}" if alone else f"{mean:.2f} ± {deviation:.2f}"


def benefit_table(result: dict[str, Any]) -> Table:
    """Return how often each expert is right on validation nodes, by the weak expert's confidence."""
    found = result["diagnosis"]
    served = f"serves as well on the {100 * found['served']:.0f} % from {found['threshold'] or 0:.3f} on"
    title = f"validation nodes by confidence; the weak expert {served if found['served'] else 'serves as well nowhere'}"
    heads = ("confidence", "nodes", "weak right", "strong right", "benefit")
    table = Table(*heads, title=title, title_justify="left", min_width=len(title))
    for column in table.columns[1:]:
        column.justify = "right"
    for each in found["bins"]:
        if each["nodes"]:
            weak, strong = (100 * each[part] / each["nodes"] for part in ("weak", "strong"))
            span = f"{each['low']:.1f} to {each['high']:.1f}"
            table.add_row(span, f"{each['nodes']:,}", f"{weak:.1f} %", f"{strong:.1f} %", f"{strong - weak:+.1f}")
    return table


RUN_FOR = "share of the test nodes that an expert is run for"
RUN_FOR_HEADS = "expert", "pooled", "one expert per node"


def run_for(result: Mapping[str, Any]) -> list[list[str]]:
    """Return for how many test nodes each expert of a mixture is run, pooled and routed; none of an older run."""
    shares = result.get("run_for", {})
    return [[name, *(in_percent(each[how]) for how in ("pooled", "routed"))] for name, each in shares.items()]


def run_for_table(result: Mapping[str, Any]) -> Table:
    """Return the same as a table."""
    table = Table(*RUN_FOR_HEADS, title=RUN_FOR, title_justify="left", min_width=len(RUN_FOR))
    for column in table.columns[1:]:
        column.justify = "right"
    for row in run_for(result):
        table.add_row(*row)
    return table


def confidence_line(result: dict[str, Any]) -> str:
    """Say how much the mixture trusts the weak expert, and what the run took."""
    words = f"{result['seconds']:.1f} s of training"
    if "confidence" in result:
        mean, share = result["confidence"]["mean"], 100 * result["confidence"]["share_weak"]
        words = f"weight of the weak expert {mean:.2f}, above one half on {share:.1f} % of test nodes; {words}"
    return words


def closing(result: dict[str, Any]) -> Iterator[Table | str]:
    """Yield what is said below the scores: confidence and time, what has no value, what to believe, use and try."""
    yield confidence_line(result)
    yield from result.get("notes", ())
    if "diagnosis" in result:
        yield benefit_table(result)
    if len(run_for(result)) > 2:  # there is a panel
        yield run_for_table(result)
    if said := believed(result):
        yield " ".join(said)
    yield advise(result).paragraph()


def catalogue_table(root: str) -> Table:
    """Return every graph by name: size, metric, splits, whether it is on disk under `root`, what was run of it."""
    numbers = ("nodes", "edges", "features", "classes")
    table = Table("name", *numbers, "metric", "splits", "on disk", "run", title=f"graphs, data root {root}", box=SIMPLE)
    table.columns[0].no_wrap = True
    for column in table.columns[1:5]:
        column.justify = "right"
    for row in catalogue(root):
        sizes = ("?" if value is None else f"{value:,}" for value in row[1:5])
        splits = ", ".join((row.split, *row.splits))
        table.add_row(row.name, *sizes, row.metric, splits, "yes" if row.on_disk else "no", row.exercised)
    return table
