"""An MLP on averaged features: its formula, rows alone, a new graph, weights, and what it is saved as."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mowst import Config, ExpertConfig
from mowst.errors import InputError
from mowst.experiment import read_config, run
from mowst.experiment.bench import Bench
from mowst.experiment.building import fabric_of, prepare
from mowst.experiment.plan import planned
from mowst.experiment.reload import ask
from mowst.inference import answer_alone
from mowst.kernels import Adjacency, Rows, prepare_features, rows_of
from mowst.models import Sign, expert
from mowst.models.averages import averages
from mowst.training import Trainer
from tests.graphs import good

N, WIDTH, EDGES = 60, 8, 300


def graph(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return sparse-like features, edges and weights; the last nodes have no edge into them."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(N, WIDTH, generator=draw) * (torch.rand(N, WIDTH, generator=draw) < 0.08)
    source = torch.randint(N, (EDGES,), generator=draw)
    target = torch.randint(N - 5, (EDGES,), generator=draw)
    return x, torch.stack([source, target]), torch.rand(EDGES, generator=draw)


def mean_matrix(edges: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """Return D^-1 A in float64, edge by edge."""
    weight = torch.ones(edges.size(1)) if weight is None else weight
    A = torch.zeros(N, N, dtype=torch.float64)
    for (source, target), value in zip(edges.t().tolist(), weight.tolist(), strict=True):
        A[target, source] += value
    return A / A.sum(1, keepdim=True).clamp_min(1e-30)


def made(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return expert("sign", WIDTH, 3, **{"hidden_channels": 5, "num_layers": 3, "norm": "batch_norm", **options}).eval()


@pytest.mark.parametrize("form", ["edges", "adjacency", "weighted", "sparse"])
def test_it_is_an_mlp_on_powers_of_the_mean_over_neighbours(form):
    x, edges, weight = graph()
    weight = weight if form == "weighted" else None
    model = made().double()
    for norm in model.norms:  # statistics that do something
        norm.module.running_mean.uniform_(-1, 1), norm.module.running_var.uniform_(0.5, 2)
    P = mean_matrix(edges, weight)
    seen = [torch.linalg.matrix_power(P, hop) @ x.double() for hop in range(4)]
    h = torch.cat([linear(each) for linear, each in zip(model.maps, seen, strict=True)], 1)
    for norm, linear in zip(model.norms, model.lins, strict=True):
        h = linear(F.relu(norm(h)))
    given = edges if form == "edges" else Adjacency.from_edge_index(edges, N, weight)
    features = prepare_features(x) if form == "sparse" else x.clone()
    said = model.float()(features, given)
    assert torch.allclose(said.double(), h, atol=1e-5)


def test_with_one_layer_it_is_linear_in_each_average():
    x, edges, _ = graph()
    model, P = made(num_layers=1).double(), mean_matrix(edges)
    wanted = sum(linear(torch.linalg.matrix_power(P, hop) @ x.double()) for hop, linear in enumerate(model.maps))
    assert torch.allclose(model.float()(x, edges).double(), wanted, atol=1e-5)


def test_with_the_averages_known_its_rows_need_no_edges():
    x, edges, _ = graph()
    adjacency, nodes, model = Adjacency.from_edge_index(edges, N), torch.tensor([7, 3, 59, 0]), made()
    known = model.known(prepare_features(x), adjacency, ("",))
    assert model.reach(known) == 0
    assert model.reach(type(known)()) == model.reads.hops == 3
    part = model(rows_of(prepare_features(x), nodes), torch.empty(2, 0), **known.rows(nodes).given())
    assert torch.allclose(part, model(x, edges)[nodes], atol=1e-6)


def test_a_norm_over_all_nodes_keeps_it_on_the_whole_graph():
    x, edges, _ = graph()
    model = made(norm="pair_norm")
    assert model.reads.hops is model.reach(model.known(x, edges, ("",))) is None


def test_averages_are_made_once_for_a_graph(monkeypatch):
    x, edges, _ = graph()
    adjacency, made_of = Adjacency.from_edge_index(edges, N), []
    times = Rows.times
    monkeypatch.setattr(Rows, "times", lambda self, x: made_of.append(1) or times(self, x))
    for _ in range(20):
        averages(x, adjacency, 3)
    assert len(made_of) <= 12  # the first few times, until it is plain that they come again


def test_labelled_rows_alone_are_run_while_it_trains_and_no_product_is_taken(monkeypatch):
    data, rows = good(), []
    config = Config(dataset="tests.graphs:good", device="cpu", epochs=4, strong=ExpertConfig(kind="sign"))
    fabric = fabric_of(config)
    bench = Bench(config, planned(config), prepare(data, config, fabric.device), 0, fabric)
    forward = Sign.forward
    monkeypatch.setattr(
        Sign,
        "forward",
        lambda self, x, *rest, **options: rows.append((self.training, len(x))) or forward(self, x, *rest, **options),
    )
    bench.train("strong")
    assert {count for training, count in rows if training} == {int(data.train_mask.sum())}
    judged = [count for training, count in rows if not training and count > 2]  # two nodes: it is tried when built
    assert set(judged[:-1]) == {int(data.val_mask.sum())}  # the last time it says what it thinks of all nodes
    assert judged[-1] == len(data.y)


@pytest.mark.parametrize("batch", ["parts(3)", "neighbors(5,5,size=16)"])
def test_batches_of_rows_have_their_own_averages(batch, monkeypatch):
    data, seen = good(), []
    config = Config(dataset="tests.graphs:good", device="cpu", epochs=2, batch=batch, strong=ExpertConfig(kind="sign"))
    fabric = fabric_of(config)
    ready = prepare(data, config, fabric.device)
    whole = averages(ready.x, ready.adj_t, 3)
    call = Trainer._call
    monkeypatch.setattr(Trainer, "_call", lambda self, part: seen.append(part) or call(self, part))
    Bench(config, planned(config), ready, 0, fabric).train("strong")
    cut = [part for part in seen if part.nodes is not None]
    assert len(cut) > 4
    for part in cut:
        for mine, all_of in zip(part.known.averaged, whole, strict=True):
            assert torch.equal(mine, all_of[part.nodes])


@pytest.mark.parametrize("role", ["weak", "strong", "panel"])
def test_a_mixture_has_it_in_any_role_and_predicts_again_from_its_folder(role, tmp_path):
    kinds = {"weak": {"weak": "sign"}, "strong": {"strong": "sign"}, "panel": {"strong": "sign+gcn+neighbours"}}[role]
    experts = {name: ExpertConfig(kind=kind, hidden_channels=16) for name, kind in kinds.items()}
    config = Config(dataset="sbm", seeds=1, epochs=30, device="cpu", **experts)
    assert run(config, tmp_path)["scores"]["mixture"]["test"][0] > 80
    folder = tmp_path / "seed-0"
    found, _ = ask(folder, read_config(folder), nodes=[5, 9], how="pooled", threshold=None, seed=0)
    assert np.allclose(found, np.load(folder / "predictions.npz")["mixture"][[5, 9]], atol=1e-6)


def test_it_trains_beside_another_one_and_in_bfloat16():
    experts = {"weak": ExpertConfig(kind="sign"), "strong": ExpertConfig(kind="sign", options={"hops": 1})}
    config = Config(dataset="sbm", seeds=1, epochs=20, device="cpu", regime="joint", precision="bf16-mixed", **experts)
    assert run(config)["scores"]["mixture"]["test"][0] > 80


def test_on_a_new_graph_it_averages_that_ones_features():
    x, edges, _ = graph()
    other, links, _ = graph(seed=1)
    model = made()
    model(x, Adjacency.from_edge_index(edges, N))
    nodes = [4, 1, 4]
    said = answer_alone(model, other, Adjacency.from_edge_index(links, N), nodes).probabilities
    assert torch.allclose(said, model(other, links).softmax(1)[nodes], atol=1e-6)


@pytest.mark.parametrize("options", [{"hops": 0}, {"num_layers": 0}, {"dropout": 2.0}, {"heads": 3}])
def test_wrong_options_are_refused(options):
    with pytest.raises(InputError):
        made(**options)


def test_it_reaches_three_edges_and_no_further():
    model, (x, _, _) = made(), graph()
    chain = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    moved = x.clone()
    moved[0] += 1
    changed = (model(moved, chain) != model(x, chain)).any(1).nonzero().flatten().tolist()
    assert changed == [0, 1, 2, 3]
