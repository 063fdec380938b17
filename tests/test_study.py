import datetime
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from mowst.errors import InputError
from mowst.tuning.plan import Plan
from mowst.tuning.sampling import SAMPLERS, make_sampler
from mowst.tuning.search import tune
from mowst.tuning.storage import RETRIES, open_storage
from mowst.tuning.study import open_study, revive, work, work_together
from tests.tuning import SMALL, narrow, plan, state

HERE = __name__
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def square(trial):
    """An objective that takes no time."""
    return trial.suggest_float("x", -1, 1) ** 2


def opened(path, **fields):
    fields = Plan(**plan(path, **fields))
    return fields, open_study(fields, ["minimize"], {"x": 1}, [{"x": 0.5}])


def check(study, trials, extra=0):
    """The law of a study that several work on: the asked number, none lost, none twice."""
    done = [trial for trial in study.trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert trials <= len(done) <= trials + extra
    assert not [trial for trial in study.trials if not trial.state.is_finished()]
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
    retried = [trial.system_attrs["failed_trial"] for trial in study.trials if "failed_trial" in trial.system_attrs]
    assert len(retried) == len(set(retried)), "a lost trial is run again once"
    drawn = [str(trial.params) for trial in done]
    assert len(drawn) == len(set(drawn))


def command(study, *flags):
    """Start the program as a person would, on trials of at least half a second."""
    line = "-m mowst.tune --dataset tests.tuning:slow --epochs 4 --seeds 1 --strong.hidden_channels 8 --retrain 0"
    line = [sys.executable, *line.split(), "--silence", "2", "--study", str(study), *flags]
    return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def held(path):
    return optuna.load_study(storage=open_storage(str(path)), study_name="mowst")


def wait_for(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_killed_in_a_trial_loses_that_trial_only(tmp_path):
    path = tmp_path / "study.log"
    one, two = (command(path, "--trials", "6", "--out", str(tmp_path / "out")) for _ in range(2))
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    wait_for(lambda: sum(trial.state.is_finished() for trial in held(path).trials) >= 2)
    finished = [trial for trial in state(held(path)) if trial[1] == "COMPLETE"]
    one.send_signal(signal.SIGKILL)
    one.communicate()
    said = two.communicate(timeout=90)
    assert two.returncode == 0, said
    check(held(path), 6, extra=1)
    assert [trial for trial in state(held(path)) if trial in finished] == finished


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1000, 2], ids=["in a trial", "in the finals"])
def test_workers_end_with_the_command_that_started_them(tmp_path, trials):
    path = tmp_path / "study.log"
    flags = ("--trials", str(trials), "--workers", "2", "--out", str(tmp_path / "out"), "--retrain", "300")
    started = command(path, *flags)
    wait_for(lambda: path.exists() and path.stat().st_size > 0)
    wait_for(lambda: sum(trial.state.is_finished() for trial in held(path).trials) >= 2)
    if trials == 2:
        wait_for((tmp_path / "out" / ".lock").exists)
        time.sleep(1)
    started.kill()
    started.communicate(timeout=60)  # which returns when nobody holds its output any more


@pytest.mark.slow
def test_workers_of_one_command_end_with_the_number_asked_for(tmp_path):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=6, workers=2))
    check(study, 6, extra=1)
    resumed = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=9, workers=2))
    check(resumed, 9, extra=1)
    assert state(resumed)[: len(study.trials)] == state(study)


@pytest.mark.slow
def test_a_fault_in_a_worker_is_said_by_the_parent(tmp_path):
    fields, _ = opened(tmp_path / "s", trials=2, workers=2)
    with pytest.raises(ZeroDivisionError):
        work_together(fields, partial(divided, 0), 10)


def divided(by, trial):
    return 1 / by


def running(study, ago, **attrs):
    """Add a trial that began so many seconds ago."""
    trial = create_trial(
        state=TrialState.RUNNING,
        params={"x": ago / 1000},
        distributions={"x": optuna.distributions.FloatDistribution(-1, 1)},
        user_attrs=attrs,
    )
    trial.datetime_start = datetime.datetime.now() - datetime.timedelta(seconds=ago)
    study.add_trial(trial)
    return len(study.trials) - 1


