"""What people hand over is used as it is meant, or refused: never replaced, and said where some of it is left out."""

import sys
import types
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from torch_geometric.data import Data

import mowst.names
from mowst import Config, MowstClassifier, from_networkx, load
from mowst.data import check, uneven
from mowst.data.given import Scale, as_mask, edges, features, taken, weights
from mowst.data.labels import labels, scalar
from mowst.data.uneven import say_uneven
from mowst.errors import InputError
from tests.graphs import changed, good

QUICK = {"epochs": 3, "device": "cpu"}


@pytest.fixture
def mine(monkeypatch):
    """Offer `mine_pkg:graph`, a loader whose graph a test chooses."""
    module = types.ModuleType("mine_pkg")
    monkeypatch.setitem(sys.modules, "mine_pkg", module)
    monkeypatch.setattr(mowst.names, "_trusted", {"mine_pkg"})
    return lambda data: setattr(module, "graph", lambda: data) or load("mine_pkg:graph")


# Labels

NOTHING = [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", torch.tensor(float("nan")), [None]]
ONE = [1, 1.0, np.int8(1), np.float32(1), torch.tensor(1), torch.tensor([1.0]), [1], [0, 1], (0.0, 1.0), np.array([1])]


@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_what_holds_nothing_is_no_label(value):
    assert scalar(value, "label") is None


@pytest.mark.parametrize("value", ONE, ids=repr)
def test_one_is_one_whatever_holds_it(value):
    assert scalar(value, "label") == 1


@pytest.mark.parametrize("value", [0.5, float("inf"), [1, 1], [0, 0], [0.5, 0.5], {}, ..., ["a", "b"], 1j], ids=repr)
def test_what_is_no_class_is_refused_with_its_place(value):
    with pytest.raises(InputError, match="label of node 3"):
        scalar(value, "label of node 3")


CODES = [0, 2, 1, 2, 0, 1, 2, 0] * 3
HOLDERS = {
    "numpy": np.array,
    "int32": lambda y: torch.tensor(y, dtype=torch.int32),
    "uint8": lambda y: torch.tensor(y, dtype=torch.uint8),
    "float": lambda y: torch.tensor(y).double(),
    "bfloat16": lambda y: torch.tensor(y).bfloat16(),
    "list": list,
    "pandas": pd.Series,
    "column": lambda y: torch.tensor(y).view(-1, 1),
    "one-hot": lambda y: torch.nn.functional.one_hot(torch.tensor(y)),
    "one-hot floats": lambda y: np.eye(3)[y],
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_holder_of_the_same_classes_gives_the_same_labels(holder):
    found = labels(HOLDERS[holder](CODES))
    assert found.y.tolist() == CODES
    assert found.y.dtype == torch.long
    assert found.names is None


@pytest.mark.parametrize("numbers", [(0, 10**9, 2 * 10**9), (1, 2, 3), (0, 2, 1000), (-2, -1, 0), (7, 8, 9)])
def test_numbers_with_gaps_are_counted_through_and_keep_their_names(numbers):
    found = labels(torch.tensor(numbers)[torch.tensor(CODES)])
    assert (found.y.tolist(), found.names) == (CODES, list(numbers))


@pytest.mark.parametrize("given", [["a", "c", "b"], pd.Categorical(["a", "c", "b"]), np.array(["a", "c", "b"])])
def test_text_is_a_class_by_name(given):
    found = labels(given[np.array(CODES)] if not isinstance(given, list) else [given[code] for code in CODES])
    assert [found.names[number] for number in found.y] == [["a", "c", "b"][code] for code in CODES]


def test_minus_one_is_no_label_unless_numbers_go_on_below():
    assert labels(torch.tensor([-1, 0, 1, 0, 1])).y.tolist() == [-1, 0, 1, 0, 1]
    assert labels(torch.tensor([-1, 5, 7, 5, 7])).names == [5, 7]
    assert labels(torch.tensor([-2, -1, 0, 1, -2, -1, 0, 1])).names == [-2, -1, 0, 1]
    for code in (-100, -999, -7):  # codes of others for "no label"
        with pytest.raises(InputError, match=f"{code} of node 0.*give -1"):
            labels(torch.tensor([code, 0, 1, 0, 1]))


def test_a_known_number_of_classes_keeps_the_numbers():
    assert labels(torch.tensor([0, 2, 2, 0]), 5) == (pytest.approx(torch.tensor([0, 2, 2, 0])), None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.rand(20), "whole numbers"),
        (torch.arange(20), "20 classes for 20"),
        (torch.randint(2, (20, 3)) + 1, "not one-hot"),
        ([[1, 1, 0]] * 20, "not one-hot"),
        (torch.zeros(2, 3, 4), r"\[N\]"),
        (torch.tensor(float("inf")).expand(20), "whole numbers"),
        (["a", 0.5, "b"], "node 1.*0.5"),
        (None, "None"),
        ("abc", "'abc'"),
        (torch.rand(20) + 1j, "class"),
    ],
)
def test_what_is_no_class_for_each_node_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        labels(given)


