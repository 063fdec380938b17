import dataclasses
import json
import re
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from optuna.trial import FixedTrial, TrialState, create_trial

import mowst.tuning
import mowst.tuning.judging
from mowst import Config, ExpertConfig
from mowst.data import load
from mowst.errors import InputError
from mowst.experiment.bench import Bench
from mowst.experiment.record import parameters
from mowst.experiment.seed import run_seed
from mowst.reporting.study_page import write_page
from mowst.run import command as run_command
from mowst.system.main import main
from mowst.system.process import tune_process
from mowst.tune import command
from mowst.tuning.fields import configured
from mowst.tuning.finals import best_trial, finals, finish
from mowst.tuning.goals import Goal
from mowst.tuning.plan import Plan
from mowst.tuning.sampling import make_pruner
from mowst.tuning.search import tune
from mowst.tuning.space import make_space
from mowst.tuning.trial import objective
from tests.tuning import SMALL, narrow, plan, state

HERE = __name__
FLAGS = ["--dataset", "tests.graphs:good", "--epochs", "6", "--seeds", "1", "--strong.hidden_channels", "8"]


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def few_layers(fitted, data):
    """A goal of one's own, that is to be small."""
    return len(list(fitted.model.strong.convs))


few_layers.direction = "minimize"


def test_a_trial_is_worth_the_mean_validation_score_of_a_run():
    config = dataclasses.replace(SMALL, seeds=3, first_seed=2, baselines=False)
    value = objective(FixedTrial({"lr": 0.02, "strong.dropout": 0.1}), config, narrow(config))
    chosen = configured(config, {"lr": 0.02, "strong.dropout": 0.1})
    runs = [run_seed(chosen, seed).scores["mixture"]["val"] for seed in (2, 3, 4)]
    assert value == pytest.approx(sum(runs) / 3)


def test_without_a_mixture_the_strong_expert_alone_is_judged():
    config = dataclasses.replace(SMALL, mixture=False)
    value = objective(FixedTrial({"lr": 0.02, "strong.dropout": 0.1}), config, narrow(config))
    chosen = configured(config, {"lr": 0.02, "strong.dropout": 0.1})
    assert value == pytest.approx(run_seed(chosen, 0).scores["strong"]["val"])


def test_a_student_is_judged_and_its_teacher_is_no_reason_to_prune(tmp_path):
    config = dataclasses.replace(SMALL, regime="solo", kd="kd", teacher="strong", baselines=False)
    study = tune(config, make_space(config), **plan(tmp_path / "s", trials=3, goals=["metric"]))
    trial = next(trial for trial in study.trials if trial.state == TrialState.COMPLETE)
    chosen = configured(config, trial.params)
    assert trial.value == pytest.approx(run_seed(chosen, 0).scores["student"]["val"])
    assert "kd.kd.temperature" in trial.params
    assert trial.user_attrs["epochs"] == 2 * max(trial.intermediate_values) == 2 * config.epochs


def test_test_labels_change_nothing_in_a_study(tmp_path):
    studies = []
    for graph in ("tests.graphs:good", "tests.tuning:other_test_labels"):
        config = dataclasses.replace(SMALL, dataset=graph)
        studies.append(state(tune(config, narrow(config), **plan(tmp_path / f"{len(studies)}.log"))))
    assert load("tests.graphs:good").y.ne(load("tests.tuning:other_test_labels").y).any()
    assert studies[0] == studies[1]


def test_trials_do_not_have_the_test_nodes_at_all(monkeypatch):
    def looking(bench, name):
        ready = bench.ready
        assert "test_mask" not in ready
        assert (ready.y[~(ready.train_mask | ready.val_mask)] == -100).all()
        trained.append(name)
        return train(bench, name)

    train, trained = Bench.train, []
    monkeypatch.setattr(Bench, "train", looking)
    assert objective(FixedTrial({"lr": 0.02, "strong.dropout": 0.1}), SMALL, narrow()) > 0
    assert trained == ["mixture", "strong"]


def test_the_objective_serves_a_study_of_ones_own():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: objective(trial, SMALL), n_trials=3)
    assert study.best_value == max(trial.value for trial in study.trials)
    assert {"lr", "strong.dropout", "gate.kind"} <= study.best_params.keys()


