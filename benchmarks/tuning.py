"""What tuning brings and what it costs: tuned against untuned, and tuned against tuned; pruning, overhead, kills.

    python benchmarks/tuning.py --data_root data [--only "photo/*" pruning/amherst41 kills] [--budget 3600] [--table]
        [--trials 30] [--workers 2] [--seconds 480]

A cell is one JSON file in benchmarks/results/tuning: what is there is not run again, and a study that was broken off
goes on. GRAPH/mixture, GRAPH/gcn and GRAPH/sage are studies under the same caps, which each file names.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from accuracy import cell, put
from optuna import create_study, load_study
from optuna.study import Study
from optuna.trial import TrialState

import mowst.experiment.sharing
import mowst.tuning.trial
from mowst.experiment import Config, ExpertConfig
from mowst.system import tune_process, write_text
from mowst.tuning import Plan, finish, make_space, objective, tune
from mowst.tuning.finals import finals
from mowst.tuning.sampling import make_pruner
from mowst.tuning.search import first_points
from mowst.tuning.storage import open_storage
from mowst.tuning.study import be_quiet, open_study, worker

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "tuning"
GRAPHS = ["photo", "tolokers", "actor", "blogcatalog", "amherst41"]
BASE = Config(epochs=300, patience=50, rounds=3, seeds=1, baselines=False)
SEEDS = 3
PRUNERS = ("percentile", "median")
"""The default, and one to compare it with on the very same trials."""
METHODS: dict[str, tuple[Config, dict[str, Any]]] = {
    "mixture": (BASE, {"strong.kind": ["gcn", "sage"]}),
    "gcn": (dataclasses.replace(BASE, mixture=False, baselines=True), {}),
    "sage": (dataclasses.replace(BASE, mixture=False, baselines=True, strong=ExpertConfig("sage")), {}),
}


def cells(given: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return every measurement by name."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for graph in GRAPHS:
        for method in METHODS:
            found[f"{graph}/{method}"] = partial(tuned, graph, method, given)
    for graph in ("digits-knn", *reversed(GRAPHS)):
        found[f"pruning/{graph}"] = partial(pruning, graph, given)
        found[f"overhead/{graph}"] = partial(overhead, graph, given)
    return found | {"kills": partial(kills, given)}


def tuned(graph: str, method: str, given: argparse.Namespace) -> dict[str, Any]:
    """Tune one method on one graph, and train winner and default on fresh seeds."""
    config, search = METHODS[method]
    config = dataclasses.replace(config, dataset=graph, data_root=given.data_root)
    space = make_space(config, search)
    place = Path(given.work) / f"{graph}-{method}.log"
    caps = {"trials": given.trials, "workers": given.workers, "timeout": given.seconds}
    start = time.perf_counter()
    study = tune(config, space, study=str(place), **caps)
    seconds = time.perf_counter() - start
    found = finish(study, space, Plan(workers=given.workers), place.with_suffix(""), SEEDS)
    assert found
    which = "mixture" if config.mixture else "strong"
    return {
        **caps,
        **counted(study),
        "seconds": round(seconds, 1),
        "finalists": found["finalists"],
        "first": study.trials[0].value,
        "scores": {name: found[name]["scores"][which] for name in ("default", "tuned")},
    }


def counted(study: Any) -> dict[str, int]:
    """Count trials by state, and the epochs of all of them."""
    states = [trial.state.name.lower() for trial in study.trials]
    spent = sum(trial.user_attrs.get("epochs", 0) for trial in study.trials)
    return {"epochs": spent, **{state: states.count(state) for state in sorted(set(states))}}


def pruning(graph: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run the same study without a pruner and with the default one, one worker, some sampler seeds.

    A sampler that sees other results draws other trials, so that the best values of two studies differ by luck too, the
    more so the fewer trials come to an end; `fresh` is what the winner of each study's last round is worth on seeds
    that no trial has used. `replayed` tells what a pruner does to the very same trials.
    """
    found: dict[str, Any] = {"trials": given.trials, "seeds": given.pruning_seeds}
    config = dataclasses.replace(BASE, dataset=graph, data_root=given.data_root)
    for seed in range(given.pruning_seeds):
        for pruner in ("none", PRUNERS[0]):
            place = Path(given.work) / f"pruning-{graph}-{pruner}-{seed}.log"
            study = tune(config, study=str(place), trials=given.trials, seed=seed, pruner=pruner)
            last = finals(study, make_space(config), Plan(workers=given.workers), SEEDS, 3)
            found.setdefault(pruner, []).append(
                {**counted(study), "best": study.best_value, "fresh": last[0]["fresh"], "finalists": last}
            )
            if pruner == "none":
                for name in PRUNERS:
                    found.setdefault(f"{name} replayed", []).append(replayed(study, name))
    return found


