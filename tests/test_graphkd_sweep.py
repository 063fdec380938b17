"""Whatever a public function or class of graphkd is given ends in a result, or in one line that says what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

import graphkd
from graphkd import KD, NKD, Signals
from tests.graphkd_contract import SPECS, example, loss_for

nan, inf = float("nan"), float("inf")

GIVEN = example()
S, T = GIVEN.student.logits, GIVEN.teacher.logits
Y = torch.arange(12) % 5
EDGES = GIVEN.edge_index
GRAPHS = {"first": torch.rand(4, 4), "second": torch.rand(4, 4)}
PAIR = {"student": S, "teacher": T}
SIGNALS = {"student": GIVEN.student, "teacher": GIVEN.teacher}
HEADS = {"hidden_channels": [4, 6], "num_classes": 5}
MASK = torch.arange(12) < 8


class Call(NamedTuple):
    """Something public, with arguments that are right."""

    name: str
    function: Callable[..., Any]
    right: dict[str, Any]


def public(name: str, /, **right: Any) -> Call:
    return Call(name, getattr(graphkd, name), right)


def called(spec: str) -> Call:
    signals = {**SIGNALS, "target": GIVEN.target, "edge_index": EDGES}
    return Call(f"call of {spec}", loss_for(spec, GIVEN), signals)


CALLS = [
    public("KD", temperature=4.0, direction="forward"),
    public("GLNN", temperature=1.0),
    public("DKD", alpha=1.0, beta=8.0, temperature=4.0),
    public("NKD", gamma=1.5, temperature=1.0),
    public("Standardized", inner=KD(), temperature=1.0, min_std=1e-3),
    public("OFA", **HEADS, gamma=1.5, temperature=1.0, gamma_on="all"),
    public("DualHead", **HEADS, temperature=2.0, center=False),
    public("USKD", **HEADS, alpha=1.0, beta=0.1, mu=0.005, author_code=False),
    public(
        "GLD",
        form="global",
        k=3,
        matching="identity",
        feature="mean",
        support="own",
        of="probabilities",
        temperature=1.0,
    ),
    public("LSP", width=100.0, of="logits"),
    public("RKD", distance=1.0, angle=2.0, pairs="sampled", samples=4096, seed=1, of="logits"),
    public("KRD", temperature=1.0, refit=True, momentum=0.9),
    public("HGMD", alpha=1.0, temperature=1.0, mixup=True),
    public("FFG2M", low=1.0, high=1.0, temperature=1.0),
    public("SP", normalize=True, of="logits"),
    public("DIST", beta=1.0, gamma=1.0, temperature=1.0),
    public("Hint", hidden_channels=6, teacher_channels=3),
    public("VQGraph", size=4, temperature=0.1, hidden_channels=6, teacher_channels=3),
    public("Tokenizer", hidden_channels=3, in_channels=5, size=4, commitment=0.25),
    public("Tokens", hidden=S, nearest=Y, loss=S[0, 0]),
    Call("prepare of Tokenizer", graphkd.Tokenizer(3, 5, 4).prepare, {"h": GIVEN.teacher.hidden[-1]}),
    Call(
        "call of Tokenizer",
        graphkd.Tokenizer(3, 5, 4),
        {"h": GIVEN.teacher.hidden[-1], "x": S, "edge_index": EDGES},
    ),
    public("codebook", h=GIVEN.teacher.hidden[-1], size=4, steps=2),
    public("positions", edge_index=EDGES, num_nodes=12, size=3, kind="deepwalk", window=4),
    public("worst_noise", x=S, loss=lambda x: x.sum(), size=0.1, steps=2),
    public("hgmd", **PAIR, edge_index=EDGES, alpha=1.0, temperature=1.0, mixup=False),
    public("high_frequency", **PAIR, edge_index=EDGES, temperature=1.0),
    public("sp", **PAIR, normalize=True),
    public("dist", **PAIR, beta=1.0, gamma=1.0, temperature=1.0),
    Call("prepare of Hint", graphkd.Hint().prepare, SIGNALS),
    Call("prepare of VQGraph", graphkd.VQGraph(4).prepare, SIGNALS),
    public("DistillationLoss"),
    public("Extrapolated", beta=1.0, max_step=3.0),
    public("Weighted", loss=KD(), weight=1.0, warmup=3, on="all", name="kd"),
    public("Signals", logits=S, hidden=(), reliability=None),
    public("Certificate", lower=S[0, 0], upper=S[0, 0], gap=S[0, 0]),
    public("Extrapolation", logits=S, step=S[:, 0]),
    public("Scope", value="node"),
    public("kd", **PAIR, temperature=4.0, direction="forward"),
    public("dkd", **PAIR, target=Y, alpha=1.0, beta=8.0, temperature=4.0),
    public("nkd", **PAIR, target=Y, gamma=1.5, temperature=1.0),
    public("ofa", **PAIR, target=Y, gamma=1.5, temperature=1.0, gamma_on="all"),
    public("binary_kl", **PAIR, temperature=2.0, center=False),
    public("uskd", student=S, weak=T, target=Y, alpha=1.0, beta=0.1, mu=0.005, author_code=False),
    public("lsp", **PAIR, edge_index=EDGES, width=100.0),
    public("krd", **PAIR, edge_index=EDGES, reliability=torch.rand(12), temperature=1.0),
    public("rkd_distance", **PAIR, pairs=EDGES),
    public("rkd_angle", **PAIR, triples=torch.tensor([[0, 3], [1, 4], [2, 5]])),
    public("standardize", logits=S, min_std=1e-3),
    public("extrapolate", strong=S, weak=T, beta=1.0, max_step=3.0),
    public("reliability", logits=S, noisy_logits=T, power=1.0),
    public("rebalance", logits=S, trained=S[0].exp(), steps=2),
    public("certificate", **GRAPHS, feature="mean", matching="sorted"),
    public("gromov_wasserstein", **GRAPHS, epsilon=0.05, steps=3, sinkhorn_steps=3),
    public("take", signals=GIVEN.student, rows=MASK),
    public("on_rows", loss=NKD(), rows=MASK, **SIGNALS, target=GIVEN.target, edge_index=EDGES),
    public("on_rows", loss=graphkd.LSP(width=5.0), rows=MASK, **SIGNALS, target=GIVEN.target, edge_index=EDGES),
    public("fill_target", target=GIVEN.target, teacher=GIVEN.teacher),
    public("scope_of", loss=NKD()),
    public("hidden_of", model=torch.nn.Sequential(torch.nn.Linear(2, 2))),
    public("find", name="kd"),
    public("make", name="gld", k=3, form="global"),
    public("build", losses="kd + nkd"),
    public("parse", line="kd + nkd"),
    Call("LOSSES.lookup", graphkd.LOSSES.lookup, {"query": "kd"}),
    Call("LOSSES.knows", graphkd.LOSSES.knows, {"name": "kd"}),
    Call("weight_at", graphkd.Weighted(KD(), warmup=3).weight_at, {"epoch": 0}),
    Call("Extrapolated()", graphkd.Extrapolated(), {"strong": GIVEN.student, "weak": GIVEN.teacher}),
    Call("diagnose", graphkd.GLD(k=3).diagnose, SIGNALS),
    *(Call(f"prepare of {name}", getattr(graphkd, name)().prepare, SIGNALS) for name in ("OFA", "DualHead", "USKD")),
    *map(called, SPECS),
]

NOTHING, HALF = Signals(S[:0]), Signals(S[:6])
BAD: dict[str, Any] = {
    "None": None,
    "text": "Forward",
    "a list": [],
    "a list of text": ["kd", 3],
    "a mapping": {"name": []},
    "an object": object(),
    "NaN": nan,
    "infinity": inf,
    "a negative number": -1,
    "a number that is no float": 10**5000,
    "truth": True,
    "an empty tensor": torch.empty(0),
    "a tensor without dimensions": torch.tensor(1.0),
    "one column": torch.zeros(12, 1),
    "another shape": torch.zeros(7, 3, 2),
    "fewer rows": S[:6],
    "fewer columns": S[:, :4],
    "integers": torch.ones(12, 5, dtype=torch.long),
    "zeros and ones": torch.ones(12, dtype=torch.long),
    "truth values": torch.ones(12, 5, dtype=torch.bool),
    "complex numbers": torch.ones(12, 5, dtype=torch.complex64),
    "node numbers that are none": torch.full((2, 6), 99),
    "triples that are none": torch.full((3, 6), -3),
    "a sparse tensor": S.to_sparse(),
    "another device": S.to("meta"),
    "NaN throughout": torch.full((12, 5), nan),
    "signals of nothing": Signals(None),
    "signals of integers": Signals(torch.ones(12, 5, dtype=torch.long)),
    "signals of no nodes": NOTHING,
    "signals of other nodes": HALF,
    "signals with other layers": Signals(S, (torch.zeros(12, 3), torch.zeros(12, 3))),
    "signals with layers of text": Signals(S, ("a", "b")),
    "signals with one layer": Signals(S, torch.zeros(12, 3)),
    "signals with layers in float64": Signals(S, tuple(h.double() for h in GIVEN.student.hidden)),
    "signals with text for trust": Signals(S, GIVEN.student.hidden, "all"),
    "signals with negative trust": Signals(S, GIVEN.student.hidden, -torch.ones(12)),
    "a class": KD,
}
CASES = [(one, argument) for one in CALLS for argument in one.right]


def test_the_sweep_is_of_all_that_is_public():
    swept = {one.name.split(".")[0] for one in CALLS}
    assert swept >= set(graphkd.__all__)


@pytest.mark.filterwarnings("ignore::UserWarning:graphkd")  # of two classes, or of all classes kept
@pytest.mark.parametrize(("one", "argument"), CASES, ids=[f"{one.name}-{argument}" for one, argument in CASES])
def test_a_bad_argument_ends_in_a_result_or_in_one_clear_line(one, argument):
    ready = copy.deepcopy(one.function) if isinstance(one.function, torch.nn.Module) else one.function
    for what, bad in BAD.items():
        try:
            ready(**{**one.right, argument: bad})
        except ValueError as error:
            said = str(error)
            assert said, what
            assert "\n" not in said, what
            assert len(said) < 600, what


@pytest.mark.parametrize("one", CALLS, ids=[one.name for one in CALLS])
def test_what_is_right_is_taken(one):
    one.function(**one.right)
