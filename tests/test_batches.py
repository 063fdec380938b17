"""Which nodes are run: a feed of one's own needs one file, and no trainer, regime or loss knows of it."""

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

import graphkd
from graphkd import Scope, Signals
from mowst.evaluation import accuracy, signal
from mowst.kernels import Adjacency, prepare_features
from mowst.models import FusedGate, LearnedGate, LogisticGate, Mowst, expert, reads_of
from mowst.training import REGIMES, Batch, Needs, Phase, Schedule, Term, Trainer, Whole, attached, cross_entropy
from mowst.training.batches import hide
from tests.graphs import TRAINED
from tests.halves import Halves

LAYERS = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm", "dropout": 0.2}
SCORE = signal("metric", accuracy)


@pytest.fixture
def ready(tiny) -> Data:
    """The tiny graph with its adjacency prepared, and a column of the user's own."""
    tiny.adj_t = Adjacency.from_edge_index(tiny.edge_index, 60)
    tiny.weight = torch.arange(60.0)
    return tiny


def mixture(strong: str = "gcn", gate=LearnedGate, **options) -> Mowst:
    torch.manual_seed(0)
    return Mowst(expert("mlp", 8, 3, **LAYERS), expert(strong, 8, 3, **LAYERS), gate(), **options)


@pytest.mark.parametrize("name", TRAINED)
def test_in_two_halves_every_expert_says_what_it_says_on_the_whole_graph(ready, name):
    torch.manual_seed(0)
    model = expert(name, 8, 3, **LAYERS)
    feed = Halves(max(2, reads_of(model).hops))
    trainer = Trainer(model, ready, SCORE, feed=feed)
    trainer.fit(Phase("a while", ("",), (Term(cross_entropy),), epochs=3))  # so that running statistics are not fresh
    said = trainer.output().values
    assert max(len(batch.y) for batch in feed.seen) < 60 or name != "mlp"
    torch.testing.assert_close(said, Trainer(model, ready, SCORE).output().values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", TRAINED)
def test_every_expert_trains_in_halves(ready, name):
    torch.manual_seed(0)
    model = expert(name, 8, 3, **LAYERS)
    trainer = Trainer(model, ready, SCORE, feed=Halves(max(2, reads_of(model).hops)))
    trainer.fit(Phase("halves", ("",), (Term(cross_entropy),), epochs=40, lr=0.02))
    assert trainer.best.score > 0.6


@pytest.mark.parametrize("name", ["held-out", "fine-tuned", "joint", "alternate"])
@pytest.mark.parametrize("strong", ["sage", "gcn"])
def test_every_regime_trains_in_halves(ready, name, strong):
    regime = REGIMES.lookup(name)
    gate, router = (FusedGate, LogisticGate()) if regime.holds_out else (LearnedGate, None)
    model = mixture(strong, gate, router=router)
    feed = Halves()
    trainer = Trainer(model, ready, SCORE, feed=feed)
    outcome = regime(trainer, Schedule(epochs=25, lr=0.02, rounds=2, pretrain="both"))
    assert trainer.best.score > 0.6
    assert (outcome.twins is not None) == regime.holds_out
    assert any(batch.nodes is not None and len(batch.nodes) < 60 for batch in feed.seen)
    whole = Trainer(model, ready, SCORE).output()
    for ours, theirs in zip(trainer.output()[:2], whole[:2], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "spec", ["nkd", "krd", "gld(k=2)", "gld(k=2,on=train)", "ofa", "lsp(width=5)", "nkd(on=train)", "rkd(of=hidden)"]
)
@pytest.mark.parametrize("name", ["held-out", "joint", "alternate"])
def test_the_strong_expert_teaches_in_halves(ready, spec, name):
    regime, losses = REGIMES.lookup(name), graphkd.build(spec)
    if regime.holds_out and spec in ("ofa", "rkd(of=hidden)"):
        pytest.skip("hidden layers are not taught to twins, which a configuration says")
    model = mixture("sage", FusedGate if regime.holds_out else LearnedGate)
    trainer = Trainer(model, ready, SCORE, feed=Halves())
    with attached(losses, trainer, "weak", "strong") as terms:
        regime(trainer, Schedule(epochs=4, rounds=1), extra=terms)
    assert trainer.best.score > 0.3
    assert all(value.isfinite().all() for value in trainer.best.weights.values())


def test_hidden_layers_of_a_frozen_expert_are_those_of_the_nodes_of_a_batch(ready):
    model, seen = mixture("sage"), {}
    for feed in (Halves(), Whole()):
        trainer = Trainer(model, ready, SCORE, feed=feed)
        with attached(graphkd.build("rkd(of=hidden)"), trainer, "weak", "strong") as terms:
            phase = Schedule(epochs=1).phase("weak", ("weak", "gate"), Term(cross_entropy), *terms)
            seen[type(feed)] = trainer._known(phase)
    (ours,), (theirs,) = seen[Halves].layers, seen[Whole].layers
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    nodes = torch.tensor([9, 4, 33])
    part = dataclasses.replace(Batch.of(ready), known=seen[Whole]).alone(nodes)
    assert torch.equal(part.known.layers[0], theirs[nodes])


@pytest.mark.parametrize("spec", ["nkd", "krd", "gld(k=2)", "ofa", "kd(on=train)", "uskd"])
@pytest.mark.parametrize("student", ["mlp", "gcn"])
def test_a_frozen_teacher_teaches_a_student_in_halves(ready, spec, student):
    torch.manual_seed(0)
    teacher = Signals(4 * torch.nn.functional.one_hot(ready.y, 3).float(), reliability=torch.ones(60))
    trainer = Trainer(expert(student, 8, 3, **LAYERS), ready, SCORE, feed=Halves(), teacher=teacher)
    with attached(graphkd.build(spec), trainer) as terms:
        REGIMES.lookup("solo")(trainer, Schedule(epochs=30, lr=0.02), extra=terms)
    assert trainer.best.score > 0.5


def test_a_batch_carries_the_rows_of_everything(ready):
    teacher = Signals(torch.randn(60, 3), (torch.randn(60, 4),), torch.rand(60))
    whole = Batch.of(ready, teacher)
    nodes = torch.tensor([7, 3, 40, 12])
    for part in (whole.alone(nodes), whole.among(nodes, 2)):
        assert torch.equal(part.x, ready.x[nodes])
        assert torch.equal(part.y, whole.y[nodes])
        assert torch.equal(part.data.weight, ready.weight[nodes])
        assert torch.equal(part.teacher.logits, teacher.logits[nodes])
        assert torch.equal(part.teacher.hidden[0], teacher.hidden[0][nodes])
        assert torch.equal(part.teacher.reliability, teacher.reliability[nodes])
        assert torch.equal(part.nodes, nodes)
    part = whole.among(nodes, 2)
    joined = ready.adj_t.rows.entries()
    dense = torch.zeros(60, 60).index_put_(joined, torch.ones(len(joined[0])))
    own = torch.zeros(4, 4).index_put_((part.edge_index[1], part.edge_index[0]), torch.ones(part.edge_index.size(1)))
    assert torch.equal(own, dense[nodes][:, nodes])
    assert part.on["train"].tolist() == [place for place in (0, 1) if ready.train_mask[nodes[place]]]


def test_degrees_of_a_part_are_those_of_the_whole_graph(ready):
    nodes, identity = torch.tensor([7, 3, 40, 12, 0, 59]), torch.eye(60)
    part = ready.adj_t.within(nodes)
    pairs = (ready.adj_t, part), (ready.adj_t.gcn(), part.gcn()), (ready.adj_t.averaging(), part.averaging())
    for whole, own in pairs:
        assert torch.equal(own.times(torch.eye(6)), whole.times(identity)[nodes][:, nodes])
    weighted = Adjacency.from_edge_index(ready.edge_index, 60, torch.rand(ready.edge_index.size(1)))
    inside = weighted.within(nodes)
    assert torch.equal(inside.times(torch.eye(6)), weighted.times(identity)[nodes][:, nodes])
    assert torch.equal(inside.gcn().times(torch.eye(6)), weighted.gcn().times(identity)[nodes][:, nodes])


def test_labels_outside_the_training_mask_are_in_no_batch(ready):
    whole = Batch.of(ready)
    assert (whole.y[~ready.train_mask] == -100).all()
    assert torch.equal(whole.y[ready.train_mask], ready.y[ready.train_mask])
    assert torch.equal(hide(ready.y, ready.train_mask), whole.y)
    fewer = whole.trained_on(torch.tensor([0, 1, 2]))
    assert (fewer.y != -100).sum() == int(ready.train_mask[:3].sum())
    assert fewer.train_mask.nonzero().view(-1).tolist() == [0, 1, 2]


def test_labelled_nodes_are_run_alone_just_where_no_other_could_change_the_loss(ready):
    whole, train = Batch.of(ready), frozenset({"train"})
    kinds = {
        Needs(0, Scope.NODE, train): True,
        Needs(None, Scope.NODE, train): False,
        Needs(2, Scope.NODE, train): False,
        Needs(0, Scope.EDGES, train): False,
        Needs(0, Scope.ALL, train): False,
        Needs(0, Scope.NODE, frozenset({"train", "all"})): False,
    }
    for needs, alone in kinds.items():
        (batch,) = Whole().training(whole, needs)(1)
        assert len(batch.y) == (int(ready.train_mask.sum()) if alone else 60)


@pytest.mark.parametrize("phase", ["pretrain weak", "weak turn 1"])
def test_batch_norm_of_the_weak_expert_sees_labelled_nodes_in_every_phase_that_trains_it_alone(ready, phase):
    model = mixture()
    seen = {}
    trainer = Trainer(model, ready, SCORE, hook=lambda line: seen.setdefault(line["phase"], []).append(rows[-1]))
    rows = []
    model.weak.register_forward_pre_hook(lambda module, given: rows.append(len(given[0])) if module.training else None)
    REGIMES.lookup("alternate")(trainer, Schedule(epochs=2, rounds=1, pretrain="both"))
    assert seen[phase] == [int(ready.train_mask.sum())] * 2


def test_sparse_features_go_in_batches_too(ready):
    ready.x = prepare_features((ready.x > 1.5).float())
    torch.manual_seed(0)
    model = expert("gcn", 8, 3, **LAYERS)
    trainer = Trainer(model, ready, SCORE, feed=Halves())
    trainer.fit(Phase("halves", ("",), (Term(cross_entropy),), epochs=3))
    torch.testing.assert_close(trainer.output().values, Trainer(model, ready, SCORE).output().values, atol=1e-5, rtol=0)
