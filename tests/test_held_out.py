"""The regime `held-out`: temperatures, folds, the fit of a gate, and what may not leak."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch_geometric.data import Data

from graphkd import kd
from graphkd.contract import UNLABELLED
from mowst.data.built_in import sbm
from mowst.errors import InputError
from mowst.evaluation import fusion
from mowst.evaluation.calibration import like, sharpness, temperature
from mowst.evaluation.chance import surely
from mowst.evaluation.fusion import average
from mowst.evaluation.metrics import METRICS, Score, Signal, accuracy, pooled, rocauc
from mowst.evaluation.routing import best_threshold, routable
from mowst.experiment.bench import Bench, metric_of
from mowst.experiment.building import build, fabric_of, prepare
from mowst.experiment.config import Config, ExpertConfig, GateConfig
from mowst.experiment.plan import planned
from mowst.experiment.scoring import fusions
from mowst.experiment.seed import run_seed
from mowst.models.experts import expert
from mowst.models.gates import FusedGate, LearnedGate, LogisticGate, PowerGate
from mowst.models.mixture import Mowst
from mowst.models.outputs import ROLES, Gated, Mixture, hard, log_pool
from mowst.training.batches import Batch
from mowst.training.held_out import Seen, Twins, calibrate, divide, fit_gate, mixed, rehearse, settle
from mowst.training.objectives import cross_entropy, joint
from mowst.training.phases import Phase, Term
from mowst.training.progress import snapshot
from mowst.training.regimes import fine_tuned, held_out
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trained, Trainer
from tests.graphs import good


def score(out, y):
    return pooled(out, y, accuracy)


def fresh(gate=None, seed=0) -> Mowst:
    torch.manual_seed(seed)
    options = {"hidden_channels": 16, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm"}
    return Mowst(expert("mlp", 8, 3, **options), expert("gcn", 8, 3, **options), gate or FusedGate(), LogisticGate())


def labels_of(logits):
    return torch.distributions.Categorical(logits=logits).sample()


# temperatures


@pytest.mark.parametrize("true", [0.25, 1.0, 4.0])
def test_the_temperature_of_labels_drawn_from_the_prediction_is_found(true):
    torch.manual_seed(0)
    logits = 2 * torch.randn(20_000, 4)
    assert temperature(logits * true, labels_of(logits)) == pytest.approx(true, rel=0.05)


def test_no_temperature_on_a_grid_is_likelier():
    torch.manual_seed(1)
    logits, y = 3 * torch.randn(200, 3).double(), torch.randint(3, (200,))

    def loss(t):
        return torch.nn.functional.cross_entropy(logits / t, y, reduction="sum") + math.log(t) ** 2 / 2

    found = temperature(logits, y)
    assert all(loss(found) <= loss(found * step) + 1e-6 for step in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))


def test_with_nothing_to_learn_from_the_temperature_is_one():
    assert temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)) == pytest.approx(1.0, abs=1e-3)
    assert temperature(torch.zeros(9, 3), torch.arange(9) % 3) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("true", [0.3, 1.0, 5.0])
def test_a_sharper_copy_gets_the_temperature_that_undoes_it(true):
    torch.manual_seed(0)
    logits = torch.randn(500, 5)
    assert like(true * logits, sharpness(logits)) == pytest.approx(true, rel=1e-3)
    assert sharpness(true * logits / like(true * logits, sharpness(logits))) == pytest.approx(
        sharpness(logits), abs=1e-5
    )


def test_extreme_logits_have_a_temperature():
    logits = 1e4 * torch.randn(20, 3)
    for found in (temperature(logits, labels_of(logits)), like(logits, 0.0), like(logits * 0, 0.5)):
        assert math.isfinite(found)
        assert found > 0


# folds


@pytest.mark.parametrize("folds", [2, 5, 50])
def test_folds_divide_the_training_nodes_and_keep_the_shares_of_the_classes(folds):
    y = torch.arange(90) % 3
    nodes = torch.randperm(90)[:60]
    parts = divide(nodes, y, folds)
    assert torch.equal(torch.cat([held for _, held in parts]).sort().values, nodes.sort().values)
    for kept, held in parts:
        assert torch.equal(torch.cat([kept, held]).sort().values, nodes.sort().values)
        assert y[held].bincount(minlength=3).max() - y[held].bincount(minlength=3).min() <= 2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_very_few_nodes_are_divided_too(count):
    for kept, held in divide(torch.arange(count), torch.arange(count), 5):
        assert len(kept) >= 1
        assert len(held) >= 1


@pytest.mark.parametrize("seed", range(5))
def test_the_only_node_of_a_class_is_never_held_out(seed):
    y = torch.tensor([0] * 12 + [1] * 9 + [2, 3])
    parts = divide(torch.arange(len(y)), y, 5, seed)
    for kept, held in parts:
        assert {21, 22} <= set(kept.tolist())
        assert sorted([*kept.tolist(), *held.tolist()]) == list(range(23))
    assert sorted(node for _, held in parts for node in held.tolist()) == list(range(21))


def test_one_node_cannot_be_divided():
    with pytest.raises(InputError, match="at least 2"):
        divide(torch.tensor([3]), torch.arange(9), 5)


# what a twin sees


def test_a_twin_is_fitted_on_the_kept_nodes_alone(tiny):
    """Changing the labels of a fold changes no weight of the twin that is calibrated there, and no validation label."""
    kept, held = divide(tiny.train_mask.nonzero().squeeze(-1), tiny.y, 3)[0]

    def weights(data):
        torch.manual_seed(0)
        trainer = Trainer(fresh(), data, score)
        twin = trainer.twin("strong", kept)
        assert (twin.whole.y[held] == UNLABELLED).all()
        twin.fit(Schedule(epochs=4).phase("rehearse strong", ("",), Term(cross_entropy)))
        return snapshot(twin.model), snapshot(trainer.model)

    other = copy.copy(tiny)
    other.y = tiny.y.index_copy(0, held, (tiny.y[held] + 1) % 3)
    (one, before), (two, _) = weights(tiny), weights(other)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(before[name], value) for name, value in snapshot(fresh()).items())


def soft_labels(weight=1.0):
    return Term(lambda out, batch: weight * kd(out.weak, out.strong, 1.0), on="all", trains="weak")


@pytest.mark.parametrize("extra", [[], [soft_labels()]], ids=["alone", "taught"])
def test_the_labels_of_a_fold_change_nothing_of_what_its_twins_say_but_the_temperature(tiny, extra):
    def said(data):
        torch.manual_seed(0)
        trainer = Trainer(fresh(), data, score)
        return rehearse(trainer, Schedule(epochs=4), [fold], {}, extra)

    fold = divide(tiny.train_mask.nonzero().squeeze(-1), tiny.y, 3)[0]
    other = copy.copy(tiny)
    other.y = tiny.y.index_copy(0, fold[1], (tiny.y[fold[1]] + 1) % 3)
    one, two = said(tiny), said(other)
    for part in ROLES:
        ratio = one.logits[part] / two.logits[part]
        torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio), rtol=1e-4, atol=0)


def test_twins_start_from_the_weights_that_the_experts_had_when_they_were_fresh(tiny):
    trainer = Trainer(fresh(), tiny, score)
    start = snapshot(trainer.model.weak)
    torch.nn.init.zeros_(next(trainer.model.weak.parameters()))
    twin = trainer.twin("weak", trainer.whole.on["train"])
    assert all(torch.equal(value, start[name]) for name, value in snapshot(twin.model).items())


def test_cross_fitting_speaks_of_every_training_node_once(tiny):
    trainer = Trainer(fresh(), tiny, score)
    twins = rehearse(trainer, Schedule(epochs=3), divide(trainer.whole.on["train"], tiny.y, 3), {})
    assert torch.equal(twins.nodes.sort().values, trainer.whole.on["train"])
    assert all(twins.logits[part].shape == (len(twins.nodes), 3) for part in ROLES)
    assert all(0 <= twins.sharpness[part] <= 1 for part in ROLES)


def test_the_experts_become_as_sharp_as_their_twins(tiny):
    trainer = Trainer(fresh(), tiny, score)
    outside = ~tiny.train_mask
    goal = {"weak": 0.2, "strong": 0.7}
    calibrate(trainer.model, trainer, Twins(torch.arange(0), {}, goal))
    out = trainer.output()
    for part in ROLES:
        assert sharpness(out.of(part).values[outside]) == pytest.approx(goal[part], abs=1e-4)


# the fit of a gate


def seen_of(weak, strong, y) -> Seen:
    return Seen(torch.arange(len(weak)), y, {"weak": weak, "strong": strong})


def fitted(gate, tiny, weak, strong, y, **options):
    data = copy.copy(tiny)
    data.x = torch.zeros(len(y), 1)
    data.y, data.train_mask, data.val_mask = (
        y,
        torch.ones(len(y), dtype=torch.bool),
        torch.zeros(len(y), dtype=torch.bool),
    )
    fit_gate(gate, seen_of(weak, strong, y), Batch.of(data), joint, **options)
    return gate


def loss_of(gate, weak, strong, y):
    out = mixed(gate, seen_of(weak, strong, y), torch.zeros(len(y), 1))
    return -log_pool(out).gather(-1, y.unsqueeze(-1)).mean()


def test_independent_evidence_is_added_up(tiny):
    """Two Gaussian observations of the class: the posterior is the sum of both experts' logits."""
    torch.manual_seed(0)
    y = torch.randint(2, (4_000,))
    weak, strong = (torch.stack([-z, z], 1) for z in (1.5 * (2 * y - 1) + 1.225 * torch.randn(2, len(y))))
    gate = fitted(FusedGate(["max"]), tiny, weak, strong, y)
    out = mixed(gate, seen_of(weak, strong, y), torch.zeros(len(y), 1))
    best = accuracy((weak + strong).softmax(-1), y)
    assert accuracy(out.probs(), y) >= best - 0.005
    assert best > accuracy(weak.softmax(-1), y) + 0.05


