"""From a person's own files to predictions by name, by commands alone."""

import json
import re
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from mowst.data import read
from mowst.errors import InputError
from mowst.experiment import reading
from mowst.experiment.asking import seed_folder
from mowst.experiment.predicting import check_together, flags
from mowst.predict import command as predict
from mowst.run import command as run
from tests.test_own_graphs import people, written

FAST = ["--epochs", "3", "--patience", "3", "--folds", "2", "--no-baselines", "--quiet", "--no-fast"]
FAST += ["--weak.hidden_channels", "8", "--strong.hidden_channels", "8"]
UNKNOWN = [2, 9, 40]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on sixty people, of whom three have no label."""
    place = tmp_path_factory.mktemp("own")
    nodes, edges = people()
    nodes.loc[UNKNOWN, "drink"] = None
    folder = place / "people"
    folder.mkdir()
    written(folder, nodes, edges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(["--dataset", str(folder), "--label", "drink", "--seeds", "2", "--out", str(place / "out"), *FAST])
    return place


def predicted(place, *arguments):
    """Predict into a file beside the run, and read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert predict([str(place / "out"), "--out", str(place / "p.csv"), *arguments]) == 0
    return pd.read_csv(place / "p.csv", keep_default_na=False)


def test_a_run_leaves_a_card_and_the_columns(finished):
    assert (finished / "out" / "people.yaml").exists()
    assert (finished / "out" / "seed-0" / "columns.json").exists()


def test_the_unlabelled_nodes_are_predicted_by_name(finished):
    found, nodes = predicted(finished), people()[0]
    assert found.id.tolist() == nodes.id[UNKNOWN].tolist()
    folder = seed_folder(finished / "out")
    probs = np.load(folder / "predictions.npz")["mixture"][UNKNOWN]
    names = json.loads((folder / "result.json").read_text())["class_names"]
    assert names == ["coffee", "milk", "tea"]
    np.testing.assert_allclose(found[[f"probability of {name}" for name in names]], probs, rtol=1e-4, atol=1e-6)
    assert found.predicted.tolist() == [names[best] for best in probs.argmax(axis=1)]
    np.testing.assert_allclose(found.probability, probs.max(axis=1), rtol=1e-4)


def test_the_same_graph_as_a_new_one_gets_the_same_answers(finished):
    new = predicted(finished, "--graph", str(finished / "people"))
    nodes = people()[0]
    assert new.id.tolist() == nodes.id.tolist()
    probs = np.load(seed_folder(finished / "out") / "predictions.npz")["mixture"]
    np.testing.assert_allclose(new.filter(like="probability of"), probs, rtol=1e-4, atol=1e-6)
    by_card = predicted(finished, "--graph", str(finished / "out" / "people.yaml"))
    pd.testing.assert_frame_equal(by_card, new)


def test_a_new_graph_needs_no_labels_and_its_files_may_be_called_otherwise(finished, tmp_path):
    nodes, edges = people(30, seed=1)
    nodes.drop(columns="drink").to_csv(tmp_path / "who.csv", index=False)
    edges.to_csv(tmp_path / "knows.csv", index=False)
    files = ["--nodes-file", "who.csv", "--edges-file", "knows.csv"]
    found = predicted(finished, "--graph", str(tmp_path), *files)
    assert found.id.tolist() == nodes.id.tolist()
    assert set(found.predicted) <= {"coffee", "milk", "tea"}


def test_who_answered_is_whom_the_confidence_names(finished):
    pooled = predicted(finished, "--graph", str(finished / "people"))
    assert ((pooled.expert == "weak") == (pooled.confidence >= 0.5)).all()
    middle = float(predicted(finished, "--graph", str(finished / "people"), "--how", "routed").confidence.median())
    routed = predicted(finished, "--graph", str(finished / "people"), "--how", "routed", "--threshold", str(middle))
    clear = (routed.confidence - middle).abs() > 1e-5
    assert ((routed.expert == "weak") == (routed.confidence >= middle))[clear].all()
    assert set(routed.expert) == {"weak", "strong"}
    sampled = predicted(finished, "--graph", str(finished / "people"), "--how", "sampled", "--seed", "3")
    drawn = torch.rand(60, generator=torch.Generator().manual_seed(3)).numpy()
    clear = (sampled.confidence - drawn).abs() > 1e-5
    assert ((sampled.expert == "weak") == (drawn < sampled.confidence))[clear].all()


def test_nodes_are_asked_for_by_their_ids(finished, capsys):
    found = predicted(finished, "--nodes", "p14,p0")
    assert found.id.tolist() == ["p14", "p0"]
    assert "node p14: class " in capsys.readouterr().out
    with pytest.raises(InputError, match="no node is called p1, 0; they are p0, p7, p14"):
        predicted(finished, "--nodes", "p1,0,p0")


