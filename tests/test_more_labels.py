"""How many labels are enough: the line, what is drawn, and that test labels are not looked at."""

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from mowst import Config, InputError
from mowst.evaluation.more_labels import doubling, excess_risk
from mowst.experiment import ExpertConfig, Opened
from mowst.experiment.labels import needed, part_of, tables_of
from mowst.kernels import Adjacency
from mowst.models import LearnedGate, Mowst, Panel, expert
from mowst.run import command

SMALL = ExpertConfig(kind="mlp", hidden_channels=4)
CONFIG = Config(dataset="tests.graphs:good", weak=SMALL, strong=SMALL, epochs=10, patience=10, mixture=False)


def test_a_curve_that_is_the_line_is_drawn_on_exactly():
    labels = [20, 40, 60, 80, 100]
    found = doubling(labels, [5 + 30 / n**0.5 for n in labels])
    assert found.gain == pytest.approx(30 / 100**0.5 - 30 / 200**0.5)
    assert (found.low, found.high) == pytest.approx((found.gain, found.gain), abs=1e-6)
    assert doubling(labels, [7.0] * 5).gain == pytest.approx(0)
    assert doubling(labels, [5 - 30 / n**0.5 for n in labels]).gain < 0
    with pytest.raises(InputError, match="needs three trainings"):
        doubling([10, 10, 10], [1.0, 2.0, 3.0])


def test_the_interval_holds_the_gain_as_often_as_it_says():
    generator, labels = torch.Generator().manual_seed(0), [20, 40, 60, 80, 100] * 2
    truth, held = 30 / 100**0.5 - 30 / 200**0.5, 0
    for _ in range(400):
        noise = torch.randn(10, generator=generator).tolist()
        found = doubling(labels, [5 + 30 / n**0.5 + each for n, each in zip(labels, noise, strict=True)])
        held += found.low <= truth <= found.high
    assert 0.92 < held / 400 < 0.98  # 95 %, give or take three standard errors


def test_a_table_of_counts_loses_as_many_nats_to_chance_as_the_criterion_says():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(6, generator=generator, dtype=torch.float64) + 0.3
    truth = truth / truth.sum()
    drawn = torch.multinomial(truth, 500 * 2000, replacement=True, generator=generator).view(2000, 500)
    found = torch.nn.functional.one_hot(drawn, 6).double().mean(dim=1)
    lost = (truth * (truth / found).log()).sum(dim=-1).mean()
    assert excess_risk(5, 500) == pytest.approx(float(lost), rel=0.1)
    assert excess_risk(5, 0) == float("inf")


def test_pairs_of_labelled_nodes_are_counted_from_both_ends(tiny):
    adjacency = Adjacency.from_edge_index(tiny.edge_index, 60)
    model = expert("neighbours", 8, 3)
    model.learn(tiny.x, adjacency, torch.where(tiny.train_mask, tiny.y, -1), None, 1)
    row, column = tiny.edge_index
    known = tiny.train_mask
    near = int((known[row] & known[column] & (row != column)).sum())
    matrix = torch.zeros(60, 60)
    matrix[row, column] = 1.0
    matrix.fill_diagonal_(0.0)
    far = (matrix @ matrix).fill_diagonal_(0.0)[known][:, known].sum()
    one, two = tables_of(model, adjacency)
    assert (one.steps, one.numbers, one.pairs) == (1, 6, near)
    assert (two.steps, two.pairs) == (2, float(far))
    assert tables_of(expert("mlp", 8, 3, hidden_channels=4, num_layers=2), adjacency) == []
    assert f"6 numbers from {near} pairs" in one.sentence()
    assert "it says nothing yet" in one._replace(pairs=0.0).sentence()
    panel = Panel({"neighbours": model, "mlp": expert("mlp", 8, 3, hidden_channels=4, num_layers=2)})
    mixture = Mowst(expert("mlp", 8, 3, hidden_channels=4, num_layers=2), panel, LearnedGate())
    assert tables_of(mixture, adjacency) == [one, two]
    panel.active[0] = False
    assert tables_of(mixture, adjacency) == []


def test_parts_of_the_labels_are_drawn_class_by_class():
    y, train = torch.arange(90) % 3, torch.arange(90) < 60
    ready = Data(y=y, train_mask=train)
    one, other = part_of(ready, 0.4, 0), part_of(ready, 0.4, 1)
    assert y[one].bincount().tolist() == [8, 8, 8]
    assert bool(train[one].all())
    assert not one.equal(other)
    assert part_of(ready, 1.0, 0).equal(train)


def test_test_labels_are_not_looked_at_and_the_classes_add_up():
    found = []
    for wrong in (False, True):
        opened = Opened(CONFIG)
        ready = opened.seed(0).ready
        if wrong:
            ready.y = torch.where(ready.test_mask, (ready.y + 1) % 3, ready.y)
        found.append(needed(opened, 0))
    assert found[0] == found[1]
    assert sum(each.gain for each in found[0].by_class.values()) == pytest.approx(found[0].overall.gain)
    most = int(opened.seed(0).ready.train_mask.sum())
    assert found[0].labels[0] < found[0].labels[1] < found[0].labels[4]
    assert found[0].labels[4] == found[0].labels[9] == most
    assert f"Twice the {most} training labels" in found[0].sentences()[0]


def test_a_class_with_few_labels_is_said():
    opened = Opened(dataclasses.replace(CONFIG))
    ready = opened.seed(0).ready
    lost = (ready.train_mask & (ready.y == 1)).nonzero().squeeze(-1)[3:]
    ready.train_mask[lost] = False
    with pytest.raises(InputError, match="--advise: needs 8 training labels of each class, and of class 1 there are 3"):
        needed(opened, 0)


def test_the_command_says_it(tmp_path, capsys):
    line = "--dataset tests.graphs:good --epochs 3 --no-mixture --seeds 1 --quiet --no-report --advise"
    kinds = "--weak.kind mlp --strong.kind mlp --strong.hidden_channels 4 --weak.hidden_channels 4"
    assert command([*line.split(), *kinds.split(), "--out", str(tmp_path / "run")]) == 0
    assert "training labels:" in " ".join(capsys.readouterr().out.split())