def replayed(study: Study, pruner: str) -> dict[str, float]:
    """Show a pruner the curves of trials that none has stopped: what remains of their epochs and of the best value.

    A stopped trial's epochs are taken in proportion to the reports that it got to.
    """
    again = create_study(direction="maximize", pruner=make_pruner(pruner, BASE.epochs, {}))
    spent, values = 0.0, []
    for trial in study.get_trials(states=(TrialState.COMPLETE,)):
        ours = again.ask()
        ours.set_user_attr("scored", trial.user_attrs["scored"])
        for step, value in sorted(trial.intermediate_values.items()):
            ours.report(value, step)
            if ours.should_prune():
                again.tell(ours, state=TrialState.PRUNED)
                spent += trial.user_attrs["epochs"] * step / max(trial.intermediate_values)
                break
        else:
            again.tell(ours, trial.value)
            spent += trial.user_attrs["epochs"]
            values.append(trial.value)
    return {"epochs": spent, "best": max(values)}


def overhead(graph: str, given: argparse.Namespace) -> dict[str, Any]:
    """Time what a study adds to its trials: drawing, reporting, pruning, writing, counting; one worker."""
    spent = {"trials": 0.0, "study": 0.0}
    trial = mowst.tuning.trial
    trained, opened, watch = trial.trained, mowst.experiment.sharing.Opened, trial.Watch.__call__
    trial.trained = timed(trained, spent, "trials")
    mowst.experiment.sharing.Opened = timed(opened, spent, "trials")  # type: ignore[assignment, misc]
    trial.Watch.__call__ = timed(watch, spent, "study")  # type: ignore[method-assign]
    config = dataclasses.replace(BASE, dataset=graph, data_root=given.data_root)
    place = Path(given.work) / f"overhead-{graph}.log"
    place.unlink(missing_ok=True)
    space = make_space(config)
    tune(config, space, study=str(place), trials=1)
    spent |= {"trials": 0.0, "study": 0.0}
    start = time.perf_counter()
    study = tune(config, space, study=str(place), trials=given.trials)
    whole = time.perf_counter() - start
    trial.trained, mowst.experiment.sharing.Opened = trained, opened  # type: ignore[misc]
    trial.Watch.__call__ = watch  # type: ignore[method-assign]
    training = spent["trials"] - spent["study"]
    return {**counted(study), "seconds": whole, "training": training, "percent": 100 * (whole - training) / training}


def timed(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """Add the time of every call to `spent[name]`."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[name] += time.perf_counter() - start

    return wrapped


def kills(given: argparse.Namespace) -> dict[str, Any]:
    """Kill one of two workers on one study at random, ten times, starting another; then look at what is there."""
    place, draw, trials = Path(given.work) / "kills.log", random.Random(0), 40
    place.unlink(missing_ok=True)
    config = dataclasses.replace(BASE, dataset="karate", epochs=20)
    space = make_space(config)
    plan = Plan(study=str(place), trials=trials, silence=5.0, workers=2)
    open_study(plan, ["maximize"], space.described(), first_points(space))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mowst.tuning.search"])  # a worker is then there at once after every kill

    def begin() -> Any:
        run_trial = partial(objective, config=config, space=space)
        process = context.Process(target=worker, args=(0, plan, [], run_trial, 20, None))
        process.start()
        return process

    def finished() -> dict[int, Any]:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        found = load_study(storage=open_storage(str(place)), study_name="mowst").get_trials(states=states)
        return {trial.number: (trial.params, trial.values) for trial in found}

    workers, seen, killed = [begin(), begin()], dict[int, Any](), 0
    while killed < 10:
        enough = len(seen) + draw.randint(1, 4)
        while len(seen) < enough and any(each.is_alive() for each in workers):
            time.sleep(0.05)
            seen |= finished()
        time.sleep(draw.uniform(0, 2))
        victim = draw.randrange(2)
        if not any(each.is_alive() for each in workers):
            break
        workers[victim].kill()
        workers[victim].join()
        workers[victim] = begin()
        killed += 1
    for each in workers:
        each.join()
    study = load_study(storage=open_storage(str(place)), study_name="mowst")
    done = finished()
    again = [trial.system_attrs["failed_trial"] for trial in study.trials if "failed_trial" in trial.system_attrs]
    return {
        "asked": trials,
        "killed": killed,
        "killed in a trial": sum(trial.state == TrialState.FAIL for trial in study.trials),
        "exit codes": [each.exitcode for each in workers],
        "finished": len(done),
        "still running": sum(not trial.state.is_finished() for trial in study.trials),
        "lost": sum(done.get(number) != found for number, found in seen.items()),
        "retries": len(again),
        "drawn twice": len(done) - len({json.dumps(params, sort_keys=True) for params, _ in done.values()}),
    }


def main() -> None:
    """Run the cells that are missing, then print the table and put it into docs/results.md."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--work", default="runs/tuning", help="folder for the studies")
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--trials", type=int, default=30)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=480, help="seconds after which a study begins no trial")
    arguments.add_argument("--pruning_seeds", type=int, default=3)
    arguments.add_argument("--table", action="store_true", help="only write the table")
    given = arguments.parse_args()
    start = time.perf_counter()
    be_quiet()
    for name, measure in cells(given).items():
        path = RESULTS / f"{name}.json"
        wanted = any(fnmatch(name, pattern) for pattern in given.only)
        if given.table or not wanted or path.exists() or time.perf_counter() - start > given.budget:
            continue
        print(f"{name} ...", flush=True)
        with tune_process():
            found = measure()
        write_text(path, json.dumps(found, indent=1) + "\n")
        print(f"{name}: {json.dumps(found)}", flush=True)
    print(table := "\n".join(lines()))
    put(HERE.parent / "docs" / "results.md", "tuning", table)


