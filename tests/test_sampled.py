"""Validation on a fixed sample: drawn by the seed alone, its error said, and what is reported is of all nodes."""

import dataclasses
import math

import pytest
import torch

from mowst.errors import InputError
from mowst.evaluation import accuracy, rocauc, signal
from mowst.experiment import Config, ExpertConfig, Opened, run
from mowst.experiment.nodes import drawn_of
from mowst.experiment.sampled import error_of, sampled_score
from mowst.models import Logits

CONFIG = Config(
    dataset="tests.graphs:good", seeds=2, epochs=4, patience=4, strong=ExpertConfig(kind="gcn", hidden_channels=4)
)


def test_a_sample_is_drawn_by_the_seed_alone():
    mask = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.5
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (drawn_of(mask, 100, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(int(each.sum()) == 100 and bool((mask | ~each).all()) for each in (first, other))
    assert drawn_of(mask, None, 0) is mask
    assert drawn_of(mask, int(mask.sum()), 0) is mask


def outputs(nodes, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (nodes,), generator=generator)
    return Logits(torch.randn(nodes, 2, generator=generator) + 0.8 * torch.eye(2)[y]), y


@pytest.mark.parametrize(
    ("name", "metric"),
    [("metric", accuracy), ("loss", accuracy), pytest.param("metric", rocauc, marks=pytest.mark.slow)],
)
def test_the_error_that_is_said_is_the_spread_over_samples(name, metric):
    score, (out, y) = signal(name, metric), outputs(4000, 0)
    found, errors = [], []
    for seed in range(120):
        mask = drawn_of(torch.ones(4000, dtype=torch.bool), 400, seed)
        found.append(score(out.rows(mask), y[mask]))
        errors.append(error_of(score, out.rows(mask), y[mask]) * math.sqrt(1 - 400 / 4000) if seed < 8 else 0.0)
    spread = float(torch.tensor(found).std())  # known within 7 % from 120 draws, a jackknife within 16 / sqrt(8)
    assert sum(errors) / 8 == pytest.approx(spread, rel=0.25)


def test_training_stops_by_the_sample_and_all_nodes_are_reported(tmp_path):
    config = dataclasses.replace(CONFIG, eval_nodes=5)
    opened = Opened(config)
    bench = opened.bench(1)
    trainer = bench.trainer("strong")
    mask = opened.seed(1).ready.val_mask
    assert torch.equal(trainer.val, drawn_of(mask, 5, 1).nonzero().squeeze(-1))
    assert len(bench.trainer("strong", whole=True).val) == int(mask.sum())
    result = run(config, tmp_path / "out")
    for record in result["runs"]:
        told = record["validation_sample"]
        assert (told["nodes"], told["of"], told["seed"]) == (
            5,
            int(opened.seed(told["seed"]).ready.val_mask.sum()),
            record["seed"],
        )
        assert math.isfinite(told["standard_error"])
    assert sum("training stopped by 5 of" in note for note in result["notes"]) == 2
    out = Logits(torch.eye(3)[opened.seed(0).ready.y])
    assert sampled_score(config, 0, out, opened.seed(0).ready).standard_error == 0
    assert sampled_score(CONFIG, 0, out, opened.seed(0).ready) is None


def test_a_sample_as_large_as_the_validation_set_changes_nothing():
    scores = [run(dataclasses.replace(CONFIG, eval_nodes=count, seeds=1))["scores"] for count in (None, 1000)]
    assert scores[0] == scores[1]
    with pytest.raises(InputError, match="eval_nodes: must be at least 2"):
        dataclasses.replace(CONFIG, eval_nodes=1)
