"""`MowstClassifier` as scikit-learn means an estimator, and as it comes back from a folder."""

import dataclasses
import inspect
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

import mowst
from mowst import Config, ExpertConfig, InputError, MowstClassifier
from mowst.data import from_tables, read
from mowst.experiment import FIELDS
from tests.graphs import changed, good

QUICK = {"epochs": 2, "folds": 2, "device": "cpu", "strong": "gcn"}
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimators_unfitted",
)
"""Those of scikit-learn's checks that do not fit on an array X."""


@pytest.fixture(scope="module")
def fitted() -> MowstClassifier:
    return MowstClassifier(**QUICK).fit(good())


@pytest.fixture
def saved(fitted, tmp_path):
    return fitted.save(tmp_path / "kept")


# The estimator


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_check_passes(name):
    if name not in vars(estimator_checks):
        pytest.skip("this scikit-learn has no such check")
    vars(estimator_checks)[name]("MowstClassifier", MowstClassifier())


def test_the_signature_names_every_field_that_a_classifier_has_a_use_for():
    told = inspect.signature(MowstClassifier).parameters
    assert list(told) == ["config", "seed", *FIELDS]
    assert all(each.kind is each.KEYWORD_ONLY for name, each in told.items() if name != "config")
    assert {"strong", "epochs", "lr", "regime", "preset", "device"} <= set(FIELDS)
    assert set(FIELDS) < {entry.name for entry in dataclasses.fields(Config)}


def test_a_parameter_overrides_the_configuration_and_none_leaves_it():
    config = Config(lr=0.05, epochs=7, strong=ExpertConfig(kind="gat", num_layers=3))
    assert MowstClassifier(config).configuration() == config
    found = MowstClassifier(config, lr=Config.lr, strong="sage").configuration()
    assert found == dataclasses.replace(config, lr=Config.lr, strong=dataclasses.replace(config.strong, kind="sage"))


def test_a_clone_is_unfitted_and_trains_to_the_same(fitted):
    again = clone(fitted)
    with pytest.raises(NotFittedError):
        again.predict(good())
    assert torch.equal(again.fit(good()).predict_proba(good()), fitted.predict_proba(good()))


def test_set_params_takes_names_that_are_there_and_waits_for_fit(fitted):
    again = clone(fitted).fit(good())
    before = again.predict_proba(good())
    again.set_params(standardize=True)
    assert torch.equal(again.predict_proba(good()), before)
    assert not torch.equal(again.fit(good()).predict_proba(good()), before)
    with pytest.raises(InputError, match="did you mean strong"):
        again.set_params(strongg="gcn")


def test_what_is_fitted_has_a_trailing_underscore(fitted):
    data = good()
    assert fitted.classes_.tolist() == fitted.class_names_ == [0, 1, 2]
    assert fitted.n_features_in_ == 8
    assert "feature_names_in_" not in vars(fitted)
    assert fitted.model_ is fitted.model
    assert {line["epoch"] for line in fitted.history_} <= set(range(4))
    best = fitted.predict_proba(data).argmax(-1)
    assert torch.equal(fitted.predict(data), torch.from_numpy(fitted.classes_)[best])


def test_classes_are_what_predict_says_and_names_what_they_are_called():
    codes, words = torch.tensor([4, 9, 30]), ["a", "b", "c"]
    coded = MowstClassifier(**QUICK).fit(changed(y=codes[good().y]))
    assert coded.classes_.tolist() == coded.class_names_ == codes.tolist()
    assert set(coded.predict(good()).tolist()) <= set(codes.tolist())
    named = MowstClassifier(**QUICK).fit(changed(y=[words[k] for k in good().y]))
    assert (named.classes_.tolist(), named.class_names_) == ([0, 1, 2], words)


def test_labels_of_test_nodes_change_nothing():
    data = good()
    data.y[data.test_mask] = (data.y[data.test_mask] + 1) % 3
    found = [MowstClassifier(**QUICK).fit(each).predict_proba(each) for each in (good(), data)]
    assert torch.equal(*found)


def test_a_graph_is_no_array_and_has_its_labels_in_it(fitted):
    with pytest.raises(InputError, match=r"are its data\.y"):
        clone(fitted).fit(good(), good().y)
    with pytest.raises(InputError, match="must be a PyG Data"):
        fitted.predict(np.zeros((3, 8)))


# Who answered


@pytest.mark.parametrize("threshold", [0.0, 0.4, 2.0])
def test_who_answered_is_who_is_asked_by_the_threshold(fitted, threshold):
    data = good()
    who = fitted.expert_of(data, how="routed", threshold=threshold)
    assert who.shape == (60,)
    said = fitted.predict_proba(data, how="routed", threshold=threshold)
    out = fitted.model_(data.x, data.edge_index)
    alone = {role: out.of(role).probs().detach() for role in ("weak", "strong")}
    torch.testing.assert_close(said, torch.stack([alone[role][node] for node, role in enumerate(who)]))
    assert set(who) == {0.0: {"weak"}, 2.0: {"strong"}}.get(threshold, set(who))


