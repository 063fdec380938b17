import copy
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

from graphkd.contract import UNLABELLED
from mowst.errors import InputError
from mowst.evaluation.metrics import Score, accuracy, likelihood, pooled
from mowst.experiment.record import parameters
from mowst.kernels.adjacency import Adjacency
from mowst.models.experts import expert
from mowst.models.gates import FusedGate, LearnedGate
from mowst.models.mixture import Mowst
from mowst.models.outputs import Logits
from mowst.models.reads import Reads, reads_of
from mowst.training.objectives import cross_entropy, joint, separate
from mowst.training.phases import Phase, Term
from mowst.training.progress import snapshot
from mowst.training.regimes import alternate, held_out, pretrain, solo
from mowst.training.regimes import joint as joint_regime
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer


def score(out, y):
    return pooled(out, y, accuracy)


def fresh(seed=0, gate=None, **options) -> Mowst:
    torch.manual_seed(seed)
    options = {"hidden_channels": 16, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm", **options}
    return Mowst(expert("mlp", 8, 3, **options), expert("gcn", 8, 3, **options), gate or LearnedGate())


def phase(trains, epochs=5, objective=separate, **options) -> Phase:
    return Phase("test", trains, (Term(objective),), epochs=epochs, **options)


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("trains", "frozen"), [(("weak", "gate"), "strong"), (("strong",), "weak")])
def test_frozen_expert_is_bit_identical_buffers_included(tiny, trains, frozen):
    model = fresh()
    trainer = Trainer(model, tiny, score)
    before = snapshot(model.get_submodule(frozen))
    trainer.fit(phase(trains, epochs=8, last=True))
    assert equal(before, snapshot(model.get_submodule(frozen)))
    assert not equal(snapshot(fresh().get_submodule(trains[0])), snapshot(model.get_submodule(trains[0])))


class Counted(torch.nn.Module):
    """Counts how often an expert runs."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls, self.reads = inner, 0, reads_of(inner)

    def forward(self, x, edge_index):
        self.calls += 1
        return self.inner(x, edge_index)


def test_a_weak_turn_runs_the_strong_expert_once_and_a_strong_turn_the_weak_one(tiny):
    plain = fresh()
    model = Mowst(Counted(plain.weak), Counted(plain.strong), plain.gate)
    trainer = Trainer(model, tiny, score)
    trainer.fit(phase(("weak", "gate"), epochs=7))
    assert model.strong.calls == 1
    assert model.weak.calls == 1 + 2 * 7  # where it started, then a training and an evaluation forward an epoch
    model.weak.calls = model.strong.calls = 0
    trainer.fit(phase(("strong",), epochs=7))
    assert model.weak.calls == 1
    assert model.strong.calls == 2 * 7


@pytest.mark.parametrize("gate", [LearnedGate(in_channels=8), FusedGate()])
@pytest.mark.parametrize("trains", [("weak", "gate"), ("gate",)])
def test_without_edges_validation_runs_on_its_own_nodes_and_changes_nothing(tiny, trains, gate, monkeypatch):
    """The loss is one that nothing is known of, so that training runs on the whole graph either way."""

    def history(alone: bool) -> list[dict]:
        torch.manual_seed(0)
        model = fresh(gate=copy.deepcopy(gate))
        if not alone:
            monkeypatch.setattr(Mowst, "reach", lambda self, known: None)
        asked = []
        model.weak.register_forward_hook(lambda module, inputs, out: asked.append((module.training, len(out))))
        trainer = Trainer(model, tiny, lambda out, y: likelihood(out, y, accuracy))
        trainer.fit(phase(trains, epochs=6, objective=lambda out, batch: separate(out, batch)))
        val = int(tiny.val_mask.sum()) if alone else 60
        assert {size for training, size in asked if not training} <= {val, 60}
        assert ((False, val) in asked) == ("weak" in trains or not alone)
        return trainer.history

    for one, other in zip(history(alone=True), history(alone=False), strict=True):
        assert one["val"] == pytest.approx(other["val"], abs=1e-6)


def asked(model, tiny, *terms) -> list[int]:
    """The numbers of nodes that a model is run for in two epochs of a phase."""
    found: list[int] = []
    model.register_forward_hook(lambda module, inputs, out: found.append(len(out)))
    trainer = Trainer(model, tiny, score)
    trainer.fit(Phase("test", ("",), terms, epochs=2))
    assert score(trainer.output().rows(tiny.val_mask), tiny.y[tiny.val_mask]) == trainer.best.score
    return found[:5]


def test_a_weak_expert_alone_runs_on_the_nodes_it_learns_from_and_those_it_is_judged_on(tiny):
    solo_term, weak = Term(cross_entropy), fresh().weak
    assert asked(weak, tiny, solo_term) == [15, 30, 15, 30, 15]
    assert asked(copy.deepcopy(weak), tiny, solo_term, Term(cross_entropy, on="all")) == [15, 60, 15, 60, 15]
    assert asked(copy.deepcopy(weak), tiny, Term(lambda out, batch: out.values.square().mean())) == [15, 60, 15, 60, 15]
    assert asked(fresh().strong, tiny, solo_term) == [60] * 5
    tiny.train_mask &= tiny.train_mask.cumsum(0) == 1  # of which batch norm cannot learn
    assert asked(fresh().weak, tiny, solo_term) == [15, 60, 15, 60, 15]


def test_the_nodes_left_out_change_nothing_where_no_norm_looks_at_them(tiny):
    """The same loss, once as one that needs a node's own output and label alone, once as one nothing is known of."""

    def trained(loss):
        torch.manual_seed(0)
        model = expert("mlp", 8, 3, hidden_channels=16, num_layers=2, norm="layer_norm").double()
        trainer = Trainer(model, data, score)
        trainer.fit(Phase("test", ("",), (Term(loss),), epochs=20, last=True))
        return trainer

    data = copy.copy(tiny)
    data.x = tiny.x.double()
    one, other = trained(cross_entropy), trained(lambda out, batch: cross_entropy(out, batch))
    for key, value in one.best.weights.items():
        torch.testing.assert_close(value, other.best.weights[key], rtol=1e-9, atol=1e-12)
    assert [line["loss"] for line in one.history] == pytest.approx([line["loss"] for line in other.history])