def test_an_expert_that_knows_nothing_is_left_alone(tiny):
    torch.manual_seed(0)
    y = torch.randint(3, (3_000,))
    good, noise = 2 * torch.nn.functional.one_hot(y, 3) + torch.randn(3_000, 3), torch.randn(3_000, 3)
    for weak, strong in ((good, noise), (noise, good)):
        gate = fitted(FusedGate(), tiny, weak, strong, y)
        out = mixed(gate, seen_of(weak, strong, y), torch.zeros(len(y), 1))
        assert accuracy(out.probs(), y) >= accuracy(good.softmax(-1), y) - 0.01


@pytest.mark.parametrize("gate", [LogisticGate(), FusedGate(), FusedGate(["max"])])
def test_a_fitted_gate_is_likelier_than_its_start_on_the_nodes_it_was_fitted_on(tiny, gate):
    torch.manual_seed(0)
    y = torch.randint(3, (300,))
    weak, strong = torch.randn(2, 300, 3) + torch.nn.functional.one_hot(y, 3)
    before = loss_of(gate, weak, strong, y)
    assert loss_of(fitted(gate, tiny, weak, strong, y), weak, strong, y) < before


def test_the_pull_holds_a_gate_at_its_start(tiny):
    torch.manual_seed(0)
    y = torch.randint(3, (50,))
    weak, strong = torch.randn(2, 50, 3)
    start = snapshot(FusedGate())
    held = snapshot(fitted(FusedGate(), tiny, weak, strong, y, pull=1e6))
    assert all(torch.allclose(held[name], value, atol=1e-3) for name, value in start.items())


