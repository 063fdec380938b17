"""Agreement of CPU and CUDA; skipped where there is no CUDA device."""

import copy
import warnings
from contextlib import nullcontext

import pytest
import torch
from lightning_fabric import Fabric

from graphkd import LOSSES, Scope
from mowst import Config, ExpertConfig, GateConfig, Mowst, expert
from mowst.errors import InputError
from mowst.evaluation import METRICS, signal
from mowst.experiment.runs import run
from mowst.kernels import CudaGraphs, measuring, recording
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.attention import AttentionConv
from mowst.kernels.choosing import APART, own_product
from mowst.models.experts import EXPERTS
from mowst.models.gates import GATES
from mowst.models.reads import reads_of, run_module
from mowst.training import REGIMES, Schedule, Term, Trainer, attached, cross_entropy, parse
from mowst.training.batches import Batch, Needs
from mowst.training.feeds import Neighbours
from mowst.training.objectives import OBJECTIVES
from tests.test_attention import LAYERS
from tests.test_propagation import N, edges
from tests.test_propagation import run as gradients

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", EXPERTS.names)
def test_experts_agree(tiny, name):
    model = expert(name, 8, 3, hidden_channels=16, num_layers=2, norm="layer_norm").double()
    x, adjacency = tiny.x.double(), Adjacency.from_edge_index(tiny.edge_index, 60)
    there = run_module(copy.deepcopy(model).cuda(), reads_of(model), x.cuda(), adjacency.to("cuda"))
    torch.testing.assert_close(there.cpu(), run_module(model, reads_of(model), x, adjacency), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat", "gat-res"])
@pytest.mark.parametrize("fanouts", [(2, 2), (-1, -1)])
def test_batches_that_are_cut_agree(tiny, name, fanouts):
    model, said = expert(name, 8, 3, hidden_channels=16, num_layers=2, norm="layer_norm").double(), []
    for device in ("cpu", "cuda"):
        data, moved = tiny.clone().to(device), copy.deepcopy(model).to(device)
        data.x, data.adj_t = data.x.double(), Adjacency.from_edge_index(data.edge_index, 60)
        needs = Needs(2, Scope.NODE, frozenset({"train"}), seeds_alone=True, looked_up=reads_of(model).looked_up)
        batches = Neighbours(fanouts, 12).training(Batch.of(data), needs)(1)
        outs = torch.cat([run_module(moved, reads_of(moved), batch.x, batch.graph) for batch in batches])
        outs.square().sum().backward()
        said.append([outs.detach().cpu(), *(each.grad.cpu() for each in moved.parameters())])
    for here, there in zip(*said, strict=True):
        torch.testing.assert_close(there, here, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_attention_and_every_gradient_agree(options):
    torch.manual_seed(0)
    layer, x = AttentionConv(7, 5, **options).double(), torch.randn(N, 7, dtype=torch.double)
    adjacency = Adjacency.from_edge_index(edges(), N)
    here = gradients(layer, x, adjacency)
    there = gradients(copy.deepcopy(layer).cuda(), x.cuda(), adjacency.cuda())
    for value, oracle in zip(there, here, strict=True):
        torch.testing.assert_close(value.cpu(), oracle, rtol=1e-9, atol=1e-12)


def test_a_product_has_the_precision_of_its_dense_side_under_autocast_too():
    adjacency, x = Adjacency.from_edge_index(edges(), N).cuda(), torch.randn(N, 7, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        assert adjacency.times(x).dtype == torch.float32
        assert adjacency.times(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("gate", GATES.names)
@pytest.mark.parametrize("objective", OBJECTIVES.names)
def test_gates_and_objectives_agree(tiny, gate, objective):
    torch.manual_seed(0)
    options = {"hidden_channels": 8, "num_layers": 2}
    model = Mowst(expert("mlp", 8, 3, **options), expert("gcn", 8, 3, **options), GATES.lookup(gate)()).eval()
    losses = []
    for device in ("cpu", "cuda"):
        data, moved = tiny.clone().to(device), copy.deepcopy(model).to(device)
        loss = OBJECTIVES.lookup(objective)(moved(data.x, data.edge_index), data).mean()
        loss.backward()
        losses.append([loss.detach().cpu(), *(p.grad.cpu() for p in moved.parameters() if p.grad is not None)])
    for here, there in zip(*losses, strict=True):
        torch.testing.assert_close(there, here, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("regime", ["joint", "alternate"])
def test_a_whole_run(precision, regime, tmp_path):
    config = Config(
        dataset="sbm",
        strong=ExpertConfig(kind="sage"),
        gate=GateConfig(features=True),
        device="cuda",
        precision=precision,
        regime=regime,
        epochs=40,
        rounds=2,
        seeds=1,
    )
    scores = run(config, tmp_path / "run")["scores"]
    assert scores["mixture"]["test"][0] > 50


def test_a_student_is_distilled_in_bf16(tmp_path):
    experts = {"weak": ExpertConfig("mlp"), "strong": ExpertConfig("gcn")}
    losses = "gld(k=2)+nkd+ofa+krd+rkd+lsp(of=hidden)"
    options = {"device": "cuda", "precision": "bf16-mixed", "epochs": 30, "seeds": 1}
    config = Config(dataset="sbm", regime="solo", teacher="strong", kd=losses, **experts, **options)
    scores = run(config, tmp_path / "run")["scores"]
    assert scores["student"]["test"][0] > 50
    again = Config(dataset="sbm", regime="solo", teacher=str(tmp_path / "run"), kd="krd", **experts, **options)
    assert run(again)["scores"]["teacher"]["test"][0] == pytest.approx(scores["strong"]["test"][0], abs=1)


def test_trees_grown_on_the_gpu_learn_what_those_of_the_cpu_learn():
    pytest.importorskip("xgboost", reason="xgboost is not installed")
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    y = torch.where(torch.arange(500) < 400, (x[:, 0] + x[:, 1] > 0).long(), -1)
    edges = torch.empty(2, 0, dtype=torch.long, device="cuda")
    trees = expert("trees", 6, 2).cuda()
    trees.learn(x.cuda(), edges, y.cuda(), None, 60)
    said = trees(x.cuda(), edges)
    assert said.is_cuda
    assert (said[400:].argmax(1).cpu() == (x[400:, 0] + x[400:, 1] > 0)).float().mean() > 0.9


def trained_there(data, regime: str, gate: str, kd: str, *, graphs: bool, precision="32-true", kind="gcn"):
    """Train a small model of a regime on CUDA, and return the trainer and what was warned of."""
    torch.manual_seed(0)
    layers = {"hidden_channels": 16, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm"}
    weak, strong = expert("mlp", 8, 3, **layers), expert(kind, 8, 3, **layers)
    chosen = REGIMES.lookup(regime)
    router = GATES.lookup("logistic")() if chosen.holds_out else None
    model = strong if chosen.alone else Mowst(weak, strong, GATES.lookup(gate)(), router)
    fabric = Fabric(accelerator="cuda", devices=1, precision=precision)
    with warnings.catch_warnings(record=True) as said, recording(CudaGraphs() if graphs else None):
        warnings.simplefilter("always")
        trainer = Trainer(model.cuda(), data, signal("loss", METRICS.lookup("accuracy")), fabric=fabric)
        schedule = Schedule(epochs=45, patience=45, rounds=1, pretrain="both")
        parts = ("", "") if chosen.alone else ("weak", "strong")
        with attached(parse(kd), trainer, *parts) if kd else nullcontext(()) as terms:
            chosen(trainer, schedule, extra=terms)
    return trainer, [str(each.message) for each in said if "not captured" in str(each.message)]


def alike_there(one, other) -> None:
    """Say that two trainings went the same way, up to what kernels that add in no order may differ by."""
    early = slice(0, 25)
    for name in ("loss", "val"):
        here, there = (torch.tensor([line[name] for line in each.history[early]]) for each in (one, other))
        torch.testing.assert_close(there, here, rtol=2e-2, atol=2e-2)
    assert [line["epoch"] for line in one.history[early]] == [line["epoch"] for line in other.history[early]]


@pytest.mark.parametrize("every", [3, 7, 50])
def test_looking_seldom_there_is_looking_at_every_epoch(tiny, every):
    data, ends = tiny.clone().to("cuda"), []
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    for looks in (1, every):
        torch.manual_seed(0)
        model = expert("gcn", 8, 3, hidden_channels=16, num_layers=2, dropout=0.5, norm="batch_norm").cuda()
        fabric = Fabric(accelerator="cuda", devices=1)
        ends.append(Trainer(model, data, signal("metric", METRICS.lookup("rocauc")), fabric=fabric, every=looks))
        ends[-1].fit(Schedule(epochs=40, patience=12).phase("test", ("",), Term(cross_entropy)))
    alike_there(*ends)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", [name for name in EXPERTS.names if name not in ("mlp", "trees", "hop-trees")])
def test_captured_epochs_of_every_expert_are_the_plain_ones(tiny, kind, precision):
    data = tiny.clone().to("cuda")
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    plain, _ = trained_there(data, "solo", "learned", "", graphs=False, kind=kind, precision=precision)
    graphs, said = trained_there(data, "solo", "learned", "", graphs=True, kind=kind, precision=precision)
    print(kind, precision, said or "captured")
    alike_there(plain, graphs)
    assert not said or kind not in ("gcn", "sage", "gat")


@pytest.mark.parametrize("regime", ["joint", "alternate"])
@pytest.mark.parametrize("gate", GATES.names)
def test_captured_epochs_of_every_gate_are_the_plain_ones(tiny, gate, regime):
    data = tiny.clone().to("cuda")
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    plain, _ = trained_there(data, regime, gate, "", graphs=False)
    graphs, said = trained_there(data, regime, gate, "", graphs=True)
    print(gate, regime, said or "captured")
    alike_there(plain, graphs)


@pytest.mark.parametrize("regime", REGIMES.names)
def test_captured_epochs_of_every_regime_are_the_plain_ones(tiny, regime):
    data, gate = tiny.clone().to("cuda"), REGIMES.lookup(regime).gate
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    plain, _ = trained_there(data, regime, gate, "", graphs=False)
    graphs, said = trained_there(data, regime, gate, "", graphs=True)
    print(gate, regime, said or "captured")
    alike_there(plain, graphs)
    assert not said


@pytest.mark.parametrize("loss", LOSSES.names)
def test_captured_epochs_with_a_distillation_loss_are_the_plain_ones(tiny, loss):
    """From the strong expert to the weak one, in turns."""
    data = tiny.clone().to("cuda")
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    try:
        plain, _ = trained_there(data, "alternate", "learned", loss, graphs=False)
    except InputError as error:
        pytest.skip(str(error))
    graphs, said = trained_there(data, "alternate", "learned", loss, graphs=True)
    print(loss, said or "captured")
    alike_there(plain, graphs)


class Waits(torch.nn.Module):
    """A module that waits for the device in every pass."""

    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self.lin(x) * (1.0 if float(x.sum()) == float(x.sum()) else 0.0)


def test_a_module_that_waits_for_the_device_goes_on_plainly_and_says_so_and_so_does_what_comes_after(tiny):
    data = tiny.clone().to("cuda")
    fabric = Fabric(accelerator="cuda", devices=1)
    for model, line in ((Waits(), True), (torch.nn.Linear(8, 3), False)):
        called = model if line else Brief(model)
        trainer = Trainer(called.cuda(), data, signal("metric", METRICS.lookup("accuracy")), fabric=fabric)
        with recording(CudaGraphs()), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            trainer.fit(Schedule(epochs=40).phase("test", ("",), Term(cross_entropy)))
        assert any("not captured" in str(each.message) for each in said) == line
        assert len(trainer.history) == 40
        assert torch.rand(3, device="cuda").isfinite().all()


class Brief(torch.nn.Module):
    """A linear layer as a model of a graph, with dropout."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, edge_index):
        return self.layer(torch.nn.functional.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 40, 64, 256, 300])
def test_our_own_product_comes_to_what_float64_does(width, dtype):
    own = own_product()
    if own is None:
        pytest.skip("Triton is not installed")
    adjacency = Adjacency.from_edge_index(edges(), N).gcn().cuda()
    x = torch.randn(N, width, dtype=dtype, device="cuda")
    for rows in (adjacency.rows, adjacency.columns):
        wanted = rows.times(x.double())
        apart = (own(rows.start, rows.column, rows.value, x).double() - wanted).norm()
        assert apart <= APART[dtype] * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_that_was_chosen_by_measurement_has_the_gradient_of_the_one_that_was_not(dtype):
    found = []
    for enabled in (False, True):
        adjacency = Adjacency.from_edge_index(edges(), N).gcn().cuda()
        torch.manual_seed(0)
        x = torch.randn(N, 64, dtype=dtype, device="cuda", requires_grad=True)
        with measuring(enabled):
            out = adjacency.times(x)
            out.square().sum().backward()
        assert bool(adjacency.rows.own) == enabled
        found.append((out.detach(), x.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