def test_a_study_is_resumed_to_the_number_asked_for(tmp_path):
    path = tmp_path / "deep" / "study.log"
    before = state(tune(SMALL, narrow(), **plan(path)))
    after = state(tune(SMALL, narrow(), **plan(path, trials=7)))
    assert (len(before), len(after)) == (4, 7)
    assert after[:4] == before
    written = path.read_bytes()
    assert state(tune(SMALL, narrow(), **plan(path, trials=7))) == after
    assert path.read_bytes() == written, "a study that has its trials is left alone"


def test_resuming_changes_nothing_in_what_is_drawn(tmp_path):
    tune(SMALL, narrow(), **plan(tmp_path / "one.log"))
    resumed = tune(SMALL, narrow(), **plan(tmp_path / "one.log", trials=8))
    assert state(resumed) == state(tune(SMALL, narrow(), **plan(tmp_path / "two.log", trials=8)))


@pytest.mark.parametrize("pruner", ["percentile", "median", "hyperband"])
def test_pruning_happens_and_repeats_itself(tmp_path, pruner):
    options = {"n_startup_trials": 2, "n_warmup_steps": 1} if pruner != "hyperband" else {"min_resource": 2}
    studies = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fields = {"pruner": pruner, "pruner_options": options, "seed": seed, "trials": 10}
        studies.append(tune(SMALL, narrow(), **plan(tmp_path / name, **fields)))
    assert state(studies[0]) == state(studies[1]) != state(studies[2])
    pruned = [trial for trial in studies[0].trials if trial.state == TrialState.PRUNED]
    whole = [trial for trial in studies[0].trials if trial.state == TrialState.COMPLETE]
    assert pruned
    assert all(trial.user_attrs["reason"].startswith("pruner, at") for trial in pruned)
    assert all(each.user_attrs["epochs"] < whole[0].user_attrs["epochs"] for each in pruned)


@pytest.mark.parametrize(("scored", "score", "stopped"), [("gcn", 75, False), ("gcn", 65, True), ("", 75, True)])
def test_a_trial_is_compared_with_those_that_had_the_same_thing_scored(scored, score, stopped):
    """Six trials whose SAGE scored 90, six whose GCN scored 70, and six mixtures that scored 80."""
    pruner = make_pruner("median", 30, {"n_warmup_steps": 0})
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for what, value in (("sage", 90), ("gcn", 70), ("", 80)) * 6:
        trial = study.ask()
        trial.set_user_attr("scored", [(5, what), (45, "")])
        for step in (10, 50):
            trial.report(value, step)
        study.tell(trial, value)
    trial = study.ask()
    trial.set_user_attr("scored", [(5, scored)])
    trial.report(score, 10)
    assert trial.should_prune() == stopped


@pytest.mark.parametrize(
    ("fields", "scored"),
    [
        ({"regime": "held-out"}, ["gcn"]),
        ({"regime": "joint", "pretrain": "both"}, ["gcn", ""]),
        ({"regime": "joint", "pretrain": "none"}, [""]),
        ({"mixture": False}, [""]),
    ],
)
def test_a_trial_says_what_it_had_scored(tmp_path, fields, scored):
    config = dataclasses.replace(SMALL, **fields)
    (trial,) = tune(config, narrow(config), **plan(tmp_path / "s", trials=1)).trials
    assert [what for _, what in trial.user_attrs["scored"]] == scored
    assert [step for step, _ in trial.user_attrs["scored"]] == [0, 6][: len(scored)]


def test_no_pruner_prunes_nothing(tmp_path):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s", pruner="none", trials=8))
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_pretraining_the_weak_expert_is_no_reason_to_prune(tmp_path):
    config = dataclasses.replace(SMALL, pretrain="both")
    study = tune(config, narrow(config), **plan(tmp_path / "s", trials=1))
    (trial,) = study.trials
    judged = trial.user_attrs["epochs"] - config.epochs
    assert max(trial.intermediate_values) == judged == 2 * config.epochs


