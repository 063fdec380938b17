"""The contract that every distillation loss keeps, whether it ships with the package or not."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch_geometric.typing

import graphkd
from graphkd import DistillationLoss, Scope, Signals, fill_target
from tests.graphkd_contract import SPECS, Example, call, example, leaves, loss_for, rows

BLIND = (
    "uskd",
    "dualhead",
    "gld",
    "lsp",
    "rkd",
    "sp",
    "hint",
    "ffg2m",
)  # do not, or not only, pull logits to the teacher's
every_loss = pytest.mark.parametrize("spec", SPECS)


def test_every_loss_of_the_catalogue_is_under_the_contract():
    tested = {graphkd.find(graphkd.parse(spec)[0]["name"]) for spec in SPECS}
    assert tested >= set(map(graphkd.find, graphkd.LOSSES.names))


@every_loss
def test_one_number_per_node_or_a_scalar(spec):
    given = example()
    loss = loss_for(spec, given)
    assert call(loss, given).shape == (() if loss.scope is Scope.ALL else (12,))


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_are_finite_and_so_are_their_gradients(spec, dtype):
    if dtype is torch.float16 and "normalize=False" in spec:
        pytest.skip("its gradient grows with the cube of the numbers, beyond what half precision holds")
    given = example()
    extreme = example(scale=1e6)
    extreme.student.logits[0], extreme.student.logits[1], extreme.teacher.logits[2] = 0, 1e4, -1e4
    extreme = Example(*(Signals(*_clamped(s)) for s in extreme[:2]), *extreme[2:]).to(dtype)
    wanted = leaves(extreme.student)
    loss = loss_for(spec, given)
    value = call(loss, extreme)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    for leaf in wanted + list(loss.parameters()):
        assert leaf.grad is None or leaf.grad.isfinite().all()


def _clamped(signals):
    return signals.logits.clamp(-1e4, 1e4), tuple(h.clamp(-1e4, 1e4) for h in signals.hidden)


@pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if spec not in ("uskd", "hgmd", "hgmd(mixup=True)")]
)  # constant weights: tested apart
def test_gradient_is_the_derivative(spec):
    given = example().to(torch.float64)
    loss = loss_for(spec, given).double()
    inputs = leaves(given.student)

    def value(logits, *hidden):
        return call(loss, given._replace(student=Signals(logits, hidden)))

    assert torch.autograd.gradcheck(value, inputs)


@every_loss
def test_teacher_receives_no_gradient(spec):
    given = example()
    frozen = leaves(given.teacher)
    leaves(given.student)
    call(loss_for(spec, given), given).sum().backward()
    assert all(leaf.grad is None for leaf in frozen)


@every_loss
def test_order_of_nodes_does_not_matter(spec):
    given = example()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = rows(given, order)._replace(edge_index=order.argsort()[given.edge_index])
    loss = loss_for(spec, given)
    value = call(loss, given)
    torch.testing.assert_close(call(loss, moved), value if loss.scope is Scope.ALL else value[order])


@every_loss
def test_order_of_classes_does_not_matter(spec):
    given = example().to(torch.float64)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    student, teacher = (s._replace(logits=s.logits[:, order]) for s in given[:2])
    target = torch.where(given.target < 0, given.target, order.argsort()[given.target.clamp(min=0)])
    loss = loss_for(spec, given).double()
    value = call(loss, given)
    for parameter in loss.parameters() if spec not in ("hint", "vqgraph(size=4)") else ():  # which map to no classes
        parameter.data = parameter.data[order]
    torch.testing.assert_close(call(loss, Example(student, teacher, target, given.edge_index)), value)


@every_loss
def test_some_rows_alone_equal_those_rows_of_all(spec):
    given, chosen = example(), torch.tensor([3, 0, 7])
    loss = loss_for(spec, given)
    if loss.scope is Scope.NODE:
        torch.testing.assert_close(call(loss, rows(given, chosen)), call(loss, given)[chosen])


@every_loss
def test_nothing_in_gives_zero_with_a_gradient(spec):
    given = example()
    loss, nothing = loss_for(spec, given), rows(given, torch.tensor([], dtype=torch.long))
    wanted = leaves(nothing.student)
    value = call(loss, nothing)
    value.sum().backward()
    assert value.shape == (() if loss.scope is Scope.ALL else (0,))
    assert value.sum() == 0
    assert wanted[0].grad is not None


@pytest.mark.filterwarnings("ignore::UserWarning:graphkd")  # that there is nothing to learn from: tested apart
@every_loss
@pytest.mark.parametrize("count", [1, 4])
def test_a_single_node_or_a_graph_without_edges_is_finite(spec, count):
    given = example()
    loss, few = loss_for(spec, given), rows(given, torch.arange(1, 1 + count))
    leaves(few.student)
    value = call(loss, few)
    value.sum().backward()
    assert value.isfinite().all()
    assert few.student.logits.grad is None or few.student.logits.grad.isfinite().all()


@every_loss
def test_state_survives_a_round_trip(spec):
    given = example()
    first, second = loss_for(spec, given), loss_for(spec, given)
    for parameter in first.parameters():
        parameter.data += 1
    second.load_state_dict(first.state_dict())
    assert torch.equal(call(first, given), call(second, given))


@every_loss
def test_autocast_changes_nothing(spec):
    given = example()
    loss = loss_for(spec, given)
    with torch.autocast("cpu", torch.bfloat16):
        inside = call(loss, given)
    assert torch.equal(inside, call(loss, given))


@every_loss
def test_twenty_steps_move_the_student_towards_the_teacher(spec):
    given = example(N=24)._replace(target=torch.full((24,), -100))
    torch.manual_seed(0)
    x = torch.randn(24, 16)
    layers = torch.nn.ModuleList([torch.nn.Linear(16, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 5)])

    def student():
        first = layers[0](x).tanh()
        second = layers[1](first).tanh()
        return Signals(layers[2](second), (first, second))

    given = given._replace(student=student())
    loss = loss_for(spec, given)
    optimiser = torch.optim.Adam([*layers.parameters(), *loss.parameters()], lr=0.01)
    history = []
    for _ in range(21):
        given = given._replace(student=student())
        value = call(loss, given).mean()
        history.append((value.item(), graphkd.kd(given.student.logits, given.teacher.logits, 1.0).mean().item()))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert history[-1][0] < history[0][0]
    assert spec.startswith(BLIND) or history[-1][1] < history[0][1]


@every_loss
def test_search_ranges_are_of_constructor_parameters_and_build(spec):
    cls = graphkd.find(graphkd.parse(spec)[0]["name"])
    for option, choices in cls.search.items():
        ends = choices if isinstance(choices, list) else choices[:2]
        for value in ends:
            assert getattr(graphkd.make(cls.__module__ + "." + cls.__name__, **{option: value}), option, value) == value


@every_loss
def test_what_a_loss_needs_is_asked_for_in_one_line(spec):
    given = example()
    loss = loss_for(spec, given)
    with pytest.raises(ValueError, match=r"^\w+ needs [^\n]+, which this call did not give$"):
        loss(Signals(given.student.logits))


@every_loss
def test_a_label_that_training_may_see_counts_and_the_teacher_speaks_elsewhere(spec):
    given = example()
    loss = loss_for(spec, given)
    filled = given._replace(target=fill_target(given.target, given.teacher))
    assert torch.equal(filled.target[::3], given.teacher.logits.argmax(-1)[::3])
    assert torch.equal(call(loss, given), call(loss, filled))
    changed = given._replace(target=given.target.clone())
    changed.target[1] = (given.target[1] + 1) % 5
    assert torch.equal(call(loss, given), call(loss, changed)) == ("target" not in loss.needs)


@every_loss
def test_rows_that_are_masked_out_leave_no_trace(spec):
    given, chosen = example(), torch.arange(12) < 8
    loss = loss_for(spec, given)
    if "edge_index" not in loss.needs:
        value = graphkd.on_rows(loss, chosen, *given[:2], target=given.target)
        torch.testing.assert_close(value, call(loss, rows(given, chosen)).mean())
    leaf = leaves(given.student)[0]
    graphkd.on_rows(loss, chosen, *given[:2], target=given.target, edge_index=given.edge_index).backward()
    assert leaf.grad is None or "edge_index" in loss.needs or not leaf.grad[8:].any()
    nobody = torch.zeros(12, dtype=torch.bool)
    assert graphkd.on_rows(loss, nobody, *given[:2], target=given.target, edge_index=given.edge_index) == 0


class Reduced(DistillationLoss):
    """Forgets that the caller reduces."""

    def compute(self, student, teacher, target, edge_index):
        return (student.logits - teacher.logits).square().mean()


def test_a_loss_that_reduces_on_its_own_is_told():
    given = example()
    with pytest.raises(ValueError, match="one number per row"):
        call(Reduced(), given)


def test_what_does_not_fit_is_refused():
    given = example()
    with pytest.raises(ValueError, match="label 9 with 5 classes"):
        graphkd.NKD()(*given[:2], target=torch.full((12,), 9))
    with pytest.raises(
        ValueError, match=r"^KD: student \[12, 5\] and teacher \[12, 4\] must be logits of the same nodes and classes"
    ):
        graphkd.KD()(given.student, Signals(given.teacher.logits[:, :4]))
    with pytest.raises(ValueError, match="no heads yet"):
        graphkd.DualHead()(*given[:2])
    with pytest.raises(ValueError, match="2 heads for 1 hidden"):
        graphkd.OFA([4, 6], 5)(given.student._replace(hidden=given.student.hidden[:1]), given.teacher)


@pytest.mark.parametrize(("spec", "words"), [("dkd", "non-target"), ("nkd", "γ has no effect"), ("uskd", "Zipf part")])
def test_two_classes_are_warned_about_once(spec, words):
    given = example(C=2)
    loss = loss_for(spec, given)
    with pytest.warns(UserWarning, match=words):
        call(loss, given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(loss, given)


def test_standardizing_two_classes_is_refused():
    with pytest.raises(ValueError, match="only the sign"):
        call(graphkd.Standardized(), example(C=2))


@every_loss
def test_torch_scatter_changes_nothing(spec, monkeypatch):
    pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    given = example()
    values = []
    for present in (True, False):
        monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", present)
        values.append(call(loss_for(spec, given), given))
    torch.testing.assert_close(*values)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_loss
def test_cpu_and_cuda_agree(spec):
    given = example()
    moved = example().to("cuda")
    loss, leaf, other = loss_for(spec, given), leaves(given.student)[0], leaves(moved.student)[0]
    value = call(loss, given)
    value.sum().backward()
    on_cuda = call(loss.to("cuda"), moved)
    on_cuda.sum().backward()
    torch.testing.assert_close(on_cuda.cpu(), value, rtol=1e-4, atol=1e-5)
    if leaf.grad is not None:
        torch.testing.assert_close(other.grad.cpu(), leaf.grad, rtol=1e-4, atol=1e-5)
