"""The report of one run: a page that begins with the answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mowst.evaluation import advise
from mowst.reporting import charts, places
from mowst.reporting.finished import Finished, expert_words, gain_cells, words_of
from mowst.reporting.page import Page
from mowst.reporting.table import RUN_FOR, RUN_FOR_HEADS, ordered, percent, run_for
from mowst.reporting.trust import add_trust, believed

NO_FIGURES = (
    "This run kept no figures, so there are no charts of its predictions: it was made before there were reports, or "
    "with --report false. The same command into a new folder draws them."
)


def run_page(run: Finished) -> str:
    """Return the report of a run, one HTML file that needs nothing else."""
    page = Page(f"{run.result['dataset']}: report of a run")
    add_answer(page, run)
    page.add("h2", "Results")
    add_scores(page, run)
    add_figures(page, run)
    page.add("h2", "Training")
    page.add_charts([charts.learning(run)])
    add_costs(page, run)
    page.add("h2", "To repeat it")
    page.add("p", "This command trains it again; what it leaves out are the defaults.")
    page.add("pre", run.command, "command")
    page.add("p", "The same as a file, for --config:")
    page.add("pre", run.config, "config")
    page.add("p", "; ".join(environment(run.result)), "soft")
    return page.html()


def add_answer(page: Page, run: Finished) -> None:
    """Add what to use, how good it is, how sure that is, what it costs, and what to try next."""
    result, advice = run.result, advise(run.result)
    page.add("h1", f"{result['dataset']}: what a run found")
    page.add("p", sizes(run), "soft")
    page.parts.append("<section class=answer>")
    for about, words in advice.sentences.items():
        page.add("p", words, about)
    page.add("p", "To try next:")
    page.add_list(advice.steps)
    page.parts.append("</section>")
    for note in [result["count_mismatch"], *result.get("notes", ())]:
        if note:
            page.add("p", f"Note: {note}", "note")


def sizes(run: Finished) -> str:
    """Say what was trained on what."""
    seeds = len(run.result["seeds"])
    told = f"Split {run.result['split']}, {seeds} seed{'s' * (seeds > 1)}"
    if run.figures:
        counts = run.figures[0]["counts"]
        parts = ", ".join(f"{counts[key]:,} {word}" for key, word in SPLITS.items())
        told += f"; {counts['nodes']:,} nodes, {counts['edges']:,} directed edges, "
        told += f"{len(run.figures[0]['classes'])} classes; {parts}"
    return f"{told}. Test labels were read once, after training."


SPLITS = {"train": "nodes to train on", "val": "to validate", "test": "to test"}


def add_scores(page: Page, run: Finished) -> None:
    """Add the table of scores, with the difference to the model that the run is about."""
    result, judged = run.result, run.judged
    seeds, use = len(result["seeds"]), advise(result).use
    heads = ["model", "validation", "test", f"better than the {expert_words(judged)} by", "paired t-test"]
    rows = [[words_of(name), *cells(result, name), *differences(result, name, judged)] for name in ordered(result)]
    columns = len(heads) if seeds > 1 else 3
    caption = f"{result['metric']} in %, " + (
        f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    )
    used = list(ordered(result)).index(use)
    bold = {(used, column) for column in range(columns)}
    page.add_table(heads[:columns], [row[:columns] for row in rows], caption=caption, bold=bold)


def cells(result: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield a model's validation and test score, as the terminal shows them."""
    for split in ("val", "test"):
        mean, deviation = (math.nan if each is None else each for each in result["scores"][name][split])
        yield percent(mean, deviation, alone=len(result["seeds"]) == 1)


def differences(result: Mapping[str, Any], name: str, judged: str) -> list[str]:
    """Return what a model is better by on test nodes, seed by seed, and whether that is luck."""
    if name == judged:
        return ["", ""]
    ones, others = ([run["scores"][each]["test"] for run in result["runs"]] for each in (name, judged))
    return gain_cells(ones, others)


def add_figures(page: Page, run: Finished) -> None:
    """Add the charts of what the run predicted."""
    if not run.figures:
        page.add("p", NO_FIGURES)
        if believed(run.result):
            page.add("h2", "How far to trust it")
            add_trust(page, run.result, [])
        return
    drawn = charts.models_of(run)
    if run.result["metric"] != "accuracy":
        page.add("p", f"Charts of what is right count the more probable class, whatever {run.result['metric']} says.")
    if run.routes:
        page.add("h2", "Who should answer")
        judged = [each for each in drawn if each.model == run.judged]
        page.add_charts([charts.confidence(run), charts.tradeoff(judged, alone=True)])
    page.add("h2", "Where in the graph")
    page.add_charts([places.by_degree(run), places.by_homophily(run)])
    page.add("h2", "How far to trust it")
    add_trust(page, run.result, run.figures[0]["classes"])
    page.add_charts([charts.reliability(drawn), charts.risk_coverage(drawn)])
    page.add("h2", "What goes wrong")
    page.add_charts([places.confusion(run)])
    add_mistakes(page, run)
    if around := list(places.around(run)):
        page.add("h2", "Some nodes and their neighbours")
        page.add_charts(around)


def add_mistakes(page: Page, run: Finished) -> None:
    """Add the most confident mistakes of the first seed."""
    first = run.figures[0]
    others = [name for name in first["models"] if name != first["judged"]]
    heads = ["node", "class", "predicted", "how sure", *(f"{expert_words(name)} says" for name in others)]
    heads += ["sent to"] * run.routes
    rows = []
    for each in first["mistakes"]:
        said = [first["classes"][each["each"][name]] for name in others]
        row = [str(each["node"]), first["classes"][each["class"]], first["classes"][each["said"]]]
        sent = ["strong expert" if each.get("routed") else "weak expert"] * run.routes
        rows.append([*row, f"{100 * each['sure']:.1f} %", *said, *sent])
    caption = (
        f"The {run.where} nodes of seed {run.result['seeds'][0]} at which the {expert_words(first['judged'])} was "
    )
    if rows:
        page.add_table(heads, rows, caption=f"{caption}surest and wrong.", words=True)


def add_costs(page: Page, run: Finished) -> None:
    """Add what each model took."""
    result = run.result
    heads, rows = ["trained", "weights", "epochs", "seconds"], []
    for name, weights in result["parameters"].items():
        means = [sum(each[key][name] for each in result["runs"]) / len(result["runs"]) for key in ("epochs", "seconds")]
        rows.append([words_of(name), f"{weights:,}", f"{means[0]:,.0f}", f"{means[1]:.1f}"])
    page.add_table(heads, rows, caption="Means over seeds; a mixture counts the experts that it starts from.")
    if rows := run_for(result):
        page.add_table(RUN_FOR_HEADS, rows, caption=f"The {RUN_FOR}, mean over seeds; of a panel each member counts.")


def environment(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the run took place."""
    yield from (f"{name} {version}" for name, version in result["versions"].items())
    yield f"device {result['device']}"
    yield f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
    yield f"precision {result['precision']}"
    yield f"{result['seconds']:.1f} s of training in all"