def test_divergence_is_a_pruned_trial_with_its_reason(tmp_path):
    config = dataclasses.replace(SMALL, lr=1e30)
    space = narrow(config, lr=1e30)
    study = tune(config, space, **plan(tmp_path / "s", trials=2))
    assert [trial.state for trial in study.trials] == [TrialState.PRUNED] * 2
    assert all(trial.user_attrs["reason"].startswith("diverged: ") for trial in study.trials)
    with pytest.raises(InputError, match="no trial came to an end"):
        best_trial(study)


@pytest.mark.parametrize(
    ("error", "pruned"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("a fault of ours"), False),
    ],
)
def test_too_little_memory_is_a_pruned_trial_and_a_fault_is_none(tmp_path, monkeypatch, error, pruned):
    def train(*_):
        raise error

    monkeypatch.setattr(Bench, "train", train)
    if pruned:
        (trial,) = tune(SMALL, narrow(), **plan(tmp_path / "s", trials=1)).trials
        assert (trial.state, trial.user_attrs["reason"][:13]) == (TrialState.PRUNED, "out of memory")
    else:
        with pytest.raises(RuntimeError, match="a fault of ours"):
            tune(SMALL, narrow(), **plan(tmp_path / "s", trials=1))


def test_several_goals_have_a_front(tmp_path):
    small = dataclasses.replace(SMALL, baselines=False)
    space = narrow(small, **{"strong.hidden_channels": [4, 8, 16], "gate.options.hidden_channels": [4, 64]})
    goals = ["metric", "share", "parameters"]
    study = tune(small, space, **plan(tmp_path / "s", goals=goals, trials=8))
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    signed = {trial.number: [-trial.values[0], *trial.values[1:]] for trial in study.trials}
    front = {
        one
        for one, mine in signed.items()
        if not any(all(map(float.__le__, his, mine)) and his != mine for his in signed.values())
    }
    assert {trial.number for trial in study.best_trials} == front
    assert best_trial(study).values[0] == max(trial.values[0] for trial in study.trials)
    finish(study, space, Plan(), tmp_path / "out", 0)
    written = {path.stem for path in (tmp_path / "out" / "front").iterdir()}
    assert written == {f"trial-{number}" for number in front}
    trial = study.best_trials[0]
    fitted = run_seed(configured(space.config, trial.params), 0).fitted["mixture"]
    val = load(SMALL.dataset, seed=0).val_mask
    assert trial.values[1] == pytest.approx(
        100 * (fitted.output.confidence[val] < fitted.model.threshold).float().mean().item()
    )
    assert trial.values[2] == parameters(fitted.model)


def test_a_goal_of_ones_own(tmp_path):
    space = narrow(**{"strong.num_layers": [2, 3]})
    study = tune(SMALL, space, **plan(tmp_path / "s", goals=[f"{HERE}:few_layers"], pruner="none", trials=6))
    assert study.best_params["strong.num_layers"] == study.best_value == 2
    assert Goal(few_layers).direction == "maximize"


def test_the_winner_goes_through_mowst_run_as_it_is(tmp_path, capsys):
    study, out = tmp_path / "study.log", tmp_path / "out"
    line = [*FLAGS, "--study", str(study), "--trials", "4", "--retrain", "2", "--out", str(out)]
    assert command([*line, "--search", "lr=1e-3..1e-1:log"]) == 0
    said = capsys.readouterr()
    assert "trial 3" in said.err
    for words in ("best trial", "default, on seeds that no trial has used", "tuned, on seeds", "optuna-dashboard"):
        assert words in said.out.replace("\n", " ")
    run_command(["--config", str(out / "best.yaml"), "--out", str(tmp_path / "again"), "--quiet"])
    result = json.loads((out / "result.json").read_text())
    again = json.loads((tmp_path / "again" / "result.json").read_text())
    assert again["scores"] == result["tuned"]["scores"]
    assert again["seeds"] == [1, 2], "seeds that no trial has used"
    config, default = (yaml.safe_load((out / f"{name}.yaml").read_text()) for name in ("best", "default"))
    protocol = ("dataset", "split", "epochs", "seeds", "first_seed", "patience", "signal")
    assert all(config[name] == default[name] for name in protocol)
    assert default["lr"] == Config().lr


