"""A small run of any regime with a journal, which may be stopped and taken up again, in this process or in another one.

python -m tests.replay REGIME FILE     # goes on from the journal in FILE, and writes how it ended beside it
"""

import sys
from pathlib import Path

import torch
from torch_geometric.data import Data

import graphkd
from mowst.evaluation import accuracy, signal
from mowst.kernels import Adjacency
from mowst.models import FusedGate, LearnedGate, LogisticGate, Mowst, expert
from mowst.training import REGIMES, Journal, Schedule, Trainer, attached
from tests.graphs import good

LAYERS = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm", "dropout": 0.3}
SPECS = {
    "solo": "uskd",
    "joint": "ofa+nkd",
    "alternate": "gld(k=2,weight=0.3)+ofa",
    "held-out": "nkd",
    "fine-tuned": "kd",
}
"""Losses, some of which have parameters of their own, that take part in a regime."""


def ready() -> Data:
    data = good()
    data.adj_t = Adjacency.from_edge_index(data.edge_index, data.num_nodes)
    return data


def ended(name: str, journal: Journal, hook=None, every=None, **pace) -> dict:
    """Run a regime from the beginning, as far as the journal does not say what it came to, and return its end."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    regime = REGIMES.lookup(name)
    weak, strong = expert("mlp", 8, 3, **LAYERS), expert("gcn", 8, 3, **LAYERS)
    gate = FusedGate() if regime.holds_out else LearnedGate()
    model = weak if regime.alone else Mowst(weak, strong, gate, LogisticGate() if regime.holds_out else None)
    trainer = Trainer(model, ready(), signal("metric", accuracy), hook=hook, journal=journal, every=every)
    pace = {"epochs": 6, "patience": 4, "ema_decay": 0.9, **pace}
    schedule = Schedule(rounds=2, pretrain="both", rehearsals=2, **pace)
    parts = ("", "") if regime.alone else ("weak", "strong")
    losses = graphkd.build(SPECS[name])
    with attached(losses, trainer, *parts) as terms:
        regime(trainer, schedule, extra=terms)
    history = [{key: value for key, value in line.items() if key != "seconds"} for line in trainer.history]
    weights = dict(model.state_dict()) | {
        f"kd.{place}.{key}": value for place, each in enumerate(losses) for key, value in each.loss.state_dict().items()
    }
    return {"weights": weights, "history": history, "random": torch.rand(3), "score": trainer.best.score}


def same(one: dict, other: dict) -> bool:
    """Tell whether two runs ended bit for bit alike."""
    weights = one["weights"].keys() == other["weights"].keys() and all(
        torch.equal(value, other["weights"][key]) for key, value in one["weights"].items()
    )
    alike = one["history"] == other["history"] and one["score"] == other["score"]
    return weights and alike and torch.equal(one["random"], other["random"])


if __name__ == "__main__":
    name, path = sys.argv[1], Path(sys.argv[2])
    ends = []
    for state in torch.load(path, weights_only=True):
        journal = Journal()
        journal.load_state_dict(state)
        ends.append(ended(name, journal))
    torch.save(ends, path.with_suffix(".ended"))
