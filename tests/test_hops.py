"""Averages over hops, made once and kept on disk: rows are all that is run, and say what the graph would have said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from graphkd import Scope
from mowst.errors import InputError
from mowst.experiment import Config, ExpertConfig, Opened, read_config, run
from mowst.experiment.reload import ask
from mowst.kernels import Adjacency, Rows, SparseFeatures, prepare_features
from mowst.models import OnDisk
from mowst.models.averages import averages
from mowst.training import Batch, Hops, Needs, feed_of
from tests.graphs import good

SIGN = ExpertConfig(kind="sign", hidden_channels=8, dropout=0.0, norm="layer_norm")
CONFIG = Config(
    dataset="tests.graphs:good",
    weak=ExpertConfig(kind="mlp", hidden_channels=8),
    strong=SIGN,
    batch="hops(size=16)",
    epochs=4,
    rounds=1,
    seeds=1,
    device="cpu",
)


def graph(weighted: bool = False) -> Adjacency:
    edges = torch.randint(0, 25, (2, 120), generator=torch.Generator().manual_seed(3)).unique(dim=1)
    return Adjacency.from_edge_index(edges, 30, torch.rand(edges.size(1)) + 0.1 if weighted else None)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_what_lies_on_disk_is_what_would_be_in_memory(weighted, sparse, tmp_path, monkeypatch):
    torch.manual_seed(0)
    adjacency, plain = graph(weighted), torch.randn(30, 7) * (torch.rand(30, 7) < (0.05 if sparse else 1))
    x = prepare_features(plain)
    assert isinstance(x, SparseFeatures) == sparse
    monkeypatch.setattr("mowst.models.averages.NUMBERS", 60)  # two columns at a time
    disk = OnDisk(tmp_path, "key", x, adjacency)
    third, expected = disk.hop(3), averages(plain, adjacency, 3)
    for hop in (1, 2, 3):
        assert torch.equal(disk.hop(hop), expected[hop - 1])
        assert np.array_equal(np.load(disk.path(hop)), expected[hop - 1].numpy())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"key-hop-{hop}.npy" for hop in (1, 2, 3)]
    monkeypatch.setattr(Rows, "times", None)  # what is there is not made again
    assert torch.equal(OnDisk(tmp_path, "key", x, adjacency).hop(3), third)


HARMS = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "other": lambda path: np.save(path, np.zeros((3, 3))),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_file_that_is_no_whole_one_is_made_anew(harm, tmp_path):
    x, adjacency = torch.randn(30, 7), graph()
    OnDisk(tmp_path, "key", x, adjacency).hop(1)
    harm(tmp_path / "key-hop-1.npy")
    assert torch.equal(OnDisk(tmp_path, "key", x, adjacency).hop(1), averages(x, adjacency, 1)[0])


def test_a_full_disk_is_a_line_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match=r"key-hop-1\.npy: cannot be written: No space left on device"):
        OnDisk(tmp_path, "key", torch.randn(30, 7), graph()).hop(1)
    assert not list(tmp_path.iterdir())


def test_every_node_of_a_term_is_in_one_batch_of_an_epoch_and_judged_ones_come_in_order():
    whole, feed = Batch.of(good()), Hops(16)
    count, train = len(whole.y), whole.train_mask.nonzero().flatten().tolist()
    for on, expected in (({"train"}, train), ({"all"}, list(range(count)))):
        batches = feed.training(whole, Needs(0, Scope.NODE, frozenset(on)))
        first, second = ([batch.nodes for batch in batches(epoch)] for epoch in (1, 2))
        assert sorted(torch.cat(first).tolist()) == expected
        assert torch.cat(first).tolist() != torch.cat(second).tolist()
        assert max(map(len, first)) <= 16 or "all" in on
    asked = feed.asked(whole, 0, torch.tensor([7, 3, 5]))
    for _ in range(2):
        assert torch.cat([batch.nodes for batch in asked]).tolist() == [7, 3, 5]


@pytest.mark.parametrize("regime", ["held-out", "alternate"])
def test_no_product_is_taken_while_a_mixture_trains(regime, tmp_path, monkeypatch):
    opened = Opened(replace(CONFIG, regime=regime, data_root=str(tmp_path)))
    opened.seed(0).ready.x.averages(3)
    sizes, times = set(), Rows.times
    monkeypatch.setattr(Rows, "times", lambda self, x: sizes.add(len(x)) or times(self, x))
    assert opened.bench(0).train("mixture").history
    assert sizes <= {2}  # an expert is tried on two nodes when it is built


def test_one_batch_of_all_is_the_full_batch(tmp_path):
    lines = {"full": [], "hops(size=1000)": []}
    for batch, seen in lines.items():
        config = replace(CONFIG, batch=batch, mixture=False, data_root=str(tmp_path), weak=SIGN)
        run(config, hook=seen.append)
    one, other = lines.values()
    assert len(one) == len(other) == 8
    for key in ("loss", "val"):
        torch.testing.assert_close(
            *(torch.tensor([line[key] for line in each]) for each in (one, other)), atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize(
    "weak", ["mlp", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("hop-trees", "trees"))]
)
def test_a_mixture_predicts_again_from_its_folder(weak, tmp_path):
    config = replace(CONFIG, dataset="sbm", batch="hops", weak=ExpertConfig(kind=weak), epochs=30)
    config = replace(config, data_root=str(tmp_path / "data"))
    assert run(config, tmp_path / "out")["scores"]["mixture"]["test"][0] > 75
    assert len(list((tmp_path / "data" / "averages").iterdir())) == 3  # all experts and seeds share them
    folder = tmp_path / "out" / "seed-0"
    found, _ = ask(folder, read_config(folder), nodes=[5, 9], how="pooled", threshold=None, seed=0)
    assert np.allclose(found, np.load(folder / "predictions.npz")["mixture"][[5, 9]], atol=1e-6)


def test_what_needs_edges_is_refused(tmp_path):
    base = replace(CONFIG, data_root=str(tmp_path))
    for kind in ("gcn", "sage", "neighbours", "sign+gat"):
        with pytest.raises(
            InputError, match=r"batch: hops: the strong expert .* looks at edges, and these batches have"
        ):
            Opened(replace(base, strong=ExpertConfig(kind=kind)))
    with pytest.raises(InputError, match="batch: hops: a loss looks at edges; take"):
        run(replace(base, regime="alternate", kd="lsp(width=2)", teacher="strong"))
    assert feed_of("hops") == Hops() == feed_of("hops(size=1024)")
    for wrong in ("hops(3)", "hops(size=1)", "hops(depth=2)"):
        with pytest.raises(InputError, match="batch: must be auto"):
            feed_of(wrong)


def test_the_folder_of_graphs_that_cannot_be_written_is_a_line(tmp_path):
    (tmp_path / "averages").write_text("a file")
    with pytest.raises(InputError, match=r"hop-1\.npy: cannot be written"):
        run(replace(CONFIG, data_root=str(tmp_path)))
    assert Path(tmp_path / "averages").read_text() == "a file"
