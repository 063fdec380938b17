"""What the checks of graphkd take, what they refuse, and that they change nothing else."""

from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F

import graphkd
from graphkd import KD, NKD, Scope, checks
from graphkd.checks import REACH, together
from tests.graphkd_contract import SPECS, call, draw, example, gradient, leaves, loss_for, rows

close = torch.testing.assert_close
nan, inf = float("nan"), float("inf")
GIVEN = example()
S, T = GIVEN.student.logits, GIVEN.teacher.logits
Y, MASK, EDGES = torch.arange(12) % 5, torch.arange(12) < 8, GIVEN.edge_index


# --- the teacher


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("masked", [-inf, torch.finfo(torch.float32).min])
def test_a_class_that_the_teacher_masks_leaves_value_and_gradient_finite(spec, masked):
    given = example()
    given.teacher.logits[:, 2] = masked
    given.teacher.logits[3, :3] = masked
    loss, leaf = loss_for(spec, given), leaves(given.student)[0]
    value = call(loss, given)
    assert value.isfinite().all()
    value.sum().backward()
    assert leaf.grad is None or leaf.grad.isfinite().all()


@pytest.mark.parametrize("name", ["kd", "dkd", "nkd", "ofa"])
def test_a_masked_class_is_the_limit_of_ever_smaller_logits(name):
    s, t, y = draw()
    y = y.clamp(min=1)
    rest = () if name == "kd" else (y,)
    masked, small = t.clone(), t.clone()
    masked[:, 0], small[:, 0] = -inf, -5e3
    of = getattr(graphkd, name)
    close(of(s, masked, *rest), of(s, small, *rest))
    close(gradient(of(s, masked, *rest), s), gradient(of(s, small, *rest), s))


def test_a_masked_class_gives_what_the_other_classes_alone_give():
    s, t, _ = draw()
    masked = t.clone()
    masked[:, 0] = -inf
    q, p = s.log_softmax(-1)[:, 1:], t[:, 1:].softmax(-1)
    close(graphkd.kd(s, masked, 1.0), (p * (p.log() - q)).sum(-1))


def test_a_mask_changes_its_own_row_alone_and_nothing_within_reach_is_touched():
    s, t, _ = draw()
    t[1, 0] = t[1].max() - REACH
    masked = t.clone()
    masked[0, 0] = -inf
    for direction in ("forward", "reverse"):
        assert torch.equal(graphkd.kd(s, masked, 1.0, direction)[1:], graphkd.kd(s, t, 1.0, direction)[1:])


@pytest.mark.parametrize("row", [[nan, 0, 0, 0, 0], [inf, 0, 0, 0, 0], [-inf] * 5, [nan] * 5])
def test_a_row_of_which_a_teacher_says_nothing_is_named(row):
    given = example()
    given.teacher.logits[4] = torch.tensor(row)
    words = "1 of 12 rows, row 4 the first, hold NaN or inf"
    with pytest.raises(ValueError, match=rf"^KD: teacher\.logits: {words}"):
        KD()(*given[:2])
    with pytest.raises(ValueError, match=rf"^kd: teacher: {words}"):
        graphkd.kd(given.student.logits, given.teacher.logits)
    with pytest.raises(ValueError, match=words):
        graphkd.fill_target(None, given.teacher)


def test_a_student_s_nan_is_its_trainer_s_business():
    given = example()
    given.student.logits[0] = nan
    assert KD()(*given[:2])[0].isnan()
    assert graphkd.kd(given.student.logits, given.teacher.logits)[0].isnan()


def test_hidden_layers_that_teach_must_be_finite_and_others_need_not_be():
    given = example()
    given.teacher.hidden[-1][5, 0] = nan
    with pytest.raises(ValueError, match=r"^LSP: teacher\.hidden\[1\] holds NaN or inf"):
        graphkd.LSP(of="hidden")(*given[:2], edge_index=given.edge_index)
    assert KD()(*given[:2]).isfinite().all()


# --- classes, labels, masks


@pytest.mark.parametrize("spec", SPECS)
def test_one_logit_a_node_is_refused_with_what_to_do(spec):
    given = example()
    loss = loss_for(spec, given)
    one = given._replace(
        **{name: given[i]._replace(logits=given[i].logits[:, :1]) for i, name in enumerate(("student", "teacher"))}
    )
    with pytest.raises(ValueError, match=r"student\.logits are \[12, 1\].*of one logit z make two: torch.cat"):
        call(loss, one)


