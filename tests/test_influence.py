"""Which labels spoke: influence against leave-one-out retraining."""

import copy

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from mowst import InputError, load
from mowst.influence import Counts, LastLayer, Network, read_out, why
from mowst.kernels import Adjacency
from mowst.models import FusedGate, LogisticGate, Mowst, Panel, expert

LINEAR = ("mlp", "gcn", "sage", "gin", "gin-skip", "gcn-res", "sage-res")


def graph(name, tiny, most=60):
    """A graph with few training nodes."""
    if name == "tiny":
        return tiny
    data = copy.copy(load(name))
    few = data.train_mask.nonzero().squeeze(-1)[:most]
    data.train_mask = torch.zeros_like(data.train_mask)
    data.train_mask[few] = True
    return data


def model_for(data, kind="gcn", seed=0, **options):
    torch.manual_seed(seed)
    return expert(kind, data.num_features, int(data.y.max()) + 1, hidden_channels=16, num_layers=2, **options).eval()


def without(data, node):
    mask = data.train_mask.clone()
    mask[node] = False
    return mask


@pytest.mark.parametrize("kind", LINEAR)
def test_what_the_last_layer_reads_times_its_weights_is_what_it_says(tiny, kind):
    model = model_for(tiny, kind, norm="batch_norm")
    features = read_out(model, tiny.x, tiny.edge_index)
    weight = torch.linalg.lstsq(features, model(tiny.x, tiny.edge_index).double(), driver="gelsd").solution
    torch.testing.assert_close((features @ weight).float(), model(tiny.x, tiny.edge_index), rtol=1e-3, atol=1e-3)


def test_an_expert_without_a_linear_last_layer_is_refused(tiny):
    for kind in ("gat", "neighbours"):
        with pytest.raises(InputError, match="influence"):
            read_out(expert(kind, 8, 3, hidden_channels=8, num_layers=2), tiny.x, tiny.edge_index)
    with pytest.raises(InputError, match="numbers, and at most 6,000 are exact"):
        LastLayer(torch.zeros(60, 3001), tiny.y, tiny.train_mask, 3)


