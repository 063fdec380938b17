"""Experts that learn by themselves: trees equal scikit-learn's, labels of neighbours naive Bayes, twins see less."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.naive_bayes import MultinomialNB

from mowst import Config, ExpertConfig, MowstClassifier, load
from mowst.errors import InputError
from mowst.experiment import run
from mowst.kernels import Adjacency, prepare_features
from mowst.models import Judged, Learner, Neighbours, Trees, expert
from mowst.models.learners import ABSENT
from tests.graphs import good

N, F = 300, 6
NO_EDGES = torch.empty(2, 0, dtype=torch.long)


def table(classes: int, missing: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(classes)
    x = torch.randn(N, F, generator=draw)
    y = torch.bucketize(x[:, 0] + 0.3 * x[:, 1], torch.linspace(-1, 1, classes + 1)[1:-1])
    x[torch.rand(N, F, generator=draw) < missing] = float("nan")
    return x, y


def oracle(x: torch.Tensor, y: torch.Tensor, nodes: torch.Tensor, rounds: int) -> HistGradientBoostingClassifier:
    grown = HistGradientBoostingClassifier(
        max_iter=rounds, max_leaf_nodes=15, min_samples_leaf=5, early_stopping=False, random_state=0
    )
    return grown.fit(x[nodes].double().numpy(), y[nodes].numpy())


def some_seen(y: torch.Tensor, count: int = 150) -> torch.Tensor:
    return torch.where(torch.arange(N) < count, y, -100)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_arrays_of_trees_say_what_scikit_learn_says_missing_values_included(classes):
    x, y = table(classes)
    trees = Trees(F, classes)
    assert trees.learn(x, NO_EDGES, some_seen(y), None, 20) == 20
    wanted = oracle(x, y, torch.arange(150), 20).predict_proba(x.double().numpy()).clip(ABSENT)
    wanted = wanted / wanted.sum(1, keepdims=True)
    assert np.allclose(trees(x).double().softmax(1).numpy(), wanted, atol=2e-6)


def test_a_class_that_was_never_seen_keeps_a_little():
    x, y = table(3)
    trees = Trees(F, 5)
    trees.learn(x, NO_EDGES, some_seen(torch.where(y == 1, -100, y)), None, 5)
    probs = trees(x).softmax(1)
    assert torch.allclose(probs[:, [1, 3, 4]], torch.full((N, 3), ABSENT), rtol=0.01)


def test_hops_are_averages_over_neighbours_one_after_the_other():
    x, _ = table(2, missing=0.0)
    draw = torch.Generator().manual_seed(0)
    edges = torch.randint(N, (2, 900), generator=draw)
    adjacency = Adjacency.from_edge_index(edges, N)
    dense = torch.zeros(N, N, dtype=torch.float64).index_put_(
        (edges[1], edges[0]), torch.ones(900).double(), accumulate=True
    )
    mean = dense / dense.sum(1, keepdim=True).clamp_min(1)
    wanted = torch.cat([x.double(), mean @ x.double(), mean @ mean @ x.double()], 1)
    trees = Trees(F, 2, hops=2)
    for graph in (adjacency, edges):
        assert torch.allclose(trees.table(x, graph), wanted, atol=1e-5)


def test_judged_nodes_choose_the_round_at_which_their_labels_are_likeliest():
    x, y = table(3)
    noisy = torch.where(torch.rand(N, generator=torch.Generator().manual_seed(1)) < 0.3, (y + 1) % 3, y)
    judged = Judged(torch.arange(150, 225), y[150:225])
    trees = Trees(F, 3)
    best = trees.learn(x, NO_EDGES, some_seen(noisy), judged, 60)
    staged = oracle(x, noisy, torch.arange(150), 60).staged_predict_proba(x[150:225].double().numpy())
    likely = [np.log(p[np.arange(75), y[150:225]]).sum() for p in staged]
    assert best == int(np.argmax(likely)) + 1 < 60
    again = Trees(F, 3)
    again.learn(x, NO_EDGES, some_seen(noisy), None, best)
    assert torch.equal(trees(x), again(x))


def test_wide_features_are_reduced_and_sparse_ones_as_dense_ones():
    draw = torch.Generator().manual_seed(0)
    words = (torch.rand(N, 400, generator=draw) < 0.03).float()
    y = (words[:, :20].sum(1) > 0.5).long()
    sparse, plain = Trees(400, 2), Trees(400, 2)
    sparse.learn(prepare_features(words), NO_EDGES, some_seen(y), None, 10)
    plain.learn(words, NO_EDGES, some_seen(y), None, 10)
    assert sparse.projection.shape == (64, 400)
    assert torch.allclose(sparse(prepare_features(words)).softmax(1), plain(words).softmax(1), atol=1e-3)


def ring(directed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    y = torch.randint(3, (N,), generator=draw)
    edges = torch.randint(N, (2, 4 * N), generator=draw)
    edges = edges[:, (y[edges[0]] == y[edges[1]]) | (torch.rand(4 * N, generator=draw) < 0.3)]
    return (edges if directed else torch.cat([edges, edges.flip(0)], 1)), y


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("directed", [False, True])
def test_counts_of_neighbours_are_naive_bayes_without_the_nodes_own_label(hops, directed):
    edges, y = ring(directed)
    seen = some_seen(y)
    A = torch.zeros(N, N, dtype=torch.float64).index_put_(
        (edges[1], edges[0]), torch.ones(edges.size(1)).double(), accumulate=True
    )
    known = torch.nn.functional.one_hot(seen.clamp_min(0), 3).double() * (seen >= 0)[:, None]
    first = (A - A.diag().diag()) @ known
    second = A @ (A - A.diag().diag())
    counts = [first, (second - second.diag().diag()) @ known][:hops]
    model = Neighbours(1, 3, hops=hops, damped=False)
    model.learn(torch.zeros(N, 1), edges, seen, None, 500)
    wanted = sum(
        MultinomialNB(alpha=1.0, fit_prior=False).fit(each[:150], y[:150]).predict_joint_log_proba(each)
        for each in counts
    )
    prior = torch.log((known.sum(0) + 1) / (known.sum() + 3))
    wanted = torch.as_tensor(wanted) + prior
    assert torch.allclose(model(torch.zeros(N, 1), edges).double().softmax(1), wanted.softmax(1), atol=1e-4)


def test_a_nodes_own_label_changes_nothing_of_what_is_said_of_it():
    edges, y = ring()
    seen, x = some_seen(y), torch.zeros(N, 1)
    model = Neighbours(1, 3)
    model.learn(x, edges, seen, None, 1)
    before = model(x, edges)[7]
    model.labels[7] = (model.labels[7] + 1) % 3
    assert torch.allclose(model(x, edges)[7], before, atol=1e-6)


def test_on_another_graph_it_says_how_frequent_each_class_is():
    edges, y = ring()
    model = Neighbours(1, 3)
    model.learn(torch.zeros(N, 1), edges, some_seen(y), None, 1)
    said = model(torch.zeros(5, 1), torch.tensor([[0, 1], [1, 2]]))
    assert torch.equal(said, model.frequent.expand(5, 3))


@pytest.mark.parametrize("prepared", [torch.Tensor.clone, prepare_features])
def test_another_graph_of_the_same_size_is_known_by_its_features(prepared):
    edges, y = ring()
    words = (torch.rand(N, 70, generator=torch.Generator().manual_seed(1)) < 0.03).float()
    model = Neighbours(70, 3)
    model.learn(prepared(words), edges, some_seen(y), None, 1)
    assert not torch.equal(model(prepared(words), edges), model.frequent.expand(N, 3))
    for other in (words.flip(0), words[:, [1, 0, *range(2, 70)]]):
        assert torch.equal(model(prepared(other), edges), model.frequent.expand(N, 3))


@pytest.mark.parametrize("kind", ["trees", "hop-trees", "neighbours"])
def test_what_was_learned_is_saved_without_pickle_and_put_back_whatever_its_size(kind, tmp_path):
    data = load("sbm")
    made = expert(kind, data.num_features, 4)
    assert isinstance(made, Learner)
    assert torch.equal(made(data.x, data.edge_index), torch.zeros(3000, 4))
    made.learn(data.x, data.edge_index, torch.where(data.train_mask, data.y, -1), None, 5)
    save_file(made.state_dict(), tmp_path / "w.safetensors")
    again = expert(kind, data.num_features, 4)
    again.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(again(data.x, data.edge_index), made(data.x, data.edge_index))


@pytest.mark.parametrize("kind", ["trees", "hop-trees", "neighbours"])
@pytest.mark.parametrize("role", ["weak", "strong"])
def test_a_mixture_has_it_in_either_role_and_predicts_again_from_its_folder(kind, role, tmp_path):
    from mowst.experiment import read_config
    from mowst.experiment.reload import ask

    config = Config(dataset="sbm", seeds=1, epochs=20, device="cpu", **{role: ExpertConfig(kind=kind)})
    result = run(config, tmp_path)
    assert result["scores"]["mixture"]["test"][0] > 60
    folder = tmp_path / "seed-0"
    found, _ = ask(folder, read_config(folder), nodes=[5, 9], how="pooled", threshold=None, seed=0)
    written = np.load(folder / "predictions.npz")["mixture"][[5, 9]]
    assert np.allclose(found, written, atol=1e-6)


def test_a_twin_sees_the_labels_of_its_fold_alone(monkeypatch):
    seen = []
    learn = Neighbours.learn
    monkeypatch.setattr(
        Neighbours, "learn", lambda self, x, g, y, *rest: seen.append(y >= 0) or learn(self, x, g, y, *rest)
    )
    data = good()
    MowstClassifier(strong="neighbours", epochs=2, device="cpu").fit(data)
    whole, twin = seen
    assert torch.equal(whole, data.train_mask)
    assert (twin & ~data.train_mask).sum() == 0
    assert int(twin.sum()) == 24  # four fifths of thirty


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"regime": "joint"}, "by gradients"),
        ({"regime": "alternate"}, "by gradients"),
        ({"regime": "fine-tuned"}, "held-out"),
    ],
)
def test_what_trains_by_gradients_does_not_take_it(options, said):
    with pytest.raises(InputError, match=said):
        MowstClassifier(strong="hop-trees", epochs=2, device="cpu", **options).fit(good())


def test_it_learns_no_distillation_loss():
    config = dataclasses.replace(
        Config(dataset="tests.graphs:good", epochs=2, device="cpu"), kd="nkd", teacher="strong"
    )
    with pytest.raises(InputError, match="trained by gradients"):
        run(dataclasses.replace(config, weak=ExpertConfig(kind="trees"), seeds=1))


@pytest.mark.parametrize("options", [{"hops": -1}, {"leaves": 1}, {"learning_rate": 0.0}, {"rounds": 0}, {"depth": 3}])
def test_wrong_options_are_refused(options):
    with pytest.raises(InputError):
        expert("trees", 3, 2, **options)
