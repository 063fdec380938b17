"""What the tests of studies share: a small configuration, a narrow space, a graph that takes its time."""

import dataclasses
import time

import torch

from mowst import Config, ExpertConfig
from mowst.tuning.plan import Plan
from mowst.tuning.space import make_space
from tests.graphs import good

SMALL = Config(
    dataset="tests.graphs:good",
    weak=ExpertConfig("mlp", hidden_channels=8),
    strong=ExpertConfig("gcn", hidden_channels=8),
    regime="joint",
    epochs=6,
    patience=6,
    rounds=2,
    seeds=1,
)
NARROW = {"lr": "1e-3..1e-1:log", "strong.dropout": "0.0..0.5"}


def narrow(config=SMALL, **search):
    """Return a space of two dimensions and what is asked for."""
    fields = {entry.name for entry in dataclasses.fields(Config)} - {"dataset"}
    return make_space(config, NARROW | search, fixed=fields)


def slow():
    """A graph on which a trial takes half a second at least."""
    time.sleep(0.5)
    return good()


def other_test_labels():
    """The same graph with the labels of the test nodes turned round."""
    data = good()
    data.y = torch.where(data.test_mask, (data.y + 1) % 3, data.y)
    return data


def plan(study, **fields):
    """Return the fields of a plan of few trials."""
    return dataclasses.asdict(Plan(**{"study": str(study), "trials": 4, **fields}))


def state(study):
    """Return all that a study knows of its trials, but for the time."""
    return [(t.number, t.state.name, t.params, t.values, t.intermediate_values) for t in study.trials]
