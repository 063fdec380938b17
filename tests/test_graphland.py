"""GraphLand's layout: columns with gaps and categories come through to trees, and a run trains on them."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from mowst import load
from mowst.data.assembling import own_of, raw_of
from mowst.data.cards import card
from mowst.data.loaders import GraphLand
from mowst.errors import InputError

N = 300
pytestmark = pytest.mark.filterwarnings("ignore:.*20 of 300 nodes have no label")


@pytest.fixture
def root(tmp_path):
    """Write a small graph in the published layout: 2 numbers with gaps, a fraction, a category, 20 nodes unlabelled."""
    draw, folder = np.random.default_rng(0), tmp_path / "GraphLand" / "tolokers-2" / "raw" / "tolokers-2"
    folder.mkdir(parents=True)
    kind, age = draw.integers(0, 9, N), draw.normal(30, 5, N)
    y = ((kind % 3 == 0) ^ (age > 33)).astype(float)
    columns = {"age": age, "tasks": draw.integers(0, 50, N) * 1.0, "share": draw.random(N), "kind": kind}
    features = pd.DataFrame(columns)
    features.loc[draw.random(N) < 0.2, "age"] = np.nan
    features.loc[draw.random(N) < 0.2, "share"] = np.nan
    features.to_csv(folder / "features.csv", index_label="node")
    y[:20] = np.nan
    pd.DataFrame({"banned": y}).to_csv(folder / "targets.csv", index_label="node")
    ends = draw.integers(0, N, (5 * N, 2))
    same = (y[ends[:, 0]] == y[ends[:, 1]]) | (draw.random(5 * N) < 0.3)
    pd.DataFrame(ends[same & (ends[:, 0] != ends[:, 1])], columns=["a", "b"]).to_csv(
        folder / "edgelist.csv", index=False
    )
    part = draw.permutation(N) % 4
    masks = pd.DataFrame({"train": part < 2, "val": part == 2, "test": part == 3})
    for split in ("RL", "RH", "TH"):
        masks.to_csv(folder / f"split_masks_{split}.csv", index_label="node")
    info = {
        "task": "binary_classification",
        "target_name": "banned",
        "numerical_features_names": ["age", "tasks", "share"],
        "fraction_features_names": ["share"],
        "categorical_features_names": ["kind"],
    }
    (folder / "info.yaml").write_text(yaml.safe_dump(info))
    return tmp_path


def test_it_reads_the_published_layout(root):
    data = load("tolokers-2", root, download=False)
    folder = root / "GraphLand" / "tolokers-2" / "raw" / "tolokers-2"
    features, masks = (pd.read_csv(folder / name, index_col=0) for name in ("features.csv", "split_masks_RL.csv"))
    labels = pd.read_csv(folder / "targets.csv", index_col=0)["banned"]
    assert data.y.tolist() == labels.fillna(-1).astype(int).tolist()
    for part in ("train", "val", "test"):
        assert torch.equal(data[f"{part}_mask"], torch.tensor((masks[part] & labels.notna()).to_list()))
    raw, fitted = raw_of(data), own_of(data).fitted
    kind = next(column for column in fitted.columns if column.name == "kind")
    assert raw.categories == 1
    assert [kind.values[int(each)] for each in raw.values[:, 0].tolist()] == features["kind"].map(str).tolist()
    assert np.allclose(raw.values[:, 1:], features[["age", "tasks", "share"]], equal_nan=True)
    assert bool(data.x.isfinite().all())
    assert card("tolokers-2").exercised == "fixture"


@pytest.mark.parametrize("split", ["RH", "TH", "random"])
def test_it_has_the_published_splits(root, split):
    assert load("tolokers-2", root, split=split, download=False).split == split


def test_a_run_hears_trees_on_the_columns_as_they_came(root, tmp_path):
    import json

    from mowst.run import command

    out = tmp_path / "run"
    words = "--weak trees --strong sign+hop-trees --seeds 1 --epochs 30 --device cpu --quiet"
    command(["--dataset", "tolokers-2", "--data_root", str(root), "--out", str(out), *words.split()])
    scores = json.loads((out / "result.json").read_text())["scores"]
    assert scores["weak"]["test"][0] > 85  # in % of the area under the curve: the columns tell it
    assert scores["mixture"]["test"][0] > 80


def test_another_layout_is_said_in_a_line(root):
    folder = root / "GraphLand" / "tolokers-2" / "raw" / "tolokers-2"
    (folder / "info.yaml").write_text("{}")
    with pytest.raises(InputError, match="not in the published layout: 'target_name'"):
        load("tolokers-2", root, download=False)


@pytest.mark.parametrize("given", [{"name": "hm-prices"}, {"name": "../x"}, {"name": "tolokers-2", "split": "THI"}])
def test_graphs_without_classes_and_other_splits_are_refused(root, given):
    with pytest.raises(InputError, match=r"GraphLand: (name|split)"):
        GraphLand(str(root / "GraphLand"), **given)
