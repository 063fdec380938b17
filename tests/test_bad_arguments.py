"""What is no model, no features, no graph or no option is refused in one line, whatever it is instead."""

import numpy as np
import pytest
import torch

from mowst.errors import InputError
from mowst.inference import Kept, Question, Touched, answer, predict
from mowst.kernels import Adjacency
from mowst.models import GATES, Asks, EdgelessMLP, LearnedGate, Mowst, Reads, Residual, expert
from tests.graphs import good

SIZE = {"hidden_channels": 8, "num_layers": 2}
NO_TENSOR = [None, "half", [], ["a"], {}, 3, 2.5, True, object(), np.ones((60, 8)), torch.nn.Linear]
TENSORS = [torch.empty(0), torch.ones(3), torch.ones(2, 5), torch.ones(3, 2, 2), torch.ones(60, 7), torch.eye(60)]
TENSORS += [torch.ones(60, 8, dtype=each) for each in (torch.long, torch.bool, torch.float64, torch.complex64)]
TENSORS += [torch.full((2, 4), 99), torch.zeros(5, 2).long(), torch.tensor(4), torch.eye(60).to_sparse_csr()]


def mixture() -> Mowst:
    torch.manual_seed(0)
    return Mowst(expert("mlp", 8, 3, **SIZE), expert("gcn", 8, 3, **SIZE), LearnedGate(in_channels=8)).eval()


DATA, MODEL = good(), mixture()
GRAPH = Adjacency.from_edge_index(DATA.edge_index, 60)


def said(nodes):
    return torch.zeros(60 if nodes is None else len(nodes), 3), Touched(0, 0, 0, 0)


CALLS = {
    "predict": (predict, {"model": MODEL, "x": DATA.x, "edge_index": DATA.edge_index}),
    "answer": (answer, {"model": MODEL, "x": DATA.x, "graph": GRAPH}),
    "Kept": (Kept, {"model": MODEL, "x": DATA.x, "graph": GRAPH}),
    "Question": (Question, {"model": MODEL, "x": DATA.x, "weak": said, "strong": said, "touched": Touched(0, 0, 0, 0)}),
    "Mowst": (Mowst, {"weak": MODEL.weak, "strong": MODEL.strong, "gate": MODEL.gate}),
    "from_edge_index": (Adjacency.from_edge_index, {"edge_index": DATA.edge_index, "num_nodes": 60}),
}
OPTIONS = {
    "predict": {"nodes": [3], "how": "routed", "threshold": 0.5, "generator": torch.Generator()},
    "answer": {"nodes": None, "how": "sampled", "threshold": 0.5, "generator": torch.Generator()},
    "Question": {"nodes": None},
    "Mowst": {"router": MODEL.gate},
    "from_edge_index": {"edge_weight": torch.ones(120)},
}


def assert_one_line(argument: str, error: InputError) -> None:
    """The line names the argument, or what does not fit it."""
    first = str(error).replace(":", " ").split()[0]
    others = {"x": "graph", "graph": "edge_index", "num_nodes": "edge_index", "how": "inference"}
    assert first in (argument, others.get(argument), "weak"), str(error)
    assert argument == "how" or "\n" not in str(error), str(error)


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_is_taken_or_refused_in_one_line(name):
    call, given = CALLS[name]
    given = given | OPTIONS.get(name, {})
    call(**given)
    for argument in given:
        for wrong in (*NO_TENSOR, *TENSORS):
            try:
                call(**{**given, argument: wrong})
            except InputError as error:
                assert_one_line(argument, error)


def test_every_query_is_answered_or_refused_in_one_line():
    kept = Kept(MODEL, DATA.x, GRAPH)
    given = {"nodes": [3, 3], "how": "pooled", "threshold": None, "generator": None}
    for argument in given:
        for wrong in (*NO_TENSOR, *TENSORS, [10**30], {1, 2}, torch.tensor([1], dtype=torch.uint16)):
            try:
                kept.query(**{**given, argument: wrong})
            except InputError as error:
                assert_one_line(argument, error)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": None}, "^model: must be a mowst.Mowst, got None"),
        ({"x": DATA.x.numpy()}, "^x: must be a tensor .* ndarray; torch.as_tensor"),
        ({"x": DATA.x[:, :7]}, "^x: has 7 features, but the weak expert takes 8"),
        ({"x": DATA.x.double()}, "^x: is torch.float64, but the weak expert computes in torch.float32"),
        ({"x": DATA.x[:0]}, r"^x: .*\[0, 8\]"),
        ({"x": DATA.x[:50]}, "^graph: has 60 nodes, x has 50 rows"),
        ({"graph": DATA.edge_index.t()}, r"^edge_index: must be .*torch.int64 of shape \[120, 2\]"),
        ({"graph": DATA.edge_index.float()}, "^edge_index: .*torch.float32"),
        ({"graph": DATA.edge_index + 1}, "^edge_index names nodes 1 to 60"),
        ({"graph": torch.eye(60).to_sparse_csr()}, "^edge_index: .*sparse_csr"),
        ({"nodes": ["a", "b"]}, "^nodes: must be a list of ids"),
        ({"nodes": [10**30]}, "^nodes: must be a list of ids"),
        ({"threshold": "half"}, "^threshold: must be a number.*'half'"),
        ({"generator": 3}, "^generator: must be a torch.Generator"),
        ({"how": lambda: 1}, "^how: must be a function"),
        ({"how": lambda ask, *, threshold, generator: 1}, "^how: must return probabilities .* returned 1"),
        ({"how": lambda ask, *, threshold, generator: torch.ones(3)}, r"^how: .*returned \[3\]"),
    ],
)
def test_a_question_says_what_is_wrong_with_it(wrong, words):
    for call in (answer,) if {"nodes", "threshold", "generator", "how"} & wrong.keys() else (answer, Kept):
        with pytest.raises(InputError, match=words):
            call(**({"model": MODEL, "x": DATA.x, "graph": GRAPH} | wrong))


