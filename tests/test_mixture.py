import pytest
import torch
from torch_geometric.data import Data

from mowst.evaluation.metrics import SIGNALS, Metric, accuracy, expected, pooled, rocauc, signal
from mowst.models.gates import Asks, LearnedGate
from mowst.models.mixture import Mowst
from mowst.models.outputs import Gated, Mixture, log_pool
from mowst.training.objectives import cross_entropy, joint, joint_logits, separate


def random_mixture(N=200, C=4, seed=0, scale=None) -> tuple[Mixture, Data]:
    generator = torch.Generator().manual_seed(seed)
    weak, strong = (3 * torch.randn(N, C, generator=generator, dtype=torch.float64) for _ in range(2))
    confidence = torch.rand(N, generator=generator, dtype=torch.float64)
    y = torch.randint(C, (N,), generator=generator)
    return Mixture(weak, strong, confidence, scale), Data(y=y)


def test_joint_objective_never_exceeds_the_separate_one():
    for seed in range(5):
        out, batch = random_mixture(seed=seed)
        assert (joint(out, batch) <= separate(out, batch) + 1e-12).all()


@pytest.mark.parametrize("objective", [separate, joint, joint_logits])
@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_full_or_no_confidence_is_one_expert(objective, confidence):
    out, batch = random_mixture()
    out = out._replace(confidence=torch.full_like(out.confidence, confidence))
    expert = out.of("weak" if confidence == 1 else "strong")
    torch.testing.assert_close(objective(out, batch), cross_entropy(expert, batch), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out.probs(), expert.values.softmax(-1))


def test_linear_pool_is_the_weighted_mean_of_probabilities():
    out, _ = random_mixture()
    c = out.confidence.unsqueeze(-1)
    torch.testing.assert_close(out.probs(), c * out.weak.softmax(-1) + (1 - c) * out.strong.softmax(-1))


def test_logarithmic_pool_of_scale_two_at_one_half_is_bayes_rule():
    out, _ = random_mixture()
    out = out._replace(confidence=torch.full_like(out.confidence, 0.5), scale=torch.full_like(out.confidence, 2.0))
    product = out.weak.softmax(-1) * out.strong.softmax(-1)
    torch.testing.assert_close(out.probs(), product / product.sum(-1, keepdim=True))


def test_logarithmic_pool_of_scale_one_is_the_geometric_mean():
    out, _ = random_mixture()
    c = out.confidence.unsqueeze(-1)
    mean = out.weak.softmax(-1) ** c * out.strong.softmax(-1) ** (1 - c)
    torch.testing.assert_close(
        out._replace(scale=torch.ones_like(out.confidence)).probs(), mean / mean.sum(-1, keepdim=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0])
def test_objectives_and_gradients_are_finite_at_extreme_logits(dtype, confidence):
    big = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype=dtype)
    for objective in (separate, joint, joint_logits):
        weak, strong = big.clone().requires_grad_(), (-big).clone().requires_grad_()
        c = torch.full((2,), confidence, requires_grad=True)
        loss = objective(Mixture(weak, strong, c), Data(y=torch.tensor([1, 0])))
        loss.sum().backward()
        assert loss.isfinite().all()
        assert all(v.grad.isfinite().all() for v in (weak, strong, c))


def test_hidden_labels_cost_nothing():
    out, batch = random_mixture()
    batch.y[::2] = -100
    for objective in (separate, joint, joint_logits):
        assert (objective(out, batch)[::2] == 0).all()
        assert (objective(out, batch)[1::2] > 0).all()


def test_expected_accuracy_is_what_many_draws_come_to():
    out, batch = random_mixture(N=500)
    generator = torch.Generator().manual_seed(1)
    draws = []
    for _ in range(4000):
        weak = torch.rand(500, generator=generator) < out.confidence
        draws.append(torch.where(weak, out.weak.argmax(-1), out.strong.argmax(-1)) == batch.y)
    c = out.confidence
    exact = c * (out.weak.argmax(-1) == batch.y) + (1 - c) * (out.strong.argmax(-1) == batch.y)
    assert expected(out, batch.y, accuracy) == pytest.approx(exact.mean().item(), abs=1e-6)
    assert expected(out, batch.y, accuracy) == pytest.approx(torch.stack(draws).float().mean().item(), abs=2e-3)


