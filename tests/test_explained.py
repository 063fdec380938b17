"""`--explain`: which neighbours and features spoke to an expert; what decides alone comes first."""

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

from mowst import LearnedGate, Mowst, expert
from mowst.influence import Column, Voice, explain, voice_of
from mowst.influence.explained import Ask, Subject
from mowst.kernels import Adjacency, Raw, Tabled
from mowst.models import Panel, Trees, run_module
from mowst.models.reads import reads_of
from tests.graphs import TRAINED
from tests.test_propagation import N, edges

GNNS = [name for name in TRAINED if name not in ("mlp", "sign")]
SIZE = {"hidden_channels": 8, "num_layers": 2}


def built(kind, seed=0, **options):
    torch.manual_seed(seed)
    return expert(kind, 6, 3, **SIZE, **options).eval()


def prepared(x, edge_index, weight=None):
    return Data(x=x, edge_index=edge_index, adj_t=Adjacency.from_edge_index(edge_index, len(x), weight))


def star(x):
    """A node 0 with the neighbours 1 to 8, of which each has one more, 9 to 16."""
    outward = torch.stack([torch.arange(1, 17), torch.cat([torch.zeros(8, dtype=torch.long), torch.arange(1, 9)])])
    return prepared(x, torch.cat([outward, outward.flip(0)], dim=1))


def told(model, data, node=0, columns=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return explain(Voice(model, "it"), data, node, columns)


@pytest.mark.parametrize("kind", [*GNNS, "sign", "hop-trees"])
def test_the_one_neighbour_and_the_one_feature_that_decide_come_first(kind):
    x = torch.zeros(17, 6)
    x[3, 2] = 4.0
    found = told(boosted(hops=2) if kind == "hop-trees" else learned(kind), star(x))
    assert found.neighbours[0].without < found.probability
    assert found.neighbours[0].place == 3
    assert found.neighbours[0].direct
    assert found.features[0].place == 2
    assert [each.place for each in found.features] == [2]
    if kind in GNNS:
        assert found.neighbours[0].mask > 0.5


def learned(kind):
    """An expert that learned that the class of a node is decided by feature 2 of the one neighbour that has any."""
    model, inward = built(kind), torch.stack([torch.arange(1, 9), torch.zeros(8, dtype=torch.long)])
    edge_index = torch.cat([inward + 9 * each for each in range(60)], dim=1)
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    x, y = torch.zeros(540, 6), torch.arange(60) % 2
    x[9 * torch.arange(60) + 1 + torch.randint(8, (60,)), 2] = 8.0 * y - 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x, edge_index)[::9], y).backward()
        optimizer.step()
    return model


def boosted(hops=0, seen=4):
    """Trees that learned that the class is decided by feature 2, here or, with hops, at the neighbours."""
    torch.manual_seed(1)
    x = torch.randn(300, 6)
    partner = torch.arange(300).view(-1, 2).flip(1).flatten()
    y = (x[partner if hops else torch.arange(300), 2] > 0.2).long()
    model = Trees(6, 3, hops=hops)
    model.learn(x, torch.stack([torch.arange(300), partner]), y, None, 20)
    return model.eval()


@pytest.mark.parametrize("kind", ["mlp", "trees"])
def test_who_looks_at_no_edge_names_features_alone(kind):
    model = boosted() if kind == "trees" else built("mlp")
    if kind == "mlp":
        with torch.no_grad():
            model.lins[0].weight[:, torch.arange(6) != 2] = 0
    x = torch.randn(17, 6, generator=torch.Generator().manual_seed(0))
    x[0, 2] = 1.5
    found = told(model, star(x))
    assert found.neighbours == []
    assert [each.place for each in found.features] == [2]
    assert found.of == 0


def test_of_a_table_columns_are_left_out_with_all_that_was_made_of_them():
    torch.manual_seed(0)
    codes = torch.randint(3, (400,))
    raw = Raw(torch.stack([codes.double(), torch.randn(400).double()], dim=1), 1)
    x = Tabled(torch.cat([torch.nn.functional.one_hot(codes), raw.values[:, 1:]], dim=1).float(), raw)
    model = Trees(4, 3)
    model.learn(x, torch.empty(2, 0, dtype=torch.long), codes, None, 20)
    data = prepared(x, torch.tensor([[0, 1], [1, 0]]))
    found = told(model.eval(), data, columns=[Column([0, 1, 2], 0), Column([3], 1)])
    assert [each.place for each in found.features] == [0]
    assert found.features[0].without < found.probability - 0.3


