import itertools

import pytest
import torch

from mowst.errors import InputError
from mowst.models.dispersions import DISPERSIONS, margin
from mowst.models.gates import GATES, LearnedGate, MonotoneGate, PowerGate, asks_of, weigh
from mowst.models.outputs import probabilities

PRECISIONS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EXTREMES = torch.tensor(
    [[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4], [0.0, 0.0, 0.0], [1e4, 1e4, 1e4], [3.0, -2.0, 1e4]]
)
TRUE_DISPERSIONS = [name for name in DISPERSIONS.names if name != "margin"]


def moved(gate):
    """Take a gate away from a start at which it is constant."""
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return gate


def ask(gate, weak):
    """Ask a gate of the weak expert's logits; one that looks at the strong expert too sees the other nodes' order."""
    return weigh(gate, asks_of(gate), weak, torch.zeros(len(weak), 2), weak.flip(0))


@pytest.fixture(params=GATES.names)
def gate(request):
    torch.manual_seed(0)
    return moved(GATES.lookup(request.param)(["variance", "negentropy"]))


@pytest.mark.parametrize("name", DISPERSIONS.names)
@pytest.mark.parametrize("C", [2, 3, 40])
def test_one_hot_is_certain_and_uniform_is_not(name, C):
    dispersion = DISPERSIONS.lookup(name)
    torch.testing.assert_close(dispersion(torch.eye(C)), torch.ones(C))
    torch.testing.assert_close(dispersion(torch.full((4, C), 1 / C)), torch.zeros(4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", TRUE_DISPERSIONS)
def test_a_dispersion_is_zero_at_uniform_only(name):
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.34, 0.33, 0.33], [0.4, 0.3, 0.3]], dtype=torch.float64)
    assert (DISPERSIONS.lookup(name)(probs) > 0).all()


def test_margin_is_no_dispersion():
    assert margin(torch.tensor([[0.5, 0.5, 0.0]])).item() == 0


@pytest.mark.parametrize("name", TRUE_DISPERSIONS)
def test_dispersions_are_quasi_convex(name):
    torch.manual_seed(0)
    dispersion, p, q, t = DISPERSIONS.lookup(name), torch.rand(500, 5), torch.rand(500, 5), torch.rand(500, 1)
    p, q = (v.double().div(v.sum(-1, keepdim=True)) for v in (p, q))
    assert (dispersion(t * p + (1 - t) * q) <= torch.maximum(dispersion(p), dispersion(q)) + 1e-9).all()


@pytest.mark.parametrize("name", DISPERSIONS.names)
def test_class_order_does_not_matter(name):
    torch.manual_seed(0)
    probs = torch.randn(50, 4).softmax(-1)
    for order in itertools.permutations(range(4)):
        torch.testing.assert_close(DISPERSIONS.lookup(name)(probs[:, order]), DISPERSIONS.lookup(name)(probs))


@pytest.mark.parametrize("name", DISPERSIONS.names)
def test_sharper_predictions_are_never_less_confident(name):
    torch.manual_seed(0)
    dispersion, logits = DISPERSIONS.lookup(name), torch.randn(200, 5)
    assert (dispersion((2 * logits).softmax(-1)) >= dispersion(logits.softmax(-1)) - 1e-6).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", DISPERSIONS.names)
def test_dispersions_and_their_gradients_are_finite_at_extreme_logits(name, dtype):
    logits = EXTREMES.to(dtype, copy=True).requires_grad_()
    value = DISPERSIONS.lookup(name)(probabilities(logits))
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", DISPERSIONS.names)
def test_dispersions_of_one_hot_probabilities_have_finite_gradients(name, dtype):
    probs = torch.eye(4, dtype=dtype).requires_grad_()
    DISPERSIONS.lookup(name)(probs).sum().backward()
    assert probs.grad.isfinite().all()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_gates_and_their_gradients_are_finite_at_extreme_logits(gate, dtype):
    gate = gate.to(torch.promote_types(dtype, torch.float32))
    logits = EXTREMES.to(dtype, copy=True).requires_grad_()
    confidence, scale = ask(gate, logits)
    (confidence.sum() + (0 if scale is None else scale.sum())).backward()
    assert scale is None or bool((scale.isfinite() & (scale > 0)).all())
    assert confidence.shape == (6,)
    assert confidence.isfinite().all()
    assert ((confidence >= 0) & (confidence <= 1)).all()
    assert logits.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in gate.parameters())


def test_gate_takes_raw_logits_and_applies_softmax_once(gate):
    logits = torch.randn(20, 3)
    seen = gate.measure(logits)
    expected = torch.stack([d(logits.softmax(-1)) for d in gate.dispersions], dim=-1)
    torch.testing.assert_close(seen, expected)


def test_gate_says_the_same_in_training_and_evaluation(gate):
    logits = torch.randn(20, 3)
    torch.testing.assert_close(ask(gate.train(), logits), ask(gate.eval(), logits))


@pytest.mark.parametrize("detach", [False, True])
def test_gradient_reaches_the_weak_expert_unless_detached(detach):
    for name in GATES.names:
        logits = torch.randn(20, 3, requires_grad=True)
        gate = moved(GATES.lookup(name)(["negentropy"], detach=detach))
        total = ask(gate, logits).confidence.sum()
        if total.requires_grad:
            total.backward()
        assert (logits.grad is not None and bool(logits.grad.abs().sum() > 0)) is not detach


def test_monotone_gate_is_monotone_zero_at_zero_and_at_most_one():
    for seed in range(5):
        torch.manual_seed(seed)
        gate = MonotoneGate()
        for parameter in gate.parameters():
            torch.nn.init.normal_(parameter, std=3.0)
        signals = torch.rand(300, 2).sort(dim=0).values  # each row dominates the one before
        potential = gate.potential(signals)
        assert (potential.diff() >= 0).all()
    uniform = torch.zeros(4, 5)
    torch.testing.assert_close(gate(uniform, torch.zeros(4, 1)).confidence, torch.zeros(4), atol=1e-5, rtol=0)
    assert (gate(100 * torch.eye(5), torch.zeros(5, 1)).confidence <= 1).all()


def test_power_gate_is_the_power_of_its_dispersion():
    logits = torch.randn(30, 4)
    confidence = PowerGate(["max"], alpha=3.0)(logits, torch.zeros(30, 1)).confidence
    torch.testing.assert_close(confidence, DISPERSIONS.lookup("max")(logits.softmax(-1)) ** 3)
    with pytest.raises(ValueError, match="alpha must be at least 1"):
        PowerGate(alpha=0.5)


def test_learned_gate_sees_the_features_only_if_asked():
    logits, x = torch.randn(9, 3), torch.randn(9, 5)
    blind, seeing = LearnedGate(), LearnedGate(in_channels=5)
    torch.testing.assert_close(blind(logits, x).confidence, blind(logits, 2 * x).confidence)
    assert not torch.allclose(seeing(logits, x).confidence, seeing(logits, 2 * x).confidence)


def test_an_unknown_gate_names_the_choices():
    with pytest.raises(InputError, match="fused, learned, logistic, monotone, power"):
        GATES.lookup("oracle")
