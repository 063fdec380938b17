"""The model that is trained once more with validation labels: what it sees, who asks it, and what stays as measured."""

import copy
import dataclasses
import html
import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mowst import Config, InputError, MowstClassifier
from mowst.evaluation import METRICS, signal, tempering
from mowst.experiment import ExpertConfig, Opened, forget, read_config, reading, run, run_seed
from mowst.experiment.calibrated import to_weak
from mowst.models import LearnedGate, Mowst, expert
from mowst.predict import command as predict
from mowst.training import Journal, Schedule, Trainer, refit
from tests.graphs import good

STRONG = ExpertConfig(kind="gcn+neighbours+sage", hidden_channels=8, dropout=0.0)
CONFIG = Config(
    dataset="tests.graphs:good",
    weak=ExpertConfig(kind="mlp", hidden_channels=8, dropout=0.0),
    strong=STRONG,
    epochs=15,
    seeds=1,
    use_validation=True,
)


@pytest.fixture(scope="module")
def found():
    return run_seed(CONFIG, 0)


def states_alike(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(value.equal(other[name]) for name, value in one.items())


def test_what_is_measured_is_the_same_as_without(found):
    without = run_seed(dataclasses.replace(CONFIG, use_validation=False), 0)
    assert without.final is None
    assert found.scores == without.scores
    assert found.trust == without.trust
    assert states_alike(found.fitted["mixture"].model, without.fitted["mixture"].model)


def test_experts_are_trained_as_by_hand_on_both_kinds_of_labels():
    """The oracle is a plain loop from the same first weights, for the same number of epochs."""
    torch.manual_seed(0)
    kind = {"hidden_channels": 8, "num_layers": 2, "dropout": 0.0, "norm": "none"}
    data, experts = good(), {"weak": expert("mlp", 8, 3, **kind), "strong": expert("sage", 8, 3, **kind)}
    model, lengths = Mowst(**experts, gate=LearnedGate()), {"weak": 7, "strong": 4}
    by_hand = copy.deepcopy(model)
    trainer = Trainer(model, data, signal("metric", METRICS.lookup("accuracy")))
    with torch.no_grad():
        for weights in model.parameters():  # what it has come to in the meantime is no start
            weights.add_(1.0)
    refit(trainer, Schedule(epochs=50), lengths)
    seen = data.train_mask | data.val_mask
    for role, epochs in lengths.items():
        module = by_hand.get_submodule(role)
        descent = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=5e-4)
        for _ in range(epochs):
            descent.zero_grad()
            out = module(data.x) if role == "weak" else module(data.x, data.edge_index)
            torch.nn.functional.cross_entropy(out[seen], data.y[seen]).backward()
            descent.step()
        for name, weights in module.named_parameters():
            torch.testing.assert_close(model.get_submodule(role).get_parameter(name), weights)


def test_gate_panel_and_routing_stay_and_experts_change(found):
    before, after = found.fitted["mixture"].model, found.final.model
    experts = ("weak.", "strong.members.")
    changed = [name for name, value in before.state_dict().items() if not value.equal(after.state_dict()[name])]
    assert changed
    assert all(name.startswith(experts) for name in changed)
    silent = (~after.strong.active).nonzero().flatten().tolist()
    assert not [name for name in changed for place in silent if name.startswith(f"strong.members.{place}.")]


