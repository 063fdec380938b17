"""`python -m mowst.tune`: search a configuration's space with Optuna, then train the winner beside the default.

A trial is an experiment of the library up to its validation score: test labels are taken out of the graph before it
begins. They are read once, at the very end, for the winner and the default, on seeds that no trial has used
(`mowst.tuning.finals`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mowst.experiment.building import fabric_of
from mowst.experiment.config import Config
from mowst.experiment.seed import opened
from mowst.experiment import reading as cli
from mowst.reporting.study_page import finalists_table, front_table, params_table, write_page
from mowst.reporting.table import confidence_line, scores_table
from mowst.system.process import tune_process
from mowst.system.resources import folder
from mowst.tuning.finals import best_trial, finish
from mowst.tuning.goals import GOALS
from mowst.tuning.ranges import read_search
from mowst.tuning.sampling import make_sampler, rehearse
from mowst.tuning.space import Space, make_space
from mowst.tuning.study import Plan, be_quiet, open_study, work, work_together
from mowst.tuning.trial import objective

__all__ = ["command", "objective", "tune"]

PURPOSE = """Search a configuration's space with Optuna: any field that is not given here and has a range, see --space.
The study goes on where it stands; its best trials are then judged again on fresh seeds beside the default."""


def tune(config: Config, space: Space | None = None, told: Any = None, **plan: Any) -> Study:
    """Search until the study has as many trials as planned, and return it.

    Args:
        config: what is not searched, and the default, which is the first trial.
        space: by default all of the configuration's; `mowst.tuning.space.make_space` narrows it.
        told: called as `told(study, trial)` after every trial; with several workers it must be picklable.
        plan: fields of `mowst.tuning.study.Plan`: trials, study, workers, goals, sampler, pruner, seed, ...

    Raises:
        InputError: the study cannot be opened, is of another space, or nothing of it can be run.
    """
    how = Plan(**plan)
    space = space or make_space(config)
    goals = [GOALS.lookup(goal) for goal in how.goals]
    directions = [getattr(goal, "direction", "maximize") for goal in goals]
    rehearse(make_sampler(how.sampler, 0, how.sampler_options), space.draw, len(goals))
    opened(space.config, config.first_seed, fabric_of(config))  # what cannot work is said before a study is made of it
    open_study(how, directions, space.described() | {"goals": how.goals}, first_points(space))
    run_trial = partial(objective, config=config, space=space, goals=tuple(how.goals))
    go = work if how.workers == 1 else work_together
    return go(how, run_trial, config.epochs, told)


def first_points(space: Space) -> list[dict[str, Any]]:
    """Return the default and the published configurations of the graph, as far as they lie in the space."""
    points = [space.point(config) for config in (space.config, *published(space.config.dataset))]
    return [point for place, point in enumerate(points) if point and point not in points[:place]]


def published(dataset: str) -> Iterator[Config]:
    """Yield the configurations of a graph that come with the project."""
    for path in sorted(folder("configs").glob(f"*-{escape(Path(dataset).stem.lower())}-*.yaml")):
        config = cli.config_of(cli.parse(cli.parser("run", ""), ["--config", str(path)]))
        if config.dataset.lower() == dataset.lower():
            yield config


def say(study: Study, trial: FrozenTrial) -> None:
    """Print a line about a trial that has ended."""
    values = ", ".join(f"{value:.6g}" for value in trial.values or ())
    done = sum(each.state.is_finished() for each in study.get_trials(deepcopy=False))
    words = f"pruned ({trial.user_attrs.get('reason', 'unknown')})" if trial.state == TrialState.PRUNED else values
    took = f"{trial.duration.total_seconds():.1f} s" if trial.duration else ""
    print(f"trial {trial.number}: {words}; {took}, {done} ended", file=sys.stderr, flush=True)


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, search, train the winner and the default, print what came out."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = cli.parser("tune", PURPOSE)
    parser.add_class_arguments(Plan)
    parser.add_argument(
        "--space", type=str | None, default=None, help="YAML file of ranges by field (mowst.tuning.ranges)."
    )
    parser.add_argument("--search", action="append", default=[], help="FIELD=low..high[:log] or FIELD=one,two.")
    parser.add_argument(
        "--retrain", type=NonNegativeInt, default=3, help="Fresh seeds for finalists and default; 0: none."
    )
    parser.add_argument(
        "--finalists", type=PositiveInt, default=3, help="Best trials judged again on them beside the default."
    )
    parser.add_argument("--out", type=str | None, default=None, help="Folder to write; by default beside the study.")
    parser.add_argument("--quiet", action="store_true", help="Print no line per trial.")
    parsed = cli.parse(parser, arguments)
    config, plan = cli.config_of(parsed), {entry.name: parsed[entry.name] for entry in dataclasses.fields(Plan)}
    space = make_space(config, read_search(parsed.space, parsed.search), cli.given_fields(arguments))
    out = Path(
        parsed.out or f"{Path(plan['study']).with_suffix('') if '://' not in plan['study'] else plan['name']}-best"
    )
    be_quiet()
    console = Console()
    with tune_process(plan["fast"]):
        study = tune(config, space, None if parsed.quiet else say, **plan)
        write_page(study, out / "study.html", plan["goals"])
        console.print(front_table(study, plan["goals"]))
        console.print(params_table(best_trial(study), space.point(config)))
        result = finish(study, space, Plan(**plan), out, int(parsed.retrain), int(parsed.finalists))
    if result:
        console.print(finalists_table(result["finalists"], plan["goals"][0]))
    for name, scores in ((name, result[name]) for name in ("default", "tuned") if result and result[name]):
        console.print(f"{name}, on seeds that no trial has used:")
        console.print(scores_table(scores))
        console.print(confidence_line(scores))
    console.print(f"written to {out}: best.yaml, study.html; to look around: optuna-dashboard {plan['study']}")
    return 0


if __name__ == "__main__":
    cli.main(command)