def test_a_gate_without_free_parameters_has_nothing_to_fit(tiny):
    y, frozen = torch.randint(3, (50,)), FusedGate().requires_grad_(False)
    before = snapshot(frozen)
    for gate in (PowerGate(), frozen):
        fitted(gate, tiny, torch.randn(50, 3), torch.randn(50, 3), y)
    assert all(torch.equal(value, before[name]) for name, value in snapshot(frozen).items())


def test_twins_are_calibrated_where_they_were_held_out(tiny, monkeypatch):
    def said(t):
        monkeypatch.setattr("mowst.training.held_out.temperature", lambda logits, y: t)
        torch.manual_seed(0)
        trainer = Trainer(fresh(), tiny, score)
        return rehearse(trainer, Schedule(epochs=3), divide(trainer.whole.on["train"], tiny.y, 3)[:1], {})

    plain, cooled = said(1.0), said(4.0)
    for part in ROLES:
        torch.testing.assert_close(4 * cooled.logits[part], plain.logits[part])
        assert cooled.sharpness[part] < plain.sharpness[part]


def test_a_gate_is_fitted_without_its_dropout(tiny):
    """Twice the same fit, whatever torch draws; and a gate that works in float32 alone can be fitted."""

    class Own(LearnedGate):
        def measure(self, logits):
            return super().measure(logits.float())

    torch.manual_seed(0)
    y, (weak, strong) = torch.randint(3, (50,)), torch.randn(2, 50, 3)
    gate = Own(dropout=0.5)
    one, two = (snapshot(fitted(copy.deepcopy(gate), tiny, weak, strong, y)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["mlp.lins.0.weight"], gate.mlp.lins[0].weight)


@pytest.mark.parametrize("seed", range(3))
def test_a_logistic_gate_never_trusts_a_less_certain_prediction_more(tiny, seed):
    """Whatever it is fitted to, even to labels that the certain predictions miss."""
    torch.manual_seed(seed)
    weak, strong = 3 * torch.randn(200, 3), torch.randn(200, 3)
    gate = fitted(LogisticGate(), tiny, weak, strong, (weak.argmin(-1)))
    sharp = gate(2 * weak, weak).confidence - gate(weak, weak).confidence
    assert (sharp >= 0).all()


@pytest.mark.parametrize("start", [(1.0,), (0.0, 1.0), (1.0, 2.0, 3.0)])
def test_weights_that_are_none_are_refused(start):
    with pytest.raises(ValueError, match="two positive weights"):
        FusedGate(start=start)
    with pytest.raises(ValueError, match="between 0 and 1"):
        LogisticGate(start=1.0)


def test_the_logistic_gate_is_a_logistic_regression(tiny):
    """Where one expert is right and the other surely wrong, the pool's likelihood is a logistic regression's."""
    torch.manual_seed(0)
    sharp = 3 * torch.rand(2_000)
    weak_right = torch.rand(2_000) < (2 * sharp - 2).sigmoid()
    y = torch.zeros(2_000, dtype=torch.long)
    weak = torch.stack([torch.where(weak_right, sharp, -sharp), torch.zeros(2_000)], 1)
    signal = LogisticGate(["max"]).measure(weak)
    strong = torch.stack([torch.where(weak_right, -40.0, 40.0), torch.zeros(2_000)], 1)
    gate = fitted(LogisticGate(["max"]), tiny, weak, strong, y, pull=0.0)
    p = weak.softmax(-1)[:, 0]
    c = gate(weak, torch.zeros(2_000, 1)).confidence
    q = strong.softmax(-1)[:, 0]
    slope = ((p - q) / (c * p + (1 - c) * q) * c * (1 - c)).unsqueeze(-1) * torch.cat(
        [signal, torch.ones_like(signal)], 1
    )
    assert slope.mean(0).abs().max() < 1e-4, "the likelihood is stationary"


# the regime


def test_the_regime_keeps_the_experts_trained_alone_and_calibrates_them(tiny):
    torch.manual_seed(0)
    alone = {part: Trained(snapshot(fresh(seed=7).get_submodule(part)), epochs=3) for part in ROLES}
    taken = []
    trainer = Trainer(fresh(), tiny, score, alone=lambda part: taken.append(part) or alone[part])
    held_out(trainer, Schedule(epochs=5))
    assert sorted(taken) == ["strong", "weak"]
    for part in ROLES:
        now = snapshot(trainer.model.get_submodule(part))
        assert all(torch.equal(now[name], value) for name, value in alone[part].state.items())
    assert (trainer.model.temperature != 1).all()
    phases = [(line["phase"], line["epoch"]) for line in trainer.history]
    assert phases == [("rehearse strong", 3), ("rehearse weak", 3)]


def test_the_strong_expert_teaches_the_weak_one_and_twin_teaches_twin(tiny):
    def distances(*extra):
        torch.manual_seed(0)
        trainer = Trainer(fresh(), tiny, score)
        outcome = held_out(trainer, Schedule(epochs=40, patience=40), extra=extra)
        out, twins = trainer.output(), outcome.twins.logits
        return float(kd(out.weak, out.strong, 1.0).mean()), float(kd(twins["weak"], twins["strong"], 1.0).mean())

    alone, taught = distances(), distances(soft_labels(20.0))
    assert taught[0] < 0.6 * alone[0]
    assert taught[1] < 0.6 * alone[1]


@pytest.mark.parametrize("sure", [True, False])
def test_experts_trained_on_together_are_kept_where_that_is_better_by_more_than_chance(tiny, monkeypatch, sure):
    schedule = Schedule(epochs=20, patience=20, lr=0.002)
    held, tuned = (Trainer(fresh(), copy.copy(tiny), likely) for _ in range(2))
    for trainer, regime in ((held, held_out), (tuned, fine_tuned)):
        torch.manual_seed(0)
        monkeypatch.setattr("mowst.training.regimes.surely", lambda *outputs: sure)
        regime(trainer, schedule)
    assert [line["phase"] for line in tuned.history[len(held.history) :]] == ["fine-tune"] * 20
    states = [trainer.model.state_dict() for trainer in (held, tuned)]
    same = {name: all(map(torch.equal, *(parts(state, name) for state in states))) for name in (*ROLES, "gate")}
    assert same == {"weak": not sure, "strong": not sure, "gate": True}
    assert bool(tuned.model.threshold.isnan()) is sure  # a router's own threshold is of the experts of before
    assert held.model.threshold == 0.5
    assert tuned.best.score == pytest.approx(likely(tuned.output().rows(tiny.val_mask), tiny.y[tiny.val_mask]))


@pytest.mark.parametrize("metric", ["accuracy", "rocauc"])
@pytest.mark.parametrize("seed", range(4))
def test_a_threshold_that_is_chosen_routes_best_by_the_metric_of_the_graph(tiny, metric, seed):
    torch.manual_seed(seed)
    data = copy.copy(tiny)
    data.y, data.metric = torch.randint(2, (60,)), metric
    weak, strong = (torch.randn(60, 2) + torch.randn(60, 1) * torch.eye(2)[data.y] for _ in ROLES)
    out, y = Mixture(weak, strong, torch.rand(60)), data.y[data.val_mask]
    chosen = best_threshold(out.rows(data.val_mask), y, metric_of(data))
    val = [hard(out, float(t)).rows(data.val_mask) for t in (*out.confidence, 2.0)]
    every = [pooled(each, y, METRICS.lookup(metric)) for each in val]
    seen = hard(out, chosen).rows(data.val_mask)
    assert pooled(seen, y, METRICS.lookup(metric)) == pytest.approx(max(every))


def test_a_threshold_is_chosen_by_accuracy_where_the_metric_has_no_value(tiny):
    data = copy.copy(tiny)
    data.y, data.metric = torch.zeros(60, dtype=torch.long), "rocauc"  # no validation node of class 1
    right, wrong = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, None].expand(2, 60, 2)
    out = Mixture(wrong, right, torch.rand(60)).rows(data.val_mask)
    assert best_threshold(out, data.y[data.val_mask], metric_of(data)) == float("inf")


