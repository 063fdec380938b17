"""A study that any number of processes work on, and that may be taken up again.

Trials are counted in the storage, so "until there are 100" means the same to every worker. What a killed worker leaves
behind is found by its silence and tried again: a running trial is signed with the time again and again. Optuna's own
heartbeats, which only databases have, begin after a trial has begun: what is killed in between would never be found.
"""

from __future__ import annotations

import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import optuna
from optuna.storages import BaseStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from mowst.errors import InputError
from mowst.names import trusted
from mowst.system import (
    Settings,
    end_with_parent,
    ended_early,
    gpus,
    hush_libraries,
    need_guard,
    spawning,
    take_share,
)
from mowst.system.workers import UNGUARDED
from mowst.tuning.plan import Plan
from mowst.tuning.sampling import make_pruner, make_sampler
from mowst.tuning.storage import RETRIES, at_hand, experimental, open_storage

Told = Callable[[Study, FrozenTrial], None]
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def open_study(
    plan: Plan, directions: Sequence[str], described: dict[str, Any], first: Sequence[dict[str, Any]] = ()
) -> Study:
    """Open or begin a study, which must be of this space.

    Args:
        plan: says where.
        directions: "maximize" or "minimize" by goal.
        described: what makes trials comparable; kept with the study, and compared.
        first: trials to begin with, by parameter.

    Raises:
        InputError: it cannot be opened, or is of another space; it is then as it was.
    """
    storage = open_storage(plan.study)
    described = json.loads(json.dumps(described))
    with at_hand(plan.study):
        study, made = found_or_made(storage, plan.name, directions)
        held = None if made else settled(study)
        if held is None:
            return begun(study, described, first)
    for key in sorted({*held, *described}):
        if held.get(key) != described.get(key):
            was, now = held.get(key, "not there"), described.get(key, "not there")
            raise InputError(
                f"study {plan.study}: is of another space: {differing(key, was, now)}; give another --study, or "
                "another --name in this one"
            )
    return study


def differing(key: str, was: Any, now: Any) -> str:
    """Say what two descriptions of a space differ in; of several fields, the first."""
    if isinstance(was, dict) and isinstance(now, dict):
        field = next(name for name in sorted({*was, *now}) if was.get(name) != now.get(name))
        return differing(f"{key}: {field}", was.get(field, "not there"), now.get(field, "not there"))
    return f"{key} was {was}, now it is {now}"


def found_or_made(storage: BaseStorage, name: str, directions: Sequence[str]) -> tuple[Study, bool]:
    """Return the study of a name, and whether it was made now."""
    try:
        if name not in optuna.study.get_all_study_names(storage):
            ways = [StudyDirection[way.upper()] for way in directions]
            return optuna.create_study(storage=storage, study_name=name, directions=ways), True
    except optuna.exceptions.DuplicatedStudyError:
        pass  # another worker was first
    return optuna.load_study(storage=storage, study_name=name), False


def begun(study: Study, described: dict[str, Any], first: Sequence[dict[str, Any]]) -> Study:
    """Put the first trials into a new study, then sign it: the signature says that the rest is there."""
    for params in first:
        study.enqueue_trial(params, skip_if_exists=True)
    study.set_user_attr("space", described)
    return study


