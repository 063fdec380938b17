"""The end of a study: its best trials are judged again on fresh seeds, and the winner is tested beside the default.

The best of many trials is also the luckiest. So the first few of them, and the default, are trained on seeds that no
trial has used; the best mean validation score there wins. Test labels are then read once, for winner and default.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna import TrialPruned
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from mowst.errors import InputError
from mowst.experiment import Config, claim, dump, read_json, run
from mowst.system import Settings, in_processes, write_text
from mowst.tuning.fields import configured
from mowst.tuning.goals import GOALS
from mowst.tuning.space import Space
from mowst.tuning.study import Plan
from mowst.tuning.trial import Watch, judged


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


def best_trial(study: Study) -> FrozenTrial:
    """Return the best trial; of a Pareto front, the one that is best by the first goal."""
    return ranked(study)[0]


def fresh(config: Config, seeds: int) -> Config:
    """Return a configuration on seeds after those of its trials."""
    return dataclasses.replace(config, first_seed=config.first_seed + config.seeds, seeds=seeds)


def reached(config: Config, goal: str) -> float | None:
    """Train a configuration and return its mean by a goal, without a look at a test label; nothing if it fails."""
    try:
        values = judged(config, [goal], Watch(FixedTrial({}), config, 1, asks=False))
        return statistics.fmean(value for (value,) in values)
    except TrialPruned:
        return None


def finals(study: Study, space: Space, plan: Plan, seeds: int, count: int) -> list[dict[str, Any]]:
    """Judge the default and the best trials on fresh seeds.

    Args:
        study: it must hold a trial that came to an end.
        space: of the study.
        plan: of the study; its first goal judges, and its workers train.
        seeds: how many, after those of the trials.
        count: of trials.

    Returns:
        For each its `trial` (none: the default), what it was worth in the study (`value`) and is on fresh seeds
        (`fresh`; none if it failed), and its `params`; the best on fresh seeds on top, the default where it is as good.
    """
    default = space.point(space.config)
    trials = [trial for trial in ranked(study)[:count] if trial.params != default]
    configs = [space.config, *(configured(space.config, trial.params) for trial in trials)]
    again = [fresh(config, seeds) for config in configs]
    goal = plan.goals[0]
    judge = partial(reached, goal=goal)
    if plan.workers == 1:
        values = [judge(config) for config in again]
    else:
        values = in_processes(plan.workers, judge, again, settings=Settings(plan.fast))
    found = [{"trial": None, "value": None, "fresh": values[0], "params": default}]
    for trial, value in zip(trials, values[1:], strict=True):
        found.append({"trial": trial.number, "value": trial.values[0], "fresh": value, "params": trial.params})
    sign = -1 if GOALS.lookup(goal).direction == "maximize" else 1
    return sorted(found, key=lambda row: (row["fresh"] is None, sign * (row["fresh"] or 0.0)))


def retrain(config: Config, out: Path) -> dict[str, Any]:
    """Run a configuration, test nodes and all, and leave it as `OUT.yaml` and the run in `OUT`."""
    with claim(str(out), config, overwrite=True) as claimed:
        result = run(config, claimed.place, done=claimed.done)
    write_text(out.with_suffix(".yaml"), dump(config))
    return result


def finish(study: Study, space: Space, plan: Plan, out: Path, seeds: int, count: int = 3) -> dict[str, Any] | None:
    """Write `best.yaml` (and a file per trial of a Pareto front), and test winner and default on fresh seeds.

    What OUT holds of the same finalists is kept: the test nodes are not read again.

    Args:
        study: it must hold a trial that came to an end.
        space, plan: of the study.
        out: the folder.
        seeds: fresh ones; with 0 the best trial is written and nothing trained.
        count: trials that are judged again beside the default (`finals`).

    Raises:
        InputError: nothing of the study comes to an end.
    """
    best = ranked(study)[: max(1, count)]
    for trial in study.best_trials if len(study.directions) > 1 else ():
        write_text(out / "front" / f"trial-{trial.number}.yaml", dump(configured(space.config, trial.params)))
    asked: dict[str, Any] = {"trials": [[trial.number, trial.values, trial.params] for trial in best]}
    asked |= {"default": dump(space.config), "goal": plan.goals[0], "seeds": seeds}
    with FileLock(out / ".lock"):  # several workers come here at the same time
        path = out / "result.json"
        held = read_json(path) if path.exists() else {}
        if not seeds:
            if held.get("asked", {}) | {"seeds": 0} != asked:  # else its winner stays the best
                write_text(out / "best.yaml", dump(configured(space.config, best[0].params)))
                write_text(path, json.dumps({"asked": asked}, indent=2) + "\n")
            return None
        if held.get("asked") == asked:
            return held
        rows = finals(study, space, plan, seeds, len(best))
        won, default = rows[0], next(row for row in rows if row["trial"] is None)
        if won["fresh"] is None:
            raise InputError("study: neither the default nor one of the best trials comes to an end on fresh seeds")
        result: dict[str, Any] = {"asked": asked, "finalists": rows}
        config = space.config if won is default else configured(space.config, won["params"])
        result["tuned"] = retrain(fresh(config, seeds), out / "best")
        result["default"] = result["tuned"] if won is default else None
        if won is not default and default["fresh"] is not None:
            result["default"] = retrain(fresh(space.config, seeds), out / "default")
        write_text(path, json.dumps(result, indent=2) + "\n")
        return result
