"""A search from beginning to end: what cannot work is said, the study opened, its trials run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

from optuna.study import Study

from mowst.experiment import Config, config_of, judged_alone, parse, parser
from mowst.system import folder
from mowst.tuning.arguments import checked
from mowst.tuning.goals import GOALS
from mowst.tuning.plan import Plan
from mowst.tuning.sampling import make_pruner, make_sampler, rehearse
from mowst.tuning.saving import Trials
from mowst.tuning.sharing import Shared
from mowst.tuning.space import Space, make_space
from mowst.tuning.study import Told, open_study, work, work_together
from mowst.tuning.trial import objective


@checked
def tune(config: Config, space: Space | None = None, told: Told | None = None, **plan: Any) -> Study:
    """Search until the study has as many trials as planned, and return it.

    Args:
        config: what is not searched, and the default, which is the first trial.
        space: by default all of the configuration's; `mowst.tuning.space.make_space` narrows it.
        told: called as `told(study, trial)` after every trial; with several workers it must be picklable.
        plan: fields of `mowst.tuning.plan.Plan`: trials, study, workers, goals, sampler, pruner, seed, ...

    Raises:
        InputError: the study cannot be opened, is of another space, or nothing of it can be run.
    """
    how = Plan.of(plan)
    space, shared = space or make_space(config), Shared(Trials.of(how))
    goals = [GOALS.lookup(goal) for goal in how.goals]
    directions = [goal.direction for goal in goals]
    pruner = make_pruner(how.prunes_by, config.epochs, how.pruner_options)
    rehearse(make_sampler(how.sampler, 0, how.sampler_options), space.draw, len(goals), pruner)
    shared.open(space.config, judged_alone(space.config))  # what cannot work is said before a study is made of it
    open_study(how, directions, space.described() | {"goals": how.goals}, first_points(space))
    run_trial = partial(objective, config=config, space=space, goals=tuple(how.goals), shared=shared)
    go = work if how.workers == 1 else work_together
    return go(how, run_trial, config.epochs, told)


def first_points(space: Space) -> list[dict[str, Any]]:
    """Return the default and the published configurations of the graph, as far as they lie in the space."""
    points = [space.point(config) for config in (space.config, *published(space.config.dataset))]
    return [point for place, point in enumerate(points) if point and point not in points[:place]]


def published(dataset: str) -> Iterator[Config]:
    """Yield the configurations of a graph that come with the project."""
    for path in sorted(folder("configs").glob(f"*-{escape(Path(dataset).stem.lower())}-*.yaml")):
        config = config_of(parse(parser("run", ""), ["--config", str(path)]))
        if config.dataset.lower() == dataset.lower():
            yield config
