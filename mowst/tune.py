"""`python -m mowst.tune`: search a configuration's space with Optuna, then train the winner beside the default.

A trial is an experiment of the library up to its validation score: test labels are taken out of the graph before it
begins. They are read once, at the very end, for the winner and the default, on seeds that no trial has used
(`mowst.tuning.finals`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mowst.system.main import imported, main

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from mowst.tuning.search import tune as tune
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


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, search, train the winner and the default, print what came out."""
    from jsonargparse.typing import NonNegativeInt, PositiveInt
    from rich.console import Console

    from mowst.experiment import reading
    from mowst.reporting import confidence_line, finalists_table, front_table, params_table, scores_table, write_page
    from mowst.system import tune_process
    from mowst.tuning import Plan, be_quiet, best_trial, finish, make_space, read_search, tune

    arguments = sys.argv[1:] if arguments is None else arguments
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
    parsed = reading.parse(parser, arguments)
    config, plan = reading.config_of(parsed), {entry.name: parsed[entry.name] for entry in dataclasses.fields(Plan)}
    space = make_space(config, read_search(parsed.space, parsed.search), reading.given_fields(arguments))
    out = Path(
        parsed.out or f"{Path(plan['study']).with_suffix('') if '://' not in plan['study'] else plan['name']}-best"
    )
    imported()
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
    main(command)