def test_in_a_pool_the_one_of_greater_weight_answered(fitted):
    data, nodes = good(), [4, 0, 4]
    weak = fitted.model_(data.x, data.edge_index).confidence >= 0.5
    assert ((fitted.expert_of(data) == "weak") == weak.numpy()).all()
    assert (fitted.expert_of(data, nodes) == fitted.expert_of(data)[nodes]).all()


# From a folder


def same(first, second, data) -> None:
    assert torch.equal(first.predict_proba(data), second.predict_proba(data))
    assert (first.expert_of(data) == second.expert_of(data)).all()
    assert first.classes_.tolist() == second.classes_.tolist()
    assert first.class_names_ == second.class_names_
    assert first.history_ == second.history_
    assert (first.seed, first.config_, first.like) == (second.seed, second.config_, second.like)


@pytest.mark.parametrize(
    "options",
    [
        {"standardize": True, "seed": 7},
        pytest.param({"strong": "gcn+hop-trees+neighbours", "normalize_features": True}, marks=pytest.mark.slow),
        pytest.param({"strong": "gat", "gate": "learned", "regime": "joint"}, marks=pytest.mark.slow),
    ],
)
def test_what_is_loaded_is_what_was_saved(options, tmp_path):
    data = changed(y=["abc"[k] for k in good().y])
    first = MowstClassifier(**QUICK | options).fit(data)
    second = MowstClassifier.load(first.save(tmp_path / "kept"))
    same(first, second, good())
    assert second.fit(data).config_ == first.config_  # trained again it is with the same experts
    assert first.score(data) == MowstClassifier.load(tmp_path / "kept").score(data)


def test_a_saved_classifier_is_safetensors_json_and_text(saved):
    assert {path.name for path in saved.iterdir()} == {
        *("README.md", "config.json", "config.yaml", "metrics.jsonl", "model.safetensors")
    }
    assert json.loads((saved / "config.json").read_text())["class_names"] == [0, 1, 2]


def test_a_preset_is_saved_as_the_experts_that_it_chose(tmp_path):
    first = MowstClassifier(epochs=2, preset="fast", device="cpu").fit(good())
    assert first.configuration().strong.kind == "auto"
    assert MowstClassifier.load(first.save(tmp_path / "kept")).configuration().strong.kind == "gcn"


def test_saving_replaces_a_classifier_and_nothing_else(fitted, saved, tmp_path):
    fitted.save(saved)
    (saved / "note.txt").write_text("mine")
    with pytest.raises(InputError, match=r"note\.txt"):
        fitted.save(saved)
    assert (saved / "note.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README\.md"):
        fitted.save(other)
    with pytest.raises(InputError, match="is a file"):
        fitted.save(other / "README.md")
    with pytest.raises(NotFittedError):
        MowstClassifier().save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_name_that_a_file_cannot_say_is_refused_and_nothing_is_left(tmp_path):
    named = MowstClassifier(**QUICK).fit(changed(class_names=[("a", 1), ("b", 2), ("c", 3)]))
    with pytest.raises(InputError, match="class_names"):
        named.save(tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def flipped(path) -> None:
    held = bytearray(path.read_bytes())
    held[-3] ^= 1
    path.write_bytes(held)


def edited(name: str, value: object):
    def edit(path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return edit


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("model.safetensors", flipped),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:100])),
        ("model.safetensors", lambda path: path.unlink()),
        ("config.json", lambda path: path.write_text("{")),
        ("config.json", lambda path: path.write_text("[]")),
        ("config.json", edited("format", 99)),
        ("config.json", edited("seed", "one")),
        ("config.json", edited("classes", [0, 1])),
        ("config.json", edited("width", {"classes": 3})),
        ("config.json", edited("width", {"classes": 3, "features": -1})),
        ("config.json", edited("width", {"classes": 3, "features": 9})),
        ("config.yaml", lambda path: path.write_text("epochs: many")),
        ("config.yaml", lambda path: path.unlink()),
        ("metrics.jsonl", lambda path: path.write_text("{")),
    ],
)
def test_a_damaged_folder_is_a_line(saved, name, spoil):
    spoil(saved / name)
    with pytest.raises(InputError) as error:
        MowstClassifier.load(saved)
    assert "\n" not in str(error.value)
    assert str(saved) in str(error.value)