def test_a_metric_of_ones_own_that_names_no_rows_gets_both_experts_weighted():
    out, batch = random_mixture(N=500)
    given = []

    def own(probs, y, weight=None):
        given.append((probs, weight))
        return accuracy(probs, y, weight)

    assert expected(out, batch.y, Metric.of(own)) == pytest.approx(expected(out, batch.y, accuracy), abs=1e-6)
    ((probs, weight),) = given
    torch.testing.assert_close(probs.sum(-1), torch.ones_like(weight))
    torch.testing.assert_close(weight[:500] + weight[500:], torch.ones_like(out.confidence))


@pytest.mark.parametrize("scale", [None, torch.full((200,), 2.0, dtype=torch.float64)], ids=["linear", "logarithmic"])
@pytest.mark.parametrize("name", SIGNALS.names)
def test_a_signal_is_the_mean_of_what_it_says_it_is(name, scale):
    out, batch = random_mixture(scale=scale)
    score = signal(name, accuracy)
    for output in (out, out.of("weak")):
        values = score.per_node(output, batch.y)
        assert values.shape == (200,)
        assert float(values.mean()) == pytest.approx(score(output, batch.y), abs=1e-6)


def test_a_signal_that_is_no_mean_says_so():
    out, batch = random_mixture(C=2)
    assert signal("metric", rocauc).per_node(out, batch.y) is None
    assert signal("expected", rocauc).per_node(out, batch.y) is None
    assert signal("loss", rocauc).per_node(out, batch.y).shape == (200,)
    assert signal("tests.test_mixture:of_ones_own", accuracy).per_node(out, batch.y) is None


def of_ones_own(out, y, metric):
    return pooled(out, y, metric) - 1


def test_expected_auc_counts_every_pair_of_every_routing():
    out, batch = random_mixture(N=40, C=2)
    scores = torch.cat([out.weak.softmax(-1)[:, 1], out.strong.softmax(-1)[:, 1]])
    weight, y = torch.cat([out.confidence, 1 - out.confidence]), batch.y.repeat(2)
    won = total = 0.0
    for i in range(80):
        for j in range(80):
            if y[i] == 1 and y[j] == 0:
                pair = float(weight[i] * weight[j])
                total += pair
                won += pair * (float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j]))
    assert expected(out, batch.y, rocauc) == pytest.approx(won / total, abs=1e-9)


def test_auc_without_one_of_the_classes_is_not_a_number():
    out, _ = random_mixture(C=2)
    assert pooled(out, torch.zeros(200, dtype=torch.long), rocauc) != pooled(
        out, torch.zeros(200, dtype=torch.long), rocauc
    )


class Counting(torch.nn.Linear):
    """An expert that counts its calls."""

    def __init__(self, *args):
        super().__init__(*args)
        self.calls = 0

    def forward(self, x, edge_index):
        self.calls += 1
        return super().forward(x)


def test_what_is_handed_in_is_not_computed_again(tiny):
    model = Mowst(Counting(8, 3), Counting(8, 3), LearnedGate())
    full = model(tiny.x, tiny.edge_index)
    known = model.known(tiny.x, tiny.edge_index, ("strong",))
    assert set(known.given()) == {"weak", "gated"}
    model.weak.calls = model.strong.calls = 0
    again = model(tiny.x, tiny.edge_index, **known.given())
    assert (model.weak.calls, model.strong.calls) == (0, 1)
    for one, other in zip(full[:3], again[:3], strict=True):
        assert torch.equal(one, other)


class LooksAtBoth(torch.nn.Module):
    """A gate that fuses: it sees both experts and asks for a logarithmic pool."""

    asks = Asks(strong=True, scale=True)

    def forward(self, weak_logits, x, strong_logits=None):
        confidence = strong_logits.softmax(-1).amax(-1)
        return Gated(confidence, torch.full_like(confidence, 2.0))


def test_a_gate_may_see_both_experts_and_pool_logarithmically(tiny):
    model = Mowst(Counting(8, 3), Counting(8, 3), LooksAtBoth())
    out = model(tiny.x, tiny.edge_index)
    assert out.scale is not None
    assert set(model.known(tiny.x, tiny.edge_index, ("strong",)).given()) == {"weak"}
    assert set(model.known(tiny.x, tiny.edge_index, ("gate",)).given()) == {"weak", "strong"}
    torch.testing.assert_close(log_pool(out).exp().sum(-1), torch.ones(60))
