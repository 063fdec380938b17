"""`load`: by card, by path, by dotted name; what it promises of the result; what it leaves behind when it fails."""

import hashlib
import socket
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch_geometric.data import Data

import mowst.names
from mowst.data import load, names
from mowst.data.cards import card
from mowst.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:y. 1 of 8 nodes")


@pytest.fixture
def offline(monkeypatch):
    """Let no connection be made and no name be looked up."""

    def refuse(*args, **options):
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def outside(monkeypatch):
    """Offer `outside_pkg:graph`, a trusted loader of somebody else's, whose result a test may change."""
    module = types.ModuleType("outside_pkg")
    module.data = Data(
        x=torch.arange(16, dtype=torch.float64).view(8, 2),
        edge_index=torch.tensor([[0, 1, 1, 3, 3], [1, 0, 0, 2, 3]]),
        y=torch.tensor([[0], [1], [0], [1], [0], [1], [0], [-1]]),
    )
    module.graph = lambda: module.data
    monkeypatch.setitem(sys.modules, "outside_pkg", module)
    monkeypatch.setattr(mowst.names, "_trusted", {"outside_pkg"})
    return module


def write_card(path: Path, **entries) -> str:
    base = {"metric": "accuracy", "splits": {"random": {"kind": "random"}}, "licence": "none", "homepage": "none"}
    path.write_text(yaml.safe_dump({**base, **entries}, sort_keys=False))
    return str(path)


def test_card_outside_the_package_adds_what_pyg_already_loads(tmp_path, offline):
    path = write_card(tmp_path / "club.yaml", loader="torch_geometric.datasets:KarateClub", metric="rocauc")
    data = load(path, tmp_path / "root", seed=3)
    assert (data.name, data.metric, data.split, data.num_classes) == ("club", "rocauc", "random", 4)
    assert data.count_mismatch is None


def test_names_are_taken_in_any_case(offline):
    assert load("KARATE").name == "karate"


def test_loaded_graph_has_the_promised_form(outside, tmp_path):
    path = write_card(tmp_path / "mine.yaml", loader="outside_pkg:graph")
    data = load(path)
    assert data.x.dtype == torch.float32
    assert data.y.shape == (8,)
    assert data.edge_index.t().tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert torch.equal(masks.sum(0), (data.y >= 0).long())


def test_directed_graph_with_repeats_stays_so_where_the_card_says_so(outside, tmp_path):
    path = write_card(tmp_path / "mine.yaml", loader="outside_pkg:graph", undirected=False, simple=False)
    assert load(path).edge_index.tolist() == outside.data.edge_index.tolist()


def test_loading_changes_nothing_of_what_the_loader_returned(outside):
    outside.data.x = outside.data.x.float()
    data = load("outside_pkg:graph")
    data.edge_index.zero_()
    data.y.zero_()
    data.x.zero_()
    assert outside.data.edge_index.any()
    assert outside.data.y.any()
    assert outside.data.x.any()


def test_dotted_name_uses_its_own_masks_where_it_has_them(outside):
    assert load("outside_pkg:graph").split == "random"
    for index, mask in enumerate(("train_mask", "val_mask", "test_mask")):
        outside.data[mask] = torch.arange(8) == index
    data = load("outside_pkg:graph")
    assert data.split == "masks"
    assert data.val_mask.nonzero().item() == 1
    assert load("outside_pkg:graph", split="random").train_mask.sum() == 4


