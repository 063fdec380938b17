"""Labels forgotten by a finished run: exactly where that can be, never read again, and measured against retraining."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import mowst
from mowst import Config, InputError
from mowst.evaluation import apart, membership
from mowst.experiment import ExpertConfig, Opened, forget, read_config, run
from mowst.experiment.nodes import without
from mowst.influence import LastLayer, read_out, refit
from mowst.models import Neighbours, expert
from mowst.predict import command as predict
from mowst.training.batches import Batch
from mowst.training.forgetting import Gone, by_steps, left_of, likelihood
from tests.graphs import good

SMALL = ExpertConfig(kind="gcn", hidden_channels=8)
CONFIG = Config(
    dataset="tests.graphs:good",
    weak=dataclasses.replace(SMALL, kind="mlp"),
    strong=dataclasses.replace(SMALL, kind="gcn+neighbours"),
    epochs=15,
    patience=15,
    seeds=1,
)
GONE = good().train_mask.nonzero().flatten()[:2].tolist()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(CONFIG, folder, report=False)
    return folder


def weights(folder, seed=0):
    return load_file(folder / f"seed-{seed}" / "model.safetensors")


def record(folder):
    return json.loads((folder / "seed-0" / "result.json").read_text())


def same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def model_for(data, kind, **options):
    torch.manual_seed(0)
    options = {"hidden_channels": 16, "num_layers": 2, **options}
    return expert(kind, data.num_features, int(data.y.max()) + 1, **options).eval()


@pytest.mark.parametrize("kind", ["mlp", "gcn", "sage", "gin", "gcn-res", "sage-res"])
def test_a_last_layer_forgets_as_if_it_were_fitted_on_the_other_labels(tiny, kind):
    left = without(tiny, GONE_TINY := tiny.train_mask.nonzero().flatten()[:4].tolist(), 0)
    assert bool((left.y[GONE_TINY] == -1).all())
    model = model_for(tiny, kind)
    below = {name: value.clone() for name, value in model.state_dict().items()}
    oracle = LastLayer(read_out(model, tiny.x, tiny.edge_index), tiny.y, left.train_mask, 3).logits
    refit(model, tiny.x, tiny.edge_index, left.y, left.train_mask)
    torch.testing.assert_close(model(tiny.x, tiny.edge_index).double(), oracle, rtol=1e-4, atol=1e-4)
    moved = [name for name, value in model.state_dict().items() if not value.equal(below[name])]
    assert 0 < len(moved) <= 3


@pytest.mark.parametrize("how", ["steps", "last"])
def test_counts_forget_as_if_they_were_counted_without_the_labels(finished, tmp_path, how):
    forget(finished, GONE, tmp_path / "out", how=how, measure=False)
    left, found = without(good(), GONE, 0), weights(tmp_path / "out")
    counted = Neighbours(8, 3)
    counted.learn(left.x, left.edge_index, torch.where(left.train_mask, left.y, -1), None, 1)
    for name, value in counted.state_dict().items():
        torch.testing.assert_close(found[f"mixture.strong.members.1.{name}"], value, rtol=0, atol=1e-6)
    before = weights(finished)["mixture.strong.members.1.labels"]
    assert bool((before[GONE] >= 0).all())
    assert found["mixture.strong.members.1.labels"][GONE].tolist() == [-1, -1]
    assert record(tmp_path / "out")["forgotten"]["how"] == how
    assert not any(name.split(".")[0] in ("weak", "gcn", "neighbours") for name in found)  # which know the labels


def test_a_forgotten_label_is_never_read(finished, tmp_path, monkeypatch):
    forget(finished, GONE, tmp_path / "clean", how="retrain")
    poisoned = good()
    poisoned.y[GONE] = (poisoned.y[GONE] + 1) % 3
    monkeypatch.setattr("tests.graphs.good", lambda: poisoned)
    run(read_config(tmp_path / "clean"), tmp_path / "poisoned")
    same(weights(tmp_path / "clean"), weights(tmp_path / "poisoned"))
    for name in ("figures.json", "trust.json", "config.yaml"):
        one, other = ((tmp_path / which / "seed-0" / name).read_bytes() for which in ("clean", "poisoned"))
        assert one == other, name
    one, other = (np.load(tmp_path / which / "seed-0/predictions.npz") for which in ("clean", "poisoned"))
    assert all(np.array_equal(one[name], other[name]) for name in one.files)
    for name in ("scores", "trust", "diagnosis", "split", "labels_sha256"):
        assert record(tmp_path / "clean")[name] == record(tmp_path / "poisoned")[name], name
    with pytest.raises(InputError, match="classes numbered otherwise"):  # the run that knows the labels notices
        forget(finished, GONE, tmp_path / "refused", how="retrain")


def test_to_forget_one_label_and_then_another_is_to_forget_both(finished, tmp_path):
    both = forget(finished, GONE, tmp_path / "both", how="retrain")
    forget(finished, GONE[:1], tmp_path / "one", how="retrain")
    one = forget(tmp_path / "one", GONE[1:], tmp_path / "other", how="retrain")
    same(weights(tmp_path / "both"), weights(tmp_path / "other"))
    assert both.nodes == one.nodes == GONE
    with pytest.raises(InputError, match=f"{GONE[0]}: no training node"):
        forget(tmp_path / "one", GONE[:1], tmp_path / "again")


def test_what_forgot_is_a_run_like_any_other_and_says_so(finished, tmp_path, capsys):
    assert predict([str(finished), "--forget", ",".join(map(str, GONE)), "--into", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "2 labels forgotten (retrain)" in said
    assert predict([str(tmp_path / "out")]) == 0
    assert "bit for bit as the run wrote them" in capsys.readouterr().out
    told, whole = record(tmp_path / "out")["forgotten"], json.loads((tmp_path / "out/result.json").read_text())
    assert told["nodes"] == whole["forgotten"]["nodes"] == GONE
    assert set(told["measured"]["kl"]["after"].values()) == {0.0}
    assert told["measured"]["kl"]["before"]["forgotten"] > 0
    assert told["measured"]["membership"]["after"] == told["measured"]["membership"]["retrained"]
    assert mowst.forget is forget


def test_what_forgot_in_steps_is_measured_against_a_retrained_model(finished, tmp_path):
    found = forget(finished, GONE, tmp_path / "steps", how="steps")
    again = forget(finished, GONE, tmp_path / "retrained", how="retrain")
    assert found.measured["kl"]["before"] == pytest.approx(again.measured["kl"]["before"])
    assert found.measured["membership"]["retrained"] == again.measured["membership"]["retrained"]
    said = [np.load(tmp_path / which / "seed-0/predictions.npz")["mixture"] for which in ("retrained", "steps")]
    p, q = (torch.from_numpy(each).double()[GONE] for each in said)
    kl = float((p * (p / q).log()).sum(-1).mean())
    assert found.measured["kl"]["after"]["forgotten"] == pytest.approx(kl, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "gcn"])
def test_steps_leave_a_label_no_likelier_than_one_that_was_not_learned_and_the_rest_as_it_was(tiny, kind):
    model, gone = model_for(tiny, kind, dropout=0.0), tiny.train_mask.nonzero().flatten()[:4]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(tiny.x, tiny.edge_index)[tiny.train_mask], tiny.y[tiny.train_mask]).backward()
        optimizer.step()
    left, val = without(tiny, gone.tolist(), 0), tiny.val_mask.nonzero().flatten()
    before = model(tiny.x, tiny.edge_index).detach()
    by_steps(model, Batch.of(left), Gone(gone, tiny.y[gone], val, tiny.y[val]))
    after = model(tiny.x, tiny.edge_index).detach()
    had, has, unseen = (
        float(likelihood(said[nodes], tiny.y[nodes])) for said, nodes in ((before, gone), (after, gone), (before, val))
    )
    assert has - unseen < 0.5 * (had - unseen)
    one, other = before.log_softmax(-1), after.log_softmax(-1)
    others = ~torch.isin(torch.arange(60), gone)
    assert apart(one[others], other[others]) < 0.5 * apart(one[gone], other[gone])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_of_an_opinion_is_as_likely_as_it_may_be(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, raised = (3 * torch.randn(20, 4, generator=generator) for _ in range(2))
    y = torch.randint(4, (20,), generator=generator)
    raised = raised.abs() * F.one_hot(y, 4)
    had = float(likelihood(logits, y))
    assert float(likelihood(left_of(logits, raised, y, had / 2), y)) == pytest.approx(had / 2, rel=1e-4)
    torch.testing.assert_close(left_of(logits, raised, y, 1.0), logits.log_softmax(-1))
    torch.testing.assert_close(left_of(logits, raised, y, float("nan")), (logits - raised).log_softmax(-1))


def test_an_expert_of_one_seed_forgets_in_that_seed_alone(tmp_path):
    run(dataclasses.replace(CONFIG, strong=SMALL, seeds=2), tmp_path / "two", report=False)
    forget(tmp_path / "two/seed-1", GONE, tmp_path / "one")
    assert read_config(tmp_path / "one").all_seeds == range(1, 2)
    forget(tmp_path / "two", GONE, tmp_path / "all")
    same(weights(tmp_path / "one", 1), weights(tmp_path / "all", 1))


BAD = {
    "other": (lambda: good().test_mask.nonzero().flatten()[:1].tolist(), {}, "no training node of seed 0"),
    "unknown": (lambda: ["ann"], {}, "no node is called ann"),
    "class": (lambda: (good().train_mask & (good().y == 1)).nonzero().flatten().tolist(), {}, "class 1 would be left"),
    "none": (list, {}, "must be a list of what nodes are called"),
    "word": (lambda: "12", {}, "must be a list of what nodes are called"),
    "how": (lambda: GONE, {"how": "stpes"}, "did you mean steps"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_forgotten_is_said_in_a_line_and_nothing_is_left(finished, tmp_path, case):
    nodes, options, said = BAD[case]
    with pytest.raises(InputError, match=said):
        forget(finished, nodes(), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["folder", "nodes", "out", "how", "measure"])
def test_an_odd_argument_of_forget_is_an_input_error(finished, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for odd in (None, "abc", [1, "two", None], -1.5, torch.empty(0), object()):
        if (name, odd) in (("out", None), ("out", "abc")):
            continue
        with pytest.raises(InputError) as caught:
            forget(**{"folder": finished, "nodes": GONE, "out": "out", "how": "last", "measure": False} | {name: odd})
        assert len(str(caught.value)) < 1000
    assert not list(tmp_path.iterdir())


def test_a_run_that_a_teacher_may_have_told_is_refused(finished, tmp_path):
    config = dataclasses.replace(CONFIG, strong=SMALL, regime="joint", kd="nkd", teacher=f"{finished}:gcn")
    run(config, tmp_path / "taught", report=False)
    with pytest.raises(InputError, match="may know these labels"):
        forget(tmp_path / "taught", GONE, tmp_path / "out")


def test_a_run_whose_experts_were_trained_together_is_only_trained_anew(tmp_path):
    run(dataclasses.replace(CONFIG, strong=SMALL, regime="joint"), tmp_path / "joint", report=False)
    with pytest.raises(InputError, match="take retrain"):
        forget(tmp_path / "joint", GONE, tmp_path / "out", how="steps")
    assert forget(tmp_path / "joint", GONE, tmp_path / "out").how == "retrain"


def test_the_configuration_alone_keeps_labels_from_being_read():
    data = Opened(dataclasses.replace(CONFIG, forget=[str(GONE[0])])).seed(0).data
    assert not bool(data.train_mask[GONE[0]])
    assert data.y[GONE[0]] == -1
    assert int(data.train_mask.sum()) == int(good().train_mask.sum()) - 1


def test_the_distance_and_the_attack_are_what_they_say():
    generator = torch.Generator().manual_seed(0)
    anew, log_p = (torch.randn(30, 4, generator=generator).log_softmax(-1) for _ in range(2))
    assert apart(anew, log_p) == pytest.approx(float((anew.exp() * (anew - log_p)).sum() / 30), rel=1e-5)
    assert apart(anew, anew) == 0
    y, members = torch.randint(4, (30,), generator=generator), torch.arange(30) < 8
    own = log_p[range(30), y]
    wins = [float(one > other) for one, other in itertools.product(own[members], own[~members])]
    assert membership(log_p, y, members, ~members) == pytest.approx(sum(wins) / len(wins))
    assert np.isnan(membership(log_p, y, members, torch.zeros(30, dtype=torch.bool)))
