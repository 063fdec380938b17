"""`python -m mowst.tune`: search a configuration's space with Optuna, then train the winner beside the default.

A trial is an experiment of the library up to its validation score: test labels are taken out of the graph before it
begins. They are read once, at the very end, for the winner and the default, on seeds that no trial has used.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from glob import escape
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from optuna import TrialPruned
from optuna.study import Study
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from rich.console import Console
from torch_geometric.data import Data

from mowst import cli
from mowst.building import fabric_of
from mowst.config import Config
from mowst.errors import InputError
from mowst.experiment import Fitted, Hook, fit, metric_of, opened, own_teacher, planned, routable
from mowst.fields import configured
from mowst.metrics import pooled, rows
from mowst.mixture import Mixture, Mowst
from mowst.names import Names
from mowst.process import tune_process
from mowst.ranges import read_search
from mowst.record import dump, parameters, read_json, write_text
from mowst.regimes import REGIMES, alone
from mowst.resources import folder
from mowst.run import free_folder, run
from mowst.sampling import make_sampler, rehearse
from mowst.space import Space, make_space
from mowst.study import Plan, be_quiet, open_study, work, work_together
from mowst.study_page import front_table, params_table, write_page
from mowst.table import confidence_line, scores_table
from mowst.teachers import taught
from mowst.trainer import HIDDEN

PURPOSE = """Search a configuration's space with Optuna: any field that is not given here and has a range, see --space.
The study goes on where it stands; its winner is then trained on fresh seeds beside the default configuration."""

REPORTS = 50
"""How often at most a phase asks the pruner."""
UNJUDGED = ("pretrain weak", "rehearse weak")
"""Phases that say nothing of what the whole will reach, so that no trial is pruned for having them."""


@dataclasses.dataclass(frozen=True)
class Goal:
    """A number that a study seeks."""

    measure: Callable[[Fitted, Data], float]
    """`(what was trained, graph) -> number`; the graph has no test labels, and the model's name as `judged`."""
    direction: str = "maximize"

    def __call__(self, fitted: Fitted, data: Data) -> float:
        """Measure it."""
        return self.measure(fitted, data)


def validation_score(fitted: Fitted, data: Data) -> float:
    """Return the metric on validation nodes, in percent."""
    return 100 * pooled(rows(fitted.output, data.val_mask), data.y[data.val_mask], metric_of(data))


def strong_share(fitted: Fitted, data: Data) -> float:
    """Return the share of validation nodes that routing at one half sends to the strong expert, in percent."""
    if not (isinstance(fitted.output, Mixture) and isinstance(fitted.model, Mowst)):
        return 100.0 * (data.judged == "strong")
    routed = routable(fitted.model, fitted.output, data)
    return 100 * float((routed.confidence[data.val_mask] < 0.5).float().mean())


def size(fitted: Fitted, data: Data) -> float:
    """Return the number of trainable numbers."""
    return parameters(fitted.model)


GOALS = Names(
    "goals",
    {"metric": Goal(validation_score), "share": Goal(strong_share, "minimize"), "parameters": Goal(size, "minimize")},
)
"""By name, or the dotted path of a function with the same arguments and, if it is to be small, `direction`."""


class Watch:
    """A trainer's hook: counts a trial's evaluations, and shows the pruner the first seed's best score now and then."""

    def __init__(self, trial: BaseTrial, config: Config, every: int, asks: bool):
        self.trial, self.config, self.every, self.asks = trial, config, every, asks
        self.judged = to_train(config)[-1]
        self.evaluations, self.step, self.best = 0, 0, -float("inf")

    def __call__(self, line: dict[str, Any]) -> None:
        """Take the record of one validation."""
        self.evaluations += 1
        other = line["model"] != self.judged or line["phase"] in UNJUDGED
        if not self.asks or other or line["seed"] != self.config.first_seed:
            return
        self.step += 1
        self.best = max(self.best, 100 * line["best"])
        if self.step % self.every == 0:
            self.trial.report(self.best, self.step * self.config.eval_every)
            if self.trial.should_prune():
                raise TrialPruned(f"pruner, at {self.best:.2f} in epoch {line['epoch']} of {line['phase']}")