# Features and edges


def test_every_holder_of_the_same_features_gives_the_same_ones():
    x = torch.rand(6, 3).round(decimals=2) * (torch.rand(6, 3) > 0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")
        for held in (x.numpy(), x.tolist(), x.double(), pd.DataFrame(x.numpy()), x.numpy().T.copy().T):
            assert torch.equal(features(held), x)
        for held in (scipy.sparse.csr_matrix(x.numpy()), scipy.sparse.coo_array(x.numpy()), x.to_sparse()):
            assert torch.equal(features(held).to_dense(), x)
    assert features(x) is x


@pytest.mark.parametrize(
    "x", [None, "x", [["a"]], torch.rand(6), torch.rand(6, 0), torch.rand(6, 2) + 1j, [[1], [1, 2]], ...], ids=repr
)
def test_what_are_no_features_is_refused(x):
    with pytest.raises(InputError, match="x: "):
        features(x)


@pytest.mark.parametrize("start", [1_700_000_000, 2**24, 1e12])
def test_different_numbers_that_float32_makes_one_are_said(start):
    x = torch.stack([torch.rand(40, dtype=torch.float64), start + torch.arange(40, dtype=torch.float64)], 1)
    with pytest.warns(UserWarning, match=r"column 1 has 40 different"):
        features(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features(x - x.amin(0))  # as the message says
        features(torch.randn(500, 3, dtype=torch.float64) * 1e9)  # reals: that digits go is no loss


@pytest.mark.parametrize(
    ("edge_index", "said"),
    [
        (torch.zeros(5, 2, dtype=torch.long), r"edge_index\.t\(\)"),
        (torch.zeros(2, 5), "float32"),
        (torch.zeros(3, 5, dtype=torch.long), r"\[3, 5\]"),
        ("edges", "node numbers"),
        ([["a", "b"]], "node numbers"),
    ],
)
def test_what_are_no_edges_is_refused(edge_index, said):
    with pytest.raises(InputError, match=said):
        edges(edge_index)


def test_edges_in_other_holders_are_taken():
    ends = [[0, 1, 2], [1, 2, 0]]
    for held in (ends, np.array(ends), torch.tensor(ends, dtype=torch.int32)):
        assert edges(held).tolist() == ends


@pytest.mark.parametrize("weight", [[1.0], [1, -1, 1], [1, float("nan"), 1], "abc", [[1, 2]] * 3])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(InputError, match="edge_weight"):
        weights(weight, torch.zeros(2, 3, dtype=torch.long))


# Masks

CHOSEN = [1, 4, 5]
ONES = torch.zeros(8).index_fill(0, torch.tensor(CHOSEN), 1)
MASK_HOLDERS = {
    "bool": ONES.bool(),
    "list": ONES.bool().tolist(),
    "numpy": ONES.bool().numpy(),
    "bytes": ONES.byte(),
    "floats": ONES,
    "numbers of nodes": torch.tensor(CHOSEN),
    "list of numbers": CHOSEN[::-1],
    "several columns": torch.stack([~ONES.bool(), ONES.bool(), ~ONES.bool()], 1),
    "several rows": torch.stack([~ONES.bool(), ONES.bool(), ~ONES.bool()], 0),
}


@pytest.mark.parametrize("holder", MASK_HOLDERS)
def test_every_holder_of_the_same_nodes_gives_the_same_mask(holder):
    assert as_mask(MASK_HOLDERS[holder], "train_mask", 8, 4).nonzero().flatten().tolist() == CHOSEN


@pytest.mark.parametrize(
    "given", [[8], [-1], [1, 1], [0.5, 1.0], "all", torch.ones(9).bool(), torch.ones(3, 5).bool(), [["a"]], 5, 1j]
)
def test_a_mask_that_cannot_be_used_is_refused(given):
    with pytest.raises(InputError, match="train_mask"):
        as_mask(given, "train_mask", 8, 0)


def test_own_masks_are_used_in_any_form_and_never_replaced(mine):
    data = good()
    shipped = mine(data.clone())
    for form in (lambda m: m.nonzero().flatten(), lambda m: m.tolist(), lambda m: torch.stack([m, m])):
        got = mine(changed(**{name: form(data[name]) for name in ("train_mask", "val_mask", "test_mask")}))
        assert got.split == "masks"
        assert torch.equal(got.train_mask, shipped.train_mask)
    with pytest.raises(InputError, match="train_mask"):
        mine(changed(train_mask=torch.ones(61, dtype=torch.bool)))
    with pytest.raises(InputError, match="train_mask"):
        mine(changed(train_mask=None))


def test_without_a_test_mask_there_are_no_test_nodes(mine):
    got = mine(changed(test_mask=None))
    assert got.split == "masks"
    assert not got.test_mask.any()
    assert torch.equal(got.train_mask, good().train_mask)


def test_without_a_validation_mask_part_of_training_validates_and_it_is_said(mine):
    data = good()
    with pytest.warns(UserWarning, match="val_mask.*of its 30 training nodes"):
        got = mine(changed(val_mask=None))
    assert torch.equal(got.train_mask | got.val_mask, data.train_mask)
    assert int(got.val_mask.sum()) == 6
    assert torch.equal(got.test_mask, data.test_mask)


def test_it_is_said_how_many_nodes_are_left_out(mine):
    data = good()
    without = Data(x=data.x, edge_index=data.edge_index, y=data.y - 1)
    with pytest.warns(UserWarning, match="20 of 60 nodes have no label.*-1"):
        mine(without)
    with pytest.warns(UserWarning, match="edge_attr"):
        mine(changed(edge_attr=torch.rand(data.num_edges, 4)))


# Edge weights


def test_weights_of_edges_reach_the_model_and_zeros_cut_them():
    data, cut = good(), good()
    cut.edge_weight = torch.zeros(cut.num_edges)
    ones = changed(edge_weight=torch.ones(data.num_edges))
    found = [MowstClassifier(**QUICK).fit(each).predict_proba(each) for each in (data, ones, cut)]
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert not torch.allclose(found[0], found[2], atol=1e-2)


def test_weights_that_no_expert_uses_are_said():
    weighted = changed(edge_weight=torch.rand(good().num_edges))
    with pytest.warns(UserWarning, match="edge_weight.*no expert"):
        MowstClassifier(strong="gat", **QUICK).fit(weighted)


def test_weights_of_a_networkx_graph_are_taken_and_repeats_add_up():
    G = nx.MultiGraph()
    for node in range(8):
        G.add_node(node, f=float(node), kind="ab"[node % 2])
    for source, target, weight in ((0, 1, 2.0), (0, 1, 3.0), (1, 2, None), (2, 3, 0.5), (3, 3, 9.0)):
        G.add_edge(source, target, **({} if weight is None else {"weight": weight}))
    data = from_networkx(G, "kind", ["f"])
    found = {tuple(pair): float(w) for pair, w in zip(data.edge_index.t().tolist(), data.edge_weight, strict=True)}
    assert found == {(0, 1): 5, (1, 0): 5, (1, 2): 1, (2, 1): 1, (2, 3): 0.5, (3, 2): 0.5}
    assert "edge_weight" not in from_networkx(G, "kind", ["f"], weight=None)
    G.edges[2, 3, 0]["weight"] = "heavy"
    with pytest.raises(InputError, match=r"weight.*'heavy'"):
        from_networkx(G, "kind", ["f"])


# Classes and their names


def people(kinds: str, seed: int = 0, labelled: bool = True) -> nx.Graph:
    G = nx.random_partition_graph([30] * len(kinds), 0.3, 0.01, seed=seed)
    noise = np.random.default_rng(seed).normal(size=(len(G), 4))
    for node in G:
        kind = kinds[node // 30]
        G.nodes[node].update(f=(3 * np.eye(4)["abcd".index(kind)] + noise[node]).tolist())
        if labelled:
            G.nodes[node]["kind"] = kind
    return G


def test_predictions_for_another_graph_go_by_the_names_of_the_first():
    train = from_networkx(people("abc"), "kind", ["f"])
    classifier = MowstClassifier(epochs=40, device="cpu").fit(train)
    assert classifier.class_names == ["a", "b", "c"]
    with pytest.raises(InputError, match=r"class_names.*b, c, d.*a, b, c"):
        classifier.predict(from_networkx(people("bcd", 1), "kind", ["f"]))
    with pytest.warns(UserWarning, match="30 nodes of d count as unlabelled"):
        new = from_networkx(people("bcd", 1), "kind", ["f"], class_names=classifier.class_names)
    named = [new.class_names[number] for number in classifier.predict(new)]
    assert np.mean(np.array(named[:60]) == list("b" * 30 + "c" * 30)) > 0.9
    with pytest.warns(UserWarning, match="nothing to train on"):
        blank = from_networkx(people("bcd", 1, labelled=False), "kind", ["f"])
    assert torch.equal(classifier.predict(blank), classifier.predict(new))
    with pytest.raises(InputError, match=r"class|train_mask|label"):
        MowstClassifier(**QUICK).fit(blank)


@pytest.mark.parametrize("codes", [(0, 10**9, 2 * 10**9), (1, 2, 3), (5, 0, 7)])
def test_predictions_are_in_the_numbers_of_the_labels(codes):
    data = good()
    plain = MowstClassifier(epochs=30, device="cpu").fit(data)
    order = sorted(codes)
    coded = MowstClassifier(epochs=30, device="cpu").fit(changed(y=torch.tensor(order)[data.y]))
    assert coded.class_names == order
    assert coded.predict_proba(data).shape == (60, 3)
    assert torch.equal(coded.predict(data), torch.tensor(order)[plain.predict(data)])
    assert coded.score(changed(y=torch.tensor(order)[data.y])) == plain.score(data) > 0.5


@pytest.mark.parametrize(
    "form",
    [lambda y: [["a", "b", "c"][c] for c in y], lambda y: torch.nn.functional.one_hot(y), lambda y: y.view(-1, 1)],
)
def test_what_can_be_fitted_can_be_scored_and_by_name(form):
    data = good()
    plain = MowstClassifier(epochs=30, device="cpu").fit(data)
    told = MowstClassifier(epochs=30, device="cpu").fit(changed(y=form(data.y)))
    assert told.score(changed(y=form(data.y))) == plain.score(data) > 0.5
    assert told.score(changed(y=form(data.y)), data.test_mask.nonzero().flatten()) == plain.score(data)


def test_scores_go_by_the_names_of_classes_whatever_their_numbers():
    data = changed(class_names=["a", "b", "c"])
    classifier = MowstClassifier(epochs=30, device="cpu").fit(data)
    text = changed(y=["abc"[c] for c in data.y])
    assert classifier.score(text) == classifier.score(data) > 0.5


def test_text_is_numbered_by_the_class_names_that_stand_beside_it():
    data = good()
    text = changed(y=["abc"[c] for c in data.y], class_names=["c", "a", "b"])
    assert taken(text).y.tolist() == [["c", "a", "b"].index("abc"[c]) for c in data.y]
    classifier = MowstClassifier(epochs=30, device="cpu").fit(text)
    assert classifier.class_names == ["c", "a", "b"]
    assert classifier.score(text) > 0.5
    with pytest.raises(InputError, match="class 'a' is not among class_names"):
        taken(changed(y=text.y, class_names=["b", "c", "d"]))


@pytest.mark.parametrize("number", [np.float32(2), np.int64(2), torch.tensor(2.0)])
def test_weights_of_networkx_may_be_numbers_of_others(number):
    G = nx.cycle_graph(12)
    nx.set_node_attributes(G, {node: {"kind": node % 2, "f": node} for node in G})
    nx.set_edge_attributes(G, number, "weight")
    assert from_networkx(G, "kind", ["f"]).edge_weight.tolist() == [2.0] * 24


def test_features_that_are_learned_are_taken_without_their_gradient():
    G = nx.cycle_graph(12)
    for node in G:
        G.nodes[node].update(kind=node % 2, f=torch.rand(3, requires_grad=True))
    assert from_networkx(G, "kind", ["f"]).x.shape == (12, 3)


@pytest.mark.parametrize("weight", [scipy.sparse.coo_array(np.eye(3)), torch.eye(3).to_sparse()])
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # which torch says once
def test_sparse_weights_are_refused(weight):
    with pytest.raises(InputError, match="edge_weight"):
        weights(weight, torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize(
    "options", [{"weight_decay": 1e30}, {"lr": 1e30}, {"kd": "nkd", "teacher": "strong", "lr": 1e30}]
)
def test_training_that_diverges_is_called_so(options):
    with pytest.raises(FloatingPointError):
        MowstClassifier(epochs=4, device="cpu", **options).fit(good())


def test_a_classifier_can_be_cloned():
    classifier = MowstClassifier(strong="sage", seed=3, lr=0.02)
    again = clone(classifier)
    given = {name: value for name, value in again.get_params().items() if value is not None}
    assert given == {"seed": 3, "strong": "sage", "lr": 0.02}
    assert again.configuration() == classifier.configuration()
    assert clone(classifier).set_params(lr=0.5).configuration().lr == 0.5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MowstClassifier("sage").fit(good()), "strong='sage'"),
        (lambda: MowstClassifier(seed=-1).fit(good()), "seed"),
        (lambda: MowstClassifier(seed="a").fit(good()), "seed"),
        (lambda: MowstClassifier(epochs=0).fit(good()), "epochs"),
        (lambda: MowstClassifier().fit(torch.rand(3, 3)), "Data, is a Tensor"),
        (lambda: MowstClassifier().fit(Data(x=torch.rand(3, 3))), "edge_index"),
        (lambda: MowstClassifier().fit(Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0], [1]]))), "no y"),
        (lambda: MowstClassifier().predict(good()), "fit"),
        (lambda: Config(lr=float("inf")), "lr"),
        (lambda: Config(first_seed=2**63), "first_seed"),
        (lambda: load(None), "dataset"),
    ],
)
def test_what_cannot_be_is_one_clear_line(make, said):
    with pytest.raises(InputError, match=said):
        make()


