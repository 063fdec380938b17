"""Answers without a model, which models have to beat: the largest class, labels spread over the edges."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mowst import Config
from mowst.evaluation import METRICS, Spread, advise, signal
from mowst.experiment import ExpertConfig, run
from mowst.experiment.scoring import Plain, adjacency_of, against, plain_of
from mowst.models import Logits
from tests.graphs import good
from tests.test_advice import result

SMALL = {"hidden_channels": 4}
CONFIG = Config(
    dataset="tests.test_plain:uneven",
    weak=ExpertConfig("mlp", **SMALL),
    strong=ExpertConfig("gcn", **SMALL),
    epochs=2,
    seeds=2,
    device="cpu",
)


def uneven():
    """A graph where class 1 is the largest of the training nodes, and class 2 that of all others."""
    data = good()
    data.y = torch.where(data.train_mask, data.y.clamp(max=1), torch.where(data.y == 1, 1, 2))
    data.y[data.train_mask.nonzero()[:3]] = torch.tensor([[0], [1], [2]])
    return data


def untrained(classes: int, nodes: int = 60):
    return {name: SimpleNamespace(output=Logits(torch.zeros(nodes, classes))) for name in ("weak", "strong")}


def test_the_largest_class_is_that_of_the_training_nodes():
    data, found = uneven(), run(CONFIG)
    largest = int(data.y[data.train_mask].mode().values)
    assert largest == 1 != int(data.y[~data.train_mask].mode().values)
    for split, mask in (("val", data.val_mask), ("test", data.test_mask)):
        share = 100 * float((data.y[mask] == largest).float().mean())
        assert found["scores"]["largest-class"][split] == pytest.approx([share, 0.0])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_constant_has_half_of_the_area_under_the_roc_curve(classes):
    data = good()
    data.y = data.y % classes
    nodes = torch.arange(60)
    constant = plain_of(untrained(classes), data, nodes)["largest-class"]
    assert METRICS.lookup("rocauc")(constant.probs(), data.y) == 0.5


def test_labels_outside_the_training_set_are_not_looked_at():
    data, nodes = good(), torch.arange(60)
    other = good()
    other.y = torch.where(data.train_mask, data.y, (data.y + 1) % 3)
    for one, two in zip(*(plain_of(untrained(3), each, nodes).values() for each in (data, other)), strict=True):
        assert torch.equal(one.probs(), two.probs())
    spread = Spread(adjacency_of(data), data.y, data.train_mask).labels(3)
    assert torch.equal(plain_of(untrained(3), data, nodes)["label-propagation"].probs(), spread.probs())


@pytest.mark.parametrize("changed", [{}, {"mixture": False}, {"baselines": False}, {"strong": "gcn+sage"}])
def test_every_run_has_the_largest_class_and_one_that_compares_models_has_labels_spread(changed):
    strong = ExpertConfig(changed.pop("strong", "gcn"), **SMALL)
    config = replace(CONFIG, dataset="tests.graphs:good", strong=strong, seeds=1, **changed)
    found = run(config)
    assert "largest-class" in found["scores"]
    assert ("label-propagation" in found["scores"]) == config.baselines
    assert found["runs"][0]["plain"].keys() == found["scores"].keys() & {"largest-class", "label-propagation"}


def test_a_plain_answer_beats_what_is_worse_by_more_than_chance_alone():
    y = torch.zeros(100, dtype=torch.long)
    right = torch.tensor([[1.0, 0.0]]).repeat(100, 1)

    def wrong_at(count: int) -> Logits:
        return Logits(torch.cat([right[count:], right[:count].flip(1)]))

    by = signal("metric", METRICS.lookup("accuracy"))
    models = {"same": wrong_at(20), "better": wrong_at(10), "worse": wrong_at(40)}
    assert against(wrong_at(20), models, y, by) == Plain(["worse"], unbeaten=False)
    assert against(wrong_at(20), {"same": wrong_at(20), "worse": wrong_at(40)}, y, by).unbeaten
    shifted = Logits(torch.cat([right[:19].flip(1), right[19:]]))  # wrong at 19 others: 20 to 19 is chance
    assert against(wrong_at(20), {"chance": shifted}, y, by) == Plain([], unbeaten=True)
    assert against(wrong_at(20), models, y[:0], by) == Plain([], unbeaten=False)


def told(beats=(0, 0, 0), unbeaten=(0, 0, 0), metric="accuracy", largest=60.0, spread=90.0) -> str:
    """What is said where seeds have it that labels spread beat the mixture, and that none beats the largest class."""
    record = result(mixture=81.0, metric=metric, **{"largest-class": largest, "label-propagation": spread})
    for one, better, none in zip(record["runs"], beats, unbeaten, strict=True):
        one["plain"] = {
            "label-propagation": {"beats": ["mixture"] * better, "unbeaten": bool(better)},
            "largest-class": {"beats": [], "unbeaten": bool(none)},
        }
    found = advise(record)
    assert found.use == "mixture"
    assert found.paragraph().startswith("Use the mixture: ")
    return found.sentences.get("plain", "")


def test_advice_says_where_labels_spread_do_better_with_most_seeds():
    assert told(beats=(1, 1, 0)).startswith(
        "Labels spread over the edges, without a model, validate better, with 90.00: "
    )
    assert "LabelPropagation" in told(beats=(1, 1, 1), unbeaten=(1, 1, 1))
    assert told(beats=(1, 0, 0)) == ""
    assert told(beats=(1, 1, 1), spread=80.0) == ""
    assert told() == ""


def test_advice_says_where_no_model_is_better_than_the_largest_class():
    said = told(unbeaten=(1, 1, 0))
    assert said.startswith(
        "No model here is better by more than chance than always answering the largest class, with 60"
    )
    assert "class_weight balanced" in said
    assert "rocauc" in said
    assert told(unbeaten=(0, 1, 0)) == ""
    for other in (told(unbeaten=(1, 1, 1), metric="rocauc"), told(unbeaten=(1, 1, 1), largest=20.0)):
        assert "say nothing of the classes" in other
        assert "rocauc" not in other


def test_a_run_whose_labels_are_in_the_edges_alone_says_so(tmp_path):
    found = run(replace(CONFIG, dataset="tests.test_plain:edges_alone", epochs=3), tmp_path, report=True)
    assert "Labels spread over the edges" in advise(found).sentences["plain"]
    assert "Labels spread over the edges, without a model, validate better" in (tmp_path / "report.html").read_text()


def edges_alone():
    """Three rings of forty nodes of a class each, whose features are all alike."""
    data = good()
    nodes = torch.arange(120)
    ring = torch.stack([nodes, nodes // 40 * 40 + (nodes + 1) % 40])
    data.y, data.x, data.edge_index = nodes // 40, torch.ones(120, 4), torch.cat([ring, ring.flip(0)], dim=1)
    data.train_mask, data.val_mask, data.test_mask = (nodes % 4 < 2, nodes % 4 == 2, nodes % 4 == 3)
    return data
