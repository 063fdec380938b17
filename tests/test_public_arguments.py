"""Each argument of what is public, given what it is not: a result or an `InputError`; graphkd has a test of its own."""

import atexit
import inspect
import shutil
import tempfile
import warnings

import networkx as nx
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data

import mowst
import mowst.data
import mowst.inference
from mowst import InputError, LearnedGate, Mowst, MowstClassifier, expert
from mowst.data import Columns, card, open_graph
from mowst.inference import Kept
from mowst.inference.modes import expert_on, untouched

ROOMS = (mowst, mowst.data, mowst.inference)
NOT_CALLED = {"MASKS", "INFERENCE", "Nodes", "InputError"} | {"forget"}  # which writes: tests/test_forgetting.py


def graph() -> Data:
    generator = torch.Generator().manual_seed(0)
    N = 12
    ring = torch.stack([torch.arange(N), (torch.arange(N) + 1) % N])
    x, y, fold = torch.randn(N, 4, generator=generator), torch.arange(N) % 2, torch.arange(N) // 2 % 3
    edge_index = torch.cat([ring, ring.flip(0)], dim=1)
    return Data(x=x, y=y, edge_index=edge_index, train_mask=fold == 0, val_mask=fold == 1, test_mask=fold == 2)


def network() -> nx.Graph:
    made = nx.cycle_graph(12)
    for node, held in made.nodes(data=True):
        held.update(group="ab"[node % 2], size=float(node))
    return made


DATA = graph()
DATA.num_classes = 2
X, EDGES = DATA.x, DATA.edge_index
MODEL = Mowst(
    expert("mlp", 4, 2, hidden_channels=4, num_layers=2),
    expert("gcn", 4, 2, hidden_channels=4, num_layers=2),
    LearnedGate(),
)
MODEL.eval()
FITTED = MowstClassifier(epochs=1, regime="joint").fit(DATA)
QUERY = {
    "model": MODEL,
    "x": X,
    "nodes": torch.arange(3),
    "how": "routed",
    "threshold": 0.5,
    "generator": torch.Generator(),
}
SPOKEN = {"weak": expert_on(MODEL, "weak", X, EDGES), "strong": expert_on(MODEL, "strong", X, EDGES)}
GATE = {"dispersions": ["variance"], "detach": False}
NODES = pd.DataFrame({"id": range(12), "size": [n % 2 + n / 9 for n in range(12)], "group": ["a", "b"] * 6})
LINKS = pd.DataFrame({"source": range(12), "target": [(n + 1) % 12 for n in range(12)]})
FOLDER = tempfile.mkdtemp()
NODES.to_csv(f"{FOLDER}/nodes.csv", index=False)
LINKS.to_csv(f"{FOLDER}/edges.csv", index=False)
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
PLAIN = {"name": "sbm", "root": "data", "split": "random"}
NAMED = {
    "G": network(),
    "label": "group",
    "features": ["size"],
    "weight": "weight",
    "class_names": ["a", "b"],
    "split": "random",
}

