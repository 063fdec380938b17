"""Faults that were met once: each test says what was wrong, and failed then."""

import json
import math
import os
import signal as signals
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from torch import nn

from graphkd import KD, NKD, build
from mowst import Config, ExpertConfig, GateConfig, InputError, MowstClassifier, load
from mowst.data import sbm
from mowst.evaluation import accuracy, signal
from mowst.experiment import Opened, claim, dump, planned, run, run_seed
from mowst.experiment import opening as opening_module
from mowst.experiment.folder import LOCK, as_json
from mowst.experiment.record import summary
from mowst.models import FusedGate, LearnedGate, Mowst, expert
from mowst.predict import command as predict
from mowst.reporting.table import closing, percent
from mowst.run import command
from mowst.training import REGIMES, Schedule, Term, Trainer, cross_entropy, separate
from mowst.training.held_out import divide
from mowst.tuning.space import make_space

HERE = __name__
FIXTURE = Path(__file__).parent / "fixtures" / "run-0.1"
SMALL = Config(dataset="sbm", epochs=4, seeds=1)
SCORE = signal("metric", accuracy)


def changed(**fields) -> Config:
    return Config(**{"dataset": "sbm", "epochs": 4, "seeds": 1, **fields})


# --- Folders


def test_two_runs_of_the_same_second_have_a_folder_each(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    folders = []
    with claim(None, SMALL) as one, claim(None, SMALL) as other:
        folders = [one.folder, other.folder]
        for each in (one, other):
            (each.place / "result.json").write_text("{}")
    assert len(set(folders)) == 2
    with claim(None, SMALL) as third:
        assert third.folder not in folders


def test_a_folder_that_a_run_is_writing_is_not_shared(tmp_path):
    with (
        claim(str(tmp_path / "out"), SMALL),
        pytest.raises(InputError, match="another run is writing there"),
        claim(str(tmp_path / "out"), SMALL),
    ):
        pass
    assert not (tmp_path / "out").exists()
    with claim(str(tmp_path / "out"), SMALL):
        pass


def test_what_is_not_a_runs_own_is_never_replaced(tmp_path):
    (tmp_path / "result.json").write_text('{"mine": true}')
    (tmp_path / "seed-bank").mkdir()
    for overwrite in (False, True):
        taken = pytest.raises(InputError, match=r"result\.json there is no run's")
        with taken, claim(str(tmp_path), SMALL, overwrite=overwrite):
            pass
    (tmp_path / "result.json").rename(tmp_path / "notes.json")
    for overwrite in (False, True):
        arguments = ["--dataset", "sbm", "--epochs", "2", "--seeds", "1", "--quiet", "--out", str(tmp_path)]
        assert command([*arguments, *["--overwrite"] * overwrite]) == 0
    assert (tmp_path / "seed-bank").is_dir()
    assert json.loads((tmp_path / "notes.json").read_text()) == {"mine": True}
    assert not (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_graph_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(opening_module, "open_graph", lambda *_, **__: pytest.fail("the graph was loaded"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--out"):
            command(["--dataset", "sbm", "--out", str(out)])


def test_what_cannot_begin_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="no file or folder nowhere"):
        command(["--dataset", "nowhere", "--out", str(tmp_path / "out")])
    assert not list(tmp_path.iterdir())


# --- Ending early


def killed_after_a_seed(tmp_path: Path, *more: str) -> tuple[list[str], subprocess.CompletedProcess]:
    """Start a run of three seeds, interrupt it in the second one, and return its arguments and what it said."""
    arguments = ["--dataset", "sbm", "--preset", "fast", "--epochs", "60", "--seeds", "3", "--quiet", *more]
    process = subprocess.Popen(
        [sys.executable, "-m", "mowst.run", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not any("/." not in str(path) for path in tmp_path.rglob("seed-0/result.json")):
        time.sleep(0.02)
    process.send_signal(signals.SIGINT)
    _, said = process.communicate(timeout=60)
    return arguments, subprocess.CompletedProcess(arguments, process.returncode, "", said)


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_seeds_that_are_missing(tmp_path):
    out = tmp_path / "out"
    arguments, ended = killed_after_a_seed(tmp_path, "--out", str(out))
    assert ended.returncode == 130
    assert "the same command goes on" in ended.stderr
    assert "Traceback" not in ended.stderr
    written = (out / "seed-0" / "result.json").stat().st_mtime_ns
    assert not (out / "result.json").exists()
    subprocess.run([sys.executable, "-m", "mowst.run", *arguments], check=True, capture_output=True)
    assert (out / "seed-0" / "result.json").stat().st_mtime_ns == written
    subprocess.run([sys.executable, "-m", "mowst.run", *arguments[:-1], str(tmp_path / "whole")], check=True)
    ours, theirs = (json.loads((place / "result.json").read_text()) for place in (out, tmp_path / "whole"))
    assert ours["scores"] == theirs["scores"]
    assert ours["seeds"] == [0, 1, 2]


def test_a_folder_knows_how_many_devices_were_asked_for_before_anything_is_saved(tmp_path):
    for asked, known in ((None, None), (2, 2), (None, 2), (3, 3)):
        with claim(str(tmp_path), SMALL, devices=asked) as claimed:
            (claimed.place / "seed-0").mkdir(exist_ok=True)
        assert claimed.devices == known


@pytest.mark.slow
def test_without_a_name_it_is_said_how_to_go_on(tmp_path):
    _, ended = killed_after_a_seed(tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"--resume runs/{folder.name} goes on" in ended.stderr


def test_a_run_of_another_configuration_does_not_go_on(tmp_path):
    with claim(str(tmp_path), SMALL) as claimed:
        (claimed.place / "seed-0").mkdir()
    with claim(str(tmp_path), SMALL):
        pass
    said = f"holds a run that did not end, of --epochs {SMALL.epochs}; --resume {tmp_path} goes on with it"
    with pytest.raises(InputError, match=said), claim(str(tmp_path), changed(epochs=5)):
        pass


@pytest.mark.slow
def test_an_interrupt_while_importing_prints_no_traceback(tmp_path):
    command = [sys.executable, "-m", "mowst.run", "--dataset", "sbm"]
    for delay in (0.4, 0.8, 1.2, 1.6):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(delay)
        process.send_signal(signals.SIGINT)
        _, said = process.communicate(timeout=60)
        assert "Traceback" not in said
        assert process.returncode == 130


# --- Objectives


def reads_the_mask(out, batch):
    """An objective that looks at the training mask."""
    return cross_entropy(out, batch) * batch.train_mask


def reads_the_edges(out, batch):
    """An objective that looks at edges, which held-out nodes alone do not have."""
    return cross_entropy(out, batch) + 0 * batch.edge_index.sum()


def test_an_objective_may_read_the_training_mask_where_a_gate_is_fitted():
    scores = run(changed(objective=f"{HERE}:reads_the_mask"))["scores"]
    assert scores["mixture"]["val"][0] > 30


def test_an_objective_is_tried_on_all_that_it_will_meet(monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("something was trained"))
    with pytest.raises(InputError, match="of held-out nodes alone"):
        run(changed(objective=f"{HERE}:reads_the_edges"))


@pytest.mark.parametrize("objective", ["separate", "joint-logits"])
def test_an_objective_that_does_not_mean_the_scale_of_a_pool_is_refused_with_it(objective):
    for fields in ({}, {"regime": "joint", "gate": GateConfig("fused")}):
        with pytest.raises(InputError, match="logarithmic pool"):
            changed(objective=objective, **fields)
    changed(objective=objective, regime="joint")
    changed(objective=objective, gate=GateConfig("logistic"))


def test_by_default_a_logarithmic_pool_is_trained_by_what_means_its_scale(tiny):
    def trained(gate, objective):
        torch.manual_seed(0)
        layers = {"hidden_channels": 8, "num_layers": 2}
        model = Mowst(expert("mlp", 8, 3, **layers), expert("sage", 8, 3, **layers), gate())
        REGIMES.lookup("alternate")(Trainer(model, tiny, SCORE), Schedule(epochs=2, rounds=1), objective)
        return model.state_dict()

    for gate, own in ((FusedGate, cross_entropy), (LearnedGate, separate)):
        default, named = trained(gate, None), trained(gate, own)
        assert all(torch.equal(value, named[name]) for name, value in default.items())
    with pytest.raises(InputError, match="logarithmic pool"):
        trained(FusedGate, separate)


def test_a_study_never_draws_what_is_refused():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = make_space(Config(dataset="sbm", epochs=2))
    drawn = [space.draw(study.ask()) for _ in range(60)]
    assert {(each.gate_kind == "fused", each.objective) for each in drawn} >= {(False, "separate"), (True, None)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    fixed = make_space(Config(dataset="sbm", regime="joint", objective="separate"), fixed=["objective"])
    kinds = {fixed.draw(study.ask()).gate_kind for _ in range(60)}
    assert "fused" not in kinds
    assert len(kinds) > 2


# --- Modules of third parties


class Transductive(nn.Module):
    """An expert that knows the nodes of one graph by number."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.of_node = nn.Parameter(torch.zeros(3000, out_channels))

    def forward(self, x, edge_index):
        if len(x) != len(self.of_node):
            raise RuntimeError("I know 3000 nodes")
        return self.of_node


def test_a_module_that_fails_when_it_is_tried_is_named_with_what_it_said():
    config = changed(strong=ExpertConfig(f"{HERE}:Transductive"), regime="joint", baselines=False, epochs=1)
    with pytest.warns(UserWarning, match="Transductive: fails on two nodes") as said:
        run(config)
    assert "strong expert" in str(said[0].message)
    assert "RuntimeError: I know 3000 nodes" in str(said[0].message)


# --- Records


def without_a_class():
    """A graph whose test nodes lack a class, scored by an AUC."""
    data = sbm(num_nodes=200, num_classes=3)
    data.test_mask &= data.y != 2
    return data


def test_where_a_metric_has_no_value_json_has_null_and_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("mowst.data.loading._outside_card", in_auc("mowst.data.loading"))
    result = run(changed(dataset=f"{HERE}:without_a_class"), tmp_path)
    assert math.isnan(result["scores"]["mixture"]["test"][0])
    for path in (tmp_path / "result.json", tmp_path / "seed-0" / "result.json"):
        text = path.read_text()
        assert "NaN" not in text
        record = json.loads(text)
        assert record["notes"] == ["The rocauc on test nodes has no value: 1 of the classes have no node there."]
    assert record["scores"]["mixture"]["test"] is None
    assert record["scores"]["mixture"]["val"] > 0
    assert result["notes"][0] in [*closing(result)]
    assert percent(math.nan, 0.0, alone=True) == "no value"
    assert math.isnan(summary([record])["scores"]["mixture"]["test"][0])


def in_auc(module: str):
    """Return what describes graphs from outside, but scores them by the AUC."""
    import dataclasses
    from importlib import import_module

    card = import_module(module)._outside_card
    return lambda name: dataclasses.replace(card(name), metric="rocauc")


def test_json_has_no_number_that_is_none():
    found = json.loads(as_json({"a": [1.5, math.nan, (math.inf, {"b": -math.inf})], "c": "NaN", "d": None}))
    assert found == {"a": [1.5, None, [None, {"b": None}]], "c": "NaN", "d": None}


def test_a_run_of_before_the_rooms_is_read_again(tmp_path, capsys):
    assert predict([str(FIXTURE / "seed-0"), "--data_root", str(tmp_path)]) == 0
    assert "bit for bit as the run wrote them" in capsys.readouterr().out
    taught = Config(dataset="karate", regime="solo", kd="nkd", teacher=str(FIXTURE), epochs=3, seeds=1)
    assert run(taught)["scores"]["teacher"]["test"][0] == pytest.approx(87.5)
    with pytest.raises(InputError, match="holds a run already"), claim(str(FIXTURE), Config(dataset="karate", seeds=1)):
        pass


# --- Signals that are frozen


def with_columns():
    """A graph that brings columns along whose names were once a teacher's, full of hidden labels."""
    data = sbm(num_nodes=200)
    data.teacher_logits = 50 * torch.nn.functional.one_hot(data.y, 4).float()
    data.teacher_hidden, data.teacher_reliability = data.teacher_logits, torch.ones(200)
    return data


def plain():
    """The same graph without them."""
    return sbm(num_nodes=200)


@pytest.mark.parametrize("kd", ["uskd", "dkd"])
def test_a_column_of_the_users_own_is_no_teacher(kd):
    options = {"regime": "solo", "kd": kd, **({} if kd == "uskd" else {"teacher": "weak"})}
    ours, theirs = (
        run(changed(dataset=f"{HERE}:{name}", epochs=20, **options))["scores"] for name in ("with_columns", "plain")
    )
    assert ours == theirs


# --- The same mixture


@pytest.mark.parametrize("regime", ["held-out", "fine-tuned", "joint", "alternate"])
@pytest.mark.parametrize("kd", [None, "nkd"])
def test_a_mixture_does_not_depend_on_what_it_is_compared_with(regime, kd):
    fields = {"regime": regime, "kd": kd, "teacher": kd and "strong", "pretrain": "both", "epochs": 8}
    ours, theirs = (run_seed(changed(baselines=baselines, **fields), 3) for baselines in (True, False))
    assert set(theirs.fitted) == {"mixture"}
    ours, theirs = (each.fitted["mixture"].model.state_dict() for each in (ours, theirs))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_an_expert_that_is_trained_alone_is_the_one_that_a_mixture_starts_from():
    fitted = run_seed(changed(epochs=8), 3).fitted
    for role in ("weak", "strong"):
        alone, within = fitted[role].model.state_dict(), fitted["mixture"].model.of(role).state_dict()
        assert all(torch.equal(value, within[name]) for name, value in alone.items())
    assert not any("pretrain" in line["phase"] for line in fitted["mixture"].history)


def test_a_classifier_trains_the_same_mixture():
    data, config = load("sbm", seed=3), changed(epochs=8)
    model = MowstClassifier(config, seed=3).fit(data).model
    ours = run_seed(config, 3).fitted["mixture"].model
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in ours.state_dict().items())


# --- Losses


def test_further_terms_may_be_a_generator(tiny):
    seen = []

    class Counted(nn.Module):
        def forward(self, out, batch):
            seen.append(1)
            return out.of("weak").values.sum(-1) * 0

    layers = {"hidden_channels": 8, "num_layers": 2}
    model = Mowst(expert("mlp", 8, 3, **layers), expert("sage", 8, 3, **layers), LearnedGate())
    terms = (Term(loss, on="all") for loss in [Counted()])
    REGIMES.lookup("alternate")(Trainer(model, tiny, SCORE), Schedule(epochs=2, rounds=1, pretrain="none"), extra=terms)
    assert len(seen) == 4  # in both turns, not in the first alone


def test_a_wrapper_leaves_the_callers_loss_as_it_was():
    inner = NKD(temperature=3.0)
    (wrapped,) = build([{"name": "standardized", "inner": "nkd", "temperature": 1.0}])
    assert wrapped.loss.inner.temperature == 1
    from graphkd import Standardized

    Standardized(inner, temperature=0.5)
    assert inner.temperature == 3
    assert isinstance(KD(), nn.Module)


# --- Configurations


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 10.5}, "epochs: must be int, got 10.5"),
        ({"baselines": "no"}, "baselines: must be bool, got 'no'"),
        ({"lr": "0.1"}, "lr: must be float, got '0.1'"),
        ({"seeds": True}, "seeds: must be int, got True"),
        ({"weak": "mlp"}, "weak: must be ExpertConfig, got 'mlp'"),
        ({"dataset": None}, "dataset: must be str, got None"),
        ({"kd": 3}, "kd: must be"),
    ],
)
def test_the_type_of_every_field_is_checked(fields, words):
    with pytest.raises(InputError) as error:
        Config(**fields)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_whole_number_is_a_number():
    assert Config(lr=1, weight_decay=0).lr == 1
    with pytest.raises(InputError, match="dropout: must be float, got None"):
        ExpertConfig(dropout=None)
    with pytest.raises(InputError, match="dispersions: must be"):
        GateConfig(dispersions="max")


def test_folds_follow_the_seed():
    nodes, y = torch.arange(100), torch.arange(100) % 4
    held = [divide(nodes, y, 5, seed)[0][1].tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1]
    assert sorted(held[0]) != sorted(held[2])
    assert [int((y[held[2]] == label).sum()) for label in range(4)] == [5] * 4


# --- Once


def test_the_graph_is_read_once_for_all_seeds(monkeypatch, tmp_path):
    read = []
    whole = opening_module.open_graph
    monkeypatch.setattr(opening_module, "open_graph", lambda *a, **k: read.append(a) or whole(*a, **k))
    arguments = ["--dataset", "sbm", "--epochs", "2", "--seeds", "3", "--quiet"]
    assert command([*arguments, "--out", str(tmp_path / "one")]) == 0
    assert len(read) == 1
    taught = ["--regime", "solo", "--teacher", str(tmp_path / "one"), "--kd", "nkd"]
    assert command([*arguments, *taught, "--out", str(tmp_path / "two")]) == 0
    assert len(read) == 2


def test_seeds_share_the_graph_but_not_the_masks():
    opened = Opened(changed(seeds=2))
    one, other = opened.seed(0), opened.seed(1)
    assert one.ready.adj_t is other.ready.adj_t
    assert one.ready.x is other.ready.x
    assert not torch.equal(one.ready.train_mask, other.ready.train_mask)
    for each, seed in ((one, 0), (other, 1)):
        alone = load("sbm", seed=seed)
        assert torch.equal(each.ready.train_mask, alone.train_mask)
        assert torch.equal(each.data.edge_index, alone.edge_index)


def test_the_plan_says_what_is_trained_in_which_order():
    student = {"regime": "solo", "kd": "nkd"}
    plans = {
        ("weak", "strong", "mixture"): {},
        ("mixture",): {"baselines": False},
        ("weak", "strong"): {"mixture": False},
        ("weak", "strong", "student"): {**student, "teacher": "strong"},
        ("strong", "student"): {**student, "teacher": "strong", "baselines": False},
        ("weak", "student"): {**student, "teacher": "weak"},
        ("weak",): {"regime": "solo"},
    }
    for models, fields in plans.items():
        assert planned(Config(**fields)).models == models
        assert planned(Config(**fields)).judged == models[-1]


# --- Imports


def modules_after(code: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter has after some code."""
    told = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout.split())


def test_the_errors_cost_next_to_nothing():
    loaded = modules_after("from mowst.errors import InputError")
    assert {name for name in loaded if name.startswith(("mowst", "torch"))} == {"mowst", "mowst.errors"}


def test_help_loads_no_torch():
    code = "from mowst.run import command\ntry:\n    command(['--help'])\nexcept SystemExit:\n    pass"
    assert not {"torch", "torch_geometric", "optuna", "sklearn"} & modules_after(code)


def test_every_room_lists_its_public_names():
    import importlib

    for room in ("data", "evaluation", "experiment", "inference", "kernels", "models", "system", "training", "tuning"):
        module = importlib.import_module(f"mowst.{room}")
        assert module.__all__
        assert all(hasattr(module, name) for name in module.__all__)
        assert "It imports" in module.__doc__


def test_a_lock_is_let_go_of(tmp_path):
    done = []

    def hold():
        with claim(str(tmp_path / "out"), SMALL):
            done.append(1)

    threads = [threading.Thread(target=hold)]
    for thread in threads:
        thread.start()
        thread.join()
    hold()
    assert len(done) == 2
    assert os.listdir(tmp_path) == []


def test_a_written_configuration_is_the_configuration(tmp_path):
    run(SMALL, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == dump(SMALL)
    assert np.load(tmp_path / "seed-0" / "predictions.npz", allow_pickle=False)["mixture"].shape == (3000, 4)