def test_the_threshold_after_fine_tuning_is_chosen_for_the_router_and_the_new_experts(monkeypatch):
    monkeypatch.setattr("mowst.training.regimes.surely", lambda *outputs: True)
    run = run_seed(Config(dataset="tests.graphs:good", regime="fine-tuned", epochs=20, lr=0.02, device="cpu"), 0)
    mixture, data, val = run.fitted["mixture"], run.data, run.data.val_mask
    found = float(mixture.model.threshold)
    out = routable(mixture.model, mixture.output, data.x)
    assert not torch.equal(out.confidence, mixture.output.confidence)
    assert best_threshold(out.rows(val), data.y[val], metric_of(data)) == found
    seen = [100 * pooled(mixture.output.of(part).rows(val), data.y[val], accuracy) for part in ROLES]
    assert run.scores["routed"]["val"] >= max(seen) - 1e-4


@pytest.mark.parametrize("regime", ["held-out", "fine-tuned"])
def test_plain_fusions_are_of_the_experts_trained_alone(monkeypatch, regime):
    monkeypatch.setattr("mowst.training.regimes.surely", lambda *outputs: True)
    run = run_seed(Config(dataset="tests.graphs:good", regime=regime, epochs=20, lr=0.002, seeds=1, signal="loss"), 0)
    found = fusions(run.fitted, run.data, torch.arange(60))["calibrated"]
    for part, temperature_ in zip(ROLES, run.fitted["mixture"].model.temperature, strict=True):
        torch.testing.assert_close(getattr(found, part), run.fitted[part].output.values / temperature_)
    moved = not torch.allclose(found.weak, run.fitted["mixture"].output.weak)
    assert moved == (regime == "fine-tuned")


