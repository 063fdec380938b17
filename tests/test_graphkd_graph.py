"""What is known about GLD: its bounds, degeneracies and equivalent forms."""

from __future__ import annotations

import os

import pytest
import torch
from scipy.stats import wasserstein_distance

import graphkd
from graphkd import GLD, Signals
from graphkd.graph import (
    class_features,
    coactivation,
    distance,
    global_features,
    kth_largest,
    neighbourhood_features,
    node_features,
    top,
)
from tests.graphkd_contract import call, example, leaves

close = torch.testing.assert_close


def probabilities(seed: int, N: int = 30, C: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(N, C, generator=generator, dtype=torch.float64)).softmax(-1)


def complete(N: int) -> torch.Tensor:
    """Return all edges between N nodes, a few self-loops among them."""
    edges = torch.cartesian_prod(torch.arange(N), torch.arange(N)).t()
    return edges[:, (edges[0] != edges[1]) | (edges[0] % 3 == 0)]


def cycles(*sizes: int) -> torch.Tensor:
    def cycle(n: int) -> torch.Tensor:
        step = torch.roll(torch.eye(n, dtype=torch.float64), 1, 0)
        return step + step.t()

    return torch.block_diag(*map(cycle, sizes))


@pytest.fixture(scope="module")
def ot():
    os.environ["POT_BACKEND_DISABLE_JAX"] = os.environ["POT_BACKEND_DISABLE_TENSORFLOW"] = "1"
    return pytest.importorskip("ot")


