"""What a layer knows: probes find what is there, their controls do not, and test labels are not looked at."""

import copy

import pytest
import torch
from torch import nn

from mowst import InputError
from mowst.evaluation import degrees
from mowst.models import LogisticGate, Mowst, Panel, expert
from mowst.probes import as_table, experts_of, layers_of, probe, wanted_of


class Knows(nn.Module):
    """A model of two layers whose hidden one is given."""

    def __init__(self, hidden):
        super().__init__()
        self.hidden, self.first, self.last = hidden, nn.Linear(8, 2), nn.Linear(hidden.size(1), 3)

    def forward(self, x, edge_index):
        self.first(x)
        return self.last(self.hidden)


@pytest.fixture(scope="module")
def larger():
    """Three hundred nodes in three classes, whose features say nothing."""
    generator = torch.Generator().manual_seed(0)
    from torch_geometric.data import Data

    N = 300
    edge_index = torch.randint(N, (2, 900), generator=generator)
    fold = torch.arange(N) % 4
    y = torch.randint(3, (N,), generator=generator)
    x = torch.randn(N, 8, generator=generator)
    return Data(x=x, y=y, edge_index=edge_index, train_mask=fold < 2, val_mask=fold == 2, test_mask=fold == 3)


def of(data, hidden):
    return next(each for each in probe(Knows(hidden), data) if each.layer == "hidden 1")


def test_a_probe_finds_what_is_in_a_layer_and_its_control_does_not(larger):
    _, degree, homophily = wanted_of(larger)
    told = torch.stack([degree.float(), homophily.nan_to_num(0.5).float()], dim=1)
    hidden = torch.cat([nn.functional.one_hot(larger.y, 3).float(), told], dim=1)
    found = of(larger, hidden)
    assert found.width == 5
    assert found.label.found == 1.0
    assert found.degree.found > 0.99
    assert found.homophily.found > 0.99
    assert found.label.control < 0.6
    assert max(found.degree.control, found.homophily.control) < 0.2


def test_a_layer_that_says_nothing_is_scored_by_chance(larger):
    found = of(larger, torch.zeros(300, 4))
    counts = larger.y[larger.train_mask].bincount()
    assert found.label.found == pytest.approx(float((larger.y[larger.val_mask] == counts.argmax()).float().mean()))
    assert max(found.degree.found, found.homophily.found) <= 0
    features = probe(Knows(torch.zeros(300, 4)), larger)[0]
    assert features.layer == "features"
    assert features.label.found < 0.5


def test_the_unit_of_a_layer_plays_no_part(larger):
    hidden = torch.randn(300, 4, generator=torch.Generator().manual_seed(1)) + degrees(larger.edge_index, 300)[:, None]
    one, other = of(larger, hidden), of(larger, hidden * torch.tensor([1e-3, 1.0, 50.0, 1e4]) + 7)
    assert one.label.found == pytest.approx(other.label.found, abs=0.02)
    assert one.degree.found == pytest.approx(other.degree.found, abs=1e-3)


def test_test_labels_are_not_looked_at(larger):
    other = copy.copy(larger)
    other.y = torch.where(larger.test_mask, (larger.y + 1) % 3, larger.y)
    torch.manual_seed(0)
    model = expert("gcn", 8, 3, hidden_channels=8, num_layers=3)
    assert str(probe(model, larger)) == str(probe(model, other))
    other.y = torch.where(larger.val_mask, (larger.y + 1) % 3, larger.y)
    assert str(probe(model, larger)) != str(probe(model, other))


def test_every_layer_of_both_experts_is_probed(tiny):
    strong = Panel({"sage": expert("sage-res", 8, 3, hidden_channels=8, num_layers=2), "trees": expert("trees", 8, 3)})
    model = Mowst(expert("mlp", 8, 3, hidden_channels=4, num_layers=2), strong, LogisticGate()).eval()
    assert [name for name, _ in experts_of(model)] == ["weak", "strong: sage", "strong: trees"]
    found = [(each.expert, each.layer, each.width) for each in probe(model, tiny)]
    hidden = [("strong: sage", "hidden 1", 8), ("strong: sage", "hidden 2", 8), ("strong: sage", "logits", 3)]
    weak = [("weak", "hidden 1", 4), ("weak", "logits", 3)]
    assert found == [("", "features", 8), *weak, *hidden, ("strong: trees", "logits", 3)]
    assert as_table(probe(model, tiny)).row_count == len(found)
    name, logits = layers_of(model.weak, tiny)[-1]
    assert name == "logits"
    torch.testing.assert_close(logits, model.weak(tiny.x, tiny.edge_index))


def test_too_few_nodes_are_refused(tiny):
    tiny.val_mask[tiny.val_mask.nonzero()[5:]] = False
    with pytest.raises(InputError, match="probes: need 10 training and validation nodes, got 30 and 5"):
        probe(expert("mlp", 8, 3, hidden_channels=4, num_layers=2), tiny)
