"""Distillation losses as terms: every one attaches, learns, and sees what it may see."""

import itertools
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file

import graphkd
from graphkd import LOSSES
from graphkd.hidden import Hidden, layers_of
from mowst import Config, LearnedGate, Mowst, expert
from mowst.errors import InputError
from mowst.evaluation.metrics import accuracy, pooled
from mowst.experiment.runs import run
from mowst.experiment.weights import read_weights
from mowst.kernels.adjacency import Adjacency
from mowst.models.outputs import Logits, Output, as_output
from mowst.models.reads import run_module
from mowst.training.batches import Batch, Whole
from mowst.training.distillation import Distill, attached, no_labels, observe, parse
from mowst.training.objectives import cross_entropy, separate
from mowst.training.phases import Phase, Term
from mowst.training.progress import snapshot
from mowst.training.regimes import alternate
from mowst.training.regimes import joint as joint_regime
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer
from tests.graphkd_contract import SPECS

GRAPH = "tests.graphs:good"
ACCURACY = partial(pooled, metric=accuracy)


@pytest.fixture
def taught(tiny):
    """A graph that is prepared."""
    tiny.adj_t = Adjacency.from_edge_index(tiny.edge_index, 60)
    return tiny


@pytest.fixture
def teacher(tiny):
    """The signals of a teacher that thinks otherwise than the labels."""
    logits = 3 * torch.nn.functional.one_hot((tiny.y + 1) % 3, 3).float()
    logits += torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    return graphkd.Signals(logits, (torch.randn(60, 5),), torch.rand(60))


def said(trainer: Trainer) -> Output:
    """What a trainer's model says of its whole graph, in the mode that it is in."""
    return as_output(run_module(trainer.model, trainer.reads, trainer.whole.x, trainer.whole.graph))


def student(kind="mlp", **options):
    torch.manual_seed(0)
    return expert(kind, 8, 3, **{"hidden_channels": 16, "num_layers": 2, "norm": "batch_norm", **options})


@pytest.mark.parametrize("on", ["all", "train"])
@pytest.mark.parametrize("spec", SPECS)
def test_every_loss_attaches_and_trains(taught, teacher, spec, on):
    losses = parse(f"{spec.removesuffix(')')}{', ' if '(' in spec else '('}on={on})".replace("k=3", "k=2"))
    model = student()
    trainer = Trainer(model, taught, ACCURACY, teacher=teacher)
    before = snapshot(model)
    with attached(losses, trainer) as terms:
        trainer.fit(Phase("test", ("",), (Term(no_labels), *terms), epochs=3, weight_decay=0.0, last=True))
    assert len(trainer.history) == 3
    moved = {
        name for name, value in before.items() if "lins" in name and not torch.equal(value, trainer.best.weights[name])
    }
    assert moved


def test_the_specifications_cover_the_catalogue():
    tried = {type(weighted.loss) for spec in SPECS for weighted in parse(spec)}
    assert tried >= set(map(LOSSES.lookup, LOSSES.names))


def test_parameters_of_losses_are_trained_kept_at_their_best_and_saved(taught, teacher, tmp_path):
    losses = parse("dualhead+ofa(weight=0.1)")
    trainer = Trainer(student(), taught, ACCURACY, teacher=teacher)
    at_best = {}

    def remember(record):
        if record["val"] == record["best"] and record["best"] not in at_best:
            at_best[record["best"]] = snapshot(losses[0].loss)

    trainer.hook = remember
    with attached(losses, trainer) as terms:
        start = snapshot(losses[0].loss)
        trainer.fit(Phase("test", ("",), (Term(no_labels), *terms), epochs=30, lr=0.02))
    best = at_best.get(trainer.best.score, start)
    assert all(torch.equal(best[key], value) for key, value in snapshot(losses[0].loss).items())
    config = Config(
        dataset=GRAPH,
        epochs=3,
        seeds=1,
        regime="solo",
        teacher="strong",
        kd=[{"name": "dualhead", "weight": 2.0}, "ofa"],
    )
    run(config, tmp_path / "run")
    fresh = torch.nn.ModuleList(weighted.loss for weighted in parse("dualhead(hidden_channels=64,num_classes=3)"))
    saved = load_file(tmp_path / "run" / "seed-0" / "model.safetensors")
    assert {key for key in saved if key.startswith("kd.")} == {
        f"kd.{i}.heads.0.{part}" for i in (0, 1) for part in ("weight", "bias")
    }
    save_file(
        {key: value for key, value in saved.items() if not key.startswith("kd.1")}, tmp_path / "model.safetensors"
    )
    again = read_weights(tmp_path, "kd", fresh)
    assert torch.equal(again.state_dict()["0.heads.0.weight"], saved["kd.0.heads.0.weight"])


