"""Real graphs, where their files are at hand: each loads by name, offline, and is what its card says.

The files are looked for in the folder that MOWST_TEST_DATA names, or in ../shared/data beside the repository.
"""

import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from torch_geometric.utils import contains_self_loops, is_undirected

from mowst.data import check, load
from mowst.data.cards import card

DATA = Path(os.environ.get("MOWST_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
NAMES = """cora pubmed computers photo cs cora-ml dblp actor cornell texas tolokers chameleon-filtered
squirrel-filtered reed98 amherst41 cornell5 twitch-de twitch-en twitch-es twitch-fr twitch-pt twitch-ru github facebook
blogcatalog flickr-small polblogs"""
SLOW = {"blogcatalog", "cornell5", "cs", "flickr-small"}


@pytest.fixture
def root(request, tmp_path, monkeypatch):
    """Copy the files of one dataset, and cut the network."""
    source = DATA / card(request.param).folder
    if not source.is_dir():
        pytest.skip(f"no files of {request.param}: set MOWST_TEST_DATA to a folder that has {source.name}/")
    shutil.copytree(source, tmp_path / source.name, ignore=shutil.ignore_patterns("processed"))

    def refuse(*args, **options):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def marked(names):
    return [pytest.param(name, name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


@pytest.mark.parametrize(("root", "name"), marked(NAMES.split()), indirect=["root"])
def test_real_graph_loads_by_name_as_its_card_says(root, name):
    data, entry = load(name, root), card(name)
    assert data.count_mismatch is None
    assert data.metric == entry.metric
    assert data.split == next(iter(entry.splits))
    assert is_undirected(data.edge_index)
    assert not contains_self_loops(data.edge_index)
    check(data)
    masks = data.train_mask.long() + data.val_mask.long() + data.test_mask.long()
    assert int(masks.max()) == 1
    assert not masks[data.y < 0].any()
    if data.split == "random":
        assert torch.equal(masks, (data.y >= 0).long())
    assert entry.exercised == "real"


@pytest.mark.parametrize(("root", "name"), marked(["cora", "pubmed"]), indirect=["root"])
def test_geom_gcn_masks_follow_the_seed_and_borrow_the_shared_files(root, name):
    first, third, eleventh = (load(name, root, split="geom-gcn", seed=seed) for seed in (0, 2, 10))
    assert not torch.equal(first.train_mask, third.train_mask)
    assert torch.equal(first.train_mask, eleventh.train_mask)
    assert first.count_mismatch is None
    assert load(name, root).split == "public"


@pytest.mark.parametrize(("root", "name"), marked(["photo"]), indirect=["root"])
def test_absent_index_file_of_a_real_graph_leaves_the_random_split(root, name):
    shutil.rmtree(root / "Amazon" / "Photo" / "splits")
    with pytest.raises(ValueError, match=r"tunedGNN.*--split random"):
        load(name, root)
    assert load(name, root, split="per-class").train_mask.sum() == 160
