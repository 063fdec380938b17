"""What a person looks at after a study: tables on the terminal, and one page with Optuna's own plots."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from optuna import visualization
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from mowst.system import write_text

STYLE = "body{font-family:sans-serif;max-width:75em;margin:auto}td,th{padding:.2em 1em;text-align:left}"


def counts(study: Study) -> dict[str, int]:
    """Count a study's trials by state; those that were given up and run again are failed ones."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return {state.name.lower(): states.count(state) for state in TrialState if state in states}


def front_table(study: Study, goals: Sequence[str]) -> Table:
    """Return the best trial by its goal, or the Pareto front of several, best by the first goal on top."""
    words = ", ".join(f"{number} {state}" for state, number in counts(study).items())
    front = "best trial" if len(goals) == 1 else "Pareto front: no trial is better by one goal and no worse by the rest"
    title = f"{front}; {words}"
    table = Table("trial", *goals, title=title, title_justify="left", min_width=len(title))
    sign = -1 if study.directions[0].name == "MAXIMIZE" else 1
    for trial in sorted(study.best_trials, key=lambda trial: sign * trial.values[0])[: None if len(goals) > 1 else 1]:
        table.add_row(str(trial.number), *(f"{value:.6g}" for value in trial.values))
    return table


def finalists_table(rows: Sequence[Mapping[str, Any]], goal: str) -> Table:
    """Return what the best trials and the default reach on fresh seeds, the winner on top."""
    table = Table("finalist", f"{goal} in the study", "on fresh seeds", title="judged again", title_justify="left")
    for row in rows:
        name = "the default" if row["trial"] is None else f"trial {row['trial']}"
        values = ("" if row[key] is None else f"{row[key]:.6g}" for key in ("value", "fresh"))
        table.add_row(name, *values)
    return table


def params_table(trial: FrozenTrial, default: Mapping[str, Any]) -> Table:
    """Return what a trial chose, beside the default."""
    table = Table("field", f"trial {trial.number}", "default")
    for name, value in trial.params.items():
        table.add_row(name, shown(value), shown(default[name]) if name in default else "not in the default")
    return table


def shown(value: Any) -> str:
    """Write a value for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plots(study: Study, goals: Sequence[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield Optuna's plots with their titles, goal by goal, and the front of several goals first."""
    if len(goals) in (2, 3):
        yield "Pareto front", partial(visualization.plot_pareto_front, study, target_names=list(goals))
    kinds: dict[str, Callable[..., Any]] = {
        "history": visualization.plot_optimization_history,
        "slices": visualization.plot_slice,
        "parallel coordinates": visualization.plot_parallel_coordinate,
    }
    for place, goal in enumerate(goals):
        for title, plot in kinds.items():
            target = partial(value_at, place, 1) if len(goals) > 1 else None
            yield f"{goal}: {title}", partial(plot, study, target=target, target_name=goal)
        sign = -1 if study.directions[place].name == "MAXIMIZE" else 1  # with a target, low is good for it
        target = partial(value_at, place, sign) if len(goals) > 1 else None
        importance = partial(visualization.plot_param_importances, study, target=target, target_name=goal)
        yield f"{goal}: importance of the fields", importance


def value_at(place: int, sign: int, trial: FrozenTrial) -> float:
    """Return what a trial reached by one of several goals, with a sign."""
    return sign * trial.values[place]


def write_page(study: Study, path: Path, goals: Sequence[str]) -> None:
    """Write the page: one file that needs nothing else."""
    parts, script = [], True
    for title, plot in plots(study, goals):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # few trials, or which way is up: no news
                figure = plot().to_html(full_html=False, include_plotlyjs=script)
            script = False
        except (ValueError, RuntimeError) as error:  # importance, for one, needs trials that differ
            figure = f"<p>{html.escape(str(error))}</p>"
        parts.append(f"<h2>{html.escape(title)}</h2>\n{figure}")
    head = f"<h1>{html.escape(study.study_name)}</h1><p>{html.escape(str(counts(study)))}</p>"
    write_text(
        path,
        f"<!doctype html><meta charset=utf-8><title>{html.escape(study.study_name)}</title><style>{STYLE}</style>\n"
        f"{head}{best_rows(study, goals)}\n" + "\n".join(parts) + "\n",
    )


def best_rows(study: Study, goals: Sequence[str]) -> str:
    """Return the best trials as an HTML table."""
    head = "".join(f"<th>{html.escape(word)}</th>" for word in ("trial", *goals, "parameters"))
    rows = [
        [str(trial.number), *map(shown, trial.values), ", ".join(f"{k} {shown(v)}" for k, v in trial.params.items())]
        for trial in study.best_trials
    ]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
