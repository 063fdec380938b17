"""Several runs side by side: tables by graph, and a page with the charts of all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mowst.evaluation import advise
from mowst.reporting import charts, places
from mowst.reporting.charts import Chart
from mowst.reporting.finished import Finished, gain_cells, words_of
from mowst.reporting.grids import Grid
from mowst.reporting.page import Page
from mowst.reporting.table import ordered, percent


def groups(runs: Sequence[Finished]) -> list[list[Finished]]:
    """Put the runs together that can be compared: those on one graph, by one metric and protocol of splits."""
    found = dict[tuple[str, ...], list[Finished]]()
    for run in runs:
        key = tuple(str(run.result[name]) for name in ("dataset", "metric", "split"))
        found.setdefault(key, []).append(run)
    return list(found.values())


def side_by_side(runs: Sequence[Finished]) -> Iterator[Grid]:
    """Yield the tables of a comparison, two for each graph: every model of every run, and what the runs are about."""
    for group in groups(runs):
        yield models_grid(group)
        yield runs_grid(group)


def score(run: Finished, name: str, split: str) -> tuple[float, float]:
    """Return the mean and deviation of a score in percent; not a number where there is none."""
    mean, deviation = (math.nan if each is None else each for each in run.result["scores"][name][split])
    return mean, deviation


def models_grid(group: Sequence[Finished]) -> Grid:
    """Return the test scores of every model in every run, the best of all in bold."""
    names = ordered({"scores": {name for run in group for name in run.result["scores"]}})
    rows, means = list[list[str]](), dict[tuple[int, int], float]()
    for row, name in enumerate(names):
        cells = [words_of(name)]
        for column, run in enumerate(group, 1):
            if name in run.result["scores"]:
                mean, deviation = score(run, name, "test")
                means[row, column] = round(mean, 2)
                cells.append(percent(mean, deviation, alone=len(run.result["seeds"]) == 1))
            else:
                cells.append("")
        rows.append(cells)
    caption = f"{about(group)}: {group[0].result['metric']} on test nodes in %, mean ± standard deviation over seeds"
    return Grid(caption, ["", *(run.name for run in group)], rows, best(means))


def best(means: dict[tuple[int, int], float]) -> frozenset[tuple[int, int]]:
    """Return the places of the highest value, which may be several."""
    known = {place: mean for place, mean in means.items() if not math.isnan(mean)}
    return frozenset(place for place, mean in known.items() if mean == max(known.values()))


def about(group: Sequence[Finished]) -> str:
    """Name what the runs of a group were trained on."""
    return f"{group[0].result['dataset']}, split {group[0].result['split']}"


def runs_grid(group: Sequence[Finished]) -> Grid:
    """Return what each run is about, and its difference to the run that validates best, over the same splits."""
    valid = [score(run, run.judged, "val")[0] for run in group]
    leader = group[max(range(len(group)), key=lambda place: -math.inf if math.isnan(valid[place]) else valid[place])]
    rows, means = list[list[str]](), dict[tuple[int, int], float]()
    for row, run in enumerate(group):
        alone = len(run.result["seeds"]) == 1
        cells = [percent(*score(run, run.judged, split), alone=alone) for split in ("val", "test")]
        means[row, 3] = round(score(run, run.judged, "test")[0], 2)
        use = advise(run.result).name
        rows.append([run.name, run.judged, *cells, *against(run, leader), f"{run.result['seconds']:.1f}", use])
    heads = ["run", "model", "validation", "test", f"better than {leader.name} by", "paired t-test", "seconds", "use"]
    caption = f"{about(group)}: what each run is about, compared with the run that validates best ({leader.name})"
    return Grid(caption, heads, rows, best(means))


def against(run: Finished, leader: Finished) -> list[str]:
    """Return the difference of two runs' test scores over seeds, and whether it is luck, if they can be compared."""
    if run is leader:
        return ["", ""]
    if splits(run) != splits(leader):
        return ["", "other splits or seeds"]
    ones, others = ([each["scores"][of.judged]["test"] for each in of.result["runs"]] for of in (run, leader))
    return gain_cells(ones, others)


def splits(run: Finished) -> list[tuple[int, str]]:
    """Return the seeds of a run and the hashes of their splits."""
    return [(each["seed"], each["split"]["sha256"]) for each in run.result["runs"]]


def comparison_page(runs: Sequence[Finished]) -> str:
    """Return the page that shows several runs side by side, one HTML file that needs nothing else."""
    page = Page("Runs side by side")
    page.add("h1", "Runs side by side")
    page.add("p", f"{len(runs)} runs. Test labels were read once in each, after training; in bold the best test score.")
    for group in groups(runs):
        page.add("h2", about(group))
        for grid in (models_grid(group), runs_grid(group)):
            page.add_grid(grid)
        drawn = charts.judged_of(group)
        page.add_charts([charts.tradeoff(drawn, alone=False), charts.reliability(drawn), charts.risk_coverage(drawn)])
        for run in group:
            page.add("h3", run.name, "run")
            page.add("pre", run.command, "command")
            page.add_charts(own_charts(run))
    return page.html()


def own_charts(run: Finished) -> list[Chart | None]:
    """Return the charts of one run that cannot lie over those of another."""
    if not run.figures:
        return [charts.learning(run)]
    return [charts.confidence(run), places.by_homophily(run), places.confusion(run), charts.learning(run)]
