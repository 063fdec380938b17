"""A study that any number of processes work on, and that may be taken up again.

Trials are counted in the storage, so "until there are 100" means the same to every worker. What a killed worker leaves
behind is found by its silence and tried again: databases have heartbeats of Optuna's; elsewhere a running trial is
signed with the time again and again.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from mowst.errors import InputError
from mowst.experiment import Checked, setting
from mowst.system import end_with_parent, gpus, hush_libraries, take_share, tune_process
from mowst.tuning.sampling import make_pruner, make_sampler
from mowst.tuning.storage import RETRIES, at_hand, experimental, has_heartbeats, open_storage

Told = Callable[[Study, FrozenTrial], None]
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Plan(Checked):
    """How a study is made."""

    study: str = "study.log"
    """Where it is kept: a journal file, a database URL, or grpc://host:port of an Optuna proxy."""
    name: str = "mowst"
    """Its name there, for a storage that holds several."""
    trials: int = setting(30, at_least=1)
    """Number of trials, pruned ones too, with which the study shall end, whoever has run them."""
    workers: int = setting(1, at_least=1)
    """Processes of this machine that work on it; the same command elsewhere is one more."""
    goals: list[str] = field(default_factory=lambda: ["metric"])
    """What is sought: metric (on validation nodes), share (sent to the strong expert), parameters, or dotted paths."""
    sampler: str = "tpe"
    """Sampler by Optuna's name (tpe, random, gp, cmaes, nsgaii, ...), a dotted path, or hub:PACKAGE:CLASS."""
    sampler_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the sampler."""
    pruner: str | None = None
    """percentile (stops a trial that would be in the last quarter of those that came to an end), median, hyperband,
    none, or a dotted path; by default percentile with one goal and none with several."""
    pruner_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the pruner."""
    seed: int = setting(0, at_least=0)
    """Seed of the sampler."""
    silence: float = setting(60.0, at_least=1)
    """Seconds without a sign of life after which a worker counts as killed."""
    timeout: float | None = None
    """Seconds after which no trial is begun."""
    fast: bool = True
    """Whether the command, and each of several workers, use process-wide settings for speed (mowst.system.process)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        make_sampler(self.sampler, self.seed, self.sampler_options)
        make_pruner(self.prunes_by, 1, self.pruner_options)
        if len(self.goals) > 1 and self.prunes_by != "none":
            raise InputError(f"pruner {self.pruner}: Optuna prunes by a single goal, and there are {len(self.goals)}")

    @property
    def prunes_by(self) -> str:
        """The pruner's name."""
        return self.pruner or ("percentile" if len(self.goals) == 1 else "none")


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
    storage = open_storage(plan.study, plan.silence)
    described = json.loads(json.dumps(described))
    try:
        if plan.name not in optuna.study.get_all_study_names(storage):
            ways = [StudyDirection[way.upper()] for way in directions]
            study = optuna.create_study(storage=storage, study_name=plan.name, directions=ways)
            return begun(study, described, first)
    except optuna.exceptions.DuplicatedStudyError:
        pass  # another worker was first
    study = optuna.load_study(storage=storage, study_name=plan.name)
    held = settled(study)
    if held is None:
        return begun(study, described, first)
    for key in sorted({*held, *described}):
        if held.get(key) != described.get(key):
            raise InputError(
                f"study {plan.study}: is of another space: {key} was {held.get(key, 'not there')}, now it is "
                f"{described.get(key, 'not there')}; give another --study, or another --name in this one"
            )
    return study


def begun(study: Study, described: dict[str, Any], first: Sequence[dict[str, Any]]) -> Study:
    """Put the first trials into a new study, then sign it: the signature says that the rest is there."""
    for params in first:
        study.enqueue_trial(params, skip_if_exists=True)
    study.set_user_attr("space", described)
    return study


def settled(study: Study, patience: float = 10) -> dict[str, Any] | None:
    """Return the space of a study that exists, once its maker has signed it; none if its maker seems to be dead."""
    end = time.monotonic() + patience
    while "space" not in study.user_attrs and time.monotonic() < end:
        if any(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
            return {}  # somebody else's study
        time.sleep(0.1)
    return study.user_attrs.get("space")


@contextmanager
def signing(trial: Trial, every: float) -> Iterator[None]:
    """Have a thread write the time into a running trial, for storages without heartbeats."""
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
    if has_heartbeats(plan.study):
        optuna.storages.fail_stale_trials(study)
        return
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
        storage=open_storage(plan.study, plan.silence),
        study_name=plan.name,
        sampler=make_sampler(plan.sampler, plan.seed, plan.sampler_options),
        pruner=make_pruner(plan.prunes_by, epochs, plan.pruner_options),
    )
    beats = has_heartbeats(plan.study)
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
            one_trial(study, plan, objective, None if beats else plan.silence / 6, told)
            if study._stop_flag:  # `study.stop()`: by `told`, or by a sampler that has tried everything
                break
    return study


def one_trial(
    study: Study, plan: Plan, objective: Callable[[Trial], Any], every: float | None, told: Told | None
) -> None:
    """Run one trial, signed every so many seconds.

    A process that was asleep so long that its trial was given to another has lost it, and goes on.
    """
    ours, faults = set[int](), list[Exception]()

    def run(trial: Trial) -> Any:
        ours.add(trial.number)
        with nullcontext() if every is None else signing(trial, every):
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
    """Work as several processes; this one then finishes what killed ones have left."""
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    given = plan, gpus(), objective, epochs, told
    others = [context.Process(target=worker, args=(place, *given)) for place in range(plan.workers)]
    try:
        for other in others:
            other.start()
        for other in others:
            other.join()
    finally:
        for other in others:
            other.terminate()
    left = None if plan.timeout is None else max(0.0, plan.timeout - (time.monotonic() - start))
    return work(replace(plan, timeout=left), objective, epochs, told)


def worker(
    place: int,
    plan: Plan,
    gpu_names: Sequence[str],
    objective: Callable[[Trial], Any],
    epochs: int,
    told: Told | None,
) -> None:
    """Be one process of several; what goes wrong is said by the parent, to whom it happens too."""
    end_with_parent()
    take_share(plan.workers, place, gpu_names)
    be_quiet()
    with tune_process(plan.fast), suppress(InputError, KeyboardInterrupt):
        work(plan, objective, epochs, told)


def be_quiet() -> None:
    """Leave it to our own lines to say what happens, in this process."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    hush_libraries()
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
