"""What the processes do that tests/test_devices.py starts, which read no more than this when they begin."""

import hashlib
import itertools
import os
import signal
from contextlib import contextmanager
from unittest import mock

import torch
import torch.distributed as dist
from lightning_fabric import Fabric

from mowst.errors import InputError
from mowst.evaluation import accuracy
from mowst.evaluation import signal as signal_of
from mowst.kernels import Adjacency, sampling
from mowst.models import FusedGate, LearnedGate, LogisticGate, Mowst, blocks, expert
from mowst.system import heard
from mowst.training import REGIMES, Neighbours, Parts, Phase, Schedule, Term, Trainer, cross_entropy
from tests.graphs import good

SCORE = signal_of("metric", accuracy)
ALL = Neighbours((-1, -1), 9)  # shares of some steps are uneven
EPOCHS = 6


def spread(out, batch):
    """A loss of every node, with a label or not."""
    return -(out.probs() * out.log_probs()).sum(-1)


ONE, BOTH = (Term(cross_entropy),), (Term(cross_entropy), Term(spread, 0.3, on="all"))
CURVES = {
    "a GNN on neighbourhoods": ("sage", ALL, ONE),
    "a GNN with a loss of all nodes": ("gcn", ALL, BOTH),
    "an MLP on rows": ("mlp", Neighbours((-1, -1), 12), ONE),
    "an MLP with batch norm": ("mlp batch_norm", Neighbours((-1, -1), 12), ONE),
    "a GNN on parts": ("sage", Parts(4), BOTH),
}
"""Experts, feeds and terms of a loss."""


def ready():
    data = good()
    data.adj_t = Adjacency.from_edge_index(data.edge_index, 60)
    return data


def small(kind, norm="layer_norm", dropout=0.0):
    torch.manual_seed(1)
    return expert(kind, 8, 3, hidden_channels=8, num_layers=2, norm=norm, dropout=dropout)


def phase_of(terms):
    return Phase("together", ("",), terms, epochs=EPOCHS)


@contextmanager
def doubles():
    """Let everything be made in float64: Adam makes much of the last digits of small gradients."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@doubles()
def curve(kind, feed, terms, fabric=None):
    """Train, and return losses, scores, and the weights at the end."""
    torch.manual_seed(2)
    trainer = Trainer(small(*kind.split()), ready(), SCORE, feed=feed, fabric=fabric)
    trainer.fit(phase_of(terms))
    lines = [(line["loss"], line["val"]) for line in trainer.history]
    return lines, {name: value.tolist() for name, value in trainer.model.state_dict().items()}


def mixed(regime, fabric):
    """Train a mixture with batch norm and dropout by a regime."""
    torch.manual_seed(3)
    holds = REGIMES.lookup(regime).holds_out
    experts = small("mlp", "batch_norm", 0.4), small("gcn", "batch_norm", 0.4)
    gate, router = (FusedGate(), LogisticGate()) if holds else (LearnedGate(), None)
    model = Mowst(*experts, gate, router=router)
    feed = Parts(4) if holds else Neighbours((3, 2), 12)
    trainer = Trainer(model, ready(), SCORE, feed=feed, fabric=fabric)
    before = torch.get_rng_state()
    REGIMES.lookup(regime)(trainer, Schedule(epochs=5, rounds=1, pretrain="both", ema_decay=0.9))
    state = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    said = [(line["phase"], line["loss"], line["val"]) for line in trainer.history]
    moved = not torch.equal(before, torch.get_rng_state())
    return hashlib.sha256(state).hexdigest(), said, torch.get_rng_state().sum().item(), moved


def in_turns(fabric=None):
    """Run a GNN on the whole graph, seven rows at a time: what it says, and the first rows of the blocks it ran."""
    ran, between = [], Adjacency.between
    with (
        mock.patch.object(blocks, "ROWS", 7),
        mock.patch.object(Adjacency, "between", lambda *args: ran.append(args[1]) or between(*args)),
    ):
        out = Trainer(small("sage"), ready(), SCORE, fabric=fabric).output()
    return out.values.tolist(), ran


def together(group, tell):
    """Train everything, and return it for every process."""
    fabric = Fabric(accelerator="cpu", devices=group.local_size, num_nodes=group.hosts, strategy="ddp")
    fabric.launch()
    torch.set_num_threads(1)
    sampling.compiled = lambda: None  # which draws the same, and takes as long to be read as all that follows
    found = {name: curve(*case, fabric=fabric) for name, case in CURVES.items()}
    found |= {regime: mixed(regime, fabric) for regime in ("held-out", "joint", "alternate")}
    found["inference"] = in_turns(fabric)
    world = Trainer(small("mlp"), ready(), SCORE, fabric=fabric).world
    torch.manual_seed(5)
    with world.stepping():
        found["masks"] = torch.rand(8).tolist()  # of dropout in a step
    everywhere = [None] * group.size
    dist.all_gather_object(everywhere, found)
    return everywhere


def killed(group, tell):
    value = torch.ones(1)
    for _ in itertools.count():
        if group.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        with heard():  # as all that ranks tell one another is
            dist.all_reduce(value)


def wrong(group, tell, what):
    if group.rank:
        raise InputError(what)
    with heard():
        dist.all_reduce(torch.ones(1))


def together_then_killed(group, tell):
    """Train everything, tell it, and lose a process."""
    found = together(group, tell)
    if tell is not None:
        tell(found)
    killed(group, tell)