def read(name: str) -> dict[str, Any] | None:
    """Return a cell's result, if it has been run."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def lines() -> list[str]:
    """Return the tables as Markdown."""
    heads = ["graph", "mixture, default", "mixture, tuned", "GCN, tuned", "SAGE, tuned", "trials (mixture, GCN, SAGE)"]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for graph in GRAPHS:
        found = {method: read(f"{graph}/{method}") for method in METHODS}
        mixture = found["mixture"]
        shown = [both(mixture, "default"), *(both(each, "tuned") for each in found.values())]
        trials = ", ".join(
            "-" if each is None else str(each.get("complete", 0) + each.get("pruned", 0)) for each in found.values()
        )
        table.append("| " + " | ".join([graph, *shown, trials]) + " |")
    words = (
        f"Validation / test in percent, mean over {SEEDS} seeds that no trial has used; test ± standard deviation. Of "
        "the three best trials and the default, `tuned` is the one with the best validation score on these seeds"
    )
    cells = [found for graph in GRAPHS for method in METHODS if (found := read(f"{graph}/{method}"))]
    if cells:
        trials, workers, seconds = (sorted({found[cap] for found in cells}) for cap in ("trials", "workers", "timeout"))
        words += (
            f". A study has at most {span(trials)} trials of one seed, {span(workers)} workers, and begins none after "
            f"{span(seconds)} s"
        )
    return [*table, "", f"{words}.", "", *costs()]


def span(values: list[float]) -> str:
    """Write one number, or the lowest and the highest of several."""
    return f"{values[0]:.0f}" if len(values) == 1 else f"{values[0]:.0f} to {values[-1]:.0f}"


def both(found: dict[str, Any] | None, name: str) -> str:
    """Write validation and test score of a cell."""
    return "not run" if found is None else f"{found['scores'][name]['val'][0]:.2f} / {cell(found['scores'][name])}"


def costs() -> list[str]:
    """Return a line for each measured cost."""
    found = []
    for path in sorted(RESULTS.glob("pruning/*.json")):
        kept = json.loads(path.read_text())
        words = []
        for pruner in (PRUNERS[0], *(f"{name} replayed" for name in PRUNERS)):
            spent, whole = (sum(each["epochs"] for each in kept[name]) for name in (pruner, "none"))
            words.append(f"{pruner} {100 * (1 - spent / whole):.0f} % at {difference(kept, pruner, 'best')}")
        words[0] += f" (winners on fresh seeds {difference(kept, PRUNERS[0], 'fresh')})"
        found.append(
            f"Epochs saved by pruning on {path.stem} ({kept['trials']} trials, {kept['seeds']} seeds; replayed: shown "
            f"the trials of the study without), and the best trial's validation score against no pruning, in points ± "
            f"one standard error: {', '.join(words)}."
        )
    for path in sorted(RESULTS.glob("overhead/*.json")):
        kept = json.loads(path.read_text())
        found.append(
            f"Overhead of a study on {path.stem}: {kept['percent']:.1f} % of {kept['training']:.0f} s of training."
        )
    if kept := read("kills"):
        found.append(
            f"{kept['killed']} kills, {kept['killed in a trial']} of them in a trial: {kept['finished']} of "
            f"{kept['asked']} trials, {kept['lost']} lost, {kept['drawn twice']} drawn twice."
        )
    return [" ".join(found)] if found else []


def difference(kept: dict[str, Any], pruner: str, key: str) -> str:
    """Write the mean over the seeds of a pruner's gain over none, ± one standard error of it."""
    pairs = zip(kept[pruner], kept["none"], strict=True)
    gains = [one[key] - other[key] for one, other in pairs if None not in (one[key], other[key])]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else math.nan
    return f"{statistics.fmean(gains):+.2f} ± {error:.2f}"


if __name__ == "__main__":
    main()