def test_the_warm_up_weighs_each_epoch(taught, teacher):
    loss = parse("glnn(weight=0.5, warmup=3)")
    trainer = Trainer(student(dropout=0.0), taught, ACCURACY, teacher=teacher)
    seen = []
    with attached(loss, trainer) as terms:
        one = terms[0]._replace(loss=lambda out, batch: 0 * out.values.sum(-1) + 1)
        trainer.hook = lambda record: seen.append(record["loss"])
        trainer.fit(Phase("test", ("",), (one,), epochs=6))
    assert seen == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5])


class Everything(Whole):
    """The whole graph in every step, whatever a phase needs."""

    def training(self, whole, needs):
        return lambda epoch: (whole,)


@pytest.mark.parametrize("inside", [False, True], ids=["frozen teacher", "strong expert"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_node_left_out_changes_nothing_of_what_is_learned_from_a_teacher(taught, teacher, spec, inside):
    """A weak expert learns the same from training nodes alone, where that is how it is run, as on the whole graph."""
    spec = f"{spec.removesuffix(')')}{', ' if '(' in spec else '('}on=train)".replace("k=3", "k=2")

    taught.x, (logits, hidden, reliability) = taught.x.double(), teacher
    signals = graphkd.Signals(logits.double(), tuple(layer.double() for layer in hidden), reliability.double())

    def learned(feed):
        losses, options = parse(spec), {"hidden_channels": 16, "num_layers": 2, "norm": "layer_norm"}
        torch.manual_seed(0)
        weak, strong = expert("mlp", 8, 3, **options), expert("gcn", 8, 3, **options)
        model = (Mowst(weak, strong, LearnedGate()) if inside else weak).double()
        trainer, start = Trainer(model, taught, ACCURACY, teacher=signals, feed=feed), snapshot(weak)
        weak.register_forward_hook(lambda module, given, out: rows.append(len(out)) if module.training else None)
        rows = []
        with attached(losses, trainer, *(("weak", "strong") if inside else ())) as terms:
            rows.clear()
            parts, own = (("weak",), separate) if inside else (("",), cross_entropy)
            trainer.fit(Phase("test", parts, (Term(own), *terms), torch.optim.SGD, lr=0.1, epochs=5, last=True))
        scopes = {weighted.loss.scope for weighted in losses}
        assert not all(torch.equal(value, start[name]) for name, value in snapshot(weak).items())
        return snapshot(weak), set(rows), scopes == {graphkd.Scope.NODE}

    if inside and any(weighted.loss.found for weighted in parse(spec)):
        with pytest.raises(InputError, match="in a teacher that is trained already"):
            learned(Whole())
        return
    (one, rows, node_wise), (other, all_rows, _) = learned(Whole()), learned(Everything())
    assert rows == ({int(taught.train_mask.sum())} if node_wise else {60})
    assert all_rows == {60}
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("spec", SPECS)
def test_labels_outside_the_training_mask_change_no_gradient(taught, teacher, spec):
    spec = spec.replace("k=3", "k=2")
    gradients = []
    for y in (taught.y, torch.where(taught.train_mask, taught.y, (taught.y + 1) % 3)):
        data = taught.clone()
        data.y = y
        model = student(dropout=0.0)
        trainer = Trainer(model, data, ACCURACY, teacher=teacher)
        with attached(parse(spec), trainer) as terms:
            torch.manual_seed(1)
            out = said(trainer)
            sum(term.value(out, trainer.whole) for term in terms).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert gradients[0]
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))


def test_a_coupled_loss_on_training_nodes_sees_no_other(taught, teacher):
    (weighted,) = parse("gld(k=2, on=train)")
    distill = Distill(weighted.loss, on="train")
    out = torch.randn(60, 3, requires_grad=True)
    distill(Logits(out), Batch.of(taught, teacher)).backward()
    assert (out.grad[~taught.train_mask] == 0).all()
    assert (out.grad[taught.train_mask] != 0).any()


# Inside the mixture --------------------------------------------------------------------------------------------------


def mixture():
    torch.manual_seed(0)
    options = {"hidden_channels": 16, "num_layers": 2, "dropout": 0.0}
    return Mowst(expert("mlp", 8, 3, **options), expert("gcn", 8, 3, **options), LearnedGate())