def likely(out, y):
    return float(out.probs().gather(-1, y[:, None]).log().mean())


def parts(state, part):
    return [value for name, value in state.items() if name.startswith(f"{part}.")]


def test_a_taught_weak_expert_is_trained_anew_and_judged_alone(tiny):
    torch.manual_seed(0)
    alone = {part: Trained(snapshot(fresh(seed=7).get_submodule(part)), epochs=3) for part in ROLES}
    taken = []
    trainer = Trainer(fresh(), tiny, score, alone=lambda part: taken.append(part) or alone[part])
    held_out(trainer, Schedule(epochs=5), extra=[soft_labels()])
    assert taken == ["strong"]
    strong = snapshot(trainer.model.strong)
    assert all(torch.equal(strong[name], value) for name, value in alone["strong"].state.items())
    best = max(line["val"] for line in trainer.history if line["phase"] == "pretrain weak")
    weak = pooled(trainer.output().of("weak").rows(tiny.val_mask), tiny.y[tiny.val_mask], accuracy)
    assert weak >= best - 1e-6


def test_a_twin_is_trained_as_long_as_its_expert_was_best_and_keeps_its_last_weights(tiny, monkeypatch):
    lengths = {}

    def watched(trainer, schedule, folds, best, extra, parts):
        lengths.update(best)
        return rehearse(trainer, schedule, folds, best, extra, parts)

    monkeypatch.setattr("mowst.training.regimes.rehearse", watched)
    torch.manual_seed(0)
    trainer = Trainer(fresh(), tiny, score)
    held_out(trainer, Schedule(epochs=20, patience=20))
    for part in ROLES:
        scores = [line["val"] for line in trainer.history if line["phase"] == f"pretrain {part}"]
        (twin,) = (line for line in trainer.history if line["phase"] == f"rehearse {part}")
        assert twin["epoch"] == max(1, lengths[part])
        assert lengths[part] in (0, scores.index(max(scores)) + 1)
    scores = iter((0.9, 0.1))
    unsure = Trainer(fresh(), tiny, lambda out, y: next(scores))
    before = snapshot(unsure.model)
    for _ in range(2):
        unsure.fit(Phase("p", ("",), (Term(joint),), epochs=2, eval_every=2, last=True))
    assert unsure.best.score == 0.1, "the first phase had the better score"
    assert any(not torch.equal(value, before[name]) for name, value in snapshot(unsure.model).items())