def test_autocast_takes_features_of_another_precision():
    with torch.autocast("cpu", torch.bfloat16):
        kept = Kept(MODEL, DATA.x.bfloat16(), GRAPH)
    assert kept.query([3]).shape == (1, 3)


def test_a_query_for_no_nodes_in_particular_is_for_all():
    torch.testing.assert_close(Kept(MODEL, DATA.x, GRAPH).query(None), predict(MODEL, DATA.x, GRAPH))


@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_kept_is_kept_from_those_who_write(foreign):
    x = torch.from_numpy(DATA.x.numpy().copy()) if foreign else DATA.x.clone()
    edge_index = DATA.edge_index.clone()
    kept = Kept(MODEL, x, edge_index)
    before = kept.query([3, 4])
    x.numpy().fill(0)
    edge_index.zero_()
    assert torch.equal(kept.query([3, 4]), before)


@pytest.mark.parametrize("name", ["mlp", "gcn", "gat-res"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"hidden_channels": 0}, "hidden_channels must be a whole number of at least 1, got 0"),
        ({"hidden_channels": "8"}, "hidden_channels must be a whole number"),
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, got 0"),
        ({"num_layers": 10**30}, "num_layers must be at most 10,000"),
        ({"num_layers": 1.5}, "num_layers must be a whole number"),
        ({"in_channels": None}, "in_channels must be a whole number"),
        ({"out_channels": -3}, "out_channels must be a whole number"),
        ({"dropout": 2}, "dropout must be a probability, from 0 to 1, got 2"),
        ({"dropout": float("nan")}, "dropout must be a probability"),
        ({"dropout": None}, "dropout must be a probability"),
        ({"norm": 3}, "norm must be PyG's name of one, got 3"),
        ({"flavour": 3}, "flavour"),
    ],
)
def test_an_expert_says_which_option_is_wrong(name, wrong, words):
    with pytest.raises(InputError, match=f"^expert {name}: .*{words}"):
        expert(**({"kind": name, "in_channels": 8, "out_channels": 3, **SIZE} | wrong))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        *((name, {"dispersions": []}, "dispersions must be a list of at least one") for name in GATES.names),
        *((name, {"dispersions": "max"}, "dispersions must be a list .*'max'") for name in GATES.names),
        *((name, {"dispersions": [None]}, "dispersions: unknown None") for name in GATES.names),
        ("learned", {"hidden_channels": 0}, "hidden_channels must be"),
        ("learned", {"num_layers": 0}, "num_layers must be"),
        ("learned", {"in_channels": -1}, "in_channels must be a whole number of at least 0"),
        ("learned", {"dropout": 2}, "dropout must be a probability"),
        ("monotone", {"hidden_channels": 2.5}, "hidden_channels must be"),
        ("power", {"alpha": "2"}, "alpha must be at least 1, got '2'"),
        ("power", {"alpha": float("inf")}, "alpha must be at least 1"),
        ("logistic", {"start": 1}, "start must be between 0 and 1, got 1"),
        ("logistic", {"start": None}, "start must be between 0 and 1"),
        ("fused", {"start": 0.5}, "start must be two positive weights, got 0.5"),
        ("fused", {"start": (0.1, "b")}, "start must be two positive weights, got 'b'"),
    ],
)
def test_a_gate_says_which_option_is_wrong(name, wrong, words):
    with pytest.raises(InputError, match=f"^{words}"):
        GATES.lookup(name)(**wrong)


def test_a_mixture_says_which_part_is_none():
    weak, strong, gate = MODEL.weak, MODEL.strong, MODEL.gate
    for parts, words in [
        (("mlp", strong, gate), "^weak must be a torch.nn.Module, got 'mlp'"),
        ((weak, None, gate), "^strong must be a torch.nn.Module, got None"),
        ((weak, strong, LearnedGate), "^gate must be .*a class: make one"),
        ((weak, strong, gate, "router"), "^router must be"),
        ((weak, expert("gcn", 8, 4, **SIZE), gate), "as many classes, but weak has 3, strong 4"),
        ((EdgelessMLP([7, 3]), strong, gate), "as many features, but weak has 7, strong 8"),
    ]:
        with pytest.raises(InputError, match=words):
            Mowst(*parts)
    with pytest.raises(InputError, match="choose from strong, weak"):
        MODEL.of("teacher")


def test_what_a_module_says_of_itself_must_be_what_it_is_asked():
    strange = torch.nn.Linear(8, 3)
    strange.reads = "all of it"
    with pytest.raises(InputError, match=r"Linear: its `reads` must be a mowst.models.Reads, is 'all of it'"):
        Mowst(strange, MODEL.strong, MODEL.gate)
    strange.reads, strange.asks = Reads(hops=0), "strong"
    with pytest.raises(InputError, match=r"Linear: its `asks` must be a mowst.models.Asks, is 'strong'"):
        Mowst(MODEL.weak, MODEL.strong, strange)
    strange.asks = Asks()
    Mowst(MODEL.weak, MODEL.strong, strange)


def test_a_residual_expert_says_what_is_wrong_by_itself():
    with pytest.raises(InputError, match=r"^conv must be a class"):
        Residual("gcn", 8, 8, 2, 3)
    with pytest.raises(InputError, match=r"^num_layers must be"):
        Residual(torch.nn.Linear, 8, 8, 0, 3)