def test_a_folder_names_no_code_of_others(saved):
    text = (saved / "config.yaml").read_text()
    (saved / "config.yaml").write_text(text.replace("kind: gcn", "kind: antigravity:Geohash"))
    with pytest.raises(InputError, match="trust"):
        MowstClassifier.load(saved)


def test_loading_leaves_the_callers_random_numbers_alone(saved):
    torch.manual_seed(7)
    first = torch.rand(1)
    torch.manual_seed(7)
    MowstClassifier.load(saved)
    assert torch.equal(torch.rand(1), first)


@pytest.mark.parametrize("device", ["cpu", None])
def test_a_device_may_be_given_that_is_here(saved, device):
    assert MowstClassifier.load(saved, device=device).config_.device == "cpu"
    with pytest.raises(InputError, match="device"):
        MowstClassifier.load(saved, device="tape")


# On another graph


def tables(seed: int, *, label: bool = True, N: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    draw = np.random.default_rng(seed)
    kind = np.array(["tea", "milk"])[np.arange(N) % 2]
    nodes = pd.DataFrame({"id": [f"n{k}" for k in range(N)], "age": draw.normal(40, 9, N) + 9 * (kind == "tea")})
    nodes["town"] = np.where(draw.random(N) < 0.3, "a", "b")
    if label:
        nodes["label"] = kind
    ends = draw.integers(N, size=(2, 3 * N))
    return nodes, pd.DataFrame({"source": [f"n{k}" for k in ends[0]], "target": [f"n{k}" for k in ends[1]]})


@pytest.fixture(scope="module")
def drinks() -> MowstClassifier:
    return MowstClassifier(**QUICK).fit(from_tables(*tables(0)))


@pytest.fixture
def kept_drinks(drinks, tmp_path):
    return MowstClassifier.load(drinks.save(tmp_path / "drinks"))


def test_columns_and_names_travel_with_the_model(drinks, kept_drinks):
    assert drinks.feature_names_in_.tolist() == ["age", "town = a", "town = b"]
    assert kept_drinks.feature_names_in_.tolist() == drinks.feature_names_in_.tolist()
    assert kept_drinks.class_names_ == ["milk", "tea"]
    new = from_tables(*tables(1), like=kept_drinks.like)
    same(drinks, kept_drinks, new)
    assert torch.equal(new.x, from_tables(*tables(1), like=from_tables(*tables(0))).x)


def test_a_new_graph_without_labels_is_predicted_as_with_them(kept_drinks, tmp_path):
    nodes, edges = tables(1)
    for name, table in {"nodes": nodes.drop(columns="label"), "edges": edges}.items():
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    blank = read(tmp_path, like=kept_drinks.like)
    labelled = from_tables(nodes, edges, like=kept_drinks.like)
    assert torch.equal(kept_drinks.predict_proba(blank), kept_drinks.predict_proba(labelled))
    with pytest.raises(InputError, match=r"^test_mask"):
        kept_drinks.score(labelled)
    with pytest.raises(InputError, match="none to compare with"):
        kept_drinks.score(blank)


def test_a_graph_that_is_not_like_the_first_is_refused_in_a_line(kept_drinks):
    nodes, edges = tables(1)
    with pytest.raises(InputError, match=r"columns became features otherwise.*like=classifier\.like"):
        kept_drinks.predict(from_tables(nodes, edges))
    with pytest.raises(InputError, match="age"):
        from_tables(nodes.drop(columns="age"), edges, like=kept_drinks.like)
    with pytest.raises(InputError, match="has 8 features, the classifier was fitted on 3"):
        kept_drinks.predict(good())
    other = from_tables(nodes, edges, like=kept_drinks.like)
    other.class_names = ["milk", "beer"]
    with pytest.raises(InputError, match=r"milk, beer.*milk, tea"):
        kept_drinks.predict(other)


@pytest.mark.slow
def test_the_mixture_of_a_run_is_loaded_from_its_folder(tmp_path):
    config = Config(dataset="tests.graphs:good", seeds=2, epochs=3, device="cpu", strong=ExpertConfig(kind="gcn"))
    mowst.experiment.run(config, tmp_path / "run", report=False)
    scores = {
        seed: json.loads((tmp_path / f"run/seed-{seed}/result.json").read_text())["scores"]["mixture"]["val"]
        for seed in (0, 1)
    }
    found, best = MowstClassifier.load(tmp_path / "run"), max(scores, key=scores.get)
    assert found.seed == best
    with np.load(tmp_path / f"run/seed-{best}/predictions.npz") as held:
        assert np.array_equal(found.predict_proba(good()).numpy(), held["mixture"])
    same(found, MowstClassifier.load(found.save(tmp_path / "kept")), good())
    shutil.rmtree(tmp_path / f"run/seed-{best}")
    with pytest.raises(InputError):
        MowstClassifier.load(tmp_path / "run")
