"""What the record of a run says of how far its predictions can be trusted, and that nobody else saw the test labels."""

import dataclasses
import html
import json
import math
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from mowst import Config, InputError
from mowst.evaluation import SetRule, belief, measured, tempering
from mowst.evaluation.abstention import area
from mowst.experiment import ExpertConfig, Opened, read_config, run, run_seed, told
from mowst.experiment.asking import asked, on_another, table_of, trained_on
from mowst.experiment.calibrated import to_weak
from mowst.experiment.reasons import reasons_of, side_by_side
from mowst.experiment.reload import reload
from mowst.influence import why
from mowst.predict import command as predict
from mowst.reporting.table import closing
from mowst.reporting.trust import believed
from tests.graphs import good

SMALL = ExpertConfig(kind="gcn", hidden_channels=8)
CONFIG = Config(
    dataset="tests.graphs:good", weak=dataclasses.replace(SMALL, kind="mlp"), strong=SMALL, epochs=15, patience=15
)


def poisoned(config: Config):
    """Run one seed with the right test labels and with wrong ones."""
    found = []
    for wrong in (False, True):
        opened = Opened(config)
        ready = opened.seed(0).ready
        if wrong:
            ready.y = torch.where(ready.test_mask, (ready.y + 1) % 3, ready.y)
        found.append(run_seed(config, 0, opened=opened))
    return found


def without_test(found):
    """Take away what is measured on test nodes."""
    sets = found.promised._replace(report={}, output=None)
    return {name: each["val"] for name, each in found.scores.items()}, found.diagnosis, sets


SETS = dataclasses.replace(CONFIG, coverage=0.8, conformal="lac", diffusion=0.3, mondrian=True, abstain_risk=0.6)


@pytest.mark.parametrize("config", [CONFIG, SETS])
def test_wrong_test_labels_change_nothing_but_what_is_measured_on_test_nodes(config):
    right, wrong = poisoned(config)
    for name, fitted in right.fitted.items():
        for key, value in fitted.model.state_dict().items():
            assert value.equal(wrong.fitted[name].model.state_dict()[key]), (name, key)
    assert without_test(right) == without_test(wrong)
    one, two = (found.trust["calibration"]["mixture"]["all"] for found in (right, wrong))
    assert one["confidence"] == two["confidence"]
    assert one["nll"] != two["nll"]


def test_the_record_of_a_run_has_every_group():
    trust = run_seed(CONFIG, 0).trust
    assert trust["answers"].keys() == {"weak", "strong", "mixture", "mixture_tempered"}
    found = trust["calibration"]
    assert found.keys() == {"weak", "strong", "mixture", "mixture_weak", "mixture_strong", "mixture_tempered"}
    mixture, nodes = found["mixture"], found["mixture"]["all"]["nodes"]
    assert mixture.keys() == {"all", "route", "degree", "homophily"}
    for by in ("route", "degree"):
        assert sum(group["nodes"] for group in mixture[by].values()) == nodes
    assert sum(group["nodes"] for group in mixture["homophily"].values()) <= nodes
    assert all(math.isfinite(value) for each in found.values() for value in each["all"].values())