def test_the_teacher_inside_the_mixture_gets_no_gradient(taught, teacher):
    model = mixture()
    trainer = Trainer(model, taught, ACCURACY, teacher=teacher)
    with attached(
        parse("nkd+lsp(width=5,of=hidden)+tests.graphkd_contract.Outside"), trainer, "weak", "strong"
    ) as terms:
        out = said(trainer)
        sum(term.value(out, trainer.whole) for term in terms).backward()
    assert all(parameter.grad is None for parameter in model.strong.parameters())
    assert any(parameter.grad is not None for parameter in model.weak.parameters())


def test_a_strong_turn_leaves_the_lesson_out_and_a_weak_turn_runs_the_strong_expert_once(taught, teacher):
    model = mixture()
    trainer = Trainer(model, taught, ACCURACY, teacher=teacher)
    calls, taught_in = [], []
    model.strong.register_forward_hook(lambda *_: calls.append(len(trainer.history)))
    with attached(parse("kd+lsp(width=5,of=hidden)"), trainer, "weak", "strong") as terms:
        calls.clear()
        watched = terms[0]._replace(loss=lambda out, batch: taught_in.append(len(trainer.history)) or out.weak.sum(-1))
        watched = [watched, terms[1]]
        trainer.fit(Schedule(epochs=5).phase("weak", ("weak", "gate"), Term(separate), *watched))
        assert len(calls) == 1
        assert len(taught_in) == 5
        trainer.fit(Schedule(epochs=5).phase("strong", ("strong",), Term(separate), *watched))
        assert len(taught_in) == 5


@pytest.mark.parametrize("regime", [joint_regime, alternate])
def test_the_weak_expert_comes_closer_to_the_strong_one(taught, teacher, regime):
    distance = {}
    for weight in (0, 20):
        model = mixture()
        rising = itertools.count()  # keeps the last weights
        trainer = Trainer(model, taught, lambda out, y, rising=rising: next(rising), teacher=teacher)
        with attached(parse(f"glnn(weight={weight})"), trainer, "weak", "strong") as terms:
            regime(trainer, Schedule(epochs=25, rounds=2, pretrain="none"), extra=terms)
        out = trainer.output()
        distance[weight] = float(graphkd.kd(out.weak, out.strong, 1.0).mean())
    assert distance[20] < 0.7 * distance[0]


# Hidden layers -------------------------------------------------------------------------------------------------------

WIDTHS = {
    "mlp": [16, 16],
    "gcn": [16, 16],
    "sage": [16, 16],
    "gat": [16, 16],
    "gin": [16, 16],
    "gin-skip": [16, 16, 16],
}


@pytest.mark.parametrize("kind", WIDTHS)
def test_hidden_layers_are_the_inputs_of_all_layers_but_the_first(taught, kind):
    model = student(kind, num_layers=3).eval()
    plain = model(taught.x, taught.edge_index)
    hidden = Hidden(model)
    assert torch.equal(model(taught.x, taught.edge_index), plain)
    assert [h.size(-1) for h in hidden.layers] == WIDTHS[kind]
    assert all(h.requires_grad for h in hidden.layers)
    *_, last = layers_of(model)
    if kind in ("mlp", "gin-skip"):
        torch.testing.assert_close(last(hidden.layers[-1]), plain)
    hidden.close()
    model(taught.x, taught.edge_index)
    assert hidden.layers == ()


def test_a_loss_on_hidden_layers_reaches_the_student_but_not_its_last_layer(taught, teacher):
    model = student(dropout=0.0)
    trainer = Trainer(model, taught, ACCURACY, teacher=teacher)
    with attached(parse("dualhead"), trainer) as terms:
        out = said(trainer)
        terms[0].value(out, trainer.whole).backward()
    *_, last = model.lins
    assert last.weight.grad is None
    assert model.lins[0].weight.grad.abs().sum() > 0


def test_what_is_observed_of_a_teacher(taught):
    model = student("gcn")
    torch.manual_seed(3)
    seen = observe(model, taught, frozenset({"teacher_hidden", "reliability"}))
    torch.testing.assert_close(seen.logits, model.eval()(taught.x, taught.edge_index))
    assert [h.shape for h in seen.hidden] == [(60, 16)]
    assert ((seen.reliability >= 0) & (seen.reliability <= 1)).all()
    assert not seen.logits.requires_grad
    assert observe(model, taught).reliability is None