@pytest.fixture(params=["{}", "sqlite:///{}"], ids=["journal", "database"])
def place(request, tmp_path):
    return request.param.format(tmp_path / "s")


def test_only_silent_trials_are_given_up_and_each_is_queued_with_its_parameters(place):
    """However early the worker was killed: the silent one here never gave a sign."""
    fields, study = opened(place, silence=60)
    silent, fresh = running(study, 100), running(study, 10)
    signed, quiet_since = running(study, 1000, alive=time.time() - 20), running(study, 900, alive=time.time() - 61)
    revive(study, fields)
    revive(study, fields)
    states = [trial.state for trial in study.trials]
    assert [states[number].name for number in (silent, fresh, signed, quiet_since)] == [
        "FAIL",
        "RUNNING",
        "RUNNING",
        "FAIL",
    ]
    queued = [trial.params["x"] for trial in study.trials if trial.state == TrialState.WAITING and trial.params]
    assert queued == [0.1, 0.9]


def test_a_trial_that_kills_its_worker_every_time_is_left_alone(place):
    _, study = opened(place, silence=60)
    running(study, 100)
    for _ in range(RETRIES + 2):
        for trial in study.get_trials(states=(TrialState.WAITING,)):
            if trial.params:
                study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        later = Plan(**plan(place, silence=60))
        object.__setattr__(later, "silence", -1.0)
        revive(study, later)
    assert sum(trial.params == {"x": 0.1} for trial in study.trials) == 1 + RETRIES


def test_a_worker_that_slept_has_lost_its_trial_and_goes_on(place):
    fields, _ = opened(place, trials=3)
    slept = []

    def objective(trial):
        if not slept:
            slept.append(trial.number)
            other = held(place)
            at_once = Plan(**plan(place))
            object.__setattr__(at_once, "silence", -1.0)
            revive(other, at_once)
        return square(trial)

    study = work(fields, objective, 10)
    assert study.trials[slept[0]].state == TrialState.FAIL
    check(study, 3)


def test_a_running_trial_is_signed(place):
    fields, _ = opened(place, trials=1, silence=1.0)
    seen = []

    def objective(trial):
        wait_for(lambda: "alive" in held(place).trials[trial.number].user_attrs, 5)
        seen.append(trial.number)
        return square(trial)

    work(fields, objective, 10)
    assert seen == [0]


def test_a_line_that_was_cut_short_harms_nobody(tmp_path):
    path = tmp_path / "s"
    fields, study = opened(path, trials=3)
    work(fields, square, 10)
    before = path.read_bytes()
    path.write_bytes(before + b'{"op_code":5,"worker_id":"half a li')
    assert state(held(path)) == state(study)
    more = Plan(**plan(path, trials=6))
    check(work(more, square, 10), 6)
    assert path.read_bytes().startswith(before + b'{"op_code"')
    check(held(path), 6)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda held: held + b"garbage\n", "line .* is damaged"),
        (lambda held: held + b"garbage", "line .* is damaged"),
        (lambda held: held.replace(b"\n", b"\ngarbage\n", 1), "line 2 is damaged"),
        (lambda held: held + b'{"op_code":99,"worker_id":"a"}\n', "line .* is damaged"),
        (lambda held: held + b"[" * 100_000 + b"\n", "line .* is damaged"),
        (lambda held: held + b'{"op_code":0,"worker_id":"a"}\n', "study_name"),
        (lambda held: b"SQLite format 3\0" + held, "sqlite:///PATH"),
        (lambda held: bytes(range(256)), "no journal"),
    ],
)
def test_a_damaged_journal_is_one_line_and_left_as_it_was(tmp_path, damage, words):
    path = tmp_path / "s"
    fields, _ = opened(path, trials=2)
    work(fields, square, 10)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(InputError, match=words) as caught:
        opened(path, trials=3)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("tail", [b"", b'{"op_code":5,"wor', b"{", b"\0" * 50])
def test_an_empty_journal_and_one_that_was_cut_in_a_line_go_on(tmp_path, tail):
    path = tmp_path / "s"
    path.write_bytes(b"")
    fields, _ = opened(path, trials=2)
    work(fields, square, 10)
    path.write_bytes(path.read_bytes() + tail)
    again, _ = opened(path, trials=4)
    check(work(again, square, 10), 4)