def test_calibrating_nodes_are_apart_from_all_others_and_only_calibrate():
    opened = Opened(SETS)
    ready, data = opened.seed(0).ready, opened.seed(0).data
    apart = ready.calibration_mask
    assert (ready.val_mask ^ apart).equal(data.val_mask)
    assert int(apart.sum()) == int(data.val_mask.sum()) // 2
    plain = run_seed(SETS, 0)
    ready.y = torch.where(apart, (ready.y + 1) % 3, ready.y)
    wrong = run_seed(SETS, 0, opened=opened)
    assert plain.scores == wrong.scores
    assert plain.promised.rule.thresholds != wrong.promised.rule.thresholds
    assert plain.promised.calibrating == apart.nonzero().squeeze(-1).tolist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that promises sets and a risk."""
    out = tmp_path_factory.mktemp("trust") / "out"
    run(dataclasses.replace(SETS, seeds=1, epochs=60, patience=60), out)
    return out


def record_of(folder):
    return json.loads((folder / "result.json").read_text())


@torch.no_grad()
def loaded(folder):
    """The mixture of a seed with what it says, its graph, and the graph prepared."""
    model, data, ready = reload(folder, read_config(folder))
    return (model, model(ready.x, ready.adj_t)), data, ready


def test_the_rule_of_a_run_makes_its_sets_again(finished):
    record = record_of(finished)["runs"][0]["trust"]
    kept = json.loads((finished / "seed-0" / "trust.json").read_text())
    limits = tuple(math.inf if each is None else each for each in kept["rule"]["thresholds"])
    rule = SetRule(**kept["rule"] | {"thresholds": limits})
    data = good()
    probs = torch.from_numpy(np.load(finished / "seed-0" / "predictions.npz")["mixture_tempered"])
    found, _, ready = loaded(finished / "seed-0")
    sets = rule.sets(probs, data.edge_index, to_weak(found, ready).long())
    found = measured(sets[data.test_mask], data.y[data.test_mask])
    assert found == pytest.approx(record["sets"]["test"]["all"])
    answering, probs = record["answering"], probs[data.test_mask]
    answered = probs.max(-1).values >= (kept["answer_from"] or math.inf)
    assert float(answered.double().mean()) == answering["test"]["answered"]
    for by in ("route", "class", "degree"):
        groups = [group for group in record["sets"]["test"][by].values() if group["nodes"]]
        assert sum(group["nodes"] for group in groups) == found["nodes"]
        covered = sum(group["nodes"] * group["coverage"] for group in groups)
        assert covered == pytest.approx(found["nodes"] * found["coverage"])


def test_too_few_validation_nodes_are_refused_before_training_with_the_number_that_would_do():
    with pytest.raises(InputError, match=r"coverage 0\.95: needs 38 validation nodes, half .* there are 15"):
        Opened(dataclasses.replace(CONFIG, coverage=0.95))
    with pytest.raises(InputError, match="coverage: must be above 0 and below 1"):
        Config(coverage=90.0)
    with pytest.raises(InputError, match="abstain_risk: must be above 0 and below 1"):
        Config(abstain_risk=5.0)
    with pytest.raises(InputError, match="for a mixture, and none is trained"):
        Config(abstain_risk=0.1, mixture=False)
    with pytest.raises(InputError, match=r"abstain_risk 0\.05: needs 180 validation nodes"):
        Opened(dataclasses.replace(CONFIG, abstain_risk=0.05))


def test_what_a_folder_keeps_tells_the_same_again(finished, tmp_path):
    record = record_of(finished)["runs"][0]["trust"]
    folder = shutil.copytree(finished / "seed-0", tmp_path / "seed-0")
    mixture, data, ready = loaded(folder)
    found = told(folder, mixture, ready)
    kept = np.load(folder / "predictions.npz")["mixture_tempered"]
    np.testing.assert_allclose(found.probs.numpy(), kept, atol=1e-6)
    test, y = data.test_mask, data.y
    assert measured(found.sets[test], y[test]) == pytest.approx(record["sets"]["test"]["all"])
    assert 1 - float(found.unsure[test].double().mean()) == record["answering"]["test"]["answered"]
    plain = json.loads((folder / "trust.json").read_text())
    for damaged in ({"thresholds": 3}, plain["rule"] | {"score": "os:getcwd"}):
        (folder / "trust.json").write_text(json.dumps(plain | {"rule": damaged}))
        with pytest.raises(InputError, match=r"trust\.json: not what a run kept, or damaged"):
            told(folder, mixture, ready)


def test_answers_are_of_the_predicted_class_even_where_another_one_is_likelier_after_calibration(tmp_path, monkeypatch):
    def tilted(out, y, nodes, seen):
        return tempering.idle(seen.size(-1))._replace(offsets=[-4.0, 0.0, 4.0])

    monkeypatch.setattr(tempering, "surest", tilted)
    config = dataclasses.replace(SETS, seeds=1, baselines=False, abstain_risk=0.8, epochs=60, patience=60)
    run(config, tmp_path / "out", report=False)
    folder, record = tmp_path / "out" / "seed-0", record_of(tmp_path / "out")["runs"][0]["trust"]
    mixture, data, ready = loaded(folder)
    guess, promised, test = mixture[1].probs().argmax(-1), told(folder, mixture, ready), data.test_mask
    torch.testing.assert_close(
        promised.probs.log().diff(dim=-1) - 4, mixture[1].log_probs().diff(dim=-1), check_dtype=False
    )
    own = promised.probs.gather(-1, guess.unsqueeze(-1)).squeeze(-1)
    right, given = (guess == data.y)[test].double(), ~promised.unsure[test]
    assert promised.unsure.equal(own < json.loads((folder / "trust.json").read_text())["answer_from"])
    assert record["answering"]["test"]["risk"] == pytest.approx(1 - float(right[given].mean()))
    assert not promised.probs.argmax(-1)[test].equal(guess[test])
    assert record["answers"]["mixture_tempered"]["area"] == pytest.approx(area(own[test], right))


def told_by_predict(finished, place, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert predict([str(finished), "--trust", "tests", *arguments]) == 0
    return pd.read_csv(place, keep_default_na=False) if place is not None else None


def test_predictions_by_name_have_what_the_run_promised(finished, tmp_path, capsys):
    place = tmp_path / "p.csv"
    table = told_by_predict(finished, place, "--out", str(place))
    mixture, data, ready = loaded(finished / "seed-0")
    promised = told(finished / "seed-0", mixture, ready)
    sets = torch.tensor([[str(label) in json.loads(row) for label in range(3)] for row in table["set"]])
    assert sets.equal(promised.sets)
    assert table["unsure"].tolist() == promised.unsure.tolist()
    np.testing.assert_allclose(table["calibrated"], promised.probs.max(-1).values, rtol=1e-4)
    test, record = data.test_mask.numpy(), record_of(finished)["runs"][0]["trust"]
    held = [str(int(label)) in json.loads(row) for label, row in zip(data.y, table["set"], strict=True)]
    assert np.mean(np.array(held)[test]) == pytest.approx(record["sets"]["test"]["all"]["coverage"])
    query = trained_on(finished / "seed-0", read_config(finished / "seed-0"))
    answer = asked(query, read_config(finished / "seed-0"), [3, 1])
    everything = promised._replace(sets=torch.ones(60, 3).bool(), unsure=None)
    whole = table_of(query, answer, [3, 1], everything)
    assert whole["set"].tolist() == ['["0", "1", "2"]'] * 2
    assert "unsure" not in whole.columns
    some = told_by_predict(finished, place, "--out", str(place), "--nodes", "41,3")
    pd.testing.assert_frame_equal(some, table.iloc[[41, 3]].reset_index(drop=True), rtol=1e-4)
    routed = told_by_predict(finished, place, "--out", str(place), "--how", "routed")
    assert not {"set", "unsure", "calibrated"} & set(routed.columns)
    assert "may be others" not in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", x=data.x, edge_index=data.edge_index)
    other = told_by_predict(finished, place, "--out", str(place), "--graph", str(tmp_path / "other.npz"))
    assert other[["set", "unsure"]].equals(table[["set", "unsure"]])
    assert "coverage and risk may be others on this one" in capsys.readouterr().err


def test_why_names_the_training_nodes_that_spoke_here_and_on_another_graph(finished, tmp_path, capsys):
    (model, _), data, ready = loaded(finished / "seed-0")
    expected = why(model, ready, 5)
    lines = [f"{score:+.3g}  node {node}, class {node % 3}" for node, score in zip(*expected[2:4], strict=True)]
    told_by_predict(finished, None, "--why", "5")
    said = capsys.readouterr().out
    assert f"node 5: class {expected.predicted}. Of 30 training labels" in said
    assert said.splitlines()[2:] == lines
    assert all(bool(data.train_mask[node]) for node in expected.ids)
    inside = (data.edge_index < 30).all(dim=0)
    np.savez(tmp_path / "half.npz", x=data.x[:30], edge_index=data.edge_index[:, inside])
    config = read_config(finished / "seed-0")
    query = on_another(finished / "seed-0", config, str(tmp_path / "half.npz"))
    home = trained_on(finished / "seed-0", config)
    together = side_by_side(home.ready, query.ready)
    with torch.no_grad():
        probs = query.model(together.x, together.adj_t).probs()[60:]
        torch.testing.assert_close(probs, query.model(query.ready.x, query.ready.adj_t).probs(), rtol=1e-4, atol=1e-6)
    found = reasons_of(query, home, config, 7)
    assert found.predicted == int(probs[7].argmax())
    assert found.of == 30
    assert {each.node for each in found.spoke} <= set(data.train_mask.nonzero().squeeze(-1).tolist())
    assert all(each.label == each.node % 3 for each in found.spoke)
    weak = reasons_of(query._replace(model=query.model.weak), home, config, 7, k=3)
    alone = why(query.model.weak, home.ready, 7, k=3)  # an MLP says the same of a node wherever it is
    assert [each.node for each in weak.spoke] == alone.ids.tolist()
    told_by_predict(finished, None, "--layers", "true")
    said = capsys.readouterr().out
    assert all(each in said for each in ("features", "hidden 1", "logits", "weak", "strong"))
    assert "per_class" not in said
    with pytest.raises(InputError, match="--layers: the graph has no training"):
        told_by_predict(finished, None, "--layers", "true", "--graph", str(tmp_path / "half.npz"))
    for given in ("1 2", " "):
        with pytest.raises(InputError, match="must name one node"):
            told_by_predict(finished, None, "--why", given)
    with pytest.raises(InputError, match="--why: no node is called 77"):
        told_by_predict(finished, None, "--why", "77")


def test_a_run_ends_with_how_far_it_can_be_believed_and_the_page_says_the_same(finished):
    record = record_of(finished)
    trust = record["trust"]
    said = believed(record)
    own = trust["calibration"]["mixture"]["all"]
    assert f"off by {100 * max(0.0, own['square']) ** 0.5:.1f} points" in said[0]
    assert f"hold it for {100 * trust['sets']['test']['all']['coverage']:.1f} %" in said[1]
    assert f"with {trust['sets']['test']['all']['size']:.2f} classes" in said[1]
    test = trust["answering"]["test"]
    assert f"{100 * test['answered']:.1f} % of the nodes, and {100 * test['risk']:.1f} %" in said[2]
    assert " ".join(said) in list(closing(record))
    page = html.unescape((finished / "report.html").read_text(encoding="utf-8"))
    assert all(each in page for each in said)
    mixture = trust["calibration"]["mixture"]["degree"]["high"]
    assert f'mixture, high degree</td><td data-head="nodes">{mixture["nodes"]:.0f}<' in page
    assert "class 2" in page
    assert believed({"parameters": {"weak": 1}}) == []


def test_where_nobody_is_answered_that_is_said():
    trust = {"calibration": {"weak": {"all": belief(torch.eye(3), torch.arange(3))._asdict()}}}
    trust["answering"] = {"risk": 0.05, "test": {"answered": 0.0, "risk": None, "correctness": 0.0}}
    assert "it answers no node" in believed({"parameters": {"weak": 1}, "trust": trust})[1]
