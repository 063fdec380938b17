"""Ways to calibrate a whole prediction."""

import json

import pytest
import torch
import torch.nn.functional as F

from mowst.evaluation import belief, tempering
from mowst.evaluation.tempering import TemperatureGate, by_group, common, gate, level, signals, surest, tempered
from mowst.models import Mixture


def case(n=3000, C=4, seed=0):
    """Log-probabilities that are too sharp by 2 where `group` is 0, by 1/2 where it is 1, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, C, generator=generator, dtype=torch.float64)
    y = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
    group = torch.arange(n) % 2
    factor = torch.tensor([2.0, 0.5])[group].unsqueeze(-1)
    return (logits * factor).log_softmax(-1), y, group


def ways(said, y, nodes, group):
    return {
        "common": common(said, y, nodes),
        "groups": by_group(said, y, nodes, group),
        "gate": gate(said, y, nodes, group.double().unsqueeze(-1)).temperatures(group.double().unsqueeze(-1)),
    }


def test_no_temperature_changes_a_class_and_only_the_nodes_asked_for_are_looked_at():
    said, y, group = case()
    nodes = torch.arange(3000) < 1000
    other = torch.where(nodes, y, (y + 1) % 4)
    for (name, one), two in zip(
        ways(said, y, nodes, group).items(), ways(said, other, nodes, group).values(), strict=True
    ):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(two)), name
        assert tempered(said, one).values.argmax(-1).equal(said.argmax(-1))


def test_temperatures_of_groups_and_the_gate_find_what_one_temperature_cannot():
    said, y, group = case()
    nodes = torch.arange(3000) < 1500
    found = ways(said, y, nodes, group)
    assert found["groups"][:2].log2().tolist() == pytest.approx([1, -1], abs=0.25)
    likely = {name: belief(tempered(said, each).rows(~nodes), y[~nodes]).nll for name, each in found.items()}
    assert likely["groups"] < likely["gate"] < likely["common"] < belief(said[~nodes], y[~nodes]).nll


def test_temperatures_are_finite_at_logits_of_ten_thousand():
    said = (1e4 * torch.randint(-1, 2, (200, 4)).double()).log_softmax(-1)
    y, nodes, group = torch.arange(200) % 4, torch.arange(200) < 100, torch.arange(200) % 2
    for each in ways(said, y, nodes, group).values():
        assert tempered(said, each).log_probs().isfinite().all()


def test_a_gate_is_kept_as_numbers_and_stays_between_half_and_twice_the_common_temperature(tiny):
    generator = torch.Generator().manual_seed(0)
    out = Mixture(*(3 * torch.randn(60, 3, generator=generator) for _ in range(2)), torch.rand(60, generator=generator))
    seen = signals(out, tiny.edge_index)
    found = gate(out, tiny.y, tiny.val_mask, seen)
    again = TemperatureGate(**json.loads(json.dumps(found._asdict())))
    assert again.temperatures(seen).equal(found.temperatures(seen))
    assert (found.temperatures(100 * seen) / found.common).log2().abs().max() <= 1 + 1e-9
    assert seen.shape == (60, 5)
    assert signals(out._replace(weak=1e4 * out.weak, strong=-1e4 * out.strong), tiny.edge_index).isfinite().all()


def test_a_gate_that_brings_nothing_is_seldom_taken_and_one_that_is_needed_is():
    nodes, idle = torch.arange(500) < 60, 0
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(500, 4, generator=generator, dtype=torch.float64)
        y = torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)
        seen = torch.randn(500, 5, generator=generator, dtype=torch.float64)
        idle += surest(logits, y, nodes, seen).calibrated(logits, seen).log_probs().allclose(logits.log_softmax(-1))
        found = surest(8 * logits, y, nodes, seen)
        assert belief(found.calibrated(8 * logits, seen), y).nll < 0.7 * belief(8 * logits, y).nll
    assert idle >= 5
    assert (surest(logits, y, torch.arange(500) < 3, seen).temperatures(seen) == 1).all()


def shifted(n=6000, C=4, seed=0):
    """Log-probabilities for classes that are alike frequent, labels of classes that are not, and by how much."""
    generator = torch.Generator().manual_seed(seed)
    rare = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    y = torch.multinomial(rare, n, replacement=True, generator=generator)
    x = torch.randn(n, C, generator=generator, dtype=torch.float64) + 1.5 * torch.eye(C, dtype=torch.float64)[y]
    return (1.5 * x).log_softmax(-1), y, rare.log()


def test_what_is_missed_is_the_cross_entropy_and_its_gradient_is_right():
    said, y, _ = shifted(n=20)
    on = tempering.Labelled.of(said, y, torch.ones(20, dtype=torch.bool), torch.zeros(20, 2))
    kept = torch.rand(3, 20) < 0.7
    log_t, offsets = torch.randn(3, 20, dtype=torch.double), torch.randn(3, 4, dtype=torch.double)
    raised = said / log_t.exp().unsqueeze(-1) + offsets.unsqueeze(1)
    wanted = sum(F.cross_entropy(each[some], y[some], reduction="sum") for each, some in zip(raised, kept, strict=True))
    torch.testing.assert_close(on.missing(kept)(log_t, offsets), wanted)
    assert torch.autograd.gradcheck(on.missing(kept), (log_t.requires_grad_(), offsets.requires_grad_()))


@pytest.mark.parametrize("fit", [tempering.gates, tempering.levels])
def test_subsets_are_fitted_together_as_one_by_one(fit, monkeypatch):
    said, y, _ = shifted(n=600)
    on = tempering.Labelled.of(said, y, torch.arange(600) < 400, torch.randn(600, 3, dtype=torch.double))
    kept = torch.rand(4, 400) < 0.7
    found = []
    for most in (tempering.TOGETHER, 0):
        monkeypatch.setattr(tempering, "TOGETHER", most)
        gates = tempering.fitted(fit, on, kept)
        found.append([each.calibrated(said, torch.ones(600, 3)).values for each in gates])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(found[0][0], found[0][1], atol=1e-2)


def test_offsets_are_the_logarithms_of_how_frequent_classes_are():
    said, y, expected = shifted()
    nodes, seen = torch.arange(6000) < 4000, torch.zeros(6000, 5)
    found = level(said, y, nodes, seen)
    offsets = torch.tensor(found.offsets, dtype=torch.float64)
    torch.testing.assert_close(offsets - offsets.mean(), expected - expected.mean(), atol=0.15, rtol=0)
    assert found == level(said, torch.where(nodes, y, (y + 1) % 4), nodes, seen)
    before, after = belief(said[~nodes], y[~nodes]), belief(found.calibrated(said, seen).rows(~nodes), y[~nodes])
    assert after.nll < before.nll - 0.05
    assert after.accuracy > before.accuracy
    kept = TemperatureGate(**json.loads(json.dumps(surest(said, y, nodes, seen)._asdict())))
    assert kept.offsets == pytest.approx(found.offsets, rel=1e-4)
    assert kept.common == pytest.approx(found.common)
    huge = level(1e4 * said, y, nodes, seen)
    assert huge.calibrated(1e4 * said, seen).log_probs().isfinite().all()