def test_the_test_nodes_are_read_once_for_one_winner(tmp_path, monkeypatch):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s"))
    first = finish(study, narrow(), Plan(), tmp_path / "out", 1)
    monkeypatch.setattr(mowst.tuning.judging, "run", None)
    assert finish(study, narrow(), Plan(), tmp_path / "out", 1) == first
    with pytest.raises(TypeError):
        finish(study, narrow(), Plan(), tmp_path / "out", 2)


def test_what_was_judged_stays_while_it_is_of_the_best_trials(tmp_path, monkeypatch):
    study = tune(SMALL, narrow(), **plan(tmp_path / "s"))
    judged, files = finish(study, narrow(), Plan(), tmp_path / "out", 1), ("best.yaml", "result.json")
    written = [(tmp_path / "out" / name).read_text() for name in files]
    monkeypatch.setattr(mowst.tuning.judging, "run", None)
    assert finish(study, narrow(), Plan(), tmp_path / "out", 0) is None
    assert [(tmp_path / "out" / name).read_text() for name in files] == written
    study.add_trial(create_trial(params=study.best_params, distributions=study.best_trial.distributions, value=2e3))
    assert finish(study, narrow(), Plan(), tmp_path / "out", 0) is None
    best, left = ((tmp_path / "out" / name).read_text() for name in files)
    assert json.loads(left)["asked"]["trials"][0][1] == [2e3]
    assert json.loads(left).keys() == {"asked"} < judged.keys()
    assert yaml.safe_load(best)["lr"] == study.best_params["lr"]


def test_the_luckiest_trial_wins_only_if_it_is_good_again(tmp_path):
    space = narrow(lr="1e-9..1e-1:log")
    study = tune(SMALL, space, **plan(tmp_path / "s", trials=1))
    ranges = study.trials[0].distributions
    for lr, value in ((1e-9, 99.9), (0.02, 90.0), (0.03, 0.0)):
        params = {"lr": lr, "strong.dropout": 0.0}
        study.add_trial(optuna.create_trial(params=params, distributions=ranges, value=value))
    rows = finals(study, space, Plan(), 2, 3)
    assert {row["trial"] for row in rows} == {None, 1, 2}, "the default is judged once, trial 3 is not among the best"
    assert [row["fresh"] for row in rows] == sorted((row["fresh"] for row in rows), reverse=True)
    assert rows[-1]["trial"] == 1
    with tune_process():
        assert finals(study, space, Plan(), 2, 3) == finals(study, space, Plan(workers=2), 2, 3)
    for row in rows:
        config = dataclasses.replace(configured(space.config, row["params"]), baselines=False)
        runs = [run_seed(config, seed).scores["mixture"]["val"] for seed in (1, 2)]
        assert row["fresh"] == pytest.approx(sum(runs) / 2)


def test_the_default_wins_over_trials_that_are_worse(tmp_path):
    space = narrow(lr="1e-9..1e-8:log")
    study, out = tune(SMALL, space, **plan(tmp_path / "s", trials=2)), tmp_path / "out"
    result = finish(study, space, Plan(), out, 1)
    assert result["finalists"][0]["trial"] is None
    assert result["tuned"] == result["default"]
    assert yaml.safe_load((out / "best.yaml").read_text())["lr"] == SMALL.lr
    assert json.loads((out / "best" / "result.json").read_text())["scores"] == result["tuned"]["scores"]


def test_finalists_differ_and_what_another_study_left_is_not_taken_for_this_one(tmp_path):
    space = narrow(**{"strong.hidden_channels": [4, 8, 16]})
    study, out = tune(SMALL, space, **plan(tmp_path / "s", trials=2)), tmp_path / "out"
    trial = study.trials[0]
    for value in (100.0, 99.0, 98.0):
        params = {**trial.params, "strong.hidden_channels": 4}
        study.add_trial(optuna.create_trial(params=params, distributions=trial.distributions, value=value))
    rows = finals(study, space, Plan(), 1, 3)
    assert len(rows) == len({json.dumps(row["params"]) for row in rows}) == 3, "of trials alike only one"
    first = finish(study, space, Plan(), out, 1)
    other = narrow(dataclasses.replace(SMALL, lr=0.03), **{"strong.hidden_channels": [4, 8, 16]})
    assert finish(study, space, Plan(), out, 1) == first
    assert finish(study, other, Plan(), out, 1) != first


