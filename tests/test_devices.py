"""Several processes that train one model together, each with its share of every step."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch

import graphkd
from mowst.errors import InputError
from mowst.experiment import Config, Opened
from mowst.experiment.batching import Need, chosen_batch
from mowst.experiment.building import check_devices
from mowst.experiment.together import devices_here, takes_seeds
from mowst.models import as_output
from mowst.system import in_ranks
from mowst.training import (
    Batch,
    Needs,
    Neighbours,
    Parts,
    Share,
    Whole,
)
from mowst.training.norms import StepNorm
from tests.together import (
    ALL,
    CURVES,
    EPOCHS,
    curve,
    doubles,
    in_turns,
    ready,
    small,
    together,
    together_then_killed,
    wrong,
)


@doubles()
def by_hand(kind, feed, terms, size):
    """Take steps on the shares of all processes in one: a loss is averaged over the nodes of all of them."""
    model, whole = small(kind), Batch.of(ready())
    reached = frozenset(term.on for term in terms)
    needs = [Needs(2, graphkd.Scope.NODE, reached, Share(rank, size)) for rank in range(size)]
    optimizer, lines = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=5e-4), []
    for epoch in range(1, EPOCHS + 1):
        losses = []
        for batches in zip(*(feed.training(whole, need)(epoch) for need in needs), strict=True):
            outs, total = [as_output(model(batch.x, batch.graph)) for batch in batches], torch.zeros(())
            for term in terms:
                values = [
                    term.loss(out, batch)[slice(None) if batch.on[term.on] is None else batch.on[term.on]]
                    for out, batch in zip(outs, batches, strict=True)
                ]
                total = total + term.weight * torch.cat(values).mean()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            losses.append(total.item())
        lines.append(sum(losses) / len(losses))
    return lines


def check(everywhere, size):
    first, *others = everywhere
    assert len(everywhere) == size
    for other in others:
        for name in first.keys() - {"masks", "inference"}:
            assert other[name] == first[name]  # bit for bit
        assert other["masks"] != first["masks"]
    for name, (kind, feed, terms) in CURVES.items():
        lines, weights = first[name]
        if isinstance(feed, Parts):
            expected = [(loss, None) for loss in by_hand(kind, feed, terms, size)]
        else:
            expected, their_weights = curve(kind, feed, terms)
            for key, value in their_weights.items():
                ours, theirs = (np.array(each) for each in (weights[key], value))
                np.testing.assert_allclose(ours, theirs, atol=1e-9, rtol=1e-7)
        for (loss, score), (their_loss, their_score) in zip(lines, expected, strict=True):
            assert loss == pytest.approx(their_loss, rel=1e-9)
            assert their_score in (None, score)  # every validation node once
    said, ran = in_turns()
    assert all(other["inference"][0] == said for other in everywhere)  # bit for bit
    assert sorted(row for other in everywhere for row in other["inference"][1]) == sorted(ran)
    assert all(len(other["inference"][1]) < len(ran) for other in everywhere)
    assert all(first[regime][3] for regime in ("held-out", "joint", "alternate"))


@pytest.fixture(scope="module")
def two():
    """What two processes tell that train together, and what is said when one of them is killed then.

    They are started once: that takes longer than all else here.
    """
    told = []
    with pytest.raises(InputError) as caught:
        in_ranks(2, together_then_killed, told=told.append)
    return told, str(caught.value)


def test_two_processes_train_what_one_does_with_the_same_steps_and_stay_alike(two):
    (everywhere,), _ = two
    check(everywhere, 2)


@pytest.mark.slow
def test_so_do_four():
    check(in_ranks(4, together), 4)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(9, 4), (5, 4, 3), (2, 4)])  # shares are uneven, and of three one is empty
@pytest.mark.parametrize("affine", [True, False])
@doubles()
def test_batch_norm_of_shares_is_that_of_the_whole(size, shape, affine):
    torch.manual_seed(0)
    x, weights, barrier = 3 * torch.randn(shape) + 1, torch.randn(shape), threading.Barrier(size, timeout=60)
    modules, slots = [torch.nn.BatchNorm1d(4, affine=affine) for _ in range(size + 1)], [None] * size

    def total(rank, value):
        slots[rank] = value.clone()
        barrier.wait()
        found = sum(slots)
        barrier.wait()
        return found

    def normed(module, rows, mode):
        given = x[rows].clone().requires_grad_()
        with mode:
            out = module(given)
            (out * weights[rows]).sum().backward()
        return out, given.grad

    with ThreadPoolExecutor(size) as threads:
        jobs = [
            threads.submit(normed, modules[rank], slice(rank, None, size), StepNorm(rank, size, partial(total, rank)))
            for rank in range(size)
        ]
        shares = [job.result() for job in jobs]
    for rank, found in enumerate(shares):
        for ours, theirs in zip(found, normed(copy.deepcopy(modules[size]), slice(None), nullcontext()), strict=True):
            torch.testing.assert_close(ours, theirs[rank::size])
    *ours, theirs = modules
    normed(theirs, slice(None), nullcontext())
    for module in ours:
        torch.testing.assert_close(dict(module.named_buffers()), dict(theirs.named_buffers()))
    for *parts, whole in zip(*(module.parameters() for module in modules), strict=True):
        torch.testing.assert_close(sum(part.grad for part in parts), whole.grad)


# --- Shares


@pytest.mark.parametrize("feed", [Parts(12), Neighbours((3, 2), 20), Neighbours((-1,), 7)], ids=str)
@pytest.mark.parametrize("on", [{"train"}, {"all"}])
@pytest.mark.parametrize("hops", [0, 1])
@pytest.mark.parametrize("size", [2, 3])
def test_every_node_of_a_term_is_in_one_share_of_an_epoch_and_shares_have_as_many_steps(feed, on, hops, size):
    data = ready()
    whole, needs = Batch.of(data), Needs(hops, graphkd.Scope.NODE, frozenset(on))
    (term,) = on
    shares = [list(feed.training(whole, needs._replace(share=Share(rank, size)))(1)) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1
    seen = [
        batch.nodes[slice(None) if batch.on[term] is None else batch.on[term]] for share in shares for batch in share
    ]
    expected = data.train_mask.nonzero().flatten() if term == "train" else torch.arange(60)
    assert torch.cat(seen).sort().values.tolist() == expected.tolist()
    assert all(batch.count_on("train") >= 1 for share in shares for batch in share)
    alone = list(feed.training(whole, needs)(1))
    if isinstance(feed, Neighbours) and len(alone) == len(shares[0]):  # it is fewer where batch norm asks for rows
        for step, batch in enumerate(alone):
            parts = [share[step] for share in shares]
            ours = [part.nodes[part.seeds] if part.seeds is not None else part.nodes for part in parts]
            theirs = batch.nodes[batch.seeds] if batch.seeds is not None else batch.nodes
            assert sorted(torch.cat(ours).tolist()) == sorted(theirs.tolist())


# --- Processes that end


def test_one_that_is_killed_ends_the_others(two):
    assert two[1].startswith("devices: one of 2 processes was killed, perhaps for want of memory; ")


@pytest.mark.slow
def test_one_that_fails_says_why_whatever_the_others_say():
    with pytest.raises(InputError, match=r"^its disk is full$"):
        in_ranks(2, partial(wrong, what="its disk is full"))


# --- What is asked for


def test_what_devices_cannot_do_is_a_line(monkeypatch):
    whole, needs = Batch.of(ready()), Needs(2, graphkd.Scope.NODE, frozenset({"train"}), Share(1, 4))
    with pytest.raises(InputError, match=r"parts\(10\): 4 devices take 4 parts a step; take parts\(8\)"):
        Parts(10).training(whole, needs)
    with pytest.raises(InputError, match=r"parts\(2\): 4 devices take 4 parts a step; take parts\(4\)"):
        Parts(2).training(whole, needs)
    with pytest.raises(InputError, match="40 are too many for 30 training nodes"):
        ALL.training(whole, needs._replace(share=Share(0, 40)))
    with pytest.raises(InputError, match=r"not divided among 4; take --batch parts\(4\) or neighbors"):
        Whole().training(whole, needs)
    quick = {"dataset": "tests.graphs:good", "device": "cpu"}
    with pytest.raises(InputError, match=r"4 devices take 4 parts a step; take parts\(8\)"):
        Opened(Config(batch="parts(10)", **quick), devices=4)
    with pytest.raises(InputError, match="5 are asked for, and this machine has 1 of the kind mps"):
        check_devices(torch.device("mps"), 5)
    full = Config(batch="full")
    with pytest.raises(InputError, match="not divided among 2, and there is one seed"):
        takes_seeds(full, 2, 1)
    with pytest.warns(UserWarning, match="each takes a seed, as with --workers"):
        assert takes_seeds(full, 2, 3)
    assert not takes_seeds(Config(batch="parts(2)"), 2, 1)
    assert not takes_seeds(full, 1, 1)
    assert (devices_here(None), devices_here(3)) == (1, 3)
    assert (devices_here(None, 2), devices_here(3, 2)) == (2, 3)
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert devices_here(None) == devices_here(2) == devices_here(None, 4) == 4
    with pytest.raises(InputError, match="2 have trained this run so far, and torchrun has started 4 processes"):
        devices_here(None, 2)
    with pytest.raises(InputError, match="torchrun has started 2 processes here, --devices says 3"):
        devices_here(3)
    with pytest.raises(InputError, match="not divided among 4"):
        takes_seeds(full, 4, 3)


def test_parts_that_memory_asks_for_can_be_shared_out(capsys):
    gib = 2**30
    assert chosen_batch(Need(30 * gib, 2 * gib), 10 * gib, 1000, 4) == "parts(8)"
    assert chosen_batch(Need(3 * gib, 2 * gib), 10 * gib, 1000, 4) == "full"
    assert "parts(8)" in capsys.readouterr().err
