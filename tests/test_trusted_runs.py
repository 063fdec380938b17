"""What the record of a run says of how far its predictions can be trusted, and that nobody else saw the test labels."""

import dataclasses
import math

import pytest
import torch

from mowst import Config
from mowst.experiment import ExpertConfig, Opened, run_seed

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
    return {name: each["val"] for name, each in found.scores.items()}, found.diagnosis


@pytest.mark.parametrize("config", [CONFIG])
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
    found = run_seed(CONFIG, 0).trust["calibration"]
    assert found.keys() == {"weak", "strong", "mixture", "mixture_weak", "mixture_strong"}
    mixture, nodes = found["mixture"], found["mixture"]["all"]["nodes"]
    assert mixture.keys() == {"all", "route", "degree", "homophily"}
    for by in ("route", "degree"):
        assert sum(group["nodes"] for group in mixture[by].values()) == nodes
    assert sum(group["nodes"] for group in mixture["homophily"].values()) <= nodes
    assert all(math.isfinite(value) for each in found.values() for value in each["all"].values())