def test_of_counted_neighbours_the_only_labelled_one_comes_first_and_no_feature():
    x = torch.randn(17, 6, generator=torch.Generator().manual_seed(0))
    data, y = star(x), torch.full((17,), -1)
    y[[3, 11, 12]] = torch.tensor([1, 1, 0])
    model = expert("neighbours", 6, 3, hops=1)
    model.learn(x, data.adj_t, y, None, 1)
    found = told(model.eval(), data)
    assert [each.place for each in found.neighbours] == [3]
    assert found.features == []


@pytest.mark.parametrize("kind", GNNS)
def test_the_part_that_masks_are_learned_on_says_what_the_whole_graph_says(kind):
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
    model, data = built(kind, norm="batch_norm"), prepared(x, edges())
    ask = Ask(Voice(model, "it"), x, data.adj_t, 9)
    subject = Subject(model, ask.part if ask.reads.normalised else None).eval()
    set_masks(subject, torch.full((ask.part.edge_index.size(1),), 50.0), ask.part.edge_index)
    with torch.no_grad():
        said = subject(ask.seen, ask.part.edge_index)[0]
        clear_masks(subject)
        torch.testing.assert_close(said, run_module(model, reads_of(model), x, data.adj_t)[9], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gcn", "sage", "gat", "sign", "neighbours"])
@pytest.mark.parametrize("weighted", [False, True])
def test_without_it_is_what_is_said_where_its_edges_are_not_there(kind, weighted, monkeypatch):
    monkeypatch.setattr("mowst.influence.explained.EPOCHS", 3)
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(edges().size(1), generator=torch.Generator().manual_seed(1)) if weighted else None
    model, data = built(kind) if kind != "neighbours" else expert(kind, 6, 3), prepared(x, edges(), weight)
    if kind == "neighbours":
        model.learn(x, data.adj_t, torch.arange(N) % 3, None, 1)
    found = told(model.eval(), data, 9)
    with torch.no_grad():
        before = run_module(model, reads_of(model), x, data.adj_t)[9].softmax(-1)
    assert found.neighbours
    for each in found.neighbours:
        kept = (edges() != each.place).all(dim=0)
        graph = Adjacency.from_edge_index(edges()[:, kept], N, None if weight is None else weight[kept])
        with torch.no_grad():
            said = run_module(model, reads_of(model), x, graph)[9].softmax(-1)
        assert each.without == pytest.approx(float(said[found.predicted]), abs=1e-5)
        assert each.direct == bool(((edges()[0] == each.place) & (edges()[1] == 9)).any())
        others = torch.arange(3) != found.predicted
        odds = [p[found.predicted].log() - p[others].sum().log() for p in (said, before)]
        assert each.moved == pytest.approx(float(odds[0] - odds[1]), abs=1e-4)
    moved = [abs(each.moved) for each in found.neighbours]
    assert moved == sorted(moved, reverse=True)


def test_of_a_panel_the_loudest_member_is_asked_and_it_stays_as_it_was():
    panel = Panel({"sage": built("sage", dropout=0.5), "mlp": built("mlp", dropout=0.5)})
    panel.lean(0.2, 0.8)
    mixture = Mowst(built("mlp"), panel, LearnedGate()).eval()
    data = star(torch.randn(17, 6, generator=torch.Generator().manual_seed(0)))
    voice = voice_of(mixture, data, 0, "strong")
    assert voice.expert is panel.members[1]
    assert voice.name == "the strong expert's mlp (80% of the weight of 2 that are heard)"
    assert voice_of(mixture, data, 0, "weak").expert is mixture.weak
    explain(voice, data, 0)
    assert not any(part.training for part in mixture.modules())
    assert all(parameter.requires_grad for parameter in mixture.parameters())