@pytest.mark.slow
def test_workers_of_a_script_without_a_guard_are_one_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from mowst.tuning import tune\nfrom tests.tuning import SMALL, narrow\n"
        f"tune(SMALL, narrow(), study={str(tmp_path / 's')!r}, trials=4, workers=2)\n"
    )
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("mowst.errors.InputError: workers: ")
    assert "__main__" in last
    assert done.stderr.count("Traceback") == 1


def test_no_two_trials_are_drawn_alike_by_whom_ever_and_the_seed_repeats_them():
    def drawn(seed, numbers):
        study = optuna.create_study(sampler=make_sampler("random", seed, {}))
        values = []
        for number in range(6):
            if number not in numbers:
                study.add_trial(create_trial(state=TrialState.FAIL))
            else:
                study.optimize(square, n_trials=1)
                values.append(study.trials[-1].params["x"])
        return values

    whole = drawn(0, range(6))
    assert len(set(whole)) == 6
    assert drawn(0, range(6)) == whole != drawn(1, range(6))
    assert drawn(0, [0, 2, 4]) == whole[::2], "one worker's trials do not depend on another's number of them"


@pytest.mark.parametrize("name", sorted({"tpe", "random", "gp", "nsgaii", "nsgaiii", "qmc"}))
def test_samplers_by_name_work_on_a_conditional_space(tmp_path, name):
    study = tune(SMALL, **plan(tmp_path / "s", sampler=name, trials=3))
    check(study, 3)
    assert name in SAMPLERS.names


def test_a_sampler_that_has_tried_everything_ends_the_study(tmp_path):
    space = narrow(lr=0.01, **{"strong.dropout": 0.0, "strong.num_layers": [1, 2], "weak.num_layers": [1, 2]})
    study = tune(SMALL, space, **plan(tmp_path / "s", sampler="bruteforce", trials=30))
    check(study, 4)


def test_a_space_smaller_than_a_rehearsal_is_no_fault(tmp_path):
    space = narrow(lr=0.01, **{"strong.dropout": 0.0, "strong.num_layers": [1, 2]})
    check(tune(SMALL, space, **plan(tmp_path / "s", sampler="bruteforce", trials=30)), 2)


def test_time_ends_a_study(tmp_path):
    fields, study = opened(tmp_path / "s", trials=10**6, timeout=0.5)
    start = time.monotonic()
    work(fields, square, 10)
    assert 0.4 < time.monotonic() - start < 5
    assert study.trials


def test_a_study_whose_maker_died_before_signing_it_is_begun_again(tmp_path, monkeypatch):
    path = tmp_path / "s"
    study = optuna.create_study(storage=open_storage(str(path)), study_name="mowst")
    study.enqueue_trial({"x": 0.5}, skip_if_exists=True)
    monkeypatch.setattr(open_study.__globals__["settled"], "__defaults__", (0.2,))
    _, again = opened(path)
    assert [trial.state for trial in again.trials] == [TrialState.WAITING], "the first trial is not queued twice"
    assert again.user_attrs["space"] == {"x": 1}


def test_somebody_elses_study_is_left_alone(tmp_path):
    path = tmp_path / "s"
    optuna.create_study(storage=open_storage(str(path)), study_name="mowst").optimize(square, n_trials=1)
    before = path.read_bytes()
    with pytest.raises(InputError, match="another space"):
        opened(path)
    assert path.read_bytes() == before


