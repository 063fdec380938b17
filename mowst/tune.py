"""`python -m mowst.tune`: search a configuration's space with Optuna, then train the winner beside the default.

A trial is an experiment of the library up to its validation score: test labels are taken out of the graph before it
begins. They are read once, at the very end, for the winner and the default, on seeds that no trial has used
(`mowst.tuning.finals`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mowst.system.main import imported, main

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from mowst.tuning.plan import Plan
    from mowst.tuning.search import tune as tune
    from mowst.tuning.space import Space
    from mowst.tuning.trial import objective as objective

PURPOSE = """Search a configuration's space with Optuna: any field that is not given here and has a range, see --space.
The study goes on where it stands; its best trials are then judged again on fresh seeds beside the default."""


def __getattr__(name: str) -> Any:
    """Import what takes long when it is asked for: `tune` and `objective`, for a library's user."""
    if name == "tune":
        from mowst.tuning import tune

        return tune
    if name == "objective":
        from mowst.tuning import objective

        return objective
    raise AttributeError(name)


def say(study: Study, trial: FrozenTrial) -> None:
    """Print a line about a trial that has ended."""
    from optuna.trial import TrialState

    values = ", ".join(f"{value:.6g}" for value in trial.values or ())
    done = sum(each.state.is_finished() for each in study.get_trials(deepcopy=False))
    words = f"pruned ({trial.user_attrs.get('reason', 'unknown')})" if trial.state == TrialState.PRUNED else values
    took = f"{trial.duration.total_seconds():.1f} s" if trial.duration else ""
    print(f"trial {trial.number}: {words}; {took}, {done} ended", file=sys.stderr, flush=True)


def flags() -> ArgumentParser:
    """Return the parser of the command line."""
    from jsonargparse.typing import NonNegativeInt, PositiveInt

    from mowst.experiment import reading
    from mowst.tuning.plan import Plan

    parser = reading.parser("tune", PURPOSE)
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
    reading.add_trust(parser)
    parser.add_argument("--quiet", action="store_true", help="Print no line per trial.")
    return parser


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, search, train the winner and the default, print what came out."""
    from mowst.experiment import reading
    from mowst.tuning.plan import Plan

    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = reading.parse(flags(), arguments)
    config, plan = (
        reading.asked_for(parsed, arguments),
        Plan(**{entry.name: parsed[entry.name] for entry in fields(Plan)}),
    )

    from rich.console import Console

    from mowst.reporting import Trainings
    from mowst.system import take_threads, tune_process
    from mowst.tuning import be_quiet, finish, make_space, read_search, tune
    from mowst.tuning.finals import fresh
    from mowst.tuning.place import claim, claimed, default_place

    imported()
    be_quiet()
    space = make_space(config, read_search(parsed.space, parsed.search), reading.given_fields(arguments))
    if parsed.retrain:
        fresh(config, parsed.retrain)  # seeds that there cannot be are said now, not after all trials
    out, quiet = Path(parsed.out) if parsed.out else default_place(plan), bool(parsed.quiet)
    shown = Trainings(Console(stderr=True, quiet=quiet), "--retrain 0 leaves them out")
    try:
        with claimed(out, plan), tune_process(plan.fast):
            take_threads(workers=plan.workers)
            study = tune(config, space, None if quiet else say, **vars(plan))
            claim(out, plan)
            show_study(study, space, plan, out)
            result = finish(study, space, plan, out, int(parsed.retrain), int(parsed.finalists), shown)
    except KeyboardInterrupt:
        print(f"what was done is in {plan.study} and {out}; the same command goes on", file=sys.stderr)
        raise
    show_result(result, plan)
    print(f"written to {out}: best.yaml, study.html; to look around: optuna-dashboard {plan.study}")
    return 0


def show_study(study: Study, space: Space, plan: Plan, out: Path) -> None:
    """Print the best trials, and write the page."""
    from rich.console import Console

    from mowst.reporting import front_table, params_table, write_page
    from mowst.tuning import best_trial

    console = Console()
    write_page(study, out / "study.html", plan.goals)
    console.print(front_table(study, plan.goals))
    console.print(params_table(best_trial(study), space.point(space.config)))


def show_result(result: dict[str, Any] | None, plan: Plan) -> None:
    """Print what the finals came to."""
    from rich.console import Console

    from mowst.reporting import confidence_line, finalists_table, scores_table

    console = Console()
    if result:
        console.print(finalists_table(result["finalists"], plan.goals[0]))
    for name, scores in ((name, result[name]) for name in ("default", "tuned") if result and result[name]):
        console.print(f"{name}, on seeds that no trial has used:")
        console.print(scores_table(scores))
        console.print(confidence_line(scores))


if __name__ == "__main__":
    main(command)