def graphs(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return two graphs of classes, and uniform weights."""
    first, second = (coactivation(top(probabilities(2 * seed + i), 4)) for i in range(2))
    return first, second, torch.full((len(first),), 1 / len(first), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("feature", ["mean", "rms"])
@pytest.mark.parametrize("matching", ["sorted", "identity"])
def test_certificate_brackets_the_gromov_wasserstein_cost(ot, seed, feature, matching):
    first, second, uniform = graphs(seed)
    bracket = graphkd.certificate(first, second, feature, matching)
    i, j = (node_features(graph, feature).argsort() for graph in (first, second))
    plan = torch.diag(uniform)
    if matching == "sorted":
        plan = torch.zeros_like(first)
        plan[i, j] = uniform  # POT finds a local optimum: from here it cannot exceed our upper bound
    cost = ot.gromov_wasserstein2(first, second, uniform, uniform, "square_loss", G0=plan)
    assert bracket.lower <= cost + 1e-12
    assert cost <= bracket.upper + 1e-12
    f, g = node_features(first, feature), node_features(second, feature)
    assert distance(f, g, "sorted") / len(f) ** 2 <= cost**0.5 + 1e-9  # W1 <= W2 <= sqrt(GW)


@pytest.mark.parametrize("seed", range(3))
def test_entropic_gromov_wasserstein_is_pot_s_and_never_below_the_certificate(ot, seed):
    first, second, uniform = graphs(seed)
    product = torch.outer(uniform, uniform)
    slope = 2 * (first.square() @ uniform).unsqueeze(1) + 2 * (second.square() @ uniform)
    slope = slope - 4 * first @ product @ second
    scale = 0.2 * float(slope.abs().max())
    theirs = ot.gromov.entropic_gromov_wasserstein2(
        first, second, uniform, uniform, "square_loss", epsilon=scale, max_iter=100
    )
    ours = graphkd.gromov_wasserstein(first, second, 0.2)
    close(ours, theirs, rtol=1e-7, atol=0)
    assert graphkd.certificate(first, second).lower <= ours


def test_entropic_gromov_wasserstein_of_a_graph_and_its_renumbered_self_is_almost_nothing():
    graph = torch.diag(torch.arange(1.0, 7, dtype=torch.float64))
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    apart = graphkd.gromov_wasserstein(graph, graph.new_zeros(4, 4))
    close(apart, graph.square().sum() / 36)  # every coupling with a graph of nothing costs the same
    assert graphkd.gromov_wasserstein(graph, graph[order][:, order], 1e-3) < 1e-3 * apart


def test_gap_of_the_certificate_is_the_variance_left_in_rows():
    first, second = (coactivation(top(probabilities(i), 4)) for i in range(2))
    bracket = graphkd.certificate(first, second)
    i, j = first.mean(-1).argsort(), second.mean(-1).argsort()
    left = (first[i][:, i] - second[j][:, j]).var(-1, correction=0).mean()
    close(bracket.gap, left)
    close(bracket.upper, bracket.lower + left)


def test_gld_does_not_tell_a_hexagon_from_two_triangles():
    bracket = graphkd.certificate(cycles(6), cycles(3, 3))
    assert bracket.lower == 0
    assert bracket.upper >= 0.2222
    close(distance(cycles(6).mean(-1), cycles(3, 3).mean(-1)), torch.tensor(0.0, dtype=torch.float64))


def test_gld_is_the_wasserstein_distance_of_the_features():
    x, y = top(probabilities(0), 4), top(probabilities(1), 4)
    f, g = global_features(x), global_features(y)
    assert distance(f, g, "sorted").item() == pytest.approx(49 * wasserstein_distance(f, g), rel=1e-9)


@pytest.mark.parametrize("feature", ["mean", "rms"])
def test_features_need_no_graph_but_are_those_of_the_graph(feature):
    x = top(probabilities(0), 4)
    explicit = sum(torch.outer(row, row) for row in x) / len(x)
    close(coactivation(x), explicit)
    wanted = explicit.mean(-1) if feature == "mean" else explicit.square().mean(-1).sqrt()
    close(global_features(x, feature), wanted)


def test_features_grow_with_the_square_of_the_activations():
    x = top(probabilities(0), 4)
    close(global_features(3 * x), 9 * global_features(x))
    close(global_features(x[torch.randperm(len(x))]), global_features(x))


def test_all_classes_kept_are_nothing_but_marginals():
    x = probabilities(0)
    close(global_features(x), x.mean(0) / 7)
    with pytest.warns(UserWarning, match="marginals"):
        GLD(k=7)(Signals(x.log()), Signals(probabilities(1).log()))
    with pytest.raises(ValueError, match="the loss is 0"):
        GLD(k=7, of="standardized")(Signals(x.log()), Signals(probabilities(1).log()))
    rows = graphkd.standardize(x.log())
    close(global_features(rows), torch.zeros(7, dtype=torch.float64))


def test_neighbourhoods_of_a_complete_graph_are_the_whole_graph():
    x = top(probabilities(0, N=9), 4)
    close(neighbourhood_features(x, complete(9)), global_features(x).expand(9, 7))
    s, t = Signals(probabilities(0, N=9).log()), Signals(probabilities(1, N=9).log())
    whole = GLD(k=3)(s, t)
    close(GLD("neighbourhood", k=3)(s, t, edge_index=complete(9)), whole.expand(9))


def test_neighbourhood_features_are_those_of_a_loop_over_nodes():
    x, edge_index = top(probabilities(0, N=12), 4), example().edge_index
    for node, got in enumerate(neighbourhood_features(x, edge_index)):
        around = [int(u) for u, v in edge_index.t() if v == node and u != node]
        close(got, global_features(x[[node, *around]]))


def test_class_features_are_those_of_each_group():
    x, group = top(probabilities(0, N=12), 4), torch.arange(12) % 3
    found = class_features(x, group)
    for k in range(3):
        close(found[k], global_features(x[group == k]))
    assert not found[3:].any()
    s, t = (Signals(probabilities(i, N=12).log()) for i in range(2))
    t.logits[torch.arange(12), group] = 9
    parts = [GLD(k=3)(graphkd.take(s, group == k), graphkd.take(t, group == k)) for k in range(3)]
    close(GLD("class", k=3)(s, t), torch.stack(parts).mean())


def test_one_predicted_class_makes_the_class_form_global():
    s, t = probabilities(0).log(), probabilities(1).log()
    t[:, 2] = 10
    close(GLD("class", k=3)(Signals(s), Signals(t)), GLD(k=3)(Signals(s), Signals(t)))


def test_sorting_is_blind_to_the_names_of_classes_and_identity_is_not():
    s, t = probabilities(0).log(), probabilities(1).log()
    swapped = s[:, torch.tensor([1, 0, 3, 2, 6, 5, 4])]
    for form in ("global", "class"):
        blind, seeing = GLD(form, k=3, matching="sorted"), GLD(form, k=3)
        close(blind(Signals(swapped), Signals(t)), blind(Signals(s), Signals(t)))
        assert not torch.allclose(seeing(Signals(swapped), Signals(t)), seeing(Signals(s), Signals(t)))
        assert seeing(Signals(s), Signals(t)) >= blind(Signals(s), Signals(t))


@pytest.mark.parametrize("form", ["global", "class", "neighbourhood"])
def test_gld_is_zero_where_both_agree_and_at_most_two(form):
    given = example()
    loss = GLD(form, k=3)
    assert (call(loss, given._replace(student=given.teacher)) == 0).all()
    assert ((call(loss, given) > 0) & (call(loss, given) <= 2)).all()


def test_top_keeps_k_entries_or_the_teacher_s_and_all_that_tie():
    x, y = probabilities(0), probabilities(1)
    assert ((top(x, 3) > 0).sum(-1) == 3).all()
    close(top(x, 3).sum(-1), x.topk(3).values.sum(-1))
    assert torch.equal(top(x, 3, y) > 0, top(y, 3) > 0)
    assert (top(torch.ones(2, 5), 3) == 1).all()
    close(kth_largest(x, 3), x.sort(descending=True).values[:, 2:3])


def test_what_gld_cannot_do_is_refused():
    with pytest.raises(ValueError, match="unknown 'galactic'; choose from global, class, neighbourhood"):
        GLD("galactic")
    with pytest.raises(ValueError, match="rms"):
        GLD("neighbourhood", feature="rms")
    with pytest.raises(ValueError, match="k must be a whole number from 1, below 2\\^63, got 0"):
        GLD(k=0)


def test_diagnosis_is_the_certificate_of_the_two_global_graphs_and_needs_no_gradient():
    given = example()
    leaves(given.student)
    bracket = GLD(k=3).diagnose(*given[:2])
    x, y = (top(s.logits.detach().softmax(-1), 3) for s in given[:2])
    close(bracket, graphkd.certificate(coactivation(x), coactivation(y), matching="identity"))
    assert not bracket.upper.requires_grad


class _Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the size of the largest tensor made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return out


@pytest.mark.parametrize("form", ["global", "class", "neighbourhood"])
def test_no_tensor_grows_with_nodes_times_nodes_or_classes_squared(form):
    N, C, E = 2000, 40, 6000
    z, edge_index = torch.randn(N, C, requires_grad=True), torch.randint(N, (2, E))
    with _Largest() as largest:
        GLD(form)(Signals(z), Signals(torch.randn(N, C)), edge_index=edge_index).sum().backward()
    assert largest.size <= E * C