def test_the_two_logits_that_are_advised_say_what_the_one_said():
    z = torch.randn(6, 1)
    close(torch.cat([torch.zeros_like(z), z], dim=-1).softmax(-1)[:, 1:], z.sigmoid())


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Y.view(-1, 1), r"got a tensor \[12, 1\] of int64; give target\.view\(-1\)"),
        (F.one_hot(Y, 5), r"if a row is one-hot, give target\.argmax\(-1\)"),
        (Y.float(), r"got a tensor \[12\] of float32; if these are class numbers, give target\.long\(\)"),
        (Y.bool(), r"if these are class numbers, give target\.long\(\)"),
        (Y[:7], r"must be class numbers \[12\], an integer tensor, got a tensor \[7\]"),
        (Y + 1, r"label 5 with 5 classes; they count from 0 to 4"),
    ],
)
def test_labels_that_are_none_are_refused_with_what_makes_them_right(target, words):
    for given in (
        lambda: NKD()(GIVEN.student, GIVEN.teacher, target=target),
        lambda: graphkd.nkd(S, T, target),
        lambda: graphkd.fill_target(target, GIVEN.teacher),
        lambda: graphkd.on_rows(NKD(), MASK, GIVEN.student, GIVEN.teacher, target=target),
    ):
        with pytest.raises(ValueError, match=words):
            given()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("spec", ["nkd", "uskd", "gld(k=3, form=neighbourhood)", "lsp(width=5)"])
def test_smaller_integers_are_integers_too(spec, dtype):
    given = example()
    target = given.target.clamp(min=0)
    loss = loss_for(spec, given)
    small = given._replace(target=target.to(dtype), edge_index=given.edge_index.to(dtype))
    assert torch.equal(call(loss, small), call(loss, given._replace(target=target)))


def test_a_mask_of_numbers_is_no_mask():
    for rows_given in (MASK.long(), MASK.int(), MASK.to(torch.uint8), MASK.float()):
        with pytest.raises(ValueError, match=r"rows must be a boolean mask \[12\].*; give mask\.bool\(\)"):
            graphkd.on_rows(NKD(), rows_given, GIVEN.student, GIVEN.teacher, target=Y)
        with pytest.raises(ValueError, match=r"give mask\.bool\(\)"):
            graphkd.take(GIVEN.student, rows_given)


def test_rows_are_taken_by_mask_or_by_number():
    numbers = torch.tensor([3, 0, 0, 11], dtype=torch.int32)
    assert torch.equal(graphkd.take(GIVEN.student, numbers).logits, S[numbers.long()])
    assert torch.equal(graphkd.take(GIVEN.student, MASK).hidden[1], GIVEN.student.hidden[1][:8])
    assert len(graphkd.take(GIVEN.student, torch.empty(0, dtype=torch.long)).logits) == 0
    for wrong in (12, -1):
        with pytest.raises(ValueError, match=rf"rows: node {wrong} with 12 nodes"):
            graphkd.take(GIVEN.student, torch.tensor([0, wrong]))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "edge_index" in loss_for(spec, GIVEN).needs])
def test_edges_to_nodes_that_are_not_there_are_refused(spec):
    with pytest.raises(ValueError, match="edge_index: node 12 with 12 nodes"):
        call(loss_for(spec, GIVEN), GIVEN._replace(edge_index=EDGES + (EDGES == 11).long()))


def test_heads_for_other_layers_or_classes_are_told():
    loss = graphkd.DualHead(7, 5)
    with pytest.raises(ValueError, match="DualHead has a head of 7 columns to 5 classes, here are 6 and 5"):
        loss(*GIVEN[:2])
    with pytest.raises(ValueError, match="6 columns to 4 classes, here are 6 and 5"):
        graphkd.DualHead(6, 4)(*GIVEN[:2])
    with pytest.raises(ValueError, match=r"head of torch\.float64, the hidden layer is torch\.float32"):
        graphkd.DualHead(6, 5).double()(*GIVEN[:2])


@pytest.mark.parametrize("size", [10**9, 10**30, 0, -3, 2.5, True, "many"])
def test_heads_of_absurd_sizes_are_not_even_tried(size):
    for name in ("OFA", "DualHead", "USKD"):
        with pytest.raises(ValueError, match=r"hidden_channels|num_classes"):
            graphkd.make(name, hidden_channels=[size], num_classes=5)
        with pytest.raises(ValueError, match="num_classes"):
            graphkd.make(name, hidden_channels=[16], num_classes=size)
    with pytest.raises(ValueError, match="at most 100,000,000 weights"):
        graphkd.DualHead(90_000, 90_000)


def test_tensors_on_two_devices_are_told_where_each_is():
    with pytest.raises(ValueError, match="kd: student is on cpu and target on meta; bring them to one device"):
        together("kd", student=S, target=Y.to("meta"))


# --- options