class Said(torch.nn.Module):
    """An expert that has said all it will say."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x, edge_index):
        return self.logits


class Trusting(torch.nn.Module):
    """A gate that trusts the weak expert so much everywhere."""

    def __init__(self, trust):
        super().__init__()
        self.trust = trust

    def forward(self, weak_logits, x, strong_logits=None):
        return Gated(torch.full((len(weak_logits),), self.trust))


def settled(monkeypatch, more: int, router=None) -> Trainer:
    """Settle experts of which the weak one has so many more of 200 validation nodes right; no gate is fitted."""
    y = torch.zeros(300, dtype=torch.long)
    index = torch.arange(300)
    right = {"strong": index < 100, "weak": (index >= 60) & (index < 160 + more)}
    logits = {
        part: torch.where(right[part], size, -size)[:, None] * torch.tensor([1.0, -1.0])
        for part, size in (("strong", 2.0), ("weak", 1.0))
    }
    data = Data(x=torch.zeros(300, 1), y=y, edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=300)
    data.train_mask, data.val_mask = index >= 200, index < 200
    trainer = Trainer(Mowst(Said(logits["weak"]), Said(logits["strong"]), FusedGate(), router), data, score)
    sharp = {part: sharpness(logits[part][:200]) for part in ROLES}
    twins = Twins(index[200:], {part: logits[part][200:] for part in ROLES}, sharp)
    monkeypatch.setattr("mowst.training.held_out.fit_gate", lambda *_: None)
    settle(trainer.model, trainer, twins, joint)
    return trainer


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_a_gate_starts_at_the_weights_that_are_selected(monkeypatch, weight):
    monkeypatch.setattr("mowst.training.held_out.select", lambda said, y: {"weak": weight, "strong": 1 - weight})
    confidence = settled(monkeypatch, 0).output().confidence
    assert torch.allclose(confidence, torch.full_like(confidence, weight), atol=2e-3)


def test_a_gate_is_fitted_on_held_out_training_nodes_and_on_validation_nodes_with_their_labels(tiny, monkeypatch):
    given = []
    monkeypatch.setattr("mowst.training.held_out.fit_gate", lambda gate, seen, *rest: given.append(seen))
    torch.manual_seed(0)
    trainer = Trainer(fresh(), tiny, score)
    outcome = held_out(trainer, Schedule(epochs=3))
    (seen, again), (held, val) = given, (outcome.twins.nodes, tiny.val_mask.nonzero().squeeze(-1))
    assert again is seen, "gate and router"
    assert torch.equal(seen.nodes, torch.cat([held, val]))
    assert torch.equal(seen.y, tiny.y[seen.nodes])
    out = trainer.output()
    for role in ROLES:
        assert torch.equal(seen.logits[role][: len(held)], outcome.twins.logits[role])
        torch.testing.assert_close(seen.logits[role][len(held) :], out.of(role).values[val])


@pytest.mark.parametrize(
    ("more", "trust", "threshold"),
    [(1, 0.0, 0.5), (40, 0.0, 0.0), (40, 1.0, 0.5), (-1, 1.0, 0.5), (-40, 1.0, math.inf), (-40, 0.0, 0.5)],
)
def test_nodes_are_routed_by_the_router_unless_one_expert_alone_is_better(monkeypatch, more, trust, threshold):
    trainer = settled(monkeypatch, more, Trusting(trust))
    assert trainer.model.threshold == threshold
    assert trainer.best.weights["threshold"] == threshold


class Remembering(torch.nn.Module):
    """A loss with a parameter."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, out, batch):
        return self.weight * kd(out.weak, out.strong, 1.0)


