"""VQGraph: its codes are what spherical k-means is after, its loss the KL of softmaxes written out."""

from __future__ import annotations

import itertools

import pytest
import torch

import graphkd
from graphkd import Signals, VQGraph
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
