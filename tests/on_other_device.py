"""Whole runs on a device that lets nobody mix its tensors with the CPU's; `test_other_device` runs them."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

from graphkd import LOSSES
from mowst import Config, ExpertConfig, GateConfig, MowstClassifier, load, predict, run
from mowst.data import simple
from mowst.evaluation import accuracy, signal
from mowst.experiment import asking, building, estimating, forgetting, opening, reload, seed, whole
from mowst.kernels import attention, recording
from mowst.models.experts import EXPERTS
from mowst.models.gates import GATES
from mowst.training import REGIMES, Schedule, Term, Trainer, capture, cross_entropy, epochs
from mowst.training.objectives import OBJECTIVES
from tests import graphs, other_device

SMALL = {"dataset": "tests.graphs.good", "preset": "fast", "seeds": 1, "epochs": 3}


@pytest.fixture(autouse=True)
def _there(monkeypatch):
    monkeypatch.setattr(attention, "DEVICES", (*attention.DEVICES, other_device.NAME))
    for module in (asking, building, estimating, forgetting, opening, reload, whole):
        monkeypatch.setattr(module, "fabric_of", other_device.fabric)


def is_there(module: nn.Module) -> bool:
    return {each.device for each in module.parameters()} <= {other_device.OTHER}


def ran(**options):
    """Run one seed there."""
    found = seed.run_seed(Config(**{**SMALL, **options}), 0)
    assert all(is_there(fitted.model) for fitted in found.fitted.values())
    return found


def test_what_is_mixed_is_refused():
    there, here = torch.ones(3, device=other_device.OTHER), torch.ones(3)
    assert torch.equal((there + torch.tensor(2.0)).cpu(), torch.full((3,), 3.0))
    for mix in (lambda: there + here, lambda: here[there.long()], lambda: torch.stack([there, here])):
        with pytest.raises(RuntimeError, match="some on the CPU"):
            mix()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("asked", [(True, False), (True, True), (False, True)])
def test_edges_are_put_in_order_as_on_the_cpu(asked, weighted, monkeypatch):
    monkeypatch.setattr(simple, "MANY", 1)
    edges, given = torch.randint(9, (2, 60)), dict(zip(("simple", "undirected"), asked, strict=True))
    weight = torch.randint(1, 9, (60,)).double() if weighted else None
    change = partial(simple.simplified, nodes=9, **given)
    wanted = change(edges, weight)
    for here in (edges, wanted[0]):  # the second is in order already
        found = simple.on_device(other_device.OTHER, change, here, weight if here is edges else wanted[1])
        for one, other in zip(found, wanted, strict=True):
            assert (one is None) == (other is None)
            assert one is None or (type(one) is torch.Tensor and torch.equal(one, other))


def test_scores_are_those_of_the_cpu(monkeypatch):
    there = ran(dataset="sbm", epochs=12).scores
    monkeypatch.undo()
    here = seed.run_seed(Config(**{**SMALL, "dataset": "sbm", "epochs": 12, "device": "cpu"}), 0).scores
    assert there.keys() == here.keys()
    for name in ("weak", "strong", "mixture", "stacked-on-val", "label-propagation", "correct-and-smooth"):
        assert there[name] == pytest.approx(here[name], abs=3)


@pytest.mark.slow
def test_commands(tmp_path, capsys):
    graph = ["--dataset", "tests.graphs.good", "--trust", "tests", "--preset", "fast", "--seeds", "1", "--epochs", "3"]
    assert run.command([*graph, "--out", str(tmp_path / "run")]) == 0
    for more in ([], ["--why", "1"], ["--explain", "1"], ["--layers"], ["--how", "routed"], ["--nodes", "0,5"]):
        assert predict.command([str(tmp_path / "run"), "--trust", "tests", *more]) == 0, more
    for how in ("retrain", "steps", "last"):
        into = ["--forget", "FIRST", "--forget_by", how, "--into", str(tmp_path / how)]
        into[1] = str(int(graphs.good().train_mask.nonzero()[0]))
        assert predict.command([str(tmp_path / "run"), "--trust", "tests", *into]) == 0, how


@pytest.fixture
def without_waiting(monkeypatch):
    """Return what runs one seed there whose epochs are recorded, and says which phases were not and why."""
    asked, left = [], []

    def captured(work, phase, here):
        found = capture.captured(work, phase, here)
        asked.append(phase.name)
        if found is work and phase.epochs - here.epoch >= capture.WORTH:
            left.append(phase.name)
        return found

    monkeypatch.setattr(epochs, "captured", captured)

    def tried(**options):
        with warnings.catch_warnings(record=True) as said, recording(other_device.Replay()):
            warnings.simplefilter("always")
            ran(**{"epochs": 21, "patience": 21, **options})
        assert asked
        return left, [str(each.message) for each in said if "not captured" in str(each.message)]

    return tried


ALL = [], []
"""Every phase was recorded, and nothing was said."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPERTS.names)
def test_no_expert_waits_for_the_device(kind, without_waiting):
    assert without_waiting(strong=ExpertConfig(kind=kind, norm="batch_norm")) == ALL


@pytest.mark.slow
@pytest.mark.parametrize("name", GATES.names)
def test_no_gate_waits_for_the_device(name, without_waiting):
    assert without_waiting(gate=GateConfig(kind=name), regime="joint") == ALL


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES.names)
def test_no_objective_waits_for_the_device(name, without_waiting):
    assert without_waiting(regime="joint", objective=name) == ALL


@pytest.mark.slow
@pytest.mark.parametrize("name", REGIMES.names)
def test_no_regime_waits_for_the_device(name, without_waiting):
    assert without_waiting(regime=name, rounds=1) == ALL


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES.names)
def test_no_distillation_loss_waits_for_the_device(loss, without_waiting):
    options = {"regime": "solo"} if loss == "vqgraph" else {"regime": "alternate", "rounds": 1}
    assert without_waiting(kd="lsp(width=0.3)" if loss == "lsp" else loss, teacher="strong", **options) == ALL


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"preset": "good"},
        {"ema_decay": 0.9},
        {"dataset": "digits", "standardize": True},
    ],
    ids=str,
)
def test_nothing_else_waits_for_the_device(options, without_waiting):
    assert without_waiting(**options) == ALL


def test_what_waits_is_told():
    class Waits(nn.Linear):
        def forward(self, x, edge_index):
            return super().forward(x) * float(x.sum() == x.sum())

    trainer = Trainer(
        Waits(8, 3).to(other_device.OTHER),
        graphs.good().to(other_device.OTHER),
        signal("metric", accuracy),
        fabric=other_device.fabric(),
    )
    with pytest.warns(UserWarning, match="not captured.*_local_scalar_dense waits"), recording(other_device.Replay()):
        trainer.fit(Schedule(epochs=30).phase("test", ("",), Term(cross_entropy)))
    assert len(trainer.history) == 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"batch": "neighbors(5,5)"},
        {"batch": "parts(4)"},
        {"dataset": "sbm", "coverage": 0.9, "abstain_risk": 0.05, "diffusion": 0.3, "mondrian": True},
        {"use_validation": True},
    ],
    ids=str,
)
def test_everything_else(options):
    ran(**options)


@pytest.mark.slow
def test_the_classifier(tmp_path):
    data = load("sbm")
    fitted = MowstClassifier(epochs=3).fit(data)
    fitted.save(tmp_path / "model")
    assert fitted.predict_proba(data).shape == (len(data.y), 4)