def test_a_default_that_diverges_costs_the_winner_nothing(tmp_path):
    config = dataclasses.replace(SMALL, lr=1e30)
    space, good = narrow(config, lr="1e-3..1e-1:log"), narrow()
    study, out = tune(SMALL, good, **plan(tmp_path / "s", trials=2)), tmp_path / "out"
    result = finish(study, space, Plan(), out, 1)
    assert result["default"] is None
    assert result["finalists"][-1]["trial"] is None
    assert (out / "best.yaml").exists()
    assert result["tuned"]["scores"]["mixture"]["val"][0] > 0


@pytest.mark.parametrize("goals", [["metric"], ["metric", "parameters"]])
def test_the_page_holds_everything_itself(tmp_path, goals):
    study = tune(SMALL, narrow(**{"strong.hidden_channels": [4, 8]}), **plan(tmp_path / "s", goals=goals, trials=6))
    write_page(study, tmp_path / "study.html", goals)
    page = (tmp_path / "study.html").read_text()
    for title in ("history", "importance", "slices", "parallel coordinates", *(["Pareto front"] * (len(goals) > 1))):
        assert f"{title}</h2>\n<div" in page or f"{title} of the fields</h2>\n<div" in page, title
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert page.count("Plotly.newPlot(") >= 4 * len(goals)


def test_a_page_of_few_trials_of_a_conditional_space_is_written_in_silence(tmp_path):
    study = tune(SMALL, make_space(SMALL), **plan(tmp_path / "s", trials=3, pruner="none"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Some regimes")
        write_page(study, tmp_path / "study.html", ["metric"])
    assert "importance of the fields</h2>\n<div" in (tmp_path / "study.html").read_text()


def test_a_page_of_a_study_without_a_trial_that_ended_says_so(tmp_path):
    config = dataclasses.replace(SMALL, lr=1e30)
    study = tune(config, narrow(config, lr=1e30), **plan(tmp_path / "s", trials=1))
    write_page(study, tmp_path / "study.html", ["metric"])
    assert "<p>" in (tmp_path / "study.html").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--search lrr=1..2", ["lrr", "lr"]),
        ("--finalists 0", ["finalists: must be >0, got 0"]),
        ("--retrain -1", ["retrain: must be >=0, got -1"]),
        ("--search lr=2..1", ["lr", "empty"]),
        ("--search lr=", ["lr"]),
        ("--search lr", ["FIELD=low..high"]),
        ("--space nowhere.yaml", ["nowhere.yaml"]),
        ("--sampler tpp", ["tpp", "tpe", "random"]),
        ("--sampler cmaes --goals [metric,share]", ["sampler", "multi-objective"]),
        ("--sampler bruteforce", ["sampler", "BruteForce"]),
        ("--sampler hub:nowhere:Sampler", ["OptunaHub", "hub:PACKAGE:CLASS"]),
        ('--sampler_options {"colour":1}', ["sampler", "colour"]),
        ("--pruner mediam", ["mediam", "hyperband"]),
        ("--pruner median --goals [metric,share]", ["median", "single goal"]),
        ("--goals [speed]", ["speed", "share"]),
        ("--goals []", ["goals", "metric, share"]),
        ("--goals [metric,metric]", ["'metric' is there twice"]),
        ("--timeout -1", ["timeout", "seconds from 0"]),
        ("--silence nan", ["silence", "nan"]),
        ("--silence 1e400", ["silence", "inf"]),
        ("--name=", ["name", "a word"]),
        ("--seed -1", ["seed", "at least 0"]),
        ("--retrain 99999999999999999999", ["seeds", "at most"]),
        ("--trials 99999999999999999999", ["trials", "below 10000000"]),
        ('--sampler_options {"gamma":5}', ["sampler", "callable"]),
        ('--sampler_options {"n_startup_trials":"x"}', ["sampler", "int"]),
        ('--pruner hyperband --pruner_options {"reduction_factor":0}', ["pruner", "math domain"]),
        ('--pruner_options {"n_startup_trials":"x"}', ["pruner percentile", "TypeError"]),
        ("--sampler os:getcwd", ["sampler", "before_trial"]),
        ("--search kd.gld.k=1..5", ["kd.gld", "--kd"]),
        ("--search lr=[[[[[[[[[[[[[[[[[[[[[[[[", ["lr", "float"]),
        ("--space /dev", ["--space /dev", "directory"]),
        ("--trials 0", ["trials", "at least 1"]),
        ("--dataset coral", ["coral"]),
        ("--device gpu5", ["gpu5"]),
        ('--gate.options {"depth":3}', ["depth"]),
    ],
)
def test_bad_input_gets_one_line_exit_code_2_and_no_study(flags, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(command, [*FLAGS, "--study", str(tmp_path / "new" / "s.log"), *flags.split()])
    said = capsys.readouterr().err
    assert left.value.code == 2, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": "1e-3..1e-2:log"},
        {"epochs": 7},
        {"strong.kind": "sage"},
        {"weight_decay": "1e-6..1e-2:log"},
        {"dataset": "tests.graphs:isolated"},
        {"goals": ["metric", "share"]},
    ],
)
def test_a_study_of_another_space_is_refused_and_left_as_it_was(tmp_path, changed):
    path = tmp_path / "study.log"
    tune(SMALL, narrow(), **plan(path, trials=1))
    before = path.read_bytes()
    goals = changed.pop("goals", ["metric"])
    config = dataclasses.replace(SMALL, dataset=changed.pop("dataset", SMALL.dataset))
    with pytest.raises(InputError, match="another space") as caught:
        tune(config, narrow(config, **changed), **plan(path, goals=goals))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_the_place_of_the_data_and_the_default_of_what_is_searched_may_change(tmp_path):
    path = tmp_path / "study.log"
    tune(SMALL, narrow(), **plan(path, trials=1))
    moved = dataclasses.replace(SMALL, data_root=str(tmp_path), lr=0.05, strong=ExpertConfig("gcn", 8, dropout=0.2))
    assert len(tune(moved, narrow(moved), **plan(path, trials=2)).trials) == 2