@pytest.mark.parametrize("name", ["tiny", "sbm", "digits"])
def test_influence_on_the_last_layer_is_that_of_leave_one_out_retraining(tiny, name):
    data = graph(name, tiny)
    features, C = read_out(model_for(data), data.x, data.edge_index), int(data.y.max()) + 1
    layer = LastLayer(features, data.y, data.train_mask, C)
    nodes = (~data.train_mask).nonzero().squeeze(-1)[:5].tolist()
    places = torch.arange(len(layer.train))[:: max(1, len(layer.train) // 15)]
    truth = [LastLayer(features, data.y, without(data, layer.train[place]), C).logits for place in places]
    for place, there in zip(places, truth, strict=True):
        assert float((layer.without(place) - there).abs().max()) < 0.2 * float((layer.logits - there).abs().max())
    for node in nodes:
        label = layer.logits[node].argmax()
        log_p = layer.logits[node].log_softmax(-1)[label]
        raised = [float(log_p - there[node].log_softmax(-1)[label]) for there in truth]
        assert spearmanr(layer.influence(node)[places], raised).statistic > 0.95
        assert layer.influence(node)[places].tolist() == pytest.approx(raised, rel=0.35, abs=3e-3)


def test_a_last_layer_learns_from_a_label_that_weighs_twice_as_from_two(tiny):
    twice = tiny.train_mask.nonzero().flatten()[:9]
    weight = torch.ones(60).index_fill_(0, twice, 2.0)
    x, y = torch.cat([tiny.x, tiny.x[twice]]), torch.cat([tiny.y, tiny.y[twice]])
    found = LastLayer(tiny.x, tiny.y, tiny.train_mask, 3, weight=weight)
    doubled = LastLayer(x, y, torch.cat([tiny.train_mask, torch.ones(9, dtype=torch.bool)]), 3)
    torch.testing.assert_close(found.logits, doubled.logits[:60], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.factor, doubled.factor, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found.logits, LastLayer(tiny.x, tiny.y, tiny.train_mask, 3).logits, atol=1e-2)
    model = model_for(tiny, "mlp")
    plain = why(model, tiny, 5, k=None)
    other = why(model, tiny, 5, k=None, weights={"": weight})
    assert not torch.equal(plain.scores, other.scores)


def test_through_the_network_a_label_that_weighs_twice_moves_what_two_move(tiny):
    twice = tiny.train_mask.nonzero().flatten()[:9]
    weight = torch.ones(60).index_fill_(0, twice, 2.0)
    model, exact = model_for(tiny, "mlp").double(), {"steps": 500, "tolerance": 1e-9}
    x, y = torch.cat([tiny.x, tiny.x[twice]]), torch.cat([tiny.y, tiny.y[twice]])
    train = torch.cat([tiny.train_mask, torch.ones(9, dtype=torch.bool)])
    found = Network(model, tiny.x, tiny.edge_index, tiny.y, tiny.train_mask, **exact, weight=weight).influence(5)
    theirs = Network(model, x, tiny.edge_index, y, train, **exact).influence(5)
    theirs[:9] += theirs[30:]  # the first nine training nodes, and their copies behind all others
    torch.testing.assert_close(found, theirs[:30], rtol=1e-3, atol=1e-6)


def test_the_last_layer_is_at_its_minimum(tiny):
    layer = LastLayer(tiny.x, tiny.y, tiny.train_mask, 3, l2=0.3)
    weight = layer.weight.clone().requires_grad_()
    loss = F.cross_entropy(tiny.x[tiny.train_mask].double() @ weight, tiny.y[tiny.train_mask], reduction="sum")
    (loss + 0.15 * (weight**2).sum()).backward()
    assert float(weight.grad.abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["tiny", "sbm", "digits"])
def test_flipped_labels_are_found(tiny, name):
    data = graph(name, tiny, most=100)
    C = int(data.y.max()) + 1
    train = data.train_mask.nonzero().squeeze(-1)
    flipped = torch.zeros(len(train), dtype=torch.bool)
    flipped[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: max(2, len(train) // 10)]] = True
    y = data.y.clone()
    y[train[flipped]] = (y[train[flipped]] + 1) % C
    doubts = LastLayer(read_out(model_for(data), data.x, data.edge_index), y, data.train_mask, C).doubts()
    found = average_precision_score(flipped.numpy(), doubts.numpy())
    assert found > 3 * float(flipped.double().mean()), found


def trained(data, mask, seed=0, decay=0.02):
    """Train a small GCN from the same weights to a minimum of the summed losses plus a penalty."""
    model = model_for(data, seed=seed).double()
    x = data.x.double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=150, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, data.edge_index)[mask], data.y[mask], reduction="sum")
        loss = loss + decay / 2 * sum((weight**2).sum() for weight in model.parameters())
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@pytest.mark.slow
def test_influence_through_the_network_goes_with_leave_one_out_retraining(tiny):
    decay = 1.0
    whole = trained(tiny, tiny.train_mask, decay=decay)
    asked = Network(whole, tiny.x.double(), tiny.edge_index, tiny.y, tiny.train_mask, damping=decay, tolerance=1e-6)
    before = whole(tiny.x.double(), tiny.edge_index).log_softmax(-1).detach()
    after = [
        trained(tiny, without(tiny, node), decay=decay)(tiny.x.double(), tiny.edge_index).log_softmax(-1).detach()
        for node in asked.train[::2]
    ]
    ranks = []
    for node in tiny.test_mask.nonzero().squeeze(-1)[:8].tolist():
        label = before[node].argmax()
        raised = [float(before[node, label] - there[node, label]) for there in after]
        ranks.append(spearmanr(asked.influence(node)[::2], raised).statistic)
    assert sum(ranks) / len(ranks) > 0.4, ranks


def test_products_with_the_gauss_newton_matrix_are_those_of_the_whole_matrix(tiny):
    model = model_for(tiny, "mlp").double()
    asked = Network(model, tiny.x, tiny.edge_index, tiny.y, tiny.train_mask, damping=0.5, steps=500, tolerance=1e-9)
    weights = dict(model.named_parameters())

    def says(values):
        return torch.func.functional_call(model, values, (tiny.x.double(), tiny.edge_index))

    parts = torch.autograd.functional.jacobian(
        lambda *values: says(dict(zip(weights, values, strict=True))), tuple(weights.values())
    )
    jacobian = torch.cat([part.flatten(2) for part in parts], dim=-1)  # [N, C, P]
    own, p = jacobian[tiny.train_mask], says(weights)[tiny.train_mask].softmax(-1)
    curvature = torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)
    matrix = torch.einsum("ncp,nce,neq->pq", own, curvature, own) + 0.5 * torch.eye(own.size(-1), dtype=torch.float64)
    direction = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64)
    answer = torch.linalg.solve(matrix, direction @ jacobian[7])
    residual = p - F.one_hot(tiny.y[tiny.train_mask], 3)
    by_hand = -torch.einsum("ncp,p,nc->n", own, answer, residual)
    torch.testing.assert_close(asked.influence(7, direction), by_hand.detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("through", ["last", "network"])
@pytest.mark.parametrize("gate", [LogisticGate, FusedGate])
def test_a_mixture_is_explained_by_both_experts_and_by_training_labels_alone(tiny, through, gate):
    torch.manual_seed(0)
    mixture = Mowst(model_for(tiny, "mlp"), model_for(tiny, "gcn"), gate()).eval()
    mixture.temperature.copy_(torch.tensor([2.0, 0.5]))
    found = why(mixture, tiny, 5, k=None, through=through)
    other = copy.copy(tiny)
    other.y = torch.where(tiny.train_mask, tiny.y, 0)
    again = why(mixture, other, 5, k=3, through=through)
    assert found.predicted == int(mixture(tiny.x, tiny.edge_index).scores()[5].argmax())
    assert len(found.ids) == int(tiny.train_mask.sum())
    assert again.ids.equal(found.ids[:3])
    assert again.scores.equal(found.scores[:3])
    assert (found.scores.abs().diff() <= 0).all()
    assert why(mixture.strong, tiny, 5, through=through).scores.isfinite().all()


def learned(data, labels, hops, damped):
    """The expert that counts neighbours, told some labels."""
    found = expert("neighbours", 8, 3, hops=hops, damped=damped)
    adjacency = Adjacency.from_edge_index(data.edge_index, 60, data.get("edge_weight"))
    found.learn(data.x, adjacency, labels, None, 1)
    return found, found(data.x, adjacency)


@pytest.mark.parametrize(("hops", "damped", "weighted"), [(1, True, False), (2, False, True), (2, True, False)])
def test_a_label_less_is_counted_as_if_it_had_never_been_told(tiny, hops, damped, weighted):
    loops = torch.arange(0, 60, 7)
    tiny.edge_index = torch.cat([tiny.edge_index, torch.stack([loops, loops])], dim=1)
    if weighted:
        tiny.edge_weight = torch.rand(tiny.edge_index.size(1), generator=torch.Generator().manual_seed(1)) + 0.1
    told = torch.where(tiny.train_mask, tiny.y, -1)
    model, said = learned(tiny, told, hops, damped)
    adjacency = Adjacency.from_edge_index(tiny.edge_index, 60, tiny.get("edge_weight"))
    counts, direction = Counts(model, adjacency, tiny.x, tiny.train_mask), torch.tensor([1.0, -0.3, 0.2]).double()
    for node in (5, 7, int(counts.train[0])):
        found = counts.influence(node, direction)
        for place in range(0, len(counts.train), 3):
            less = told.clone()
            less[counts.train[place]] = -1
            raised = (said - learned(tiny, less, hops, damped)[1])[node].double() @ direction
            assert float(found[place]) == pytest.approx(float(raised), rel=1e-4, abs=2e-5)
    assert why(model, tiny, 5, through="network").scores.abs().max() > 1e-3


def test_a_panel_of_one_expert_twice_is_explained_as_the_expert(tiny):
    model = model_for(tiny)
    panel = Panel({"one": model, "other": copy.deepcopy(model)}).eval()
    panel.temperature.fill_(2.0)
    panel.lean(0.8, 1.2)  # softmax(0.8 z / 2 + 1.2 z / 2) = softmax(z)
    alone, together = why(model, tiny, 5, k=None), why(panel, tiny, 5, k=None)
    assert together.ids.equal(alone.ids)
    torch.testing.assert_close(together.scores, alone.scores, rtol=1e-4, atol=1e-7)
    panel.active[1] = False
    heard = why(panel, tiny, 5, k=None)
    assert float(heard.scores.abs().max()) > 0
    mixed = Panel({"one": model, "trees": expert("trees", 8, 3)}).eval()
    assert why(mixed, tiny, 5).standing == ("trees",)


def test_what_cannot_be_asked_is_refused(tiny):
    model = model_for(tiny)
    with pytest.raises(InputError, match="node 60: must be from 0 to 59"):
        why(model, tiny, 60)
    with pytest.raises(InputError, match="choose from last, network"):
        why(model, tiny, 0, through="all")
    with pytest.raises(InputError, match="has no weights"):
        Network(expert("neighbours", 8, 3), tiny.x, tiny.edge_index, tiny.y, tiny.train_mask)
    with pytest.raises(InputError, match="influence: the model can only be trained anew"):
        why(expert("trees", 8, 3), tiny, 0)


def test_influence_is_finite_at_features_of_ten_thousand(tiny):
    layer = LastLayer(1e4 * tiny.x, tiny.y, tiny.train_mask, 3)
    assert layer.doubts().isfinite().all()
    assert layer.influence(3).isfinite().all()


@pytest.mark.parametrize("through", ["last", "network"])
def test_influence_is_finite_at_logits_of_ten_thousand(tiny, through):
    model = model_for(tiny)
    with torch.no_grad():
        for weights in list(model.parameters())[-2:]:
            weights.mul_(1e4)
    assert float(model(tiny.x, tiny.edge_index).abs().max()) > 5e3
    assert why(model, tiny, 5, k=None, through=through).scores.isfinite().all()