def test_after_fit_the_whole_state_is_the_best_state(tiny):
    model = fresh()
    trainer = Trainer(model, tiny, score)
    seen = {}
    trainer.hook = lambda record: seen.setdefault(record["val"], snapshot(model))
    trainer.fit(phase(("weak", "strong", "gate"), epochs=40))
    assert equal(snapshot(model), trainer.best.weights)
    assert trainer.best.score == max([record["val"] for record in trainer.history] + [trainer.best.score])
    if trainer.best.score in seen:
        assert equal(seen[trainer.best.score], snapshot(model))
    assert score(trainer.output(), tiny.y) >= 0
    val = tiny.val_mask
    assert len(trainer.output().rows(val).weak) == int(val.sum())
    assert score(trainer.output().rows(val), tiny.y[val]) == trainer.best.score


def trained_for(epochs: int, data: Data, *trains: str, **options) -> tuple[Trainer, list[dict]]:
    """A trainer after so many epochs in float64, of which the last is kept, and the weights the hook has seen."""
    model, live = fresh().double(), []
    trainer = Trainer(model, data, score, hook=lambda record: live.append(snapshot(model)))
    torch.manual_seed(1)
    trainer.fit(phase(trains, epochs=epochs, last=True, **options))
    return trainer, live


def test_the_average_is_the_recursion_over_the_weights_of_every_epoch_and_moves_none_of_them(tiny):
    data = copy.copy(tiny)
    data.x = tiny.x.double()
    decay, (plain, trajectory) = 0.4, trained_for(8, data, "weak", "strong", "gate")
    averaged, moved = trained_for(8, data, "weak", "strong", "gate", ema_decay=decay)
    assert all(map(equal, moved, trajectory))
    expected = trajectory[0]
    for epoch, weights in enumerate(trajectory[1:], start=1):
        now = min(decay, (1 + epoch) / (10 + epoch))
        expected = {name: now * value + (1 - now) * weights[name] for name, value in expected.items()}
    assert (1 + 4) / (10 + 4) < decay < (1 + 6) / (10 + 6), "both cases"
    assert "strong.norms.0.module.running_mean" in expected
    for name, value in snapshot(averaged.model).items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12, msg=name)
    assert not equal(snapshot(plain.model), snapshot(averaged.model))
    assert score(averaged.output().rows(averaged.val), averaged.val_y) == averaged.history[-1]["val"]
    assert [line["loss"] for line in averaged.history] == [line["loss"] for line in plain.history]


def test_the_average_is_judged_kept_and_where_the_next_phase_starts(tiny):
    """Layer norm, as batch norm would go on counting in the next phase, however small its steps are."""
    trainer = Trainer(fresh(norm="layer_norm"), tiny, lambda out, y: likelihood(out, y, accuracy))
    frozen = snapshot(trainer.model.strong)
    trainer.fit(phase(("weak", "gate"), epochs=30, ema_decay=0.9))
    judged = max(line["val"] for line in trainer.history)
    assert judged == trainer.best.score == trainer.score(trainer.output().rows(trainer.val), trainer.val_y)
    assert equal(frozen, snapshot(trainer.model.strong))
    before = snapshot(trainer.model)
    assert not trainer.fit(phase(("weak",), epochs=2, lr=0.0))
    assert equal(before, snapshot(trainer.model))
    assert trainer.history[-1]["val"] == judged


