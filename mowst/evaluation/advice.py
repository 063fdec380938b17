"""What a `result.json` means for its user, in plain sentences: what to use, how sure that is, its cost, what next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mowst.evaluation.pairing import Paired, paired

Result = Mapping[str, Any]

ALONE = {"student": "the student", "weak": "the weak expert alone", "strong": "the strong expert alone"}
COMPARED = {
    "taught": "the weak expert, distilled",
    "mixture": "the mixture",
    "average": "the plain average of both experts",
    "calibrated": "the average of both experts, calibrated",
    "evidence": "the sum of both experts' log-probabilities",
}
"""What a user may choose among beside the experts alone: none of it is fitted on validation nodes."""
LARGEST, SPREAD = "largest-class", "label-propagation"
"""Answers without a model."""
INSTEAD = (
    "see whether features mislead (of your own graph, --features names those to keep), or take PyG's LabelPropagation"
)
"""What to do where spread labels are better than the models."""
NOTHING = "features and edges seem to say nothing of the classes; look at both"
UNEVEN = (
    "where one class is so large, --weak.class_weight balanced --strong.class_weight balanced heeds the others, and "
    "ROC AUC (metric: rocauc in the card of the graph) tells more than accuracy"
)
"""What to think of where no model is better than the largest class: of scores in general, and where it is half."""
METRIC_WORDS = {"accuracy": "% accuracy", "rocauc": "% ROC AUC"}
FEW = 5
"""Seeds below which more of them tell more than anything else."""


class Advice(NamedTuple):
    """Which model to use, and why."""

    use: str
    """Its name among the scores."""
    name: str
    """The same in words."""
    other: str | None
    """The best of the others, by name; none: there is no other."""
    gain: Paired | None
    """What it is better than the other by on test nodes, seed by seed, in points."""
    sentences: dict[str, str]
    """What to say of it: `use`, `plain` if no model is worth its training, `sure`, `cost`."""
    steps: list[str]
    """What to try next, each a command's flag or a command, and what it is for."""

    def paragraph(self) -> str:
        """Say all of it."""
        return " ".join([*self.sentences.values(), f"To try next: {'; '.join(self.steps)}."])


def advise(result: Result) -> Advice:
    """Say which model to use: the one with the best mean validation score, of equals the one that costs less."""
    names = candidates(result)
    use, *rest = sorted(names, key=lambda name: -valid(result, name))  # stable: of equals the first is taken
    other = rest[0] if rest else None
    gain = None if other is None else paired(*(tests(result, name) for name in (use, other)))
    sentences = {
        "use": f"Use {names[use]}: {score_words(result, use)}.",
        **plain_words(result, use),
        "sure": sureness(result, names, use, other, gain),
        "cost": cost(result, use),
    }
    return Advice(use, names[use], other, gain, sentences, next_steps(result, use))


def plain_words(result: Result, use: str) -> dict[str, str]:
    """Say, by the key `plain`, that no model is worth its training, where that is more than chance with most seeds.

    Spread labels must be better than the model to use; the largest class need only be beaten by none in half of them.
    """
    plain = [run.get("plain", {}) for run in result["runs"]]
    better = sum(use in found[SPREAD]["beats"] for found in plain if SPREAD in found)
    unbeaten = sum(found[LARGEST]["unbeaten"] for found in plain if LARGEST in found)
    if 2 * better > len(plain) and (score := valid(result, SPREAD)) > valid(result, use):
        return {
            "plain": f"Labels spread over the edges, without a model, validate better, with {score:.2f}: {INSTEAD}."
        }
    if unbeaten and 2 * unbeaten >= len(plain) and (score := valid(result, LARGEST)) > -math.inf:
        what = UNEVEN if result["metric"] == "accuracy" and score >= 50 else NOTHING
        than = f"than always answering the largest class, with {score:.2f} on validation nodes"
        return {"plain": f"No model here is better by more than chance {than}: {what}."}
    return {}


def candidates(result: Result) -> dict[str, str]:
    """Return what a user may choose among, by name with its words, what costs less first."""
    alone = {name: ALONE.get(name, f"the {name} expert alone") for name in result["parameters"] if name != "mixture"}
    ordered = {name: alone[name] for name in [*ALONE, *alone] if name in alone and name in result["scores"]}
    return ordered | {name: words for name, words in COMPARED.items() if name in result["scores"]}


def number(value: float | None) -> float:
    """Return a number of a `result.json`, where one that has no value is null."""
    return math.nan if value is None else value


def valid(result: Result, name: str) -> float:
    """Return a mean validation score in percent; of what has none, minus infinity."""
    found = number(result["scores"][name]["val"][0])
    return -math.inf if math.isnan(found) else found


