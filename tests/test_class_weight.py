"""Classes that are weighed alike in an expert's own training: the loss is torch's and scikit-learn's."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch_geometric.data import Data

from mowst import Config, ExpertConfig, InputError
from mowst.experiment import Opened, run
from mowst.experiment.choosing import PANEL, PRESETS, of_good
from mowst.experiment.plan import schedule_of
from mowst.experiment.reasons import weights_of
from mowst.models import Logits
from mowst.training import WAYS, Batch, Gone, Schedule
from mowst.training.forgetting import forget_alone
from mowst.training.objectives import balanced, cross_entropy
from mowst.training.phases import Term
from tests.graphs import good

ALIKE = ExpertConfig("gcn", hidden_channels=8, norm="none", class_weight="balanced")
SOLO = Config(dataset="tests.test_class_weight:unequal", regime="solo", weak=ALIKE, epochs=30, seeds=1, device="cpu")


def unequal() -> Data:
    """A class of two thirds, one that is rare, and nodes that look much alike."""
    data = good()
    data.y = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0, 2, 0] * 6)
    data.x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1)) + 0.7 * torch.eye(3, 4)[data.y]
    return data


@pytest.fixture
def batch() -> Batch:
    return Batch.of(unequal())


def test_the_loss_is_that_of_torch_with_the_weights_of_scikit_learn(batch):
    logits, seen = torch.randn(60, 3, dtype=torch.float64), batch.y >= 0
    y = batch.y[seen]
    weight = torch.from_numpy(compute_class_weight("balanced", classes=y.unique().numpy(), y=y.numpy()))
    found = Term(balanced(cross_entropy, batch.y)).value(Logits(logits), batch)
    torch.testing.assert_close(found, F.cross_entropy(logits[seen], y, weight=weight))
    assert float(found) != pytest.approx(float(F.cross_entropy(logits[seen], y)), rel=1e-3)


def test_every_class_counts_as_much_as_any_other_and_all_of_them_as_much_as_without(batch):
    ones = balanced(lambda out, seen: torch.ones(len(seen.y), dtype=torch.float64), batch.y)
    values, seen = ones(None, batch), batch.y >= 0
    totals = torch.stack([values[batch.y == c].sum() for c in batch.y[seen].unique()])
    torch.testing.assert_close(totals, totals[:1].expand_as(totals))
    torch.testing.assert_close(totals.sum(), seen.double().sum())


def test_a_class_that_no_node_shows_has_no_weight(batch):
    y = torch.where(batch.y == 1, -100, batch.y)
    weighted = balanced(cross_entropy, y)
    found = Term(weighted).value(Logits(torch.randn(60, 3)), batch.trained_on((y >= 0).nonzero().squeeze(-1), y))
    assert bool(found.isfinite())


def test_an_expert_is_trained_by_it_alone_and_so_is_its_twin():
    def recalls(part: ExpertConfig) -> torch.Tensor:
        bench = Opened(replace(SOLO, weak=part)).bench(0)
        fitted = bench.train("weak")
        losses = [line["loss"] for line in fitted.history]
        right = fitted.output.of("").values.argmax(1) == bench.ready.y
        return torch.stack([right[bench.ready.y == c].float().mean() for c in range(3)]), losses

    (alike, weighted), (plain, unweighted) = recalls(ALIKE), recalls(replace(ALIKE, class_weight="none"))
    assert weighted[0] != unweighted[0]
    assert alike[1:].sum() > plain[1:].sum(), "the rare are found more often"
    panel = ExpertConfig("gcn+gcn", each=[{}, {"class_weight": "balanced", "pace": {"lr": 0.02}}])
    config = replace(SOLO, weak=ExpertConfig("mlp"), strong=panel, regime="held-out")
    assert schedule_of(config, 0).own == {"strong.members.1": {"class_weight": "balanced", "lr": 0.02}}
    assert schedule_of(config, 0, "gcn 2").class_weight == "balanced"
    assert schedule_of(config, 0, "gcn").class_weight == "none"


def test_a_panel_with_such_an_expert_is_pooled_and_calibrated_as_ever(tmp_path):
    panel = ExpertConfig("gcn+gcn", hidden_channels=8, norm="none", each=[{}, {"class_weight": "balanced"}])
    config = replace(SOLO, weak=ExpertConfig("mlp", norm="none"), strong=panel, regime="held-out", epochs=10)
    scores = run(config, tmp_path)["scores"]
    assert {"weak", "gcn", "gcn 2", "mixture"} <= scores.keys()


def test_whoever_asks_or_changes_a_trained_expert_knows_the_weights_of_its_labels(batch, monkeypatch):
    panel = ExpertConfig("gcn+gcn", each=[{}, {"class_weight": "balanced"}])
    config = replace(SOLO, weak=ExpertConfig("mlp"), strong=panel, regime="held-out")
    graph, expected = batch.data, balanced(lambda out, seen: torch.ones(len(seen.y)), batch.y)(None, batch)
    for name, part in (("mixture", "strong.members.1"), ("gcn 2", "")):
        found = weights_of(config, name, graph)
        assert list(found) == [part]
        torch.testing.assert_close(found[part][graph.train_mask], expected[graph.train_mask])
    assert weights_of(config, "gcn", graph) == {} == weights_of(config, "weak", graph)
    told: list[torch.Tensor] = []
    monkeypatch.setitem(WAYS, "last", lambda expert, whole, gone: told.append(gone.weight))
    gone, trainer = Gone(*[torch.tensor([0])] * 4), SimpleNamespace(model=nn.Linear(4, 3), whole=batch)
    forget_alone(trainer, Schedule(class_weight="balanced"), "", gone, "last")
    torch.testing.assert_close(told[0][graph.train_mask], expected[graph.train_mask])


def test_asked_of_all_candidates_it_is_of_those_that_have_a_loss_to_weigh(monkeypatch):
    monkeypatch.setitem(PRESETS, "good", PANEL)
    config = replace(SOLO, regime="held-out", strong=ExpertConfig("auto", class_weight="balanced"), preset="best")
    strong = Opened(config).config.strong
    found = strong.members
    assert of_good(tuple(zip(strong.kind.split("+"), strong.each, strict=True))) == len(PANEL)
    for name, member in found.items():
        assert (member.class_weight == "none") == (member.kind in {"hop-trees", "neighbours"}), name


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Config(strong=ALIKE, regime="joint"), "pace, seed and class_weight: an expert has its own"),
        (lambda: ExpertConfig(class_weight="fair"), "class_weight: must be"),
        (lambda: Opened(replace(SOLO, weak=replace(ALIKE, kind="trees"))), "trees: class_weight: it learns by itself"),
    ],
)
def test_what_it_cannot_be_asked_of_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