def settled(study: Study, patience: float = 5) -> dict[str, Any] | None:
    """Return the space of a study that exists, once its maker has signed it; none if its maker seems to be dead."""
    end = time.monotonic() + patience
    while "space" not in study.user_attrs and time.monotonic() < end:
        if any(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
            return {}  # somebody else's study
        time.sleep(0.1)
    return study.user_attrs.get("space")


@contextmanager
def signing(trial: Trial, every: float) -> Iterator[None]:
    """Have a thread write the time into a running trial."""
    over = threading.Event()

    def sign() -> None:
        while not over.wait(every):
            with suppress(Exception):  # the trial was given up for dead, or the storage is away for a moment
                trial.set_user_attr("alive", time.time())

    thread = threading.Thread(target=sign, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@experimental()
def revive(study: Study, plan: Plan) -> None:
    """Give up the trials whose workers have been silent for too long, and queue each once more.

    A worker that is killed between the two leaves it to the count of trials that a fresh one is drawn instead.
    """
    retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        assert trial.datetime_start is not None
        heard = max(trial.user_attrs.get("alive", 0.0), trial.datetime_start.timestamp())
        if time.time() - heard > plan.silence:
            try:
                study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                continue  # it has just ended, or another worker was first
            retry(study, study.trials[trial.number])


def work(plan: Plan, objective: Callable[[Trial], Any], epochs: int, told: Told | None = None) -> Study:
    """Work on an open study until it has all its trials, as one worker among any number.

    Args:
        plan: how.
        objective: runs a trial.
        epochs: of a phase, by which the pruner sets its pace.
        told: called with every trial that this worker has finished.
    """
    end = math.inf if plan.timeout is None else time.monotonic() + plan.timeout
    study = optuna.load_study(
        storage=open_storage(plan.study),
        study_name=plan.name,
        sampler=make_sampler(plan.sampler, plan.seed, plan.sampler_options),
        pruner=make_pruner(plan.prunes_by, epochs, plan.pruner_options),
    )
    while time.monotonic() < end:
        with at_hand(plan.study):
            revive(study, plan)
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
        missing = plan.trials - sum(state in DONE for state in states)
        if missing <= 0:
            break
        if states.count(TrialState.RUNNING) >= missing:
            time.sleep(min(1.0, plan.silence / 10))  # others are at the last ones, and may still be killed
        else:
            one_trial(study, plan, objective, told)
            if study._stop_flag:  # `study.stop()`: by `told`, or by a sampler that has tried everything
                break
    return study


def one_trial(study: Study, plan: Plan, objective: Callable[[Trial], Any], told: Told | None) -> None:
    """Run one trial, signed six times within the silence after which it would be given up.

    A process that was asleep so long that its trial was given to another has lost it, and goes on.
    """
    ours, faults = set[int](), list[Exception]()

    def run(trial: Trial) -> Any:
        ours.add(trial.number)
        with signing(trial, plan.silence / 6):
            try:
                return objective(trial)
            except Exception as error:
                faults.append(error)
                raise

    def tell(study: Study, trial: FrozenTrial) -> None:
        try:
            if told:
                told(study, trial)
        except Exception as error:
            faults.append(error)
            raise

    try:
        with at_hand(plan.study, faults):
            study.optimize(run, n_trials=1, callbacks=[tell])
    except InputError:
        raise
    except Exception:
        given_away = {number for trial in study.trials for number in trial.system_attrs.get("retry_history", [])}
        if not ours & given_away:
            raise


def work_together(plan: Plan, objective: Callable[[Trial], Any], epochs: int, told: Told | None = None) -> Study:
    """Work as several processes; this one then finishes what killed ones have left.

    Raises:
        InputError: the script that asks for them is not guarded, so that none could begin; or as `work` has it.
    """
    need_guard()
    start, context = time.monotonic(), spawning()
    given = plan, gpus(), objective, epochs, told, trusted()
    others = [context.Process(target=worker, args=(place, *given)) for place in range(min(plan.workers, plan.trials))]
    try:
        for other in others:
            other.start()
        for other in others:
            other.join()
    finally:
        for other in others:
            other.terminate()
    if UNGUARDED in (other.exitcode for other in others):
        raise ended_early(others)
    left = None if plan.timeout is None else max(0.0, plan.timeout - (time.monotonic() - start))
    return work(replace(plan, timeout=left), objective, epochs, told)


def worker(
    place: int,
    plan: Plan,
    gpu_names: Sequence[str],
    objective: Callable[[Trial], Any],
    epochs: int,
    told: Told | None,
    trusts: tuple[str, ...] = (),
) -> None:
    """Be one process of several; what goes wrong is said by the parent, to whom it happens too."""
    end_with_parent()
    take_share(plan.workers, place, gpu_names)
    be_quiet()
    with Settings(plan.fast, trusted=trusts).applied(), suppress(InputError, KeyboardInterrupt):
        work(plan, objective, epochs, told)


def be_quiet() -> None:
    """Leave it to our own lines to say what happens, in this process."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    hush_libraries()
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
