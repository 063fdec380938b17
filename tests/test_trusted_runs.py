"""What the record of a run says of how far its predictions can be trusted, and that nobody else saw the test labels."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from mowst import Config, InputError
from mowst.evaluation import SetRule, measured
from mowst.experiment import ExpertConfig, Opened, read_config, run, run_seed, told
from mowst.experiment.reload import reload
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


def test_the_rule_of_a_run_makes_its_sets_again(tmp_path):
    config = dataclasses.replace(SETS, seeds=1, mondrian=False)
    record = run(config, tmp_path)["runs"][0]["trust"]
    kept = json.loads((tmp_path / "seed-0" / "trust.json").read_text())
    rule = SetRule(**kept["rule"] | {"thresholds": tuple(kept["rule"]["thresholds"])})
    data = good()
    probs = torch.from_numpy(np.load(tmp_path / "seed-0" / "predictions.npz")["mixture_tempered"])
    sets = rule.sets(probs, data.edge_index)
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
    with pytest.raises(InputError, match="coverage: must be between 0 and 1"):
        Config(coverage=90.0)
    with pytest.raises(InputError, match="abstain_risk: must be between 0 and 1"):
        Config(abstain_risk=5.0)
    with pytest.raises(InputError, match="for a mixture, and none is trained"):
        Config(abstain_risk=0.1, mixture=False)
    with pytest.raises(InputError, match=r"abstain_risk 0\.05: needs 180 validation nodes"):
        Opened(dataclasses.replace(CONFIG, abstain_risk=0.05))


def test_what_a_folder_keeps_tells_the_same_again(tmp_path):
    config = dataclasses.replace(SETS, seeds=1)
    record = run(config, tmp_path)["runs"][0]["trust"]
    folder = tmp_path / "seed-0"
    model, data, ready = reload(folder, read_config(folder))
    with torch.no_grad():
        found = told(folder, (model, model(ready.x, ready.adj_t)), ready)
    kept = np.load(folder / "predictions.npz")["mixture_tempered"]
    np.testing.assert_allclose(found.probs.numpy(), kept, atol=1e-6)
    test, y = data.test_mask, data.y
    assert measured(found.sets[test], y[test]) == pytest.approx(record["sets"]["test"]["all"])
    assert 1 - float(found.unsure[test].double().mean()) == record["answering"]["test"]["answered"]
    plain = json.loads((folder / "trust.json").read_text())
    for damaged in ({"thresholds": 3}, plain["rule"] | {"score": "os:getcwd"}):
        (folder / "trust.json").write_text(json.dumps(plain | {"rule": damaged}))
        with pytest.raises(InputError, match=r"trust\.json: not what a run kept, or damaged"):
            told(folder, (model, model(ready.x, ready.adj_t)), ready)