def test_a_loss_with_parameters_carries_no_label_into_a_twin(tiny):
    torch.manual_seed(0)
    loss = Remembering()
    trainer = Trainer(fresh(), tiny, score)
    seen = []
    twin = trainer.twin

    def watched(part, nodes):
        seen.append(loss.weight.item())
        return twin(part, nodes)

    trainer.twin = watched
    held_out(trainer, Schedule(epochs=40, patience=40, folds=3, rehearsals=2), extra=[Term(loss, trains="weak")])
    assert len(set(seen)) == 1, "what a twin learns stays with the twin"
    assert seen[0] == loss.weight.item() != 1.0


@pytest.mark.parametrize("known", [False, True], ids=["drawn", "closed form"])
@pytest.mark.parametrize("n", [400, 90_000])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8, 1.2, 3.0])
def test_sure_is_what_is_better_by_a_standard_error_of_the_difference(shift, n, known):
    """Whether a score is drawn or says what it is the mean of; a draw has less than the larger number."""
    torch.manual_seed(0)
    one, other = torch.randn(2, n)
    gain = one - other
    one = one - gain.mean() + shift * gain.std() / n**0.5
    score = Score.of(lambda out, y: float(out.confidence.mean()))
    if known:
        score = Score(Signal(score.signal.score, lambda out, y, metric: out.confidence), accuracy)
    as_mixture = (Mixture(torch.zeros(n, 2), torch.zeros(n, 2), said) for said in (one, other))
    assert surely(score, torch.zeros(n), *as_mixture) is (shift > 1)


@pytest.mark.parametrize(("positives", "sure"), [(3, True), (1, True), (0, False)])
def test_draws_whose_score_is_no_number_are_left_out(positives, sure):
    y = (torch.arange(200) < positives).long()
    right = torch.stack([torch.zeros(200), 2.0 * y - 1 + torch.linspace(-0.1, 0.1, 200)], dim=-1)
    assert surely(Score.of(partial(pooled, metric=rocauc)), y, average(right, right), average(-right, -right)) == sure


@pytest.mark.parametrize(("regime", "there"), [("held-out", True), ("joint", False), ("alternate", False)])
def test_a_router_is_there_where_a_regime_fits_it(regime, there):
    strong = ExpertConfig("gcn")
    model = build(Config(regime=regime, strong=strong, gate=GateConfig("fused")), 5, 3)
    assert (model.router is not None) is there
    assert build(Config(regime=regime, strong=strong, gate=GateConfig("learned")), 5, 3).router is None
    with pytest.raises(InputError, match="auto is for a graph to decide"):
        build(Config(regime=regime), 5, 3)


def test_test_labels_change_nothing_but_test_scores(monkeypatch):
    config = Config(dataset="tests.graphs:good", epochs=5)

    def done(shift):
        def changed():
            data = good()
            return data if not shift else moved(data)

        monkeypatch.setattr("tests.graphs.good", changed)
        return run_seed(config, 0)

    def moved(data):
        data.y = torch.where(data.test_mask, (data.y + 1) % 3, data.y)
        return data

    one, two = done(False), done(True)
    assert one.diagnosis == two.diagnosis
    assert {name: each["val"] for name, each in one.scores.items()} == {
        n: each["val"] for n, each in two.scores.items()
    }
    assert one.scores["mixture"]["test"] != two.scores["mixture"]["test"]
    for name in one.fitted:
        states = (snapshot(run.fitted[name].model) for run in (one, two))
        assert all(torch.equal(*values) for values in zip(*(state.values() for state in states), strict=True))


