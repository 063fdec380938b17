"""What a run writes down of its predictions is what was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from mowst.errors import InputError
from mowst.experiment import Config, ExpertConfig, run
from mowst.experiment.predictions import PredictionsConfig
from mowst.predict import command as predict

SMALL = {"hidden_channels": 4}
BASE = Config(
    dataset="tests.graphs:good",
    weak=ExpertConfig("mlp", **SMALL),
    strong=ExpertConfig("gcn", **SMALL),
    epochs=2,
    seeds=1,
    device="cpu",
)


def written(tmp_path, **asked) -> dict:
    run(replace(BASE, predictions=PredictionsConfig(**asked)), tmp_path)
    with np.load(tmp_path / "seed-0" / "predictions.npz") as held:
        return dict(held)


def test_what_is_asked_for_is_written_and_is_the_same(tmp_path):
    whole = written(tmp_path / "all")
    assert {"mixture", "mixture_weak", "mixture_confidence", "weak", "strong_logits"} <= whole.keys()
    assert "nodes" not in whole
    some = written(tmp_path / "some", arrays=["mixture", "strong_logits"], nodes="test")
    assert some.keys() == {"mixture", "strong_logits", "nodes"}
    assert 0 < len(some["nodes"]) < len(whole["mixture"])
    assert all(np.array_equal(some[name], whole[name][some["nodes"]]) for name in ("mixture", "strong_logits"))
    half = written(tmp_path / "half", float16=True)
    assert half["mixture"].dtype == np.float16
    assert np.array_equal(half["weak"], whole["weak"].astype(np.float16))


def test_what_was_not_written_is_not_compared(tmp_path, capsys):
    for asked in ({"nodes": "test"}, {"arrays": ["mixture"], "nodes": "split", "float16": True}):
        written(tmp_path / str(asked), **asked)
        capsys.readouterr()
        assert predict([str(tmp_path / str(asked) / "seed-0"), "--save", str(tmp_path / "x.npz")]) == 0
        assert "bit for bit as the run wrote them" in " ".join(capsys.readouterr().out.split())


def test_of_a_run_asked_for_other_arrays_there_is_nothing_to_compare(tmp_path, capsys):
    written(tmp_path, arrays=["mixture_weak"])
    assert predict([str(tmp_path)]) == 0
    assert "nothing to compare them with: predictions.npz has no mixture" in " ".join(capsys.readouterr().out.split())


def test_every_array_that_a_run_writes_may_be_asked_for(tmp_path):
    whole = written(tmp_path / "all")
    for name in whole:
        PredictionsConfig(arrays=[name]).check(["weak", "strong", "mixture"])
    assert written(tmp_path / "one", arrays=["mixture_tempered"]).keys() == {"mixture_tempered"}


def test_a_teacher_speaks_of_all_nodes(tmp_path):
    written(tmp_path, nodes="test")
    config = replace(BASE, regime="joint", kd="kd", teacher=str(tmp_path))
    with pytest.raises(InputError, match=r"speaks of .* nodes only; run it with --predictions.nodes all"):
        run(config)


def test_what_no_run_has_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"predictions.arrays: unknown 'mixtures'; did you mean mixture"):
        written(tmp_path, arrays=["mixtures"])
    with pytest.raises(InputError, match=r"predictions.nodes: unknown 'none'"):
        PredictionsConfig(nodes="none")
    assert not list(tmp_path.iterdir())
