"""Faults of the authors' code (as listed in the literature on it) that this one must not have, one test each."""

import pytest
import torch

from mowst import Config, expert
from mowst.evaluation.metrics import accuracy, expected, pooled
from mowst.experiment.reading import config_of, parse, parser
from mowst.experiment.runs import run
from mowst.models.gates import LearnedGate
from mowst.models.mixture import Mowst
from mowst.models.outputs import Mixture
from mowst.training.objectives import separate
from mowst.training.phases import Term
from mowst.training.progress import snapshot
from mowst.training.regimes import joint, pretrain
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer


def fresh() -> Mowst:
    torch.manual_seed(0)
    options = {"hidden_channels": 8, "num_layers": 2, "dropout": 0.5, "norm": "batch_norm"}
    return Mowst(expert("mlp", 8, 3, **options), expert("gcn", 8, 3, **options), LearnedGate())


def score(out, y):
    return pooled(out, y, accuracy)


@pytest.mark.parametrize("flag", ["--baselines", "--normalize_features", "--gate.features"])
def test_flags_can_be_on_and_off(flag):
    values = []
    for word in ("true", "false"):
        value = config_of(parse(parser("run", ""), [flag, word]))
        for name in flag.removeprefix("--").split("."):
            value = getattr(value, name)
        values.append(value)
    assert values == [True, False]


def test_the_joint_regime_stops_early(tiny):
    trainer = Trainer(fresh(), tiny, score)
    joint(trainer, Schedule(epochs=20_000, patience=5))
    assert len(trainer.history) < 500


def test_the_gate_sees_the_same_in_training_and_evaluation(tiny):
    model, seen = fresh(), []
    model.gate.register_forward_pre_hook(lambda gate, inputs: seen.append(inputs[0].detach().clone()))
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout | torch.nn.BatchNorm1d):
            part.eval()
    model.weak.eval()
    model(tiny.x, tiny.edge_index)
    model.eval()(tiny.x, tiny.edge_index)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], model.weak(tiny.x))  # raw logits, not probabilities


def test_the_state_holds_the_gate_and_comes_back_with_it(tiny):
    trainer = Trainer(fresh(), tiny, score)
    joint(trainer, Schedule(epochs=20))
    assert any(name.startswith("gate.") for name in trainer.best.weights)
    other = fresh()
    other.load_state_dict(trainer.best.weights)
    torch.testing.assert_close(other.eval()(tiny.x, tiny.edge_index).confidence, trainer.output().confidence)


def test_pretraining_is_validated_on_validation_nodes(tiny):
    seen = []
    trainer = Trainer(fresh(), tiny, lambda out, y: seen.append(y) or 0.0)
    pretrain(trainer, Schedule(epochs=2), ("weak", "strong"))
    assert seen
    assert all(torch.equal(y, tiny.y[tiny.val_mask]) for y in seen)


def test_the_frozen_expert_keeps_its_statistics_and_has_no_dropout(tiny):
    model, modes = fresh(), []
    model.strong.register_forward_hook(lambda module, inputs, out: modes.append(module.training))
    before = snapshot(model.strong)
    trainer = Trainer(model, tiny, score)
    trainer.fit(Schedule(epochs=5).phase("weak turn", ("weak", "gate"), Term(separate)))
    assert modes == [False]
    assert all(torch.equal(value, before[name]) for name, value in snapshot(model.strong).items())


def test_a_joint_epoch_runs_the_strong_expert_twice(tiny):
    model, calls = fresh(), []
    model.strong.register_forward_hook(lambda *_: calls.append(1))
    joint(Trainer(model, tiny, score), Schedule(epochs=10, pretrain="none"))
    assert len(calls) == 1 + 2 * 10  # where it started, then one training and one evaluation forward an epoch


def test_expected_accuracy_is_a_formula_and_repeats_itself():
    generator = torch.Generator().manual_seed(0)
    out = Mixture(*(torch.randn(1000, 4, generator=generator) for _ in range(2)), torch.rand(1000, generator=generator))
    y = torch.randint(4, (1000,), generator=generator)
    assert len({expected(out, y, accuracy) for _ in range(20)}) == 1


def test_two_runs_at_once_do_not_share_a_file(tmp_path):
    for seed in (0, 1):
        run(Config(dataset="sbm", epochs=1, seeds=1, first_seed=seed, baselines=False), tmp_path / str(seed))
    one, two = ((tmp_path / str(s) / f"seed-{s}" / "model.safetensors").read_bytes() for s in (0, 1))
    assert one != two
