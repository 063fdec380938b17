"""How far the predictions of a run can be believed, as its record measured it: sentences, and tables of a page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mowst.reporting.page import Page

Result = Mapping[str, Any]
WORDS = {
    "mixture_tempered": "mixture, calibrated on validation nodes",
    "mixture_weak": "weak expert, as the mixture hears it",
    "mixture_strong": "strong expert, as the mixture hears it",
    "weak": "weak expert alone",
    "strong": "strong expert alone",
}
ALONE = {"weak": "weak expert", "strong": "strong expert"}
GROUPS = {"route": "sent to the {} expert", "class": "class {}", "degree": "{} degree", "homophily": "{} homophily"}
"""How groups of nodes are called, by what they are parted by."""


def judged_of(result: Result) -> str:
    """Return the model that a run is about: its mixture, or the last that it trained."""
    parameters = result["parameters"]
    return "mixture" if "mixture" in parameters else list(parameters)[-1]


def number(found: float | None) -> float:
    """Return a number of a record, where one without a value is null."""
    return math.nan if found is None else found


def error_of(belief: Mapping[str, Any]) -> float:
    """Return the debiased calibration error in percent: the root of the mean of its squares over seeds, or 0."""
    return 100 * math.sqrt(max(0.0, number(belief["square"])))


def percent(share: float | None) -> str:
    """Write a share in percent."""
    return "no value" if math.isnan(number(share)) else f"{100 * number(share):.1f} %"


def believed(result: Result) -> list[str]:
    """Say how far probabilities can be believed, and what became of sets and answers that were asked for.

    Nothing is said of a run without test nodes, or of a version that did not measure it.
    """
    trust, judged = result.get("trust", {}), judged_of(result)
    calibration = trust.get("calibration", {})
    if not calibration.get(judged, {}).get("all", {}).get("nodes"):
        return []
    own = calibration[judged]["all"]
    who, sure = ALONE.get(judged, judged), percent(own["confidence"])
    said = [
        f"On {own['nodes']:,.0f} test nodes the {who} gives its class {sure} on average and "
        f"is right at {percent(own['accuracy'])}; its probabilities are off by {error_of(own):.1f} points (debiased "
        "calibration error)"
    ]
    tempered = calibration.get("mixture_tempered") if judged == "mixture" else None
    said[0] += f", calibrated on validation nodes by {error_of(tempered['all']):.1f}." if tempered else "."
    said += promised(trust)
    if "final" in trust:
        said += [f"Of the mixture for use: {each}" for each in promised(trust["final"])]
    return said


def promised(trust: Mapping[str, Any]) -> list[str]:
    """Say what became of sets and answers that were asked for."""
    said = []
    if "sets" in trust:
        sets = trust["sets"]
        found = sets["test"]["all"]
        said.append(
            f"Sets asked to hold the label for {percent(sets['coverage'])} of the nodes hold it for "
            f"{percent(found['coverage'])}, with {number(found['size']):.2f} classes on average."
        )
    if "answering" in trust:
        said.append(answered(trust["answering"]))
    return said


def answered(answering: Mapping[str, Any]) -> str:
    """Say what became of a risk that was asked for."""
    found = answering["test"]
    asked = f"Asked for at most {percent(answering['risk'])} wrong answers, it answers"
    if not number(found["answered"]):
        return f"{asked} no node: there are too few calibrating nodes, or too many errors among them, to promise that."
    share, wrong = percent(found["answered"]), percent(found["risk"])
    return f"{asked} {share} of the nodes, and {wrong} of these answers are wrong."


def add_trust(page: Page, result: Result, classes: list[str]) -> None:
    """Add the sentences and, of the same figures, tables: calibration, sets, answers."""
    if not (said := believed(result)):
        return
    for each in said:
        page.add("p", each)
    trust = result["trust"]
    heads = ["on test nodes", "nodes", "right", "sure", "off by", "log-likelihood", "Brier score"]
    page.add_table(heads, list(calibration_rows(result)), caption=OFF)
    if "sets" in trust:
        heads = ["sets of classes", "nodes", "hold the label", "classes", "empty"]
        caption = SETS.format(**trust["sets"], of=TOGETHER[trust["sets"]["by"]])
        page.add_table(heads, list(set_rows(trust["sets"]["test"], classes)), caption=caption)
    heads = ["answered, surest first", "80 %", "90 %", "95 %"]
    page.add_table(heads, list(answer_rows(result)), caption=ANSWERED)


OFF = (
    "How sure a model is, and how right: off by is the debiased calibration error in points, log-likelihood is in nats "
    "for each node, the Brier score goes from 0, best, to 2."
)
SETS = "Sets for a coverage of {coverage:g}, score {score}, calibrated {of}: how many hold the label, and their size."
TOGETHER = {"all": "for all nodes together", "route": "for each expert's nodes by themselves"}
ANSWERED = (
    "Share that is right, in %, where only the surest nodes are answered; in brackets, if what is wrong came last."
)


def words_of(name: str) -> str:
    """Name a model for people."""
    return WORDS.get(name, name)


def calibration_rows(result: Result) -> Iterator[list[str]]:
    """Yield a row for each model, and for each group of the mixture's nodes."""
    for name, groups in result["trust"]["calibration"].items():
        yield [words_of(name), *calibration_cells(groups["all"])]
        for by, parts in groups.items():
            if by != "all":
                there = {GROUPS[by].format(part): found for part, found in parts.items() if found["nodes"]}
                yield from ([f"{words_of(name)}, {words}", *calibration_cells(found)] for words, found in there.items())


def calibration_cells(found: Mapping[str, Any]) -> list[str]:
    """Write how far some nodes can be believed."""
    shares = [percent(found[key]) for key in ("accuracy", "confidence")]
    rest = [f"{error_of(found):.1f}", f"{-number(found['nll']):.3f}", f"{number(found['brier']):.3f}"]
    return [f"{found['nodes']:,.0f}", *shares, *rest]


def set_rows(test: Mapping[str, Any], classes: list[str]) -> Iterator[list[str]]:
    """Yield a row for all sets, and for those of each group of nodes."""
    yield ["all", *set_cells(test["all"])]
    for by, parts in test.items():
        for part, found in parts.items() if by != "all" else ():
            if found["nodes"]:
                part = classes[int(part)] if by == "class" and classes else part
                yield [GROUPS[by].format(part), *set_cells(found)]


def set_cells(found: Mapping[str, Any]) -> list[str]:
    """Write what sets are like."""
    return [
        f"{found['nodes']:,.0f}",
        percent(found["coverage"]),
        f"{number(found['size']):.2f}",
        percent(found["empty"]),
    ]


def answer_rows(result: Result) -> Iterator[list[str]]:
    """Yield a row for each model."""
    for name, found in result["trust"]["answers"].items():
        shares = zip(found["accuracy"].values(), found["oracle"].values(), strict=True)
        yield [words_of(name), *(f"{100 * number(one):.1f} ({100 * number(best):.1f})" for one, best in shares)]
