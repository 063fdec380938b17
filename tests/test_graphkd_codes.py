"""VQGraph: its codes are what spherical k-means is after, its loss the KL of softmaxes written out."""

from __future__ import annotations

import itertools

import pytest
import torch

import graphkd
from graphkd import Signals, Tokenizer, VQGraph
from graphkd.codes import cosines, soft_codes
from tests.graphkd_contract import call, example

close = torch.testing.assert_close


def layer(N: int = 60, H: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(N, H, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ready(given):
    loss = VQGraph(4).double()
    loss.prepare(given.student, given.teacher)
    return loss.double()


def test_the_loss_is_the_kl_of_soft_assignments_by_a_loop():
    given = example().to(torch.float64)
    loss, wanted = ready(given), given.teacher.hidden[-1]
    h = given.student.hidden[-1] @ loss.map.weight.t() + loss.map.bias
    for got, a, b in zip(call(loss, given), wanted, h, strict=True):
        p, q = (torch.stack([z @ e / z.norm() / e.norm() / 0.1 for e in loss.codes]).softmax(-1) for z in (a, b))
        close(got, (p * (p / q).log()).sum())


def test_a_student_that_lies_where_its_teacher_does_at_whatever_scale_has_learned_everything():
    given = example().to(torch.float64)
    wanted = given.teacher.hidden[-1]
    loss = VQGraph(4, hidden_channels=3, teacher_channels=3).double()
    alike = Signals(given.student.logits, (3 * wanted,))
    loss.prepare(alike, given.teacher)
    loss.map.weight.data, loss.map.bias.data = torch.eye(3).double(), torch.zeros(3).double()
    assert loss(alike, given.teacher).abs().max() < 1e-12
    assert loss(Signals(given.student.logits, (-wanted,)), given.teacher).min() > 0.01


def test_codes_find_the_directions_that_rows_are_scattered_around():
    centres = torch.linalg.qr(layer(6, 6)).Q[:4]
    place = torch.arange(80) % 4
    scale = torch.rand(80, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    rows = scale * (centres[place] + 0.02 * layer(80, 6, 2))
    found = graphkd.codebook(rows, 4)
    likeness = cosines(centres, found)
    assert (likeness.max(-1).values > 0.999).all()
    assert sorted(likeness.argmax(-1).tolist()) == [0, 1, 2, 3]


def test_each_step_brings_the_codes_closer_to_the_rows_and_they_have_length_one():
    rows = layer()
    near = [cosines(rows, graphkd.codebook(rows, 7, steps)).max(-1).values.sum() for steps in range(8)]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(near))
    assert near[-1] > near[0] + 0.1
    codes = graphkd.codebook(rows, 7)
    close(codes.norm(dim=-1), torch.ones(7, dtype=torch.float64))


def test_the_order_and_the_length_of_rows_do_not_matter():
    rows, order = layer(), torch.randperm(60, generator=torch.Generator().manual_seed(3))
    close(graphkd.codebook(rows[order], 7), graphkd.codebook(rows, 7))
    close(graphkd.codebook(5 * rows, 7), graphkd.codebook(rows, 7))


def test_there_are_no_more_codes_than_kinds_of_rows():
    rows = layer(3)
    assert graphkd.codebook(torch.cat([rows, 2 * rows, rows]), 100).shape == (3, 5)
    assert graphkd.codebook(torch.zeros(4, 5), 100).shape[0] >= 1


def test_a_row_of_zeros_is_like_every_code_equally():
    codes = layer(7)
    close(soft_codes(torch.zeros(1, 5).double(), codes).exp(), torch.full((1, 7), 1 / 7, dtype=torch.float64))


def test_codes_that_were_given_stay_and_are_saved():
    given = example()
    loss, codes = VQGraph(), layer(9, 3).float()
    loss.codes = codes
    loss.prepare(given.student, given.teacher)
    assert loss.codes is codes
    other = VQGraph()
    other.codes = torch.zeros(9, 3)
    other.prepare(given.student, given.teacher)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(call(other, given), call(loss, given))


def test_what_does_not_fit_is_said():
    given = example()
    with pytest.raises(ValueError, match="VQGraph has no map yet"):
        VQGraph()(*given[:2])
    with pytest.raises(ValueError, match=r"codes \[0, 0\], the teacher's hidden layer 3 columns; call prepare"):
        VQGraph(hidden_channels=6, teacher_channels=3)(*given[:2])
    with pytest.raises(ValueError, match="VQGraph needs teacher_hidden"):
        VQGraph().prepare(given.student, Signals(given.teacher.logits))
    with pytest.raises(ValueError, match="size must be a whole number from 2"):
        VQGraph(1)
    with pytest.raises(ValueError, match="must be finite"):
        VQGraph().prepare(given.student, Signals(given.teacher.logits, (given.teacher.hidden[-1] / 0,)))


# --- codes that are learned along with a teacher

EDGES = torch.tensor([[0, 1, 2, 3, 3], [1, 0, 3, 2, 3]])


def tokenizer(size: int = 4) -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(5, 3, size).double()


def test_a_row_becomes_its_nearest_code_at_its_own_length_and_its_gradient_passes():
    tokens, h = tokenizer(), layer(6).requires_grad_()
    said = tokens(h, layer(6, 3), EDGES)
    for row, got, nearest in zip(h, said.hidden, said.nearest, strict=True):
        likeness = [row @ e / row.norm() / e.norm() for e in tokens.codes]
        assert int(nearest) == max(range(4), key=likeness.__getitem__)
        close(got, tokens.codes[nearest] / tokens.codes[nearest].norm() * row.norm())
    weights = layer(6)
    close(torch.autograd.grad((weights * said.hidden).sum(), h)[0], weights)


def test_the_loss_is_that_of_codes_features_and_edges_by_a_loop():
    tokens, h, x = tokenizer(), layer(6), layer(6, 3, 1)
    torch.manual_seed(1)
    said = tokens(h, x, EDGES)
    torch.manual_seed(1)
    pairs = [(i, j, 1.0) for i, j in EDGES.t()] + [(i, j, 0.0) for i, j in torch.randint(6, (2, 5)).t()]
    codes = tokens.codes[said.nearest] / tokens.codes[said.nearest].norm(dim=1, keepdim=True)
    kept = again = linked = torch.zeros((), dtype=torch.float64)
    for i in range(6):
        kept = kept + 1.25 * (h[i] / h[i].norm() - codes[i]).square().sum() / 6
        decoded = tokens.features(codes[i])
        again = again + (1 - decoded @ x[i] / decoded.norm() / x[i].norm()) / 6
    for i, j, wanted in pairs:
        linked = linked + ((tokens.edges(codes[i]) @ tokens.edges(codes[j])).sigmoid() - wanted).square() / 5
    close(said.loss, kept + again + linked)
    nothing = tokens(h, x, EDGES[:, :0]).loss
    close(nothing, kept + again)


def test_codes_follow_rows_and_rows_are_held_to_codes():
    tokens = Tokenizer(5, 3, 2, commitment=0.5).double()
    tokens.codes.data = torch.eye(2, 5).double()
    h = torch.tensor([[3.0, 0, 1, 0, 0]]).double().requires_grad_()
    for linear in (tokens.features, tokens.edges):
        torch.nn.init.zeros_(linear.weight)
    tokens(h, torch.ones(1, 3).double(), EDGES[:, :0]).loss.backward()
    close(tokens.codes.grad[0, 2].item(), -2 / 10**0.5)  # towards the row, and not for the commitment
    assert (tokens.codes.grad[1] == 0).all()
    assert h.grad[0, 2] > 0  # towards the code


def test_what_is_learned_tells_who_is_linked():
    place = torch.arange(12) // 6
    pairs = torch.cartesian_prod(torch.arange(12), torch.arange(12)).t()
    edges = pairs[:, place[pairs[0]] == place[pairs[1]]]
    rows = torch.eye(2, 5).double()[place] + 0.1 * layer(12)
    tokens = tokenizer(2)
    tokens.prepare(rows)
    close(tokens.codes.data, graphkd.codebook(rows, 2))
    optimizer = torch.optim.Adam(tokens.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        tokens(rows, rows[:, :3], edges).loss.backward()
        optimizer.step()
    decoded = tokens.edges(
        torch.nn.functional.normalize(tokens.codes, dim=-1)[tokens(rows, rows[:, :3], edges).nearest]
    )
    said = (decoded @ decoded.t()).sigmoid()
    assert said[0, 1] > said[0, 7] + 0.3


def test_a_tokenizer_says_what_does_not_fit():
    with pytest.raises(ValueError, match=r"h must be \[N, 5\] with a node or more, got \[6, 4\]"):
        tokenizer()(layer(6, 4), layer(6, 3), EDGES)
    with pytest.raises(ValueError, match=r"Tokenizer: x must be a float tensor \[6, H\]"):
        tokenizer()(layer(6), layer(5, 3), EDGES)
    with pytest.raises(ValueError, match="commitment must be a number from 0"):
        Tokenizer(5, 3, commitment=-1.0)
