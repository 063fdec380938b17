"""Every seam from outside the package: a backbone, gate, dispersion, loss, objective, regime, dataset of one's own."""

import pytest
import torch
from torch import nn

from graphkd import KD, DistillationLoss, Signals, build
from mowst import Config, ExpertConfig, GateConfig, InputError, Mixture, Mowst, PowerGate, expert
from mowst.data import load
from mowst.evaluation.metrics import accuracy, pooled
from mowst.experiment.runs import run
from mowst.models.gates import Asks, DispersionGate
from mowst.models.outputs import Gated
from mowst.training.distillation import Distill
from mowst.training.objectives import separate
from mowst.training.phases import Phase, Term
from mowst.training.regimes import solo
from mowst.training.schedule import Schedule
from mowst.training.trainer import Trainer

HERE = __name__


class Backbone(nn.Module):
    """A strong expert of one's own: mean of the neighbours, then a linear layer."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.lin = nn.Linear(2 * in_channels, out_channels)

    def forward(self, x, edge_index):
        summed = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
        return self.lin(torch.cat([x, summed], dim=-1))


def second(probs):
    """A dispersion of one's own."""
    return 1 - probs.topk(2, dim=-1).values[..., 1] * 2


class Halves(DispersionGate):
    """A gate of one's own."""

    def forward(self, weak_logits, x, strong_logits=None):
        return Gated(0.5 + 0.5 * self.measure(weak_logits).mean(-1))


class Bare(Halves):
    """A gate that forgets its `Gated`."""

    def forward(self, weak_logits, x, strong_logits=None):
        return super().forward(weak_logits, x).confidence


class Narrow(nn.Linear):
    """A strong expert with two outputs, whatever it is asked for."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, 2)

    def forward(self, x, edge_index):
        return super().forward(x)


class Fixed(nn.Module):
    """A strong expert that has nothing to learn."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()


class Fuses(nn.Module):
    """A gate that sees both experts and multiplies their opinions."""

    asks = Asks(strong=True, scale=True)

    def __init__(self, dispersions, detach=False):
        super().__init__()

    def forward(self, weak_logits, x, strong_logits=None):
        assert strong_logits is not None
        half = torch.full_like(weak_logits[:, 0], 0.5)
        return Gated(half, 4 * half)


def cautious(out: Mixture, batch):
    """An objective of one's own."""
    return separate(out, batch) + 0.1 * out.confidence


def once(trainer: Trainer, schedule: Schedule, objective=separate):
    """A regime of one's own."""
    trainer.fit(schedule.phase("once", ("weak", "strong", "gate"), Term(objective)))


class Squared(DistillationLoss):
    """A distillation loss of one's own."""

    def compute(self, student, teacher, target, edge_index):
        return (student.logits - teacher.logits).square().sum(-1)


def graph():
    """A dataset of one's own."""
    return load("sbm")


def test_a_whole_experiment_of_foreign_parts():
    config = Config(
        dataset=f"{HERE}:graph",
        strong=ExpertConfig(kind=f"{HERE}:Backbone"),
        gate=GateConfig(kind=f"{HERE}:Halves", dispersions=["max", f"{HERE}:second"]),
        regime=f"{HERE}:once",
        objective=f"{HERE}:cautious",
        optimizer="torch.optim:RMSprop",
        lr=0.001,
        pretrain="both",
        epochs=30,
        seeds=1,
    )
    result = run(config)
    assert result["scores"]["strong"]["test"][0] > 50
    assert 0.5 <= result["confidence"]["mean"] <= 1


def test_a_fusing_gate_needs_no_change_anywhere():
    config = Config(dataset="sbm", gate=GateConfig(kind=f"{HERE}:Fuses"), pretrain="both", epochs=60, seeds=1)
    scores = run(config)["scores"]
    assert scores["mixture"]["val"][0] > max(scores["weak"]["val"][0], scores["strong"]["val"][0])


def test_any_pair_of_experts(tiny):
    for weak, strong in (("gcn", "sage"), ("mlp", "mlp"), ("gat", "gin-skip")):
        options = {"hidden_channels": 8, "num_layers": 2}
        model = Mowst(expert(weak, 8, 3, **options), expert(strong, 8, 3, **options), PowerGate())
        assert model(tiny.x, tiny.edge_index).weak.shape == (60, 3)


def test_a_teacher_is_attached_as_one_more_term(tiny):
    teacher_logits = 4 * torch.nn.functional.one_hot((tiny.y + 1) % 3, 3).float()  # a teacher with a mind of its own
    for loss in (KD(temperature=1.0), Squared()):
        torch.manual_seed(0)
        student = expert("mlp", 8, 3, hidden_channels=32, num_layers=2)
        teacher = Signals(teacher_logits)
        trainer = Trainer(student, tiny, lambda out, y: pooled(out, (y + 1) % 3, accuracy), teacher=teacher)
        trainer.fit(Phase("distil", ("",), (Term(Distill(loss), on="all"),), epochs=150, lr=0.02))
        assert trainer.best.score > 0.7


def test_a_mixture_learns_from_a_teacher_too(tiny):
    teacher = Signals(4 * torch.nn.functional.one_hot(tiny.y, 3).float())
    model = Mowst(expert("mlp", 8, 3, hidden_channels=8, num_layers=2), Backbone(8, 3), PowerGate())
    trainer = Trainer(model, tiny, lambda out, y: pooled(out, y, accuracy), teacher=teacher)
    terms = Term(separate), Term(Distill(KD(), "weak"), weight=0.5, on="all")
    assert trainer.fit(Phase("both", ("weak", "strong"), terms, epochs=60))


def test_solo_takes_further_terms(tiny):
    student = expert("mlp", 8, 3, hidden_channels=8, num_layers=2)
    teacher = Signals(torch.zeros(60, 3))
    trainer = Trainer(student, tiny, lambda out, y: pooled(out, y, accuracy), teacher=teacher)
    solo(trainer, Schedule(epochs=2), extra=[Term(Distill(KD()), on="all")])
    assert len(trainer.history) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gate": GateConfig(f"{HERE}:Bare")}, "gate Bare: must return"),
        ({"strong": ExpertConfig(f"{HERE}:Narrow")}, "must return logits"),
        ({"strong": ExpertConfig(f"{HERE}:Fixed")}, "has no parameter to train"),
    ],
)
def test_a_part_that_keeps_no_contract_is_named_in_one_line(options, words):
    with pytest.raises(InputError, match=words) as error:
        run(Config(dataset="sbm", regime="joint", epochs=1, seeds=1, baselines=False, **options))
    assert "\n" not in str(error.value)


def test_either_form_of_a_dotted_path_will_do():
    for name in (f"{HERE}:graph", f"{HERE}.graph"):
        assert load(name).num_nodes == graph().num_nodes
    for name in (f"{HERE}:Squirrel", f"{HERE}.Squirrel"):
        with pytest.raises(ValueError, match="Squirrel"):
            build(name)
    for name in (f"{HERE}:Squared", f"{HERE}.Squared"):
        assert isinstance(build(f"{name}(weight=2)+kd")[0].loss, Squared)