def tests(result: Result, name: str) -> list[float]:
    """Return the test score of every seed, in percent."""
    return [number(run["scores"][name]["test"]) for run in result["runs"]]


def score_words(result: Result, name: str) -> str:
    """Say how good a model is."""
    unit = METRIC_WORDS.get(result["metric"], f"% {result['metric']}")
    (val, _), (test, deviation) = ([number(each) for each in result["scores"][name][key]] for key in ("val", "test"))
    if math.isnan(test):
        return f"{val:.2f} {unit} on validation nodes; there is no score on test nodes"
    spread = f" ± {deviation:.2f}" if len(result["seeds"]) > 1 else ""
    return f"{test:.2f}{spread} {unit} on test nodes, {val:.2f} on the validation nodes by which it was chosen"


def sureness(result: Result, names: Mapping[str, str], use: str, other: str | None, gain: Paired | None) -> str:
    """Say how sure the choice is."""
    said, seeds = [], len(result["seeds"])
    if other is not None and gain is not None:
        equal = valid(result, use) == valid(result, other)
        no_better = f"{names[other].capitalize()} does no better on validation nodes and costs more"
        said.append(
            f"{no_better if equal else f'Next on validation nodes comes {names[other]}'}, with "
            f"{valid(result, other):.2f}; on test nodes the difference is {gain_words(gain, seeds)}."
        )
    nodes = sum(each["nodes"] for each in result["diagnosis"]["bins"]) / seeds if "diagnosis" in result else 0
    share = valid(result, use) / 100
    error = 100 * (share * (1 - share) / nodes) ** 0.5 if nodes and 0 <= share <= 1 else 0.0
    if result["metric"] == "accuracy" and error >= 0.05:
        said.append(
            f"{nodes:,.0f} validation nodes cannot tell differences of much less than {error:.1f} points from chance."
        )
    return " ".join(said) or "There is nothing to compare it with."


def gain_words(gain: Paired, seeds: int) -> str:
    """Say what a paired comparison over seeds came to, in points."""
    if math.isnan(gain.mean):
        return "not known"
    if seeds < 2:
        return f"{gain.mean:+.2f} points, of a single seed"
    if math.isnan(gain.p):
        return f"{gain.mean:+.2f} points with each of {seeds} seeds"
    return f"{gain.mean:+.2f} ± {gain.deviation:.2f} points over {seeds} seeds (paired t-test: {p_words(gain.p)})"


def p_words(p: float) -> str:
    """Write a p-value."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def cost(result: Result, use: str) -> str:
    """Say what the choice costs, and what routing would save."""
    parameters, runs = result["parameters"], result["runs"]
    both = use in COMPARED and use != "taught"
    key = next((name for name in (use, "mixture") if name in parameters), None)
    weights = parameters[key] if key else sum(parameters.values())
    seconds = [run["seconds"][key] if key else sum(run["seconds"].values()) for run in runs]
    time = f"{sum(seconds) / len(seconds):.1f} s of training a seed"
    holds = "runs both experts at every node, and has" if both else "has"
    holds = "is a part of the mixture, which has" if use == "taught" else holds
    said = [f"It {holds} {weights:,} weights and took {time}."]
    share = 1 - result["diagnosis"]["routed"] if "diagnosis" in result and "routed" in result["scores"] else 1.0
    if share < 1:
        routed = score_words(result, "routed").partition(" on test nodes")[0]
        said.append(
            f"With one expert per node (routed), the strong one is asked for {100 * share:.0f} % of the "
            f"validation nodes, at {routed} on test nodes."
        )
    return " ".join(said)


def next_steps(result: Result, use: str) -> list[str]:
    """Say what to try next."""
    steps, parameters = [], result["parameters"]
    if len(result["seeds"]) < FEW:
        steps.append(f"--seeds {FEW}, which tells luck from skill")
    if "mixture" not in parameters and "student" not in parameters:
        steps.append("the mixture, without --no-mixture")
    if (
        "held_out" in result.get("diagnosis", {"confidence": ()})["confidence"]
        and "weak" in parameters
        and use != "weak"
    ):
        if parameters.keys() - {"weak", "strong", "mixture"}:  # several experts, which teach no weak one
            longer = "a longer --budget, in which --preset best tries more of them"
            best = "--preset best, which tries more of them for as long as --budget says"
            steps.append(longer if result.get("preset") == "best" else best)
        else:
            steps.append("--preset good, with which several kinds of GNN speak as one")
            if "taught" not in result["scores"]:
                steps.append('--teacher strong --kd "kd(temperature=1)", with which the weak expert serves more nodes')
    steps.append(f"python -m mowst.tune --dataset {result['dataset']}, which looks for better settings")
    return steps
