"""What PyG keeps of a graph: whole or not there, made by one process at a time, elsewhere if it cannot be written."""

import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import mowst.data.preparing as preparing
from mowst.data import load
from mowst.errors import InputError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with the raw files of a small Twitch graph, and a cache folder of its own."""
    monkeypatch.setattr(preparing, "user_cache_path", lambda name: tmp_path / "cache" / name)
    raw = tmp_path / "data" / "Twitch" / "PT" / "raw"
    raw.mkdir(parents=True)
    rows = np.arange(20)
    np.savez(raw / "PT.npz", features=np.eye(20), target=rows % 2, edges=np.stack([rows, np.roll(rows, 1)], 1))
    return tmp_path / "data"


def held(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_prepared_graph_is_raw_files_and_a_copy_and_nothing_else(root):
    load("twitch-pt", root)
    assert held(root) == [
        f"Twitch/PT/{preparing.LOCK}",
        "Twitch/PT/processed/data.pt",
        "Twitch/PT/processed/pre_filter.pt",
        "Twitch/PT/processed/pre_transform.pt",
        "Twitch/PT/raw/PT.npz",
    ]


def test_a_full_disk_leaves_nothing_and_the_next_run_works(root, monkeypatch):
    def full(*args, **options):
        Path(args[1]).write_bytes(b"half")
        raise OSError(28, "No space left on device", args[1])

    with monkeypatch.context() as patch:
        patch.setattr("torch_geometric.io.fs.torch_save", full)
        with pytest.raises(InputError, match="No space left"):
            load("twitch-pt", root)
    assert held(root) == [f"Twitch/PT/{preparing.LOCK}", "Twitch/PT/raw/PT.npz"]
    assert load("twitch-pt", root).num_nodes == 20


@pytest.mark.parametrize("damage", [b"", b"half of it", None])
def test_a_copy_that_is_damaged_is_made_anew(root, damage):
    load("twitch-pt", root)
    copy = root / "Twitch/PT/processed/data.pt"
    copy.write_bytes(copy.read_bytes()[:500] if damage is None else damage)
    assert load("twitch-pt", root).num_nodes == 20
    assert torch.load(copy)


def test_raw_files_that_are_damaged_are_read_once_only(root, monkeypatch):
    from torch_geometric.datasets import Twitch

    times = []
    monkeypatch.setattr(Twitch, "process", lambda self: times.append(1) or 1 / 0)
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load("twitch-pt", root)
    assert len(times) <= 2
    assert not list(root.rglob("processed"))


def test_a_data_root_that_cannot_be_written_is_prepared_in_the_cache(root, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "writable", lambda folder: False)
    first = load("twitch-pt", root)
    assert held(root) == ["Twitch/PT/raw/PT.npz"]
    (copy,) = (tmp_path / "cache").rglob("data.pt")
    before = copy.stat().st_mtime_ns
    assert torch.equal(load("twitch-pt", root).x, first.x)
    assert copy.stat().st_mtime_ns == before
    raw = root / "Twitch/PT/raw/PT.npz"
    os.utime(raw, ns=(1, 1))  # other raw files are prepared anew
    load("twitch-pt", root)
    assert len(list((tmp_path / "cache").rglob("data.pt"))) == 2


def test_a_folder_is_writable_where_files_can_be_made(tmp_path, monkeypatch):
    assert preparing.writable(tmp_path / "not" / "there" / "yet")

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preparing.tempfile, "TemporaryFile", refuse)
    assert not preparing.writable(tmp_path)


def test_a_folder_that_was_made_for_nothing_is_gone(tmp_path):
    with preparing.turn(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_only_one_has_a_folder_at_a_time(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    inside, most = [], []

    def work():
        for _ in range(5):
            with preparing.turn(tmp_path / "a" / "b"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 20


def ask(root: Path, barrier, found) -> None:
    barrier.wait()
    found.put(load("twitch-pt", root).num_nodes)


def test_processes_that_prepare_the_same_graph_at_once_all_have_it(root):
    context = multiprocessing.get_context("fork")
    barrier, found = context.Barrier(4), context.Queue()
    processes = [context.Process(target=ask, args=(root, barrier, found)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [found.get(timeout=60) for _ in processes] == [20] * 4
    for process in processes:
        process.join()
    assert len(held(root)) == 5
