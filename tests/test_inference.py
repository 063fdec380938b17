"""Every mode answers for some nodes as for all, and runs no expert where it is not asked."""

import pytest
import torch
from torch import nn

from mowst import InputError, LearnedGate, Mowst, PowerGate, expert
from mowst.inference.frontier import Costs
from mowst.inference.modes import INFERENCE, Kept, answer, predict
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.sparse_features import prepare_features
from mowst.models.gates import Asks
from mowst.models.outputs import Gated
from mowst.models.reads import Reads

N, C = 200, 3
EDGES = torch.randint(N - 5, (2, 2 * N), generator=torch.Generator().manual_seed(0))
X = torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
NODES = torch.tensor([17, 3, 17, 199, 0, 60, 3])


@pytest.fixture(autouse=True)
def always_cut(monkeypatch):
    monkeypatch.setattr(Costs, "too_dear", lambda self, nodes, entries: False)


class Counting(nn.Module):
    """An expert that notes how many nodes it answers for."""

    reads = Reads(hops=0)

    def __init__(self, seed: int):
        super().__init__()
        torch.manual_seed(seed)
        self.linear, self.asked = nn.Linear(8, C), []

    def forward(self, x, edge_index):
        self.asked.append(len(x))
        return self.linear(x)


class LooksAtBoth(nn.Module):
    """A gate that needs the strong expert, and pools logarithmically."""

    asks = Asks(strong=True, scale=True)

    def forward(self, weak_logits, x, strong_logits=None):
        confidence = (weak_logits.amax(-1) - strong_logits.amax(-1)).sigmoid()
        return Gated(confidence, 1 + confidence)


class Router(nn.Module):
    """Trusts the weak expert where the first feature is positive."""

    def forward(self, weak_logits, x, strong_logits=None):
        return Gated((x[:, 0] > 0).float())


def mixture(strong: str = "sage", gate: nn.Module | None = None) -> Mowst:
    torch.manual_seed(0)
    options = {"hidden_channels": 16, "num_layers": 2, "norm": "batch_norm", "dropout": 0.5}
    return Mowst(expert("mlp", 8, C, **options), expert(strong, 8, C, **options), gate or PowerGate())


def counting(gate: nn.Module) -> Mowst:
    return Mowst(Counting(0), Counting(1), gate)


def graph(plain: bool = False) -> torch.Tensor:
    return EDGES if plain else Adjacency.from_edge_index(EDGES, N)


@pytest.mark.parametrize("gate", [PowerGate(), LearnedGate(in_channels=8), LooksAtBoth()])
@pytest.mark.parametrize("strong", ["gcn", "gat", "gin-skip", "torch_geometric.nn.models:GCN"])
@pytest.mark.parametrize("plain", [False, True])
def test_some_nodes_are_answered_for_as_all_are(strong, gate, plain):
    model = mixture(strong, gate)
    for how in ("pooled", "routed"):
        everything = predict(model, X, graph(plain), how=how, threshold=0.2)
        some = predict(model, X, graph(plain), nodes=NODES, how=how, threshold=0.2)
        torch.testing.assert_close(some, everything[NODES], atol=1e-5, rtol=1e-5)
    assert model.training


def test_the_whole_graph_is_answered_for_as_by_the_model_itself():
    model = mixture().eval()
    out = model(X, graph())
    assert torch.equal(predict(model, X, graph()), out.probs())
    assert not model.training
    with torch.no_grad():
        assert torch.equal(out.probs(), model(X, graph()).probs())


@pytest.mark.parametrize("gate", [PowerGate(), LooksAtBoth()])
@pytest.mark.parametrize("nodes", [None, NODES])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3, 0.6, 1.1])
def test_routing_takes_each_node_from_the_expert_that_the_threshold_names(threshold, nodes, gate):
    model = mixture(gate=gate).eval()
    with torch.no_grad():
        out = model(X, graph())
    oracle = torch.stack(
        [(out.weak if out.confidence[i] >= threshold else out.strong)[i].softmax(-1) for i in range(N)]
    )
    got = predict(model, X, graph(), how="routed", threshold=threshold, nodes=nodes)
    torch.testing.assert_close(got, oracle if nodes is None else oracle[nodes], atol=1e-5, rtol=1e-5)


def test_the_strong_expert_is_asked_only_about_the_nodes_left_to_it():
    model = counting(PowerGate()).eval()
    with torch.no_grad():
        confidence = model(X, EDGES).confidence
    model.weak.asked, model.strong.asked = [], []
    threshold = float(confidence.median())
    left = int((confidence < threshold).sum())
    predict(model, X, EDGES, how="routed", threshold=threshold)
    assert (model.weak.asked, model.strong.asked) == ([N], [left])
    predict(model, X, EDGES, how="routed", threshold=0.0)
    assert model.strong.asked == [left]
    drawn = predict(model, X, EDGES, how="sampled", generator=torch.Generator().manual_seed(3))
    draws = torch.rand(N, generator=torch.Generator().manual_seed(3)) < confidence
    assert model.strong.asked == [left, int((~draws).sum())]
    with torch.no_grad():
        want = torch.where(draws[:, None], model.weak(X, EDGES).softmax(-1), model.strong(X, EDGES).softmax(-1))
    torch.testing.assert_close(drawn, want)


def test_a_gate_that_needs_the_strong_expert_has_it_run_for_all_that_is_asked():
    model = counting(LooksAtBoth())
    predict(model, X, EDGES, how="routed", threshold=0.4)
    predict(model, X, EDGES, how="routed", threshold=0.4, nodes=NODES)
    assert model.strong.asked == [N, 5]


