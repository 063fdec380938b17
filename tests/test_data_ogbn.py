"""OGB's own loader on a small graph in ogbn-arxiv's raw layout, with no network, no stdin and no questions."""

import gzip
import os
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import mowst
from mowst.data import load
from mowst.data.ogbn import ogbn, unzip
from mowst.errors import InputError

NODES = 60


def write_arxiv(home: Path) -> Path:
    """Write a ring of 60 nodes, labels by residue, as `<home>/ogbn_arxiv`; returns that folder."""
    folder = home / "ogbn_arxiv"
    rows = np.arange(NODES)
    files = {
        "raw/edge": np.stack([rows, np.roll(rows, 1)], 1),
        "raw/node-feat": np.random.default_rng(0).random((NODES, 4)).round(3),
        "raw/node-label": rows % 5,
        "raw/node_year": 2000 + rows % 20,
        "raw/num-node-list": np.array([NODES]),
        "raw/num-edge-list": np.array([NODES]),
        "split/time/train": rows[:30],
        "split/time/valid": rows[30:40],
        "split/time/test": rows[40:],
    }
    for name, array in files.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as out:
            np.savetxt(out, array.reshape(len(array), -1), fmt="%g", delimiter=",")
    return folder


def check_arxiv(data):
    assert data.x.shape == (NODES, 4)
    assert data.edge_index.size(1) == 2 * NODES
    assert data.y.tolist() == [i % 5 for i in range(NODES)]
    assert data.num_classes == 40
    assert [int(data[mask].sum()) for mask in ("train_mask", "val_mask", "test_mask")] == [30, 10, 20]


@pytest.mark.parametrize("place", ["", "OGB"])
def test_loads_twice_from_either_place_without_a_question(tmp_path, place, monkeypatch):
    folder = write_arxiv(tmp_path / place)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked a question"))
    for _ in range(2):  # the second time from ogb's own cache
        check_arxiv(load("ogbn-arxiv", tmp_path, download=False))
    assert (folder / "RELEASE_v1.txt").exists()


def test_loads_with_stdin_closed_no_warning_and_no_thread_that_outlives_it(tmp_path):
    write_arxiv(tmp_path)
    code = """import sys, threading
started, start = [], threading.Thread.start
threading.Thread.start = lambda self: (self.daemon or started.append(self.name), start(self))
from mowst.data import load
nodes = load("ogbn-arxiv", sys.argv[1]).num_nodes
print(nodes, started)"""
    environment = {**os.environ, "PYTHONPATH": str(Path(mowst.__file__).parent.parent)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.stdout.strip() == f"{NODES} []", done.stderr
    assert not [line for line in done.stderr.splitlines() if "Warning" in line and "torch/jit" not in line]


def test_masks_do_not_share_read_only_memory(tmp_path):
    write_arxiv(tmp_path)
    data = load("ogbn-arxiv", tmp_path)
    data.train_mask[0] = False
    data.x[0, 0] = 2.0
    data.y[0] = 3


def test_split_kept_as_numpy_pickle_is_read_and_nothing_else_is(tmp_path):
    folder = write_arxiv(tmp_path)
    parts = {"train": np.arange(30), "valid": np.arange(30, 40), "test": np.arange(40, 60)}
    torch.save(parts, folder / "split" / "time" / "split_dict.pt")
    check_arxiv(load("ogbn-arxiv", tmp_path))
    torch.save({**parts, "train": Path("x")}, folder / "split" / "time" / "split_dict.pt")
    with pytest.raises(InputError, match="ogbn-arxiv"):
        load("ogbn-arxiv", tmp_path)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Serve an ogbn-arxiv archive in place of every URL; returns a function that says how large it claims to be."""
    write_arxiv(tmp_path / "source")
    (tmp_path / "source" / "ogbn_arxiv").rename(tmp_path / "source" / "arxiv")
    path = tmp_path / "arxiv.zip"
    with zipfile.ZipFile(path, "w") as out:
        for member in (tmp_path / "source").rglob("*.gz"):
            out.write(member, member.relative_to(tmp_path / "source"))
    open_url, claimed = urllib.request.urlopen, {}

    def serve(url, *args, **options):
        answer = open_url(path.as_uri())
        for key, value in claimed.items():
            answer.headers.replace_header(key, str(value))
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", serve)
    return lambda size: claimed.update({"Content-Length": size})


def test_download_is_unzipped_into_place_and_nothing_beside_it(tmp_path, archive):
    check_arxiv(load("ogbn-arxiv", tmp_path / "root"))
    assert sorted(path.name for path in (tmp_path / "root" / "OGB").iterdir()) == [".mowst.lock", "ogbn_arxiv"]
    assert not list((tmp_path / "root").glob(".*"))


def test_large_download_is_refused_unless_asked_for(tmp_path, archive, monkeypatch):
    archive(3 * 2**30)
    monkeypatch.delenv("MOWST_YES", raising=False)
    with pytest.raises(InputError, match=r"3\.0 GB.*MOWST_YES"):
        load("ogbn-arxiv", tmp_path / "root")
    assert not (tmp_path / "root").exists()
    check_arxiv(load("ogbn-arxiv", tmp_path / "root", download="large"))


def test_large_download_may_be_asked_for_by_the_environment(tmp_path, archive, monkeypatch):
    archive(3 * 2**30)
    monkeypatch.setenv("MOWST_YES", "1")
    check_arxiv(load("ogbn-arxiv", tmp_path / "root"))


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "a/../../outside.txt", "C:/outside.txt"])
def test_archive_member_that_leads_out_is_not_extracted(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as out:
        out.writestr("fine.txt", "")
        out.writestr(name, "")
    with pytest.raises(InputError, match="leads out"):
        unzip(tmp_path / "bad.zip", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_unknown_ogb_name_lists_the_choices(tmp_path):
    with pytest.raises(InputError, match=r"ogbn-nothing.*ogbn-arxiv"):
        ogbn(str(tmp_path), "ogbn-nothing")