def test_help_loads_neither_torch_nor_optuna():
    code = (
        "import sys; from mowst.tune import flags; flags().format_help(); print({'torch', 'optuna'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


WRONG = [None, "", "word", [], ["a"], {"a": 1}, 0, -1, 1.5, float("nan"), True, torch.zeros(0), object(), b"x", set()]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("best_trial", {"study": None}),
        ("Goal", {"measure": few_layers, "direction": "maximize"}),
        ("read_search", {"path": None, "flags": ["lr=1..2"]}),
        ("make_space", {"config": SMALL, "search": None, "fixed": ["gate"]}),
        ("Space", {"config": SMALL, "dimensions": ()}),
        ("tune", {"config": SMALL, "space": None, "told": None, "trials": 1}),
        ("finish", {"study": None, "space": None, "plan": None, "out": "out", "seeds": 0, "count": 1, "shown": None}),
        (
            "objective",
            {
                "trial": FixedTrial({"lr": 0.02, "strong.dropout": 0.1}),
                "config": SMALL,
                "space": narrow(),
                "goals": ["metric"],
                "shared": None,
            },
        ),
        ("Plan", dataclasses.asdict(Plan())),
    ],
)
def test_an_argument_of_another_kind_is_one_line(name, right, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = optuna.create_study()
    study.add_trial(create_trial(value=1.0))
    right |= {"study": study} if right.keys() >= {"study"} and name != "Plan" else {}
    right |= {"space": narrow(), "plan": Plan()} if name == "finish" else {}
    for argument in right:
        for value in WRONG:
            whole = argument == "space" and value is None and name != "finish"  # all of the space, which is right
            with suppress(InputError):
                if not whole:
                    getattr(mowst.tuning, name)(**{**right, argument: value})


def test_an_unknown_field_of_a_plan_is_one_line():
    with pytest.raises(InputError, match="unknown 'trails'; did you mean trials"):
        tune(SMALL, narrow(), trails=3)