def test_stand_in_and_transforms_come_from_the_card(outside, tmp_path):
    features, transforms = {"OneHotDegree": {"max_degree": 3}}, {"NormalizeFeatures": {}}
    path = write_card(tmp_path / "a.yaml", loader="outside_pkg:graph", features=features, transforms=transforms)
    assert load(path).x.sum(1).tolist() == pytest.approx([1.0] * 8)
    del outside.data.x
    outside.data.num_nodes = 8
    assert load(path).x.argmax(1).tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_count_mismatch_is_a_sentence_and_any_variant_will_do(outside, tmp_path):
    counts = [{"nodes": 9}, {"nodes": 8, "edges": 2, "features": 2, "classes": 2}]
    assert load(write_card(tmp_path / "a.yaml", loader="outside_pkg:graph", counts=counts)).count_mismatch is None
    wrong = load(write_card(tmp_path / "b.yaml", loader="outside_pkg:graph", counts=[{"nodes": 9}])).count_mismatch
    assert "8 nodes" in wrong
    assert "9 nodes" in wrong


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.x.__setitem__((3, 1), float("nan")), "feature 1 of node 3"),
        (lambda d: d.edge_index.__setitem__((0, 0), 8), "edge 0"),
        (lambda d: d.pop("y"), "no y"),
        (lambda d: d.pop("x"), "x"),
        (lambda d: d.y.clamp_(max=0), "one class"),
        (lambda d: d.update({"edge_index": d.edge_index[:, :0]}), "no edges"),
    ],
)
def test_unsound_graph_is_refused_on_load(outside, tmp_path, spoil, said):
    outside.data.num_nodes = 8
    spoil(outside.data)
    path = write_card(tmp_path / "mine.yaml", loader="outside_pkg:graph")
    with pytest.raises(InputError, match=said):
        load(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no-such-graph", "no-such-graph"),
        ("no_such_package:graph", "no_such_package"),
        ("outside_pkg:nothing", "nothing"),
        ("math:pi", "3.14"),
        ("builtins:dict", "must return"),
        ("missing.yaml", "missing.yaml"),
    ],
)
def test_unknown_name_is_one_line(outside, name, said):
    with pytest.raises(InputError, match=said) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_unknown_split_names_the_choices_of_the_card():
    with pytest.raises(InputError, match=r"nonsense.*per-class.*random"):
        load("karate", split="nonsense")


NEEDS_FILES = [name for name in names() if name not in ("digits", "digits-knn", "sbm", "karate")]


@pytest.mark.parametrize("name", NEEDS_FILES)
def test_without_network_and_data_one_line_helps_and_nothing_is_left(name, tmp_path, offline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for download in (True, False):
        with pytest.raises(InputError, match=r"data.*digits") as caught:
            load(name, download=download)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    from torch_geometric.datasets import Actor

    def half(self):
        Path(self.raw_dir, "out1_graph_edges.txt").write_text("half")
        raise TimeoutError("the line went dead")

    monkeypatch.setattr(Actor, "download", half)
    with pytest.raises(InputError, match="line went dead"):
        load("actor", tmp_path / "root")
    assert list(tmp_path.iterdir()) == []


def test_download_that_completes_is_kept(tmp_path, monkeypatch, offline):
    from torch_geometric.datasets import Twitch

    def give(self):
        rows = np.arange(20)
        edges = np.stack([rows, np.roll(rows, 1)], 1)
        np.savez(Path(self.raw_dir, "PT.npz"), features=np.eye(20), target=rows % 2, edges=edges)

    monkeypatch.setattr(Twitch, "download", give)
    assert load("twitch-pt", tmp_path / "root").num_nodes == 20
    monkeypatch.setattr(Twitch, "download", lambda self: pytest.fail("downloaded again"))
    assert "20 nodes" in load("twitch-pt", tmp_path / "root").count_mismatch
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_place_that_cannot_be_written_is_named(tmp_path, offline):
    (tmp_path / "Twitch" / "PT" / "raw").mkdir(parents=True)
    (tmp_path / "Twitch" / "PT" / "raw" / "PT.npz").write_bytes(b"")
    (tmp_path / "Twitch" / "PT" / "processed").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"processed.*cannot be written"):
        load("twitch-pt", tmp_path)