def test_a_router_stands_in_for_the_gate_where_nodes_are_given_to_one_expert():
    model = counting(LooksAtBoth())
    pooled = predict(model, X, EDGES)
    model.router = Router()
    assert torch.equal(predict(model, X, EDGES), pooled)
    trusted = X[:, 0] > 0
    with torch.no_grad():
        weak = model.weak(X, EDGES).softmax(-1)
    for how in ("routed", "sampled"):
        model.strong.asked = []
        chosen = predict(model, X, EDGES, how=how)
        assert model.strong.asked == [int((~trusted).sum())]
        torch.testing.assert_close(chosen[trusted], weak[trusted])


def test_the_logits_are_calibrated_wherever_they_are_run():
    model = mixture().eval()
    model.temperature.copy_(torch.tensor([3.0, 0.2]))
    with torch.no_grad():
        want = model(X, graph()).probs()[NODES]
    torch.testing.assert_close(predict(model, X, graph(), nodes=NODES), want)
    torch.testing.assert_close(Kept(model, X, graph()).query(NODES), want)
    routed = predict(model, X, graph(), how="routed", threshold=1.1, nodes=NODES)
    with torch.no_grad():
        torch.testing.assert_close(routed, model(X, graph()).strong.softmax(-1)[NODES])


def test_what_was_touched_is_told():
    model, adjacency = mixture(), graph()
    everything = answer(model, X, adjacency).touched
    assert everything == (N, EDGES.size(1), N, EDGES.size(1))
    one = answer(model, X, adjacency, nodes=EDGES[1, :1]).touched
    assert 0 < one.nodes < N / 4
    assert 0 < one.edges < EDGES.size(1) / 4
    assert answer(model, X, adjacency, how="routed", threshold=0.0).touched == (0, 0, N, EDGES.size(1))
    assert str(one) == f"{one.nodes} of 200 nodes, {one.edges} of 400 edges"


def test_no_nodes_give_no_rows():
    for plain in (False, True):
        for how in INFERENCE.names:
            assert predict(mixture(), X, graph(plain), nodes=[], how=how).shape == (0, C)


@pytest.mark.parametrize("nodes", [[200], [-1], [[1]], [1.5], torch.ones(N, dtype=torch.bool)])
def test_what_is_no_list_of_ids_is_refused(nodes):
    with pytest.raises(InputError, match="nodes:"):
        predict(mixture(), X, graph(), nodes=nodes)


def test_the_mode_of_the_model_survives_an_error():
    def fails(ask, **options):
        raise ValueError

    model = mixture()
    model.strong.eval()
    with pytest.raises(ValueError):  # noqa: PT011
        predict(model, X, graph(), how=fails)
    assert model.training
    assert model.weak.training
    assert not model.strong.training


def test_a_mode_of_ones_own_asks_the_strong_expert_about_a_share_of_the_nodes():
    def third(ask, *, threshold, generator):
        return ask.choose(ask.confidence >= ask.confidence.quantile(1 / 3))

    model = counting(PowerGate())
    predict(model, X, EDGES, how=third)
    assert model.strong.asked == [pytest.approx(N / 3, abs=1)]


@pytest.mark.parametrize("gate", [PowerGate(), LooksAtBoth()])
@pytest.mark.parametrize("strong", ["gcn", "gat", "torch_geometric.nn.models:GCN"])
def test_kept_answers_are_those_of_a_forward(strong, gate):
    model, x = mixture(strong, gate), prepare_features(X.clamp_min(0) * (torch.rand(N, 8) < 0.1))
    kept = Kept(model, x, graph())
    for how in ("pooled", "routed"):
        want = predict(model, x, graph(), how=how, threshold=0.3)[NODES]
        torch.testing.assert_close(kept.query(NODES, how=how, threshold=0.3), want, atol=1e-5, rtol=1e-5)
    before = kept.query([4])
    nn.init.normal_(next(model.weak.parameters()))
    nn.init.normal_(next(model.strong.parameters()))
    assert torch.equal(kept.query([4]), before)
    assert kept.query([]).shape == (0, C)
    with pytest.raises(InputError, match="0 to 199"):
        kept.query([N])


def test_a_query_runs_the_strong_expert_no_more():
    model = counting(PowerGate())
    kept = Kept(model, X, EDGES)
    kept.query([3])
    kept.query([3, 9], how="sampled")
    assert (kept.model.weak.asked, kept.model.strong.asked) == ([1, 2], [N])


@pytest.mark.parametrize("threshold", [0.1, 0.4, float("inf")])
def test_a_model_routes_at_its_own_threshold_where_none_is_asked_for(threshold):
    model = mixture()
    model.threshold.fill_(threshold)
    restored = mixture()
    restored.load_state_dict(model.state_dict())
    want = predict(model, X, graph(), how="routed", threshold=threshold)
    torch.testing.assert_close(predict(restored, X, graph(), how="routed"), want)
    torch.testing.assert_close(Kept(restored, X, graph()).query(list(range(N)), how="routed"), want)
    if threshold == float("inf"):
        torch.testing.assert_close(want, model.eval()(X, graph()).strong.softmax(-1))


def test_kept_logits_are_asked_in_the_precision_in_which_they_were_made(tiny):
    model = Mowst(
        expert("mlp", 8, 3, hidden_channels=16, num_layers=2),
        expert("gcn", 8, 3, hidden_channels=16, num_layers=2),
        LearnedGate(),
    ).eval()
    with torch.autocast("cpu", torch.bfloat16):
        kept = Kept(model, tiny.x, tiny.edge_index)
    said = []
    kept.model.weak.register_forward_hook(lambda module, args, out: said.append(out.dtype))
    kept.query([3, 50])
    assert said == [torch.bfloat16]
