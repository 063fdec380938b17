"""Parts and neighbourhoods: which nodes are run, what stands for those left out, and that everything trains on them."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch_geometric.data import Data

import graphkd
from mowst.errors import InputError
from mowst.evaluation import accuracy, signal
from mowst.experiment import Config, ExpertConfig, Opened
from mowst.experiment.batching import Need, chosen_batch
from mowst.kernels import ALL, Adjacency, induced
from mowst.models import FusedGate, LearnedGate, LogisticGate, Mowst, expert, reads_of
from mowst.training import (
    REGIMES,
    Batch,
    Needs,
    Neighbours,
    Parts,
    Phase,
    Schedule,
    Term,
    Trainer,
    attached,
    cross_entropy,
    feed_of,
    feeds,
)
from tests.graphs import TRAINED

LAYERS = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm", "dropout": 0.2}
SCORE = signal("metric", accuracy)
FEEDS = {"parts": Parts(3), "neighbors": Neighbours((3, 2), 12)}
EDGES = Needs(2, graphkd.Scope.NODE, frozenset({"train"}))


@pytest.fixture
def ready(tiny) -> Data:
    tiny.adj_t = Adjacency.from_edge_index(tiny.edge_index, 60)
    return tiny


def directed(weighted: bool) -> Adjacency:
    """A directed graph with isolated nodes, a self-loop, and perhaps weights."""
    torch.manual_seed(3)
    edges = torch.randint(0, 25, (2, 120))
    edges = torch.cat([edges[:, edges[0] != edges[1]], torch.tensor([[4], [4]])], dim=1).unique(dim=1)
    return Adjacency.from_edge_index(edges, 30, torch.rand(edges.size(1)) + 0.1 if weighted else None)


# --- Which nodes and edges


def test_batches_made_ahead_are_the_same_and_so_is_what_goes_wrong(ready, monkeypatch):
    whole, feed = Batch.of(ready), Neighbours((3, 2), 12)
    made = [(batch.nodes, batch.graph.rows.column) for batch in feed.training(whole, EDGES)(4)]
    monkeypatch.setattr(feeds, "ahead", lambda batches: batches)
    plain = [(batch.nodes, batch.graph.rows.column) for batch in feed.training(whole, EDGES)(4)]
    assert len(made) == len(plain) > 1
    assert all(
        torch.equal(*pair) for one, other in zip(made, plain, strict=True) for pair in zip(one, other, strict=True)
    )
    monkeypatch.undo()

    def breaks() -> Iterator[Batch]:
        yield whole
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        list(feeds.ahead(breaks()))
    assert next(iter(feeds.ahead(itertools.repeat(whole)))) is whole  # and is left before its end


@pytest.mark.parametrize("weighted", [False, True])
def test_with_every_neighbour_a_part_is_the_whole_graph(weighted):
    whole, nodes = directed(weighted), torch.randperm(30, generator=torch.Generator().manual_seed(0))
    part = whole.thinned(induced(whole.rows, nodes))
    for ours, theirs in ((part, whole), (part.gcn(), whole.gcn()), (part.averaging(), whole.averaging())):
        expected = theirs.times(torch.eye(30))[nodes][:, nodes]
        torch.testing.assert_close(ours.times(torch.eye(30)), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("kind", ["neighbors", "parts"])
def test_with_every_neighbour_a_batch_says_what_the_whole_graph_says(ready, name, kind):
    torch.manual_seed(0)
    model = expert(name, 8, 3, **LAYERS)
    Trainer(model, ready, SCORE).fit(Phase("a while", ("",), (Term(cross_entropy),), epochs=3))
    feed = Neighbours((ALL,) * max(2, reads_of(model).hops), 12) if kind == "neighbors" else Parts(1)
    trainer = Trainer(model.eval(), ready, SCORE, feed=feed)
    whole = trainer.output().values
    needs = Needs(trainer.reads.hops, graphkd.Scope.NODE, frozenset({"train"}))
    for batch in feed.training(trainer.whole, needs)(1):
        places = batch.on["train"] if batch.seeds is None or batch.on["train"] is not None else batch.seeds
        said, ids = trainer._call(batch).values, batch.nodes
        places = torch.arange(len(ids)) if places is None else places
        torch.testing.assert_close(said[places], whole[ids[places]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("name", ["sage", "gin", "gcn"])
def test_a_first_layer_that_multiplies_features_misses_no_neighbour(ready, feed, name):
    torch.manual_seed(0)
    model = expert(name, 8, 16, **LAYERS | {"num_layers": 1}).eval()  # 8 features are fewer than 16 classes
    trainer = Trainer(model, ready, SCORE, feed=feed)
    whole, missed = trainer.output().values, 0
    for batch in feed.training(trainer.whole, EDGES)(1):
        torch.testing.assert_close(trainer._call(batch).values, whole[batch.nodes], atol=1e-5, rtol=0)
        missed += int((batch.graph.rows.start.diff() < trainer.whole.graph.rows.start.diff()[batch.nodes]).sum())
    assert missed


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("on", [{"train"}, {"all"}, {"train", "all"}])
@pytest.mark.parametrize("hops", [0, 2])
def test_every_node_of_a_term_is_in_one_batch_of_an_epoch(ready, feed, on, hops):
    whole = Batch.of(ready)
    batches = feed.training(whole, Needs(hops, graphkd.Scope.NODE, frozenset(on)))
    for epoch in (1, 2):
        seen = {term: [] for term in on}
        for batch in batches(epoch):
            for term in on:
                places = batch.on[term]
                seen[term] += batch.nodes.tolist() if places is None else batch.nodes[places].tolist()
        for term in on:
            expected = ready.train_mask.nonzero().flatten() if term == "train" else torch.arange(60)
            assert sorted(seen[term]) == expected.tolist()
    again = [batch.nodes.tolist() for batch in batches(1)]
    assert again == [batch.nodes.tolist() for batch in batches(1)]
    assert again != [batch.nodes.tolist() for batch in batches(2)]


# --- Training


@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize(
    "name", ["held-out", "joint", *(pytest.param(each, marks=pytest.mark.slow) for each in ("fine-tuned", "alternate"))]
)
def test_every_regime_trains(ready, feed, name):
    regime, scores = REGIMES.lookup(name), list[float]()
    for seed in range(3):
        gate, router = (FusedGate, LogisticGate()) if regime.holds_out else (LearnedGate, None)
        torch.manual_seed(seed)
        model = Mowst(expert("mlp", 8, 3, **LAYERS), expert("gcn", 8, 3, **LAYERS), gate(), router=router)
        trainer = Trainer(model, ready, SCORE, feed=feed)
        outcome = regime(trainer, Schedule(epochs=12, lr=0.02, rounds=1, pretrain="both"))
        scores.append(trainer.best.score)
        assert (outcome.twins is not None) == regime.holds_out
    assert min(scores) > 0.45  # chance is a third
    assert sum(scores) / 3 > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("name", TRAINED)
def test_every_expert_trains(ready, feed, name):
    torch.manual_seed(0)
    trainer = Trainer(expert(name, 8, 3, **LAYERS), ready, SCORE, feed=feed)
    trainer.fit(Phase("parts", ("",), (Term(cross_entropy),), epochs=20, lr=0.02))
    assert trainer.best.score > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("feed", FEEDS.values(), ids=FEEDS)
@pytest.mark.parametrize("spec", ["nkd", "krd", "gld(k=2)", "ofa", "lsp(width=2)"])
def test_the_strong_expert_teaches(ready, feed, spec):
    model = Mowst(expert("mlp", 8, 3, **LAYERS), expert("sage", 8, 3, **LAYERS), LearnedGate())
    trainer = Trainer(model, ready, SCORE, feed=feed)
    with attached(graphkd.build(spec), trainer, "weak", "strong") as terms:
        REGIMES.lookup("alternate")(trainer, Schedule(epochs=3, rounds=1), extra=terms)
    assert all(value.isfinite().all() for value in trainer.best.weights.values())


# --- What is asked for


def test_specifications():
    assert feed_of("parts(10)", 3) == Parts(10, 3)
    assert feed_of("neighbors(15, 10,-1)") == Neighbours((15, 10, -1))
    assert feed_of("neighbors(5,size=64)") == Neighbours((5,), 64)
    assert feed_of("neighbors(5, size = 64)") == Neighbours((5,), 64)
    for wrong in ("parts", "parts()", "parts(0)", "parts(2,3)", "parts(x)", "full(2)", "neighbors", "neighbors(0)",
                  "neighbors(3,size=1)", "neighbors(3,depth=1)", "", "parts(2", "parts(1e9)"):  # fmt: skip
        with pytest.raises(InputError, match="batch: must be auto, full, parts"):
            feed_of(wrong)
    with pytest.raises(InputError, match="batch: must be"):
        Config(batch="half")


def test_what_a_graph_or_its_experts_cannot_have_is_a_line(ready):
    small = {"dataset": "tests.graphs:good", "device": "cpu"}
    with pytest.raises(InputError, match=r"parts\(500\): there are 30 training nodes"):
        Opened(Config(batch="parts(500)", **small))
    with pytest.raises(InputError, match="1 fan-outs, and the strong expert 2 layers; give 2 numbers"):
        Opened(Config(batch="neighbors(5)", **small))
    with pytest.warns(UserWarning, match="3 fan-outs, and the strong expert 2 layers, which need the first 2 numbers"):
        Opened(Config(batch="neighbors(5,5,5)", **small))
    with pytest.raises(InputError, match="the model reaches 3 hops; give 3"):
        Neighbours((2, 2)).training(Batch.of(ready), EDGES._replace(hops=3))
    with pytest.raises(InputError, match="how far this model reaches is not known"):
        Neighbours((2, 2)).training(Batch.of(ready), EDGES._replace(hops=None))
    with pytest.raises(InputError, match="training nodes; take fewer parts"):
        Parts(70).training(Batch.of(ready), EDGES)


def test_auto_is_the_whole_graph_where_memory_allows_and_says_where_not(capsys):
    gib = 2**30
    assert chosen_batch(Need(6.9 * gib, gib), 10 * gib, 1000) == "full"
    assert capsys.readouterr().err == ""
    assert chosen_batch(Need(30 * gib, 2 * gib), 10 * gib, 1000) == "parts(6)"
    assert "takes some 30.0 GiB and 10.0 GiB are free: --batch parts(6)" in capsys.readouterr().err
    assert chosen_batch(Need(30 * gib, 20 * gib), 10 * gib, 4) == "parts(4)"
    config = Config(dataset="tests.graphs:good", device="cpu", strong=ExpertConfig("sage"))
    assert Opened(config).config.batch == "full"