class Remembers(torch.nn.Module):
    """Holds what it has said last, and two constants: numbers of nodes, and a mask."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(8, 3)
        self.register_buffer("index", torch.arange(1000))
        self.register_buffer("mask", torch.tensor([-torch.inf, 0.0, torch.inf]))

    def forward(self, x, edge_index):
        self.said = self.inner(x)
        return self.said


def test_an_average_leaves_constants_as_they_are_and_a_model_may_hold_what_it_said(tiny):
    plain, constants = fresh(), snapshot(Remembers())
    model = Mowst(Remembers(), plain.strong, plain.gate)
    trainer = Trainer(model, tiny, score)
    held_out(trainer, Schedule(epochs=20, ema_decay=0.9))
    trainer.fit(phase(("weak", "strong", "gate"), epochs=20, ema_decay=0.9))
    assert all(torch.equal(model.weak.state_dict()[name], constants[name]) for name in ("index", "mask"))


def test_an_average_that_was_never_judged_leaves_nothing_behind(tiny):
    trainer = Trainer(fresh(), tiny, lambda out, y: float("nan"))
    with pytest.raises(FloatingPointError, match="no number"):
        trainer.fit(phase(("weak",), epochs=5, ema_decay=0.9))
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())
    trainer.score = Score.of(lambda out, y: likelihood(out, y, accuracy))
    trainer.fit(phase(("weak",), epochs=30))
    assert len({line["val"] for line in trainer.history}) > 5, "what is judged is what trains"


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_hook_sees_a_model_in_evaluation_mode(tiny, decay):
    modes = []
    trainer = Trainer(fresh(), tiny, score, hook=lambda record: modes.append(trainer.model.training))
    trainer.fit(phase(("weak", "strong"), epochs=3, ema_decay=decay))
    assert modes == [False] * 3


def test_an_optimizer_that_refuses_what_it_is_given_is_named(tiny):
    with pytest.raises(InputError, match="optimizer AdamW: Invalid learning rate"):
        Trainer(fresh(), tiny, score).fit(replace(Schedule().phase("test", ("weak",), Term(separate)), lr=-1.0))


def test_fit_answers_whether_validation_improved(tiny):
    trainer = Trainer(fresh(), tiny, score)
    assert trainer.fit(phase(("weak", "strong", "gate"), epochs=60, lr=0.02))
    best = trainer.best.score
    assert not trainer.fit(phase(("weak",), epochs=3, lr=1e-12))
    assert trainer.best.score == best


def test_labels_outside_the_training_mask_change_no_gradient(tiny):
    def gradients(data: Data):
        model = fresh(dropout=0.0)
        trainer = Trainer(model, data, score)
        torch.manual_seed(1)
        out = model(trainer.whole.x, trainer.whole.edge_index)
        terms = [Term(joint), Term(separate), Term(joint, on="all"), Term(lambda o, b: cross_entropy(o.of("weak"), b))]
        sum(term.weight * term.value(out, trainer.whole) for term in terms).backward()
        return [parameter.grad for parameter in model.parameters()]

    other = copy.copy(tiny)
    other.y = torch.where(tiny.train_mask, tiny.y, (tiny.y + 1) % 3)
    assert all(torch.equal(one, two) for one, two in zip(gradients(tiny), gradients(other), strict=True))
    assert (Trainer(fresh(), tiny, score).whole.y[~tiny.train_mask] == UNLABELLED).all()


def test_same_seed_same_history(tiny):
    def history():
        torch.manual_seed(5)
        trainer = Trainer(fresh(3), tiny, score)
        joint_regime(trainer, Schedule(epochs=10))
        return [(record["loss"], record["val"]) for record in trainer.history]

    assert history() == history()


def test_patience_ends_a_phase_in_every_regime(tiny):
    for regime, most in ((joint_regime, 2), (alternate, 3), (held_out, 4)):
        trainer = Trainer(fresh(), tiny, lambda out, y: 0.0)  # nothing ever improves
        regime(trainer, Schedule(epochs=1000, patience=4, rounds=50))
        phases = {}
        for record in trainer.history:
            phases.setdefault(record["phase"], []).append(record["epoch"])
        assert all(max(epochs) == (1 if "rehearse" in phase else 4) for phase, epochs in phases.items())
        assert len(phases) <= most


def test_evaluating_every_kth_epoch_evaluates_that_often(tiny):
    trainer = Trainer(fresh(), tiny, score)
    trainer.fit(phase(("strong",), epochs=11, eval_every=4))
    assert [record["epoch"] for record in trainer.history] == [4, 8, 11]


def test_pretraining_selects_on_validation_nodes_and_touches_one_expert(tiny):
    model = fresh()
    before = snapshot(model.weak)
    trainer = Trainer(model, tiny, score)
    pretrain(trainer, Schedule(epochs=30), ("strong",))
    assert equal(before, snapshot(model.weak))
    out = Logits(model.strong.eval()(tiny.x, tiny.edge_index))
    alone = score(out.rows(tiny.val_mask), tiny.y[tiny.val_mask])
    assert alone == max(record["val"] for record in trainer.history)


def test_divergence_is_said_and_the_best_weights_stay(tiny):
    trainer = Trainer(fresh(), tiny, score)
    start = snapshot(trainer.model)
    with pytest.raises(FloatingPointError, match="smaller lr"):
        trainer.fit(phase(("weak", "strong", "gate"), objective=lambda out, batch: out.weak.sum(-1) * float("nan")))
    assert equal(start, snapshot(trainer.model))


def test_weights_of_terms_scale_their_gradients(tiny):
    model = fresh(dropout=0.0).eval()
    trainer = Trainer(model, tiny, score)
    out = model(tiny.x, tiny.edge_index)
    mean = separate(out, trainer.whole)[tiny.train_mask].mean()
    torch.testing.assert_close(Term(separate).value(out, trainer.whole), mean)
    everywhere = Term(lambda o, b: o.confidence, on="all")
    torch.testing.assert_close(everywhere.value(out, trainer.whole), out.confidence.mean())


def test_a_scalar_loss_is_taken_as_it_is(tiny):
    trainer = Trainer(fresh(), tiny, score)
    out = trainer.output()
    assert Term(lambda o, b: o.confidence.max()).value(out, trainer.whole) == out.confidence.max()


def test_parameters_of_a_loss_are_trained(tiny):
    class Projected(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, out, batch):
            return cross_entropy(Logits(self.scale * out.values), batch)

    loss = Projected()
    trainer = Trainer(fresh().weak, tiny, score)
    solo(trainer, Schedule(epochs=3), objective=loss)
    assert loss.scale != 1


def test_the_gate_has_a_learning_rate_of_its_own(tiny):
    model = fresh()
    before = snapshot(model.gate)
    trainer = Trainer(model, tiny, score)
    trainer.fit(phase(("weak", "strong", "gate"), lrs={"gate": 0.0}, weight_decay=0.0, last=True))
    assert equal(before, snapshot(model.gate))


class Watching(torch.nn.Module):
    """A foreign expert, of which nothing is known, and a wrapper that says what it was called with."""

    def __init__(self, inner=None):
        super().__init__()
        self.lin, self.inner, self.seen = torch.nn.Linear(8, 3), inner, []
        if inner is not None:
            self.reads = Reads(adjacency=True)

    def forward(self, x, edge_index):
        self.seen.append(type(edge_index))
        return self.lin(x) if self.inner is None else self.inner(x, edge_index)


@pytest.mark.parametrize("in_mixture", [False, True])
def test_experts_train_on_the_prepared_adjacency_and_foreign_ones_on_plain_edges(tiny, in_mixture):
    tiny.adj_t = Adjacency.from_edge_index(tiny.edge_index, 60)
    foreign, ours = Watching(), Watching(expert("gcn", 8, 3, hidden_channels=8, num_layers=2))
    if in_mixture:
        joint_regime(Trainer(Mowst(foreign, ours, LearnedGate()), tiny, score), Schedule(epochs=2))
    else:
        for model in (foreign, ours):
            solo(Trainer(model, tiny, score), Schedule(epochs=2))
    assert set(foreign.seen) == {torch.Tensor}
    assert set(ours.seen) == {Adjacency}


def test_what_an_expert_holds_fixed_stays_fixed(tiny):
    model = Mowst(expert("mlp", 8, 3, hidden_channels=8, num_layers=2), Watching(), LearnedGate())
    model.strong.lin.weight.requires_grad_(False)
    before = snapshot(model)
    joint_regime(Trainer(model, tiny, score), Schedule(epochs=30, lr=0.05, pretrain="both"))
    assert torch.equal(model.strong.lin.weight, before["strong.lin.weight"])
    assert not torch.equal(model.strong.lin.bias, before["strong.lin.bias"])
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == ["strong.lin.weight"]
    assert parameters(model.strong) == 3


def test_a_gat_trains_alone_on_a_prepared_graph(tiny):
    tiny.adj_t = Adjacency.from_edge_index(tiny.edge_index, 60)
    trainer = Trainer(expert("gat", 8, 3, hidden_channels=8, num_layers=2), tiny, score)
    solo(trainer, Schedule(epochs=2))
    assert len(trainer.history) == 2


def test_a_score_that_is_not_a_number_is_said(tiny):
    with pytest.raises(FloatingPointError, match="no node there"):
        joint_regime(Trainer(fresh(), tiny, lambda out, y: float("nan")), Schedule(epochs=3))
