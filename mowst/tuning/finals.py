"""The end of a study: its best trials are judged again on fresh seeds, and the winner is tested beside the default.

The best of many trials is also the luckiest. So the first few of them, and the default, are trained on seeds that no
trial has used; the best mean validation score there wins. Test labels are then read once, for winner and default.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mowst.errors import InputError
from mowst.experiment import Config, dump, read_json
from mowst.names import trusted
from mowst.reporting import Trainings
from mowst.system import Settings, in_processes, write_text
from mowst.tuning.arguments import checked
from mowst.tuning.fields import configured
from mowst.tuning.goals import GOALS
from mowst.tuning.judging import Judge, key_of, lighten
from mowst.tuning.place import claim, writing
from mowst.tuning.plan import Plan
from mowst.tuning.space import Space


def ranked(study: Study) -> list[FrozenTrial]:
    """Return the trials that came to an end, or the Pareto front of several goals, best by the first goal on top.

    Of trials with the same parameters the first one stands for all.
    """
    whole = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if not whole:
        reasons = {trial.user_attrs.get("reason", "unknown") for trial in study.trials}
        raise InputError(f"study: no trial came to an end ({'; '.join(sorted(reasons)[:3]) or 'there is none'})")
    found = sorted(study.best_trials if len(study.directions) > 1 else whole, key=lambda trial: downwards(study, trial))
    return [trial for place, trial in enumerate(found) if trial.params not in [each.params for each in found[:place]]]


def downwards(study: Study, trial: FrozenTrial) -> float:
    """Return what a trial reached by the first goal, so that less is better."""
    return trial.values[0] * (-1 if study.directions[0].name == "MAXIMIZE" else 1)


@checked
def best_trial(study: Study) -> FrozenTrial:
    """Return the best trial; of a Pareto front, the one that is best by the first goal."""
    return ranked(study)[0]


def fresh(config: Config, seeds: int) -> Config:
    """Return a configuration on seeds after those of its trials."""
    return dataclasses.replace(config, first_seed=config.first_seed + config.seeds, seeds=seeds)


class Finalist(NamedTuple):
    """A configuration that is judged again."""

    config: Config
    """On fresh seeds."""
    params: dict[str, Any]
    trial: FrozenTrial | None = None
    """None: the default."""
    seconds: float = 0.0
    """What a training of it is expected to take."""

    @property
    def name(self) -> str:
        """What it is called."""
        return "the default" if self.trial is None else f"trial {self.trial.number}"


def finalists(study: Study, space: Space, seeds: int, count: int) -> list[Finalist]:
    """Return the default and the best trials, with what each of their trainings took in the study."""
    default = space.point(space.config)
    whole = [trial for trial in study.trials if trial.state == TrialState.COMPLETE and trial.duration]
    took = {trial.number: seconds_of(trial, space.config.seeds) for trial in whole}
    usual = statistics.fmean(took.values()) if took else 0.0
    ours = next((took[trial.number] for trial in whole if trial.params == default), usual)
    found = [Finalist(fresh(space.config, seeds), default, None, ours)]
    for trial in ranked(study)[:count]:
        if trial.params != default:
            config = fresh(configured(space.config, trial.params), seeds)
            found.append(Finalist(config, trial.params, trial, took.get(trial.number, usual)))
    return found


def seconds_of(trial: FrozenTrial, seeds: int) -> float:
    """Return what a trial took for each of its seeds."""
    return trial.duration.total_seconds() / seeds if trial.duration else 0.0


def finals(
    study: Study,
    space: Space,
    plan: Plan,
    seeds: int,
    count: int,
    *,
    judge: Judge | None = None,
    shown: Trainings | None = None,
) -> list[dict[str, Any]]:
    """Judge the default and the best trials on fresh seeds.

    Args:
        study: it must hold a trial that came to an end.
        space: of the study.
        plan: of the study; its first goal judges, and its workers train.
        seeds: how many, after those of the trials.
        count: of trials.
        judge: keeps what it has judged; by default one that keeps nothing.
        shown: shows how far it is.

    Returns:
        For each its `trial` (none: the default), what it was worth in the study (`value`) and is on fresh seeds
        (`fresh`; none if it failed), and its `params`; the best on fresh seeds on top, the default where it is as good.
    """
    entrants = finalists(study, space, seeds, count)
    judge, shown = judge or Judge(plan.goals[0]), shown or Trainings(Console(quiet=True))
    configs = [entrant.config for entrant in entrants]
    by_key = {key_of(entrant.config): entrant for entrant in entrants}

    def told(news: tuple[str, int, float | None]) -> None:
        key, seed, value = news
        entrant = by_key[key]
        shown.ended(f"{entrant.name}, seed {seed}: {'failed' if value is None else f'{value:.6g}'}", entrant.seconds)

    with shown:
        expected = [entrant.seconds for entrant in entrants for _ in judge.left(entrant.config)]
        shown.begin(len(expected), sum(expected), len(entrants) * seeds, plan.workers)
        if plan.workers == 1:
            values = [judge(config, told, shown.watch) for config in configs]
        else:
            values = in_processes(
                plan.workers, judge, configs, settings=Settings(plan.fast, trusted=trusted()), told=told
            )
    found = [
        {
            "trial": entrant.trial and entrant.trial.number,
            "value": entrant.trial and entrant.trial.values[0],
            "fresh": value,
            "params": entrant.params,
        }
        for entrant, value in zip(entrants, values, strict=True)
    ]
    sign = -1 if GOALS.lookup(plan.goals[0]).direction == "maximize" else 1
    return sorted(found, key=lambda row: (row["fresh"] is None, sign * (row["fresh"] or 0.0)))


@checked
def finish(
    study: Study,
    space: Space,
    plan: Plan,
    out: str | Path,
    seeds: int,
    count: int = 3,
    shown: Trainings | None = None,
) -> dict[str, Any] | None:
    """Write `best.yaml` (and a file per trial of a Pareto front), and test winner and default on fresh seeds.

    `best.yaml` is the best trial's until the winner is known. What OUT holds of the same finalists is kept, and where
    somebody stopped this it goes on: nothing is trained twice, the test nodes are not read again.

    Args:
        study: it must hold a trial that came to an end.
        space, plan: of the study.
        out: the folder.
        seeds: fresh ones; with 0 the best trial is written and nothing trained.
        count: trials that are judged again beside the default (`finals`).
        shown: shows how far that is.

    Raises:
        InputError: nothing of the study comes to an end, or the folder is not the study's or cannot be written.
    """
    out = Path(out)
    for name, number, least in (("seeds", seeds, 0), ("count", count, 1)):
        if number < least:
            raise InputError(f"{name}: must be at least {least}, got {number}")
    best = ranked(study)[:count]
    claim(out, plan)
    asked: dict[str, Any] = {"trials": [[trial.number, trial.values, trial.params] for trial in best]}
    asked |= {"default": dump(space.config), "goal": plan.goals[0], "seeds": seeds}
    with writing(out), FileLock(out / ".lock"):  # several workers come here at the same time
        for trial in study.best_trials if len(study.directions) > 1 else ():
            write_text(out / "front" / f"trial-{trial.number}.yaml", dump(configured(space.config, trial.params)))
        path = out / "result.json"
        held = read_json(path) if path.exists() else {}
        if not isinstance(held, dict) or not isinstance(held.get("asked", {}), dict):
            raise InputError(f"{path}: not the result of a study, or damaged; take it away")
        if held.get("asked", {}) | {"seeds": seeds} != asked:  # else its winner stays the best for now
            write_text(out / "best.yaml", dump(configured(space.config, best[0].params)))
            write_text(path, json.dumps({"asked": asked | {"seeds": 0}}, indent=2) + "\n")
        if not seeds:
            return None
        if held.get("asked") == asked:
            return held
        judge = Judge(plan.goals[0], out / "judged")
        rows = finals(study, space, plan, seeds, count, judge=judge, shown=shown)
        result = {"asked": asked, "finalists": rows, **both_tested(space, rows, seeds, out, judge)}
        write_text(path, json.dumps(result, indent=2) + "\n")
        lighten(out / "judged")
        return result


def both_tested(space: Space, rows: list[dict[str, Any]], seeds: int, out: Path, judge: Judge) -> dict[str, Any]:
    """Test the winner, and the default where it came to an end and is not the winner."""
    won, default = rows[0], next(row for row in rows if row["trial"] is None)
    if won["fresh"] is None:
        raise InputError("study: neither the default nor one of the best trials comes to an end on fresh seeds")
    config = space.config if won is default else configured(space.config, won["params"])
    found: dict[str, Any] = {"tuned": judge.tested(fresh(config, seeds), out / "best")}
    found["default"] = found["tuned"] if won is default else None
    if won is not default and default["fresh"] is not None:
        found["default"] = judge.tested(fresh(space.config, seeds), out / "default")
    return found