def test_what_spoke_for_a_prediction_is_told_by_name(finished, capsys):
    def told(*arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert predict([str(finished / "out"), "--explain", *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    asked = told("p14")
    assert re.match(r"node p14: the (weak|strong) expert('s .*)? says class (coffee|milk|tea), prob", asked[0])
    strong = told("p14", "--how", "routed", "--threshold", "1")
    assert strong[0].startswith("node p14: the strong expert")
    ends = people()[1]
    beside = set(ends.source[ends.target == "p14"]) | set(ends.target[ends.source == "p14"])
    direct = {name for line in strong if (name := re.sub(r".*\)  node ", "", line)) != line}
    assert direct <= beside
    assert direct
    assert any(line.split("  ")[-1] in ("age", "city = Rome", "city = Oslo") for line in strong)
    weak = told("p14", "--how", "routed", "--threshold", "0")
    assert weak[0].startswith("node p14: the weak expert")
    assert weak[1] == "neighbours: none changes what it says"
    with pytest.raises(InputError, match="--explain: no node is called 14"):
        told("14")


def test_the_seed_that_validates_best_is_asked(finished):
    runs = json.loads((finished / "out" / "result.json").read_text())["runs"]
    best = max(record["scores"]["mixture"]["val"] for record in runs)
    chosen = json.loads((seed_folder(finished / "out") / "result.json").read_text())
    assert chosen["scores"]["mixture"]["val"] == best
    assert seed_folder(finished / "out" / "seed-1") == finished / "out" / "seed-1"


def test_a_graph_of_another_width_is_refused(finished, tmp_path):
    np.savez(tmp_path / "g.npz", x=np.ones((4, 2)), edge_index=[[0, 1], [1, 2]])
    with pytest.raises(InputError, match="has 2 features, and the run was trained on"):
        predicted(finished, "--graph", str(tmp_path / "g.npz"))


@pytest.mark.parametrize(("name", "said"), [("p.txt", "must end with .csv or .parquet"), ("out/p.csv", None)])
def test_a_table_is_written_where_it_may_be(finished, name, said):
    line = [str(finished / "out"), "--out", str(finished / name)]
    if said is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert predict(line) == 0
        (finished / name).unlink()
        line[-1] = str(finished / "out/seed-0/p.csv")
        said = "is among the files of a run"
    with pytest.raises(InputError, match=said):
        predict(line)


def test_damaged_columns_are_refused_and_nothing_is_written(finished, tmp_path):
    shutil.copytree(finished / "out", tmp_path / "out")
    for path in (tmp_path / "out").glob("seed-*/columns.json"):
        path.write_text(path.read_text().replace('"number"', '"pickle"'))
    with pytest.raises(InputError, match=r"columns\.json: not what a run keeps"):
        predicted(tmp_path, "--graph", str(finished / "people"))
    assert not (tmp_path / "p.csv").exists()


def test_parquet_holds_the_same(finished):
    pytest.importorskip("pyarrow")
    table = predicted(finished)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predict([str(finished / "out"), "--out", str(finished / "p.parquet")])
    found = pd.read_parquet(finished / "p.parquet")
    assert found.columns.tolist() == table.columns.tolist()
    assert found.predicted.tolist() == table.predicted.tolist()


def test_a_run_on_a_card_may_leave_a_folder_of_that_name_and_be_made_again(tmp_path, monkeypatch):
    """`--dataset karate --out karate` takes the dataset, also where the folder is there already."""
    monkeypatch.chdir(tmp_path)
    for again in ([], ["--overwrite"]):
        run(["--dataset", "karate", "--seeds", "1", "--out", "karate", *again, *FAST])
        assert json.loads((tmp_path / "karate" / "result.json").read_text())["dataset"] == "karate"
    run(["--dataset", "Karate", "--seeds", "1", "--out", "again", *FAST])
    with pytest.raises(InputError, match="is the folder of a run, and no graph"):
        run(["--dataset", "again", "--seeds", "1", "--out", "third", *FAST])


def test_a_graph_in_a_folder_that_is_called_like_a_card_is_the_one_that_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "karate"
    folder.mkdir()
    written(folder, *people())
    run(["--dataset", "karate", "--label", "drink", "--seeds", "1", "--out", "out", *FAST])
    assert (tmp_path / "out" / "karate.yaml").exists()


def refused(place, *arguments):
    """Ask for predictions, which must be refused, and return why."""
    with pytest.raises(InputError) as error:
        predict([str(place / "out"), *map(str, arguments)])
    return str(error.value)


@pytest.mark.filterwarnings("ignore:drink")
@pytest.mark.parametrize("name", ["notes.csv", "notes.npz", "table.parquet"])
def test_predict_replaces_what_it_wrote_and_nothing_else(finished, tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    flag, place = "--save" if name.endswith("npz") else "--out", tmp_path / name
    call = [str(finished / "out"), flag, str(place), "--nodes", str(people()[0].id[2])]
    assert predict(call) == 0
    ours = place.read_bytes()
    assert predict(call) == 0
    assert place.read_bytes() == ours
    if flag == "--save":
        np.savez(place, nodes=np.arange(3), mine=np.arange(3))
    else:
        table = pd.read_csv(place) if name.endswith("csv") else pd.read_parquet(place)
        getattr(table.assign(mine=1), "to_csv" if name.endswith("csv") else "to_parquet")(place, index=False)
    theirs = place.read_bytes()
    assert "is no file of predictions; give another file, or --overwrite" in refused(finished, *call[1:])
    place.write_bytes(b"")
    assert "is no file of predictions" in refused(finished, *call[1:])
    place.write_bytes(theirs)
    assert predict([*call, "--overwrite"]) == 0
    assert place.read_bytes() == ours


def test_predict_never_replaces_what_it_reads(finished, tmp_path):
    shutil.copytree(finished / "people", tmp_path / "other")
    shutil.copy(finished / "people" / "edges.csv", tmp_path / "other" / "knows.csv")
    (tmp_path / "ids.csv").write_text(str(people()[0].id[2]))
    (tmp_path / "link.csv").symlink_to(tmp_path / "other" / "nodes.csv")
    graph = ["--graph", tmp_path / "other", "--edges-file", "knows.csv"]
    inputs = {tmp_path / "other" / name: graph for name in ("nodes.csv", "knows.csv")}
    inputs |= {finished / "people" / name: [] for name in ("nodes.csv", "edges.csv")}
    inputs |= {tmp_path / "ids.csv": ["--nodes", tmp_path / "ids.csv"], tmp_path / "link.csv": graph}
    for place, words in inputs.items():
        before = place.read_bytes()
        said = refused(finished, "--out", place, "--overwrite", *words)
        assert said == f"--out {place}: is read in this very call; give another file"
        assert place.read_bytes() == before


def test_what_a_card_or_a_folder_of_arrays_names_is_read_too(finished, tmp_path):
    card = finished / "out" / "people.yaml"
    place = finished / "people" / "nodes.csv"
    assert "is read in this very call" in refused(finished, "--out", place, "--overwrite", "--graph", card)
    (tmp_path / "arrays").mkdir()
    saved = tmp_path / "arrays" / "features.npz"
    np.savez(saved, x=np.eye(3))
    words = ["--save", saved, "--overwrite", "--graph", tmp_path / "arrays"]
    assert "is read in this very call" in refused(finished, *words)


IDLE = {
    "--threshold .5": "only --how routed has one",
    "--how sampled --threshold=0.5": "only --how routed has one",
    "--how routed --seed 0": "only --how sampled and --explain draw",
    "--into x": "it is for --forget",
    "--forget_by retrain --out x.csv": "it is for --forget",
    "--no-measure": "it is for --forget",
    "--nodes-file x.csv": "it is for --graph",
    "--why p14 --how routed": "alone do not predict",
    "--forget p14 --out x.csv": "--out: nothing is predicted with --forget",
    "--forget p14 --how routed": "--how: nothing is predicted with --forget",
    "--how routed --threshold 2": "--threshold 2: must be a confidence from 0 to 1",
    "--how routed --threshold=-.1": "--threshold -0.1: must be a confidence from 0 to 1",
}


@pytest.mark.parametrize("line", IDLE)
def test_an_option_that_would_change_nothing_is_refused(finished, line):
    assert IDLE[line] in refused(finished, *line.split())


@pytest.mark.parametrize(
    "line", ["--how routed --threshold .5", "--explain p14 --seed 3", "--why p14 --how routed --nodes p14", "--layers"]
)
def test_options_that_count_are_taken(line):
    words = ["folder", *line.split()]
    check_together(reading.parse(flags(), words), reading.given_options(words))


@pytest.mark.filterwarnings("ignore:drink")
def test_a_label_that_not_every_seed_learned_is_forgotten_by_the_seed_that_is_named(finished, tmp_path):
    graphs = [read(finished / "people", label="drink", seed=seed) for seed in (0, 1)]
    names, (one, other) = graphs[0].node_names, (graph.train_mask for graph in graphs)
    name = str(names[int((~one & other).nonzero()[0])])
    said = refused(finished, "--forget", name, "--into", tmp_path / "out")
    folder = finished / "out" / "seed-1"
    assert said == f"forget: {name}: not learned by every seed, but by 1 of 2; give the folder of such a seed, {folder}"
    assert predict([str(folder), "--forget", name, "--into", str(tmp_path / "out"), "--no-measure"]) == 0
    tested = str(names[int((~one & ~other & graphs[0].test_mask).nonzero()[0])])
    assert "no training node of seed 0" in refused(finished, "--forget", tested)