# Features at predict, and their scale


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_are_checked_at_predict_as_at_fit(value):
    classifier = MowstClassifier(**QUICK).fit(good())
    new = good()
    new.x[5, 2] = value
    with pytest.raises(InputError, match="feature 2 of node 5"):
        classifier.predict(new)
    with pytest.raises(InputError, match="8"):
        classifier.predict(changed(x=good().x[:, :5]))


def test_a_column_that_drowns_the_others_is_said_and_standardize_mends_it():
    wide = good()
    wide.x[:, 3] = torch.randn(60, generator=torch.Generator().manual_seed(1)) * 1e5
    with pytest.warns(UserWarning, match="column 3 varies .* standardize"):
        plain = MowstClassifier(epochs=100, device="cpu").fit(wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mended = MowstClassifier(epochs=100, device="cpu", standardize=True).fit(wide)
    assert mended.score(wide) > plain.score(wide)
    half = wide.subgraph(torch.arange(60) < 30)  # another graph is brought to the scale of the first
    assert torch.allclose(mended._whole.scale.mean.float(), wide.x.mean(0), rtol=1e-4)
    assert mended.predict(half).shape == (30,)


def test_bags_of_words_are_not_called_uneven():
    counts = torch.poisson(torch.full((300, 20), 0.05)) * torch.logspace(0, 4, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_uneven(counts)


@pytest.mark.parametrize("rows", [7, 1000])
def test_columns_that_never_vary_are_not_what_the_others_drown_in(rows, monkeypatch):
    monkeypatch.setattr(uneven, "AT_ONCE", 12 * rows)
    x = torch.cat([torch.full((1000, 7), 0.1), torch.randn(1000, 5)], dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_uneven(x)
    x[:, 9] *= 1e4
    ratio = float(x.double().std(0)[9] / x.double().std(0)[7:].median())
    with pytest.warns(UserWarning, match=f"column 9 varies {ratio:,.0f} times"):
        say_uneven(x)


def test_standardized_columns_have_mean_zero_and_deviation_one():
    x = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1.0, 1e6, 1e-6, 0.0]) + 3
    found = Scale.of(x).standardized(x)
    assert torch.allclose(found.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(found.std(0, correction=0)[:3], torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert torch.equal(found[:, 3], torch.zeros(50, dtype=torch.float64))


def test_what_is_taken_leaves_the_original_alone():
    data = changed(y=good().y.int(), note=torch.arange(60), name="mine")
    before = data.clone()
    graph = taken(data)
    graph.y.fill_(0)
    assert torch.equal(data.y, before.y)
    assert torch.equal(graph.note, data.note)
    graph = taken(data)
    graph.train_mask = graph.train_mask.bool()
    check(graph)
