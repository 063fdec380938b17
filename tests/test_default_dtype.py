"""With `torch.set_default_dtype(torch.float64)` everything trains and answers in float64."""

import pickle

import pytest
import torch
import torch.nn.functional as F

from mowst.evaluation import METRICS, accuracy, best_threshold, diagnose, signal
from mowst.inference import Kept, predict
from mowst.kernels import Adjacency, SparseFeatures, prepare_features, rows_of
from mowst.models import GATES, LogisticGate, Mowst, asks_of, expert, weigh
from mowst.training import REGIMES, Schedule, Trainer
from tests.graphs import TRAINED, good


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def build(name: str) -> torch.nn.Module:
    return expert(name, 8, 3, hidden_channels=8, num_layers=2, norm="batch_norm", dropout=0.5)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("regime", REGIMES.names)
@pytest.mark.parametrize("name", TRAINED)
def test_every_expert_trains_in_every_regime_and_predicts(name, regime):
    data, steps = good(), REGIMES.lookup(regime)
    data.x, data.adj_t = data.x.double(), Adjacency.from_edge_index(data.edge_index, 60)
    strong, gate = build(name), GATES.lookup(steps.gate)()
    model = strong if steps.alone else Mowst(build("mlp"), strong, gate, LogisticGate())
    pace = Schedule(epochs=2, rounds=1, pretrain="both")
    twins = steps(Trainer(model, data, signal("expected", accuracy)), pace).twins
    assert twins is None or {said.dtype for said in twins.logits.values()} == {torch.float64}
    if steps.alone:
        assert model(data.x, data.edge_index).dtype == torch.float64
        return
    for graph in (data.adj_t, data.edge_index):
        for how in ("pooled", "routed", "sampled"):
            assert predict(model, data.x, graph, how=how).dtype == torch.float64
        torch.testing.assert_close(Kept(model, data.x, graph).query([4]), predict(model, data.x, graph, nodes=[4]))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("metric", METRICS.names)
def test_a_threshold_is_chosen_and_a_mixture_diagnosed(metric):
    data = good()
    data.x = data.x.double()
    with torch.no_grad():
        out = Mowst(build("mlp"), build("gcn"), LogisticGate()).eval()(data.x, data.edge_index)
    assert best_threshold(out, data.y, METRICS.lookup(metric)) >= 0
    assert sum(each["nodes"] for each in diagnose(out, data.y, data.train_mask, data.val_mask)["bins"]) == 15


@pytest.mark.parametrize("gate", GATES.names)
@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@pytest.mark.parametrize("said", [torch.float32, torch.float64])
def test_a_gate_computes_in_its_own_precision_whatever_the_experts_do(gate, own, said):
    judge, logits = GATES.lookup(gate)().to(own), torch.randn(9, 3).to(said)
    confidence = weigh(judge, asks_of(judge), logits, torch.zeros(9, 2), logits.flip(0)).confidence
    assert confidence.dtype == (own if list(judge.parameters()) else said)


@pytest.mark.parametrize("ones", [False, True])
def test_sparse_features_stay_in_their_precision_when_the_default_changes(ones):
    plain = (torch.eye(30, 20) if ones else 2 * torch.eye(30, 20)).float()
    x = prepare_features(plain)
    torch.set_default_dtype(torch.float64)
    try:
        rows = torch.tensor([3, 25])
        for copy in (x, x.clone(), pickle.loads(pickle.dumps(x)), rows_of(x, torch.arange(30))):
            assert isinstance(copy, SparseFeatures)
            assert (copy + 0).dtype == copy.dtype == torch.float32
            assert F.linear(copy, torch.ones(2, 20, dtype=torch.float32)).dtype == torch.float32
        assert torch.equal(rows_of(x, rows) + 0, plain[rows])
    finally:
        torch.set_default_dtype(torch.float32)