SOUND = {
    "Card": vars(card("karate")),
    "Config": {entry: getattr(mowst.Config(), entry) for entry in inspect.signature(mowst.Config).parameters},
    "ExpertConfig": vars(mowst.ExpertConfig()),
    "GateConfig": vars(mowst.GateConfig()),
    "MowstClassifier": {"config": mowst.Config(), "seed": 0},
    "MowstClassifier.fit": {"data": DATA},
    "MowstClassifier.predict": {"data": DATA, "nodes": [0, 5]},
    "MowstClassifier.predict_proba": {"data": DATA, "nodes": [0, 5]},
    "MowstClassifier.expert_of": {"data": DATA, "nodes": [0, 5]},
    "MowstClassifier.score": {"data": DATA, "mask": "test_mask"},
    "MowstClassifier.keep": {"data": DATA},
    "expert": {
        "kind": "gcn",
        "in_channels": 4,
        "out_channels": 2,
        "norm": "none",
        "dropout": 0.0,
        "hidden_channels": 4,
        "num_layers": 2,
    },
    "FusedGate": GATE | {"start": (0.001, 1.0)},
    "LearnedGate": GATE | {"in_channels": 0, "hidden_channels": 4, "num_layers": 2, "dropout": 0.0},
    "LogisticGate": GATE | {"start": 0.1},
    "MonotoneGate": GATE | {"hidden_channels": 4},
    "PowerGate": GATE | {"alpha": 1.0},
    "Mixture": {"weak": X, "strong": X, "confidence": X[:, 0], "scale": None},
    "Mowst": {"weak": MODEL.weak, "strong": MODEL.strong, "gate": MODEL.gate, "router": None},
    "from_networkx": NAMED | {"seed": 0},
    "load": PLAIN | {"seed": 0, "download": False},
    "open_graph": PLAIN | {"download": False},
    "Graph.of_seed": {"seed": 0},
    "Columns": {entry: getattr(Columns(), entry) for entry in inspect.signature(Columns).parameters},
    "read": {"path": FOLDER, "split": "random", "seed": 0, "like": None, "label": "group"},
    "from_tables": {"nodes": NODES, "edges": LINKS, "split": "random", "seed": 0, "like": None, "label": "group"},
    "summary_of": {"data": DATA},
    "card": {"name": "karate"},
    "catalogue": {"root": "data"},
    "check": {"data": DATA},
    "check_form": {"data": DATA},
    "digits": {"neighbours": 3},
    "digits_knn": {"neighbours": 3},
    "names": {},
    "sbm": {
        "seed": 0,
        "num_nodes": 60,
        "degree": 3.0,
        "homophily": 0.5,
        "num_features": 4,
        "num_classes": 2,
        "signal": 1.0,
    },
    "Answer": {"probabilities": X, "touched": untouched(MODEL.experts_read["strong"], X, EDGES)},
    "Kept": {"model": MODEL, "x": X, "graph": EDGES},
    "Kept.query": {"nodes": [0, 5]},
    "Question": {
        "model": MODEL,
        "x": X,
        "nodes": torch.arange(3),
        **SPOKEN,
        "touched": untouched(MODEL.experts_read["strong"], X, EDGES),
    },
    "Touched": {"nodes": 1, "edges": 1, "of_nodes": 2, "of_edges": 2},
    "answer_alone": {"expert": MODEL.weak, "x": X, "graph": EDGES, "nodes": [0, 5]},
    "answer": QUERY | {"graph": EDGES},
    "exported": {"model": MODEL, "x": X, "edge_index": EDGES, "before": None},
    "predict": QUERY | {"edge_index": EDGES},
}
"""Sound arguments of everything public."""
MADE = {"MowstClassifier": FITTED, "Graph": open_graph("sbm"), "Kept": Kept(MODEL, X, EDGES)}
"""What methods are called of."""


def public(name: str):
    holder, _, method = name.partition(".")
    if method:
        return getattr(MADE[holder], method)
    return next(getattr(room, name) for room in ROOMS if name in room.__all__)


def odd_ones(sound) -> dict[str, object]:
    odd = {"none": None, "text": "abc", "list": [1, "two", None], "number": -1.5, "empty": torch.empty(0)}
    odd |= {"shape": torch.ones(2, 3, 4), "dtype": torch.ones(3, dtype=torch.complex64), "thing": object()}
    if isinstance(sound, torch.Tensor):
        odd |= {"column": sound[..., None], "short": sound[:1], "complex": sound.to(torch.complex64)}
        odd |= {"true or false": sound > 0, "no rows": sound[:0], "no columns": sound[..., :0]}
    return odd


CASES = [(name, key, odd) for name, sound in SOUND.items() for key, value in sound.items() for odd in odd_ones(value)]


def test_everything_that_is_public_is_looked_at():
    assert {name for room in ROOMS for name in room.__all__} - NOT_CALLED == {name for name in SOUND if "." not in name}


@pytest.mark.parametrize("name", SOUND)
def test_sound_arguments_are_sound(name):
    public(name)(**SOUND[name])


@pytest.mark.parametrize(("name", "key", "odd"), CASES)
def test_an_odd_argument_ends_in_a_result_or_an_input_error(name, key, odd):
    given = SOUND[name] | {key: odd_ones(SOUND[name][key])[odd]}
    said = "a result"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            public(name)(**given)
        except InputError as error:
            said = str(error)
    assert said
    assert "\n" not in said
    assert len(said) < 1000