def test_one_file_holds_several_studies_by_name(tmp_path):
    for name in ("one", "two"):
        begun_of = Plan(**plan(tmp_path / "s", name=name))
        open_study(begun_of, ["minimize"], {"x": name})
        work(begun_of, square, 10)
    assert optuna.study.get_all_study_names(open_storage(str(tmp_path / "s"))) == ["one", "two"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("{folder}/text", "no journal"),
        ("{folder}/words.yaml", "no journal"),
        ("{folder}", "directory"),
        ("{folder}/text/study.log", "exists"),
        ("postgresql+nodriver://localhost/x", "driver"),
        ("nowhere://localhost/x", "nowhere"),
        ("sqlite:////no/such/folder/x.db", "unable to open"),
        ("grpc://localhost", "host:port"),
        ("sqlite://", "memory"),
        ("", "directory"),
    ],
)
def test_a_place_that_cannot_be_is_one_line_and_left_as_it_was(tmp_path, place, words):
    (tmp_path / "text").write_text("many\nlines\nof text\n")
    (tmp_path / "words.yaml").write_text("lr: 0.1")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError) as caught:
        opened(place.format(folder=tmp_path))
    said = str(caught.value)
    assert "\n" not in said
    assert words in said, said
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("place", ["{folder}/s.log", "sqlite:///{folder}/s.db"])
def test_a_storage_that_goes_away_in_a_trial_is_one_line(tmp_path, place):
    def vanishing(trial):
        trial.suggest_float("a", 0, 1)
        for path in tmp_path.iterdir():
            path.unlink()
        return 1.0

    how = Plan(study=place.format(folder=tmp_path), trials=2)
    open_study(how, ["maximize"], {})
    with pytest.raises(InputError, match=r"cannot be used any more .*the same command") as caught:
        work(how, vanishing, 5)
    assert "\n" not in str(caught.value)


def test_a_file_that_a_trial_misses_is_its_own_fault(tmp_path):
    how = Plan(study=str(tmp_path / "s.log"), trials=2)
    open_study(how, ["maximize"], {})
    with pytest.raises(FileNotFoundError, match="nowhere"):
        work(how, lambda trial: float(Path("nowhere").read_text()), 5)


def has(module):
    return __import__("importlib.util").util.find_spec(module) is not None


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A PostgreSQL server of our own on loopback."""
    if not (shutil.which("postgres") and shutil.which("initdb")):
        pytest.skip("PostgreSQL (postgres, initdb) is not installed")
    if not has("psycopg"):
        pytest.skip("psycopg is not installed")
    folder = Path("/tmp") / f"mowst-postgres-{os.getpid()}"
    folder.mkdir()
    who = {"user": "nobody"} if os.geteuid() == 0 else {}  # it refuses to be run by root
    if who:
        shutil.chown(folder, "nobody")
    subprocess.run(
        ["initdb", "-D", folder / "data", "-U", "mowst", "-A", "trust", "--no-sync"],
        check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who,
    )  # fmt: skip
    port = 20000 + os.getpid() % 20000
    line = ["postgres", "-D", folder / "data", "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
    server = subprocess.Popen(line, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who)
    url = f"postgresql+psycopg://mowst@127.0.0.1:{port}/postgres"
    wait_for(lambda: answers(url), 30)
    yield url
    server.send_signal(signal.SIGQUIT)  # at once: our own connections are still open
    server.wait()
    shutil.rmtree(folder)


def answers(url):
    try:
        return bool(open_storage(url))
    except InputError:
        return False


@pytest.mark.slow
def test_postgresql_holds_a_study_of_two_workers_one_of_them_killed(postgres, tmp_path):
    workers = [command(postgres, "--trials", "6", "--out", str(tmp_path / "out")) for _ in range(2)]

    def trials():
        names = optuna.study.get_all_study_names(open_storage(postgres))
        return held(postgres).trials if "mowst" in names else []

    wait_for(lambda: sum(trial.state == TrialState.COMPLETE for trial in trials()) >= 1)
    workers[0].send_signal(signal.SIGKILL)
    workers[0].communicate()
    said = workers[1].communicate(timeout=90)
    assert workers[1].returncode == 0, said
    check(held(postgres), 6, extra=1)


def test_a_proxy_serves_a_study(tmp_path):
    if not (has("grpc") and has("google.protobuf")):
        pytest.skip("grpcio is not installed")
    port = 40000 + os.getpid() % 20000
    code = f"""
from optuna.storages import JournalStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend
storage = JournalStorage(JournalFileBackend({str(tmp_path / "s")!r}))
run_grpc_proxy_server(storage, host="127.0.0.1", port={port})
"""
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    url = f"grpc://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(url))
        study = tune(SMALL, narrow(), **plan(url))
        check(study, 4)
        known = state(tune(SMALL, narrow(), **plan(url, trials=6)))
    finally:
        server.terminate()
        server.wait()
    assert len(known) == 6
    assert state(held(tmp_path / "s")) == known, "the journal behind it holds the same"