@pytest.mark.parametrize(
    ("call_it", "words"),
    [
        (
            lambda: graphkd.kd(S, T, direction="Forward"),
            "kd: direction: unknown 'Forward'; choose from forward, reverse",
        ),
        (lambda: graphkd.ofa(S, T, Y, gamma_on="any"), "ofa: gamma_on: unknown 'any'; choose from all, target"),
        (
            lambda: graphkd.certificate(S[:5], T[:5], feature="max"),
            "certificate: feature: unknown 'max'; choose from mean, rms",
        ),
        (lambda: graphkd.kd(S, T, nan), "kd: temperature must be a number of at most 1e+18, got nan"),
        (lambda: graphkd.kd(S, T, 0), "kd: temperature must be above 0, got 0"),
        (lambda: KD(temperature=1e-40), "temperature must be at least 1e-18, got 1e-40"),
        (lambda: KD(temperature=inf), "temperature must be a number of at most 1e+18, got inf"),
        (lambda: graphkd.DKD(beta=-1), "beta must be a number from 0, got -1"),
        (lambda: graphkd.NKD(gamma=-1), "gamma must be a number from 0, got -1"),
        (lambda: graphkd.USKD(mu=-1), "mu must be a number from 0, got -1"),
        (lambda: graphkd.RKD(angle=-1), "angle must be a number from 0, got -1"),
        (lambda: graphkd.nkd(S, T, Y, gamma=-1), "nkd: gamma must be a number from 0, got -1"),
        (lambda: graphkd.ofa(S, T, Y, gamma=0), "ofa: gamma must be above 0, got 0"),
        (lambda: graphkd.extrapolate(S, T, beta=-1), "extrapolate: beta must be a number from 0, got -1"),
        (lambda: graphkd.Weighted(KD(), -1), "weight must be a number from 0, got -1"),
        (lambda: graphkd.Weighted(KD(), warmup=-1), "warmup must be a whole number from 0 to 1,000,000,000, got -1"),
        (lambda: graphkd.Weighted(KD(), on="test"), "on: unknown 'test'; choose from all, train"),
        (lambda: graphkd.DualHead(center=1), "center must be True or False, got 1"),
        (lambda: graphkd.krd(S, T, EDGES, -torch.ones(12)), "krd: reliability must be numbers between 0 and 1, got -1"),
        (lambda: graphkd.krd(S, T, EDGES, 2 * MASK.float()), "krd: reliability must be numbers between 0 and 1, got 2"),
        (lambda: graphkd.rebalance(S, steps=-1), "rebalance: steps must be a whole number from 0, below 2^63, got -1"),
    ],
)
def test_options_are_checked_in_the_functions_as_in_the_losses(call_it, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        call_it()
    assert words == str(error.value)


def test_a_loss_without_a_formula_or_with_a_scope_of_its_own_is_told():
    class Silent(graphkd.DistillationLoss):
        def compute(self, student, teacher, target, edge_index):
            return None

    with pytest.raises(ValueError, match="returned None for 12 rows"):
        Silent()(*GIVEN[:2])
    Silent.scope = "node"
    with pytest.raises(ValueError, match=r"must be a graphkd\.Scope, got 'node'"):
        graphkd.scope_of(Silent())
    assert graphkd.scope_of(lambda out, batch: out) is Scope.ALL


def test_functions_and_shares_survive_pickling_and_say_what_they_do():
    assert pickle.loads(pickle.dumps(graphkd.kd)) is graphkd.kd
    kept = pickle.loads(pickle.dumps(graphkd.Weighted(KD(), 2, 3, "train", "kd")))
    assert kept[1:] == (2.0, 3, "train", "kd")
    assert "Hinton" in graphkd.kd.__doc__


def test_no_nodes_are_no_mistake():
    given = rows(example(), torch.empty(0, dtype=torch.long))
    none = given.target
    assert graphkd.kd(given.student.logits, given.teacher.logits).shape == (0,)
    assert graphkd.nkd(given.student.logits, given.teacher.logits, none).shape == (0,)
    assert graphkd.lsp(given.student.logits, given.teacher.logits, given.edge_index).shape == (0,)
    assert graphkd.standardize(given.student.logits).shape == (0, 5)
    assert graphkd.fill_target(none, given.teacher).shape == (0,)


def test_numbers_that_are_known_are_not_looked_at_and_their_sizes_are():
    wrong, endless = torch.tensor([0, 5]), torch.full((2, 3), torch.inf)
    with checks.known():
        assert checks.classes("target", wrong, 2, 3) is wrong
        assert checks.finite("x", endless) is endless
        with pytest.raises(ValueError, match="class numbers"):
            checks.classes("target", wrong, 3, 3)
    for look in (lambda: checks.classes("target", wrong, 2, 3), lambda: checks.finite("x", endless)):
        with pytest.raises(ValueError, match=r"label 5|NaN or inf"):
            look()