# fusions


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_stacking_is_scikit_learns_regression_and_predicts_its_own_rows_out_of_fold(classes):
    torch.manual_seed(0)
    y = torch.arange(200) // 2 % classes
    weak, strong = torch.randn(2, 200, classes) + torch.nn.functional.one_hot(y, classes)
    nodes = torch.arange(0, 200, 2)
    found = fusion.stacked(weak, strong, y, nodes)
    inputs = np.concatenate([log_softmax(weak.double(), -1), log_softmax(strong.double(), -1)], -1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-9)).fit(inputs[::2], y[::2])
    assert np.allclose(found.values[1::2], model.predict_log_proba(inputs[1::2]), atol=1e-3)
    assert not np.allclose(found.values[::2], model.predict_log_proba(inputs[::2]), atol=1e-2)
    out_of_fold = cross_val_predict(model, inputs[::2], y[::2], cv=5, method="predict_log_proba")
    assert np.allclose(found.values[::2], out_of_fold, atol=1e-3)


def test_stacking_survives_classes_without_a_validation_node():
    y = torch.arange(30) % 3
    weak, strong = torch.randn(2, 30, 3)
    some = torch.tensor([0, 1, 3, 4])
    assert (fusion.stacked(weak, strong, y, some).values.argmax(-1) != 2).all()
    assert (fusion.stacked(weak, strong, y, torch.tensor([0, 3])).values.argmax(-1) == 0).all()


def test_stacking_survives_a_masked_class_and_says_what_is_no_number():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    weak, strong = torch.randn(2, 60, 3)
    strong[:9, 2] = strong[50:53, 2] = -torch.inf
    assert fusion.stacked(weak, strong, y, torch.arange(30)).values.isfinite().all()
    strong[40, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="no finite number"):
        fusion.stacked(weak, strong, y, torch.arange(30))


def test_evidence_is_the_product_of_the_two_predictions():
    weak, strong = torch.randn(2, 9, 4)
    product = weak.softmax(-1) * strong.softmax(-1)
    assert torch.allclose(fusion.evidence(weak, strong).probs(), product / product.sum(-1, keepdim=True), atol=1e-6)


def test_the_fused_gate_contains_the_experts_and_the_plain_pools():
    weak, strong = torch.randn(2, 9, 4)
    for start, expected in (
        ((1e-9, 1.0), strong.softmax(-1)),
        ((1.0, 1e-9), weak.softmax(-1)),
        ((1.0, 1.0), fusion.evidence(weak, strong).probs()),
        ((0.5, 0.5), Mixture(weak, strong, torch.full((9,), 0.5), torch.ones(9)).probs()),
    ):
        gate = FusedGate(start=start)
        assert torch.allclose(Mixture(weak, strong, *gate(weak, weak, strong)).probs(), expected, atol=1e-5)


# who is who


@pytest.mark.parametrize("seed", range(4))
def test_on_a_block_model_the_router_finds_the_nodes_whose_features_say_nothing(seed):
    """Half of the nodes have useless features: confidence tells them apart, and the mixture loses to neither part."""
    data = sbm(0, useless_features=0.5, useless_edges=0.0, signal=3.2, homophily=0.6, degree=8.0)
    options = {"hidden_channels": 32, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm"}
    config = Config(epochs=60, weak=ExpertConfig("mlp", **options), strong=ExpertConfig("gcn", **options), device="cpu")
    ready = prepare(data, config, torch.device("cpu"))
    bench = Bench(config, planned(config), ready, seed, fabric_of(config))
    alone, mixture = {part: bench.train(part) for part in ROLES}, bench.train("mixture")
    test, useful = data.test_mask, ~data.feature_useless[data.test_mask]
    confidence = routable(mixture.model, mixture.output, ready.x).confidence[test]
    assert roc_auc_score(useful, confidence) >= 0.9
    right = {name: accuracy(done.output.probs()[test], data.y[test]) for name, done in alone.items()}
    oracle = torch.where(
        useful, *((alone[part].output.values[test].argmax(-1) == data.y[test]).float() for part in ROLES)
    )
    mixed_right = accuracy(mixture.output.probs()[test], data.y[test])
    assert mixed_right >= max(right.values()) - 0.01
    assert mixed_right >= float(oracle.mean()) - 0.01
