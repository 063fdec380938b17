"""Charts of one run and of several, as Plotly's plain `data` and `layout`: no figure object is needed to write them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mowst.reporting.finished import Finished, Line, curves, expert_words, over_seeds, phase_words

Trace = dict[str, Any]

COLORS = {"weak": "#e08a1e", "strong": "#4a90d9", "mixture": "#2a9d6f", "student": "#2a9d6f", "teacher": "#a970d6"}
CYCLE = ("#4a90d9", "#e08a1e", "#2a9d6f", "#a970d6", "#d9534f", "#17a2b8", "#b8860b", "#c2618f", "#7a8a2e", "#8a8f98")
GREY = "#8a8f98"
"""All are seen on white and on black."""
MOST_SEEDS, MOST_POINTS, LONGEST = 5, 200, 40
"""Seeds whose learning curves are drawn, their points, and characters of a name in a legend."""


class Chart(NamedTuple):
    """A chart with its words."""

    title: str
    says: str
    """How to read it."""
    data: list[Trace]
    layout: dict[str, Any]


class Drawn(NamedTuple):
    """A model of a run in a chart."""

    run: Finished
    model: str
    label: str
    color: str


def models_of(run: Finished) -> list[Drawn]:
    """Return what a chart of one run compares."""
    names = run.figures[0]["models"] if run.figures else []
    return [
        Drawn(run, name, expert_words(name), COLORS.get(name, CYCLE[place % len(CYCLE)]))
        for place, name in enumerate(names)
    ]


def judged_of(runs: Sequence[Finished]) -> list[Drawn]:
    """Return what a chart of several runs compares: the model that each is about."""
    return [
        Drawn(run, run.figures[0]["judged"], run.name, CYCLE[place % len(CYCLE)])
        for place, run in enumerate(runs)
        if run.figures
    ]


def axes(x: str, y: str, **more: Any) -> dict[str, Any]:
    """Return a layout with titles of both axes."""
    titles = {"xaxis": x, "yaxis": y}
    return {axis: {"title": {"text": html.escape(title, quote=False)}} for axis, title in titles.items()} | more


def percent(values: Sequence[float]) -> list[float | None]:
    """Turn shares into percent, for JSON."""
    return [None if math.isnan(value) else round(100 * value, 4) for value in values]


def line(x: Sequence[Any], y: Sequence[Any], name: str, color: str, **more: Any) -> Trace:
    """Return a line with its name, in which markup has no meaning."""
    style = {"color": color, **more.pop("line", {})}
    return {"type": "scatter", "x": list(x), "y": list(y), "name": html.escape(cut(name)), "line": style, **more}


def cut(name: str) -> str:
    """Leave out the middle of a name that is too long for a legend on a phone."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 :]}"


def band(x: Sequence[Any], found: Line, color: str) -> Trace:
    """Return the band of a standard deviation around a curve in percent."""
    both = list(zip(found.mean, found.deviation, strict=True))
    y = [mean + spread for mean, spread in both] + [mean - spread for mean, spread in reversed(both)]
    shape = {"fill": "toself", "fillcolor": f"{color}33", "line": {"width": 0}, "mode": "lines"}
    return {"type": "scatter", "x": [*x, *reversed(x)], "y": y, "hoverinfo": "skip", "showlegend": False, **shape}