def test_damaged_file_is_one_line(tmp_path, offline):
    (tmp_path / "Twitch" / "PT" / "raw").mkdir(parents=True)
    (tmp_path / "Twitch" / "PT" / "raw" / "PT.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="twitch-pt") as caught:
        load("twitch-pt", tmp_path)
    assert "\n" not in str(caught.value)


def file_card(outside, tmp_path, **changes) -> str:
    split = {"kind": "file", "path": "s/ids.npz", "repository": "github.com/a/b", "commit": "c", "origin": "d.npz"}
    splits = {"shipped": {**split, **changes}, "random": {"kind": "random"}}
    return write_card(tmp_path / "mine.yaml", loader="outside_pkg:graph", splits=splits)


def test_split_file_is_taken_from_the_data_root_and_its_hash_checked(outside, tmp_path, offline):
    (tmp_path / "s").mkdir()
    np.savez(tmp_path / "s" / "ids.npz", train=[0, 1], valid=[2], test=[3, 4])
    right = hashlib.sha256((tmp_path / "s" / "ids.npz").read_bytes()).hexdigest()
    data = load(file_card(outside, tmp_path, sha256=right), tmp_path)
    assert (data.split, data.train_mask.nonzero().view(-1).tolist()) == ("shipped", [0, 1])
    with pytest.raises(InputError, match=r"SHA-256.*--split random"):
        load(file_card(outside, tmp_path, sha256="0" * 64), tmp_path)


@pytest.mark.parametrize("fetch", [True, False])
def test_absent_split_file_says_where_it_is_from_and_what_else_runs(outside, tmp_path, offline, fetch):
    path = file_card(outside, tmp_path, sha256="0" * 64, fetch=fetch)
    with pytest.raises(InputError, match=r"github.com/a/b at c, d.npz.*--split random"):
        load(path, tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert load(path, tmp_path / "root", split="random").split == "random"


def test_pokec_reads_the_published_layout(tmp_path, offline):
    from scipy.io import savemat

    raw = tmp_path / "pokec" / "raw"
    raw.mkdir(parents=True)
    label, ends = np.arange(12) % 2, np.stack([np.arange(12), np.roll(np.arange(12), 1)])
    label[5] = -1
    arrays = {"edge_index": ends, "node_feat": np.random.default_rng(0).random((12, 65)), "num_nodes": 12}
    savemat(raw / "pokec.mat", {**arrays, "label": label[None]})
    data = load("pokec", tmp_path)
    assert data.x.shape == (12, 65)
    assert data.edge_index.size(1) == 24
    assert data.y.tolist() == label.tolist()
    assert not (data.train_mask | data.val_mask | data.test_mask)[5]
    assert card("pokec").exercised == "fixture"


def test_twitch_gamer_reads_the_published_layout(tmp_path, offline):
    raw = tmp_path / "twitch-gamer" / "raw"
    raw.mkdir(parents=True)
    head = "views,mature,life_time,created_at,updated_at,numeric_id,dead_account,language,affiliate\n"
    rows = [f"{i * 7},{i % 2},{i},2016-02-{i + 1:02},2018-10-12,{i},0,{'EN' if i % 3 else 'DE'},1" for i in range(10)]
    (raw / "twitch-gamer_feat.csv").write_text(head + "\n".join(rows[::-1]))  # ids, not positions, say who is who
    edges = "\n".join(f"0,{i}" for i in range(1, 10))
    (raw / "twitch-gamer_edges.csv").write_text(f"numeric_id_1,numeric_id_2\n{edges}\n")
    data = load("twitch-gamer", tmp_path)
    assert data.x.shape == (10, 7)
    assert data.x[:, 0].std().item() == pytest.approx(1)
    assert data.y.tolist() == [i % 2 for i in range(10)][::-1]
    assert data.edge_index[0].bincount().argmax() == 9  # account 0 is in the last row
    assert card("twitch-gamer").exercised == "fixture"


def test_twitch_gamer_edge_to_an_unknown_account_is_refused(tmp_path, offline):
    test_twitch_gamer_reads_the_published_layout(tmp_path, offline)
    edges = tmp_path / "twitch-gamer" / "raw" / "twitch-gamer_edges.csv"
    edges.write_text(edges.read_text() + "3,999\n")
    (tmp_path / "twitch-gamer" / "processed" / "data.pt").unlink()
    with pytest.raises(InputError, match="edge"):
        load("twitch-gamer", tmp_path)