def objective(
    trial: BaseTrial, config: Config, space: Space | None = None, goals: Sequence[str] = ("metric",)
) -> float | tuple[float, ...]:
    """Run one trial and return what it reaches, the mean over the configuration's seeds, for one's own study too.

    Args:
        trial: chooses the configuration; where it is pruned, its attribute `reason` says why.
        config: what is not searched.
        space: by default all of the configuration's.
        goals: names of `GOALS`, or dotted paths; with several, a tuple comes back and nothing is reported.

    Raises:
        optuna.TrialPruned: the pruner says so, training diverged, or memory was too small.
    """
    chosen = (space or make_space(config)).draw(trial)
    every = max(1, config.epochs // (REPORTS * config.eval_every))  # the same in all trials: pruners compare steps
    watch = Watch(trial, chosen, every, asks=len(goals) == 1)
    try:
        values = list(zip(*judged(chosen, goals, watch), strict=True))
    except TrialPruned as stop:
        trial.set_user_attr("reason", str(stop))
        raise
    finally:
        trial.set_user_attr("evaluations", watch.evaluations)
    trial.set_user_attr("by_seed", values)
    means = tuple(sum(value) / len(value) for value in values)
    return means[0] if len(means) == 1 else means


def judged(config: Config, goals: Sequence[str], watch: Watch) -> Iterator[list[float]]:
    """Train each seed and yield what it reaches, by goal; divergence and too little memory prune the trial."""
    measures = [GOALS.lookup(goal) for goal in goals]
    try:
        for seed in config.all_seeds:
            fitted, data = trained(config, seed, watch)
            yield [measure(fitted, data) for measure in measures]
    except FloatingPointError as error:
        raise TrialPruned(f"diverged: {error}") from None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        raise TrialPruned(f"out of memory: {' '.join(str(error).split())}") from None


def trained(config: Config, seed: int, hook: Hook) -> tuple[Fitted, Data]:
    """Train what a configuration is about, without baselines, on a graph that has no test nodes; return both."""
    fabric = fabric_of(config)
    _, ready, _ = opened(config, seed, fabric)
    ready = without_test(ready)
    done: dict[str, Fitted] = {}
    for name in to_train(config):
        done[name] = fit(name, config, ready, seed, fabric, hook, done)
        if name == own_teacher(config):
            ready = taught(config, ready, done[name].model, seed, fabric)
    ready.judged = name
    return done[name], ready


def to_train(config: Config) -> list[str]:
    """Return what a trial trains, last what it is judged by: the mixture, the student, or the strong expert alone."""
    if not config.mixture and alone(REGIMES.lookup(config.regime)) is None:
        return ["strong"]
    return planned(dataclasses.replace(config, mixture=True, baselines=False))


def without_test(ready: Data) -> Data:
    """Return a graph without its test mask, and with labels on training and validation nodes only."""
    ready = copy.copy(ready)
    ready.y = ready.y.masked_fill(~(ready.train_mask | ready.val_mask), HIDDEN)
    del ready.test_mask
    return ready


def out_of_memory(error: BaseException) -> bool:
    """Tell too little memory, for which torch has a class of its own on accelerators only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def tune(config: Config, space: Space | None = None, told: Any = None, **plan: Any) -> Study:
    """Search until the study has as many trials as planned, and return it.

    Args:
        config: what is not searched, and the default, which is the first trial.
        space: by default all of the configuration's; `mowst.space.make_space` narrows it.
        told: called as `told(study, trial)` after every trial; with several workers it must be picklable.
        plan: fields of `mowst.study.Plan`: trials, study, workers, goals, sampler, pruner, seed, ...

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


def best_trial(study: Study) -> FrozenTrial:
    """Return the best trial; of a Pareto front, the one that is best by the first goal."""
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        reasons = {trial.user_attrs.get("reason", "unknown") for trial in study.trials}
        raise InputError(f"study: no trial came to an end ({'; '.join(sorted(reasons)[:3]) or 'there is none'})")
    sign = 1 if study.directions[0].name == "MAXIMIZE" else -1
    return max(study.best_trials, key=lambda trial: sign * trial.values[0])


def retrain(config: Config, seeds: int, out: Path) -> dict[str, Any]:
    """Run a configuration on seeds after those of its trials, and leave it as `OUT.yaml` and the run in `OUT`."""
    fresh = dataclasses.replace(config, first_seed=config.first_seed + config.seeds, seeds=seeds)
    with free_folder(str(out), fresh, overwrite=True) as place:
        result = run(fresh, place)
    write_text(out.with_suffix(".yaml"), dump(fresh))
    return result


def finish(study: Study, space: Space, out: Path, seeds: int) -> dict[str, Any] | None:
    """Write `best.yaml` (and a file per trial of a Pareto front), and train it and the default on fresh seeds.

    What OUT holds of the same winner is kept: the test nodes are not read again.
    """
    winner = best_trial(study)
    chosen = {"trial": winner.number, "values": winner.values, "params": winner.params, "seeds": seeds}
    for trial in study.best_trials if len(study.directions) > 1 else ():
        write_text(out / "front" / f"trial-{trial.number}.yaml", dump(configured(space.config, trial.params)))
    with FileLock(out / ".lock"):  # several workers come here at the same time
        path = out / "result.json"
        if path.exists() and (held := read_json(path))["best"] == chosen:
            return held
        if not seeds:
            write_text(out / "best.yaml", dump(configured(space.config, winner.params)))
            return None
        result = {
            "best": chosen,
            "tuned": retrain(configured(space.config, winner.params), seeds, out / "best"),
            "default": retrain(space.config, seeds, out / "default"),
        }
        write_text(path, json.dumps(result, indent=2) + "\n")
        return result


def say(study: Study, trial: FrozenTrial) -> None:
    """Print a line about a trial that has ended."""
    values = ", ".join(f"{value:.6g}" for value in trial.values or ())
    done = sum(each.state.is_finished() for each in study.get_trials(deepcopy=False))
    words = f"pruned ({trial.user_attrs.get('reason', 'unknown')})" if trial.state == TrialState.PRUNED else values
    took = f"{trial.duration.total_seconds():.1f} s" if trial.duration else ""
    print(f"trial {trial.number}: {words}; {took}, {done} ended", file=sys.stderr, flush=True)


def given_fields(arguments: Sequence[str]) -> list[str]:
    """Return the fields of the configuration that a command line names; of losses, what is left open stays open."""
    words = cli.short_kinds([word for argument in arguments for word in cli.spelled(argument)])
    names = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    known = {entry.name for entry in dataclasses.fields(Config)} - {"kd"}
    return [name for name in names if name.partition(".")[0] in known]


def command(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, search, train the winner and the default, print what came out."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = cli.parser("tune", PURPOSE)
    parser.add_class_arguments(Plan)
    parser.add_argument("--space", type=str | None, default=None, help="YAML file of ranges by field (mowst.ranges).")
    parser.add_argument("--search", action="append", default=[], help="FIELD=low..high[:log] or FIELD=one,two.")
    parser.add_argument("--retrain", type=int, default=3, help="Fresh seeds for winner and default; 0: none.")
    parser.add_argument("--out", type=str | None, default=None, help="Folder to write; by default beside the study.")
    parser.add_argument("--fast", type=bool, default=True, help="Process-wide settings for speed (mowst.process).")
    parser.add_argument("--quiet", action="store_true", help="Print no line per trial.")
    parsed = cli.parse(parser, arguments)
    config, plan = cli.config_of(parsed), {entry.name: parsed[entry.name] for entry in dataclasses.fields(Plan)}
    space = make_space(config, read_search(parsed.space, parsed.search), given_fields(arguments))
    out = Path(
        parsed.out or f"{Path(plan['study']).with_suffix('') if '://' not in plan['study'] else plan['name']}-best"
    )
    be_quiet()
    console = Console()
    with tune_process(parsed.fast):
        study = tune(config, space, None if parsed.quiet else say, **plan)
        write_page(study, out / "study.html", plan["goals"])
        console.print(front_table(study, plan["goals"]))
        console.print(params_table(best_trial(study), space.point(config)))
        result = finish(study, space, out, parsed.retrain)
    for name, scores in ((name, result[name]) for name in ("default", "tuned") if result):
        console.print(f"{name}, on seeds that no trial has used:")
        console.print(scores_table(scores))
        console.print(confidence_line(scores))
    console.print(f"written to {out}: best.yaml, study.html; to look around: optuna-dashboard {plan['study']}")
    return 0


if __name__ == "__main__":
    cli.main(command)