def confidence(run: Finished) -> Chart | None:
    """Draw how often both experts are right by the weak one's confidence, and where the threshold is."""
    if not run.routes:
        return None
    found = [each["routing"] for each in run.figures]
    x = over_seeds([each["bins"]["confidence"] for each in found]).mean
    data = [
        line(x, percent(over_seeds([each["bins"][role] for each in found]).mean), expert_words(role), COLORS[role])
        for role in ("weak", "strong")
    ]
    places = [each["threshold"] for each in found if each["threshold"] is not None]
    layout = axes("confidence in the weak expert", f"% of {run.where} nodes that are right")
    if places:
        mark = {"type": "line", "x0": sum(places) / len(places), "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [{**mark, "x1": mark["x0"], "line": {"color": GREY, "dash": "dot", "width": 2}}]
        mean = "" if len(found) == 1 else f", averaged over the {len(places)} of {len(found)} seeds that have one"
        where = f"The dotted line is the threshold{mean}: nodes right of it are left to the weak expert."
    else:
        where = "There is no threshold: every node goes to the strong expert."
    says = (
        f"Each point is a fifteenth of the {run.where} nodes. {where} Where the weak expert's line reaches the strong "
        "one's, the strong expert brings nothing."
    )
    return Chart("Confidence and correctness", says, data, layout)


def tradeoff(drawn: Sequence[Drawn], *, alone: bool) -> Chart | None:
    """Draw what routing scores by the share of nodes for which the strong expert is asked."""
    data = [trace for each in drawn if each.run.routes for trace in routing_traces(each, alone=alone)]
    if not data:
        return None
    sampled = [sample for each in drawn if each.run.routes and (sample := sample_of(each.run))]
    note = f" Computed on a sample of {max(sampled):,} nodes, drawn with a fixed seed." if sampled else ""
    says = (
        "At the left the weak expert answers alone, at the right the strong one. A curve that is flat from some point "
        "on says that asking the strong expert more often brings nothing. The band is one deviation over seeds."
    )
    layout = axes("cost: % of nodes sent to the strong expert", f"{drawn[0].run.result['metric']} in %")
    layout["xaxis"]["range"] = [-3, 103]
    return Chart("Score and cost along the threshold", says + note, data, layout)


def routing_traces(each: Drawn, *, alone: bool) -> list[Trace]:
    """Return the curve of one run with its band, and its own threshold; alone the curve of validation nodes, too."""
    found = [figures["routing"] for figures in each.run.figures]
    mean = over_seeds([routing["curves"]["here"]["score"] for routing in found])
    x = [100 * place / (len(mean.mean) - 1) for place in range(len(mean.mean))]
    thresholds = over_seeds([routing["curves"]["here"]["threshold"] for routing in found]).mean
    said = ["no threshold" if math.isnan(value) else f"threshold {value:.3f}" for value in thresholds]
    label = f"{each.run.where} nodes" if alone else each.label
    data = [band(x, mean, each.color), line(x, mean.mean, label, each.color, mode="lines", text=said)]
    if alone and each.run.where == "test":
        y = over_seeds([routing["curves"]["val"]["score"] for routing in found]).mean
        data.append(line(x, y, "validation nodes", GREY, mode="lines", line={"dash": "dot"}))
    asked = 100 * sum(routing["asked"] for routing in found) / len(found)
    score = each.run.result["scores"]["routed"]["val" if each.run.where == "validation" else "test"][0]
    mark = {"mode": "markers", "marker": {"size": 12, "symbol": "diamond"}, "showlegend": alone}
    return [*data, line([asked], [score], "threshold of this run", each.color, **mark)]


def sample_of(run: Finished) -> int | None:
    """Return on how many nodes a curve along the threshold was computed, if not on all."""
    counted, there = (
        run.figures[0]["routing"]["curves"]["here"]["nodes"],
        run.figures[0]["counts"][run.figures[0]["on"]],
    )
    return int(counted) if counted < there else None


def reliability(drawn: Sequence[Drawn]) -> Chart | None:
    """Draw how often predictions are right by how sure they are."""
    data = [line([0, 100], [0, 100], "as sure as right", GREY, mode="lines", line={"dash": "dot"})]
    for each in drawn:
        found = [figures["calibration"][each.model] for figures in each.run.figures]
        x, y = (percent(over_seeds([one[key] for one in found]).mean) for key in ("confidence", "accuracy"))
        error = over_seeds([[one["error"]] for one in found])
        data.append(line(x, y, f"{each.label}, off by {100 * error.mean[0]:.1f}", each.color, mode="lines+markers"))
    says = (
        "Below the dotted line a prediction is surer than it is right, above it less sure. Each point is a fifteenth "
        "of the nodes; the number is the expected calibration error, in points."
    )
    layout = axes("probability of the predicted class, %", "% that are right")
    return Chart("Reliability", says, data, layout) if len(data) > 1 else None


def risk_coverage(drawn: Sequence[Drawn]) -> Chart | None:
    """Draw the share of wrong answers where only the surest nodes are answered."""
    data = []
    for each in drawn:
        found = [figures["risk"][each.model] for figures in each.run.figures]
        mean = over_seeds([one["risk"] for one in found])
        x = [100 * (place + 1) / len(mean.mean) for place in range(len(mean.mean))]
        area = 100 * over_seeds([[one["area"]] for one in found]).mean[0]
        name = f"{each.label}, {area:.1f} on average"
        data.append(line(x, percent(mean.mean), name, each.color, mode="lines"))
    says = (
        "What is wrong where only the surest nodes are answered, and the others left to a person. Lower is better; the "
    )
    says += "number is the mean over all shares."
    return Chart("Risk and coverage", says, data, axes("% of nodes answered", "% of these wrong")) if data else None


def learning(run: Finished) -> Chart | None:
    """Draw validation scores by epoch, phase by phase."""
    data, colors = list[Trace](), dict[str, str]()
    factor = 1 if run.signal == "loss" else 100
    for place, history in enumerate(run.histories[:MOST_SEEDS]):
        for model, phase, epochs, scores in curves(history):
            group = f"{expert_words(model)}: {phase_words(phase).rstrip(' 0123456789')}".removeprefix("mixture: ")
            first = group not in colors
            color = colors.setdefault(group, CYCLE[len(colors) % len(CYCLE)])
            step = math.ceil(len(epochs) / MOST_POINTS)
            x, y = epochs[::step], [round(factor * score, 3) for score in scores[::step]]
            look = {"mode": "lines" if len(x) > 1 else "markers", "opacity": 0.45 if place else 1.0}
            data.append(line(x, y, group, color, legendgroup=group, showlegend=first, **look))
    if not data:
        return None
    shown = f"the first {MOST_SEEDS} of {len(run.histories)} seeds" if len(run.histories) > MOST_SEEDS else "every seed"
    says = (
        f"Validation scores of {shown}; the first one is the strongest line. A single point is a phase that was "
        "validated at its end only. A curve that still rises at its end wants more --epochs or --patience."
    )
    what = "log-likelihood" if run.signal == "loss" else f"{run.result['metric']} in %"
    return Chart("Learning curves", says, data, axes("epoch", f"validation {what}"))