def test_test_labels_are_not_seen(found):
    opened = Opened(CONFIG)
    ready = opened.seed(0).ready
    ready.y = torch.where(ready.test_mask, (ready.y + 1) % 3, ready.y)
    assert states_alike(run_seed(CONFIG, 0, opened=opened).final.model, found.final.model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    run(CONFIG, out)
    return out


def test_predict_asks_it_unless_told_otherwise(folder, capsys):
    assert predict([str(folder)]) == 0
    assert "bit for bit as the run wrote them" in capsys.readouterr().out
    said = {}
    for name, words in {"final": [], "mixture": ["--model", "mixture"]}.items():
        assert predict([str(folder), *words, "--save", str(folder.parent / f"{name}.npz")]) == 0
        said[name] = np.load(folder.parent / f"{name}.npz")["probabilities"]
    written = np.load(folder / "seed-0" / "predictions.npz")
    assert {name: np.array_equal(said[name], written[name]) for name in said} == {"final": True, "mixture": True}
    assert not np.array_equal(said["final"], said["mixture"])


def test_labels_of_validation_nodes_may_speak_for_it(folder, capsys):
    data = good()
    labels = {"final": int((data.train_mask | data.val_mask).sum()), "mixture": int(data.train_mask.sum())}
    for name, count in labels.items():
        assert predict([str(folder), "--model", name, "--why", "3"]) == 0
        assert f"Of {count:,} training labels" in capsys.readouterr().out


def test_the_record_says_so_and_no_table_has_a_score_of_it(folder):
    result = json.loads((folder / "result.json").read_text())
    assert "final" not in result["scores"]
    assert "final" not in result["parameters"]
    assert any("trained again on training and validation labels" in note for note in result["notes"])
    assert "trained again on training and validation labels" in (folder / "README.md").read_text()
    assert MowstClassifier.load(folder).predict_proba(good()) == pytest.approx(
        np.load(folder / "seed-0" / "predictions.npz")["final"], abs=1e-6
    )


def test_the_estimator_has_it(found):
    fields = {field.name: getattr(CONFIG, field.name) for field in dataclasses.fields(CONFIG)}
    kept = {name: fields[name] for name in ("weak", "strong", "epochs", "use_validation")}
    fitted = MowstClassifier(**kept).fit(good())
    assert states_alike(fitted.model_, found.final.model)


class Stop(Exception):  # noqa: N818 - nothing is wrong
    """Somebody ends the run."""


def test_a_run_that_is_stopped_in_it_ends_as_if_it_had_not_been(found):
    epochs = []
    run_seed(CONFIG, 0, journal=Journal(passed=lambda journal: epochs.append(len(journal.finished))))

    def stop(journal):
        epochs.pop()
        if not epochs:
            raise Stop

    stopped, again = Journal(passed=stop), Journal()
    with pytest.raises(Stop):
        run_seed(CONFIG, 0, journal=stopped)
    again.load_state_dict(stopped.state_dict())
    assert states_alike(run_seed(CONFIG, 0, journal=again).final.model, found.final.model)


@pytest.mark.parametrize(
    "given",
    [{"regime": "joint"}, {"regime": "solo"}, {"kd": "nkd", "teacher": "strong"}, {"mixture": False}],
    ids=str,
)  # fmt: skip
def test_what_does_not_go_with_it_is_a_line(given):
    kinds = {"weak": ExpertConfig(kind="mlp"), "strong": ExpertConfig(kind="gcn")}
    with pytest.raises(InputError, match="use_validation: "):
        Config(**kinds, **given, use_validation=True)


def test_a_switch_may_stand_alone():
    parsed = reading.parse(reading.parser("run", ""), ["--use-validation", "--seeds", "2", "--normalize-features"])
    config = reading.config_of(parsed)
    assert (config.use_validation, config.seeds, config.normalize_features) == (True, 2, True)


def test_the_label_of_a_validation_node_is_forgotten_by_all_that_learned_or_was_chosen_by_it(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=5, baselines=False)
    run(config, tmp_path / "run", report=False)
    node = int(good().val_mask.nonzero()[0])
    for how in ("steps", "last"):
        with pytest.raises(InputError, match="training labels"):
            forget(tmp_path / "run", [node], tmp_path / "out", how=how)
    with pytest.raises(InputError, match="no training or validation node of seed 0"):
        forget(tmp_path / "run", [int(good().test_mask.nonzero()[0])], tmp_path / "test")
    found = forget(tmp_path / "run", [node], tmp_path / "out")
    assert found.measured["kl"]["after"]["forgotten"] == 0
    assert not any("validation labels" in line for line in found.sentences())
    quick = forget(tmp_path / "run", [int(good().train_mask.nonzero()[0])], tmp_path / "q", how="last", measure=False)
    assert "without the mixture trained again on validation labels: only retrain" in " ".join(quick.sentences())
    with pytest.raises(InputError, match="training labels"):  # steps leave no `final`, and the node is not to come back
        forget(tmp_path / "out", [int(good().train_mask.nonzero()[0])], tmp_path / "more", how="steps")
    poisoned = good()
    poisoned.y[node] = (poisoned.y[node] + 1) % 3
    monkeypatch.setattr("tests.graphs.good", lambda: poisoned)
    run(read_config(tmp_path / "out"), tmp_path / "poisoned", report=False)
    one, other = (load_file(tmp_path / each / "seed-0" / "model.safetensors") for each in ("out", "poisoned"))
    assert any(name.startswith("final.") for name in one)
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


PROMISES = {"coverage": 0.8, "conformal": "lac", "mondrian": True, "abstain_risk": 0.6}


def test_calibrating_nodes_teach_it_nothing_and_its_promises_are_its_own(monkeypatch):
    def tilted(out, y, nodes, seen):
        return tempering.idle(seen.size(-1))._replace(common=1.5, offsets=[1.0, 0.0, -1.0])

    monkeypatch.setattr(tempering, "surest", tilted)
    config, found = dataclasses.replace(CONFIG, **PROMISES, baselines=False), []
    for wrong in (False, True):
        opened = Opened(config)
        ready = opened.seed(0).ready
        ready.y = torch.where(ready.calibration_mask & wrong, (ready.y + 1) % 3, ready.y)
        found.append(run_seed(config, 0, opened=opened))
    one, other = found
    assert states_alike(one.final.model, other.final.model)
    assert one.promised.final.rule.thresholds != other.promised.final.rule.thresholds
    assert (
        one.promised.final.calibrating
        == one.promised.calibrating
        == ready.calibration_mask.nonzero().flatten().tolist()
    )
    torch.testing.assert_close(
        one.promised.final.output.log_probs(), tempering.tempered(one.final.output, 1.5).log_probs(), check_dtype=False
    )
    probs, y, nodes = one.promised.final.output.probs(), good().y, ready.calibration_mask
    plain = dataclasses.replace(one.promised.rule, thresholds=())
    weak = to_weak((one.final.model, one.final.output), ready).long()
    assert one.promised.final.rule == plain.fit(probs, ready.edge_index, y, nodes, weak)


def test_predict_tells_the_promises_of_the_model_that_it_asks(tmp_path, capsys):
    config = dataclasses.replace(CONFIG, **PROMISES, baselines=False, epochs=5)
    run(config, tmp_path / "run")
    trust = json.loads((tmp_path / "run" / "result.json").read_text())["trust"]
    data = good()
    for name, promised in {"final": trust["final"], "mixture": trust}.items():
        place = tmp_path / f"{name}.csv"
        assert predict([str(tmp_path / "run"), "--model", name, "--trust", "tests", "--out", str(place)]) == 0
        table = pd.read_csv(place, keep_default_na=False)
        held = [str(int(label)) in json.loads(row) for label, row in zip(data.y, table["set"], strict=True)]
        assert np.mean(np.array(held)[data.test_mask]) == pytest.approx(promised["sets"]["test"]["all"]["coverage"])
        unsure = table["unsure"].to_numpy()[data.test_mask].mean()
        assert 1 - unsure == pytest.approx(promised["answering"]["test"]["answered"])
    assert predict([str(tmp_path / "run"), "--why", "3", "--trust", "tests"]) == 0
    learned = int((data.train_mask | data.val_mask).sum()) - int(data.val_mask.sum()) // 2
    assert f"Of {learned:,} training labels" in capsys.readouterr().out
    page = html.unescape((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert "Of the mixture for use: Sets asked to hold the label for 80.0 %" in page
