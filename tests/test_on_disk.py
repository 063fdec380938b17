"""What lies in files and is mapped is what it would be in memory, bit for bit, and is made anew where it is damaged."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from mowst.data import open_graph
from mowst.data.ogbn import ogbn
from mowst.experiment import Config, ExpertConfig, prepare, run, scoring
from mowst.experiment import building as building_of
from mowst.kernels import Adjacency, blocks, degrees, is_symmetric, turning
from mowst.kernels.turning import transpose
from mowst.models import Gated, Known, pieces
from mowst.system import Mapped
from tests.test_data_ogbn import write_arxiv

CPU = torch.device("cpu")


def matrix(rows, width, seed, symmetric=False):
    """Return a random matrix of ones by rows, with empty rows and columns."""
    generator = np.random.default_rng(seed)
    held = scipy.sparse.random_array((rows, width), density=0.3, rng=generator, format="csr") != 0
    held = ((held + held.T) != 0).tocsr() if symmetric else held.tocsr()
    held.sort_indices()
    return held


@pytest.mark.parametrize("wide", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(40, 40), (50, 7), (90, 60)])
def test_a_transpose_in_blocks_is_the_transpose(shape, wide, monkeypatch):
    monkeypatch.setattr(turning, "BLOCK", 5)
    for seed in range(5):
        held = matrix(*shape, seed)
        start, column = torch.from_numpy(held.indptr), torch.from_numpy(held.indices).to(wide)
        assert len(list(turning.turned(start, column, turning.begins(column, shape[1])))) > 1
        found, expected = transpose(start, column, shape[1]), held.T.tocsr()
        assert found[0].tolist() == expected.indptr.tolist()
        assert found[1].tolist() == expected.indices.tolist()
        assert (found[0].dtype, found[1].dtype) == (start.dtype, wide)


def test_a_matrix_is_its_own_transpose_or_not(monkeypatch):
    monkeypatch.setattr(turning, "BLOCK", 5)
    for seed in range(5):
        held = matrix(30, 30, seed, symmetric=True)
        start, column = torch.from_numpy(held.indptr), torch.from_numpy(held.indices)
        assert is_symmetric(start, column)
        assert transpose(start, column, 30)[1] is column
        ring = scipy.sparse.csr_array(np.roll(np.eye(30), 1 + seed, 1))  # as many edges into each node as out of it
        other = torch.from_numpy(ring.indptr), torch.from_numpy(ring.indices)
        assert not is_symmetric(*other)


def test_blocks_follow_each_other_and_no_row_is_cut():
    start = torch.tensor([0, 0, 3, 4, 90, 90, 91, 95])
    found = list(blocks(start, 4))
    assert [first for first, _ in found] == [0, *[last for _, last in found[:-1]]]
    assert found[-1][1] == 7
    assert all(int(start[last] - start[first]) < 4 + 86 for first, last in found)


def test_degrees_in_blocks_are_those_of_the_whole(monkeypatch):
    held = matrix(40, 40, 1)
    held.setdiag(0)
    held.eliminate_zeros()
    source, target = (torch.from_numpy(each).long() for each in held.nonzero())
    edges = torch.stack([source, target])
    monkeypatch.setattr(degrees, "blocks", partial(blocks, entries=7))
    adjacency = Adjacency.from_edge_index(edges, 40)
    expected = torch.zeros(40, 40).index_put_(tuple(edges.flip(0)), torch.ones(len(source)))
    (norm, weight) = gcn_norm(edges, None, 40)
    normed = torch.zeros(40, 40).index_put_(tuple(norm.flip(0)), weight)
    each = torch.eye(40)
    assert torch.equal(adjacency.gcn().times(each), normed)
    assert torch.equal(adjacency.averaging().times(each), (expected / expected.sum(1, keepdim=True)).nan_to_num(0.0))
    assert degrees.has_loops(Adjacency.from_edge_index(torch.tensor([[0, 3], [1, 3]]), 4).rows)
    assert not degrees.has_loops(adjacency.rows)


# --- Tensors that are kept


def made(calls):
    calls.append(1)
    return torch.arange(5, dtype=torch.int32), torch.randn(3, 2, generator=torch.Generator().manual_seed(0))


def test_what_is_kept_is_what_was_made_and_is_made_once(tmp_path):
    calls = []
    expected = made([])
    for _ in range(3):
        found = Mapped(tmp_path, "key")("name", partial(made, calls))
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert len(calls) == 1
    found[0].add_(1)  # a process's own
    assert torch.equal(Mapped(tmp_path, "key")("name", partial(made, calls))[0], expected[0])
    Mapped(tmp_path, "other key")("name", partial(made, calls))
    Mapped(tmp_path, "key")("other", partial(made, calls))
    assert len(calls) == 3


@pytest.mark.parametrize("how", ["a bit", "cut", "gone", "hashes", "no hashes", "pickle"])
def test_what_is_damaged_is_made_anew(tmp_path, how):
    calls = []
    Mapped(tmp_path, "key")("name", partial(made, calls))
    array, hashes = tmp_path / "key" / "name" / "1.npy", tmp_path / "key" / "name" / "sha256.json"
    held = array.read_bytes()
    if how == "a bit":
        array.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    elif how == "cut":
        array.write_bytes(held[:-3])
    elif how == "gone":
        array.unlink()
    elif how == "pickle":
        np.save(array, np.array([{}], dtype=object), allow_pickle=True)
    else:
        hashes.write_text(json.dumps({"hashes": 1}) if how == "hashes" else "{")
    for _ in range(2):
        found = Mapped(tmp_path, "key")("name", partial(made, calls))
        assert all(torch.equal(one, other) for one, other in zip(found, made([]), strict=True))
    assert len(calls) == 2
    assert array.read_bytes() == held


def test_where_nothing_can_be_written_it_is_in_memory(tmp_path):
    (tmp_path / "file").write_text("")
    found = Mapped(tmp_path / "file", "key")("name", partial(made, []))
    assert all(torch.equal(one, other) for one, other in zip(found, made([]), strict=True))


@pytest.mark.parametrize("directed", [False, True])
def test_an_adjacency_on_disk_is_the_one_in_memory(tmp_path, monkeypatch, directed):
    data = open_graph("tests.graphs:good").of_seed(0)
    if directed:
        data.edge_index = data.edge_index[:, ::2]
    config = Config(dataset="tests.graphs:good", data_root=str(tmp_path))
    expected = prepare(data, config, CPU).adj_t
    assert not (tmp_path / "adjacency").exists()
    monkeypatch.setattr(building_of, "LARGE", 1)
    for _ in range(2):
        found = prepare(data, config, CPU).adj_t
        x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        for one, other in ((found, expected), (found.averaging(), expected.averaging())):
            assert torch.equal(one.times(x), other.times(x))
            assert torch.equal(one.columns.times(x), other.columns.times(x))
        assert torch.equal(found.gcn().times(x), expected.gcn().times(x))
        assert torch.equal(found.edge_index, expected.edge_index)
    (folder,) = (tmp_path / "adjacency").iterdir()
    assert {each.name for each in folder.iterdir()} == {"plain", "mean-torch.float32", "gcn-torch.float32"}
    data.edge_index = data.edge_index.flip(0)[:, 1:]
    assert torch.equal(prepare(data, config, CPU).adj_t.edge_index, data.edge_index)
    assert len(list((tmp_path / "adjacency").iterdir())) == 2


def test_features_and_edges_of_ogb_stay_in_their_file(tmp_path):
    folder = write_arxiv(tmp_path)
    data = ogbn(str(tmp_path), "ogbn-arxiv")
    (path,) = (folder / "processed").glob("geometric*.pt")
    before = path.read_bytes()
    held = torch.load(path, weights_only=False)[0]
    for key in ("x", "edge_index"):
        assert torch.equal(data[key], held[key])
        assert not data[key].untyped_storage().resizable()  # as of what is mapped
        data[key].zero_()  # a process's own
    assert path.read_bytes() == before


# --- What is said of all nodes


def known(nodes):
    generator = torch.Generator().manual_seed(nodes)
    weak, strong = torch.randn(2, nodes, 3, generator=generator)
    gated = Gated(torch.rand(nodes, generator=generator), None)
    return Known(weak.bfloat16(), strong, gated, (torch.randn(nodes, 2, generator=generator),))


@pytest.mark.parametrize("sizes", [(7,), (4, 1, 6)])
def test_what_frozen_experts_say_is_the_same_in_a_file(sizes, monkeypatch):
    parts = [known(size) for size in sizes]
    expected = [torch.cat(each) for each in zip(*map(pieces.tensors_of, parts), strict=True)]
    for share, in_file in ((1.0, False), (0.0, True)):
        monkeypatch.setattr(pieces, "SHARE", share)
        found = pieces.gathered(iter(parts), sum(sizes))
        assert type(found) is Known
        for one, other in zip(pieces.tensors_of(found), expected, strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype
            assert one.untyped_storage().resizable() != in_file
        assert found.averaged == ()
        assert found.gated.scale is None


REGIMES = {
    "panels of frozen experts, and promises": {"regime": "held-out", "coverage": 0.7, "use_validation": True},
    "a router that is old": {"regime": "fine-tuned", "diffusion": 0.3, "coverage": 0.7, "abstain_risk": 0.7},
    "turns": {"regime": "alternate", "rounds": 1, "batch": "parts(2)", "signal": "loss"},
}


def left(folder):
    """What a run says, seconds aside, and all its arrays."""
    with np.load(folder / "seed-0" / "predictions.npz") as held:
        arrays = {name: held[name].tobytes() for name in held}
    record = json.loads((folder / "seed-0" / "result.json").read_text())
    trust, drawn = ((folder / "seed-0" / name).read_text() for name in ("trust.json", "figures.json"))
    return arrays, record["scores"], record["trust"], record["diagnosis"], trust, drawn


@pytest.mark.parametrize("case", REGIMES)
def test_a_run_is_the_same_where_what_experts_say_is_in_files(case, tmp_path, monkeypatch):
    kind = "gcn+neighbours" if REGIMES[case]["regime"] == "held-out" else "sage"
    weak, strong = (ExpertConfig(kind=each, hidden_channels=4) for each in ("mlp", kind))
    config = Config(dataset="tests.graphs:good", seeds=1, epochs=4, patience=4, weak=weak, strong=strong)
    config = dataclasses.replace(config, device="cpu", **REGIMES[case])
    monkeypatch.setattr(pieces, "ROWS", 7)
    for share in (1.0, 0.0):
        monkeypatch.setattr(pieces, "SHARE", share)
        run(config, tmp_path / str(share))
    assert left(tmp_path / "0.0") == left(tmp_path / "1.0")


def test_labels_are_not_spread_where_that_takes_too_much_memory(monkeypatch):
    config = Config(dataset="tests.graphs:good", seeds=1, epochs=2, device="cpu")
    config = dataclasses.replace(config, strong=ExpertConfig(kind="gcn", hidden_channels=4))
    usual = run(config)
    monkeypatch.setattr(scoring, "TO_SPREAD", 100)
    found = run(config)
    assert usual["scores"].keys() - found["scores"].keys() == {"label-propagation", "correct-and-smooth"}
    assert all(found["scores"][name] == usual["scores"][name] for name in found["scores"])
    assert "Labels were not spread" in found["notes"][0]
    assert "notes" not in usual
