"""A person's own graph, by its files or tables: what is what, what is left out, and that all ways lead to one graph."""

import json
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, homophily, to_undirected

from mowst.data import from_networkx, from_tables, load, read, summary_of
from mowst.data.assembling import own_of
from mowst.data.columns import Columns
from mowst.data.joining import distinct, joined
from mowst.data.matching import as_numbers, read_edges
from mowst.data.own import card_of, card_text
from mowst.data.roles import Ends
from mowst.data.tables import Table
from mowst.errors import InputError, many
from mowst.run import flags
from tests.fuzzing.files import N, network


def people(N: int = 60, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sixty people with text ids, drinks as labels, missing values, and friends."""
    draw = np.random.default_rng(seed)
    drink = draw.choice(["tea", "coffee", "milk"], N)
    nodes = pd.DataFrame(
        {
            "id": [f"p{7 * n}" for n in range(N)],
            "age": draw.normal(40, 9, N).round(1),
            "city": draw.choice(["Rome", "Oslo"], N),
            "drink": drink,
        }
    )
    nodes.loc[3, "age"] = np.nan
    nodes.loc[5, "city"] = None
    ends = draw.integers(0, N, (2, 3 * N))
    edges = pd.DataFrame({"source": nodes.id.to_numpy()[ends[0]], "target": nodes.id.to_numpy()[ends[1]]})
    return nodes, edges[edges.source != edges.target]


def written(folder, nodes, edges, suffix=".csv"):
    sep = {".csv": ",", ".tsv": "\t"}[suffix]
    nodes.to_csv(folder / f"nodes{suffix}", index=False, sep=sep)
    edges.to_csv(folder / f"edges{suffix}", index=False, sep=sep)
    return folder


def same(first, second):
    for key in ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(first[key], second[key]), key
    assert first.class_names == second.class_names
    assert first.node_names == second.node_names


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_files_and_tables_are_the_same_graph(tmp_path, suffix):
    nodes, edges = people()
    same(read(written(tmp_path, nodes, edges, suffix), label="drink"), from_tables(nodes, edges, label="drink"))


def test_nodes_edges_and_labels_keep_their_names(tmp_path):
    nodes, edges = people()
    data = from_tables(nodes, edges, label="drink")
    assert data.node_names == nodes.id.tolist()
    assert [data.class_names[label] for label in data.y.tolist()] == nodes.drink.tolist()
    found = {frozenset(data.node_names[end] for end in pair) for pair in data.edge_index.t().tolist()}
    assert found == {frozenset(pair) for pair in edges.itertuples(index=False, name=None)}


@pytest.mark.parametrize("write", ["graphml", "gexf", "gml", "json"])
def test_formats_of_networkx_are_the_same_graph(write, tmp_path):
    G = network()
    path = tmp_path / f"g.{write}"
    if write == "json":
        path.write_text(json.dumps(nx.node_link_data(G, edges="edges")))
    else:
        getattr(nx, f"write_{write}")(G, path)
    found, plain = read(path, label="group"), from_networkx(G, "group", ["size"])
    assert found.class_names == plain.class_names
    order = [found.node_names.index(name) for name in plain.node_names]
    assert torch.equal(found.y[order], plain.y)
    expected = (plain.x - plain.x.mean(0)) / plain.x.std(0, correction=0)
    assert torch.allclose(found.x[order], expected, atol=1e-5)
    pairs = {frozenset(found.node_names[end] for end in pair) for pair in found.edge_index.t().tolist()}
    assert pairs == {frozenset(edge) for edge in G.edges}


def test_vectors_become_columns(tmp_path):
    G = network()
    for node, held in G.nodes(data=True):
        held["place"] = [held["size"], float(len(node))]
    (tmp_path / "g.json").write_text(json.dumps(nx.node_link_data(G, edges="links")))
    data = read(tmp_path / "g.json", label="group", features="place 0,place 1")
    assert data.x.shape == (N, 2)


@pytest.mark.parametrize("ids", [["007", "7", "70"], ["1", "02", "3"], ["+1", "2", "3"], ["1_0", "2", "3"], ["1", "a"]])
def test_ids_that_are_not_written_as_numbers_stay_text(ids):
    assert as_numbers(np.array(ids, "S64")) is None


@pytest.mark.parametrize("ids", [[0, 1, 9, 10, 99, 100], [-5, 7, 10**18], [10**17 + 3 * n for n in range(5)]])
def test_ids_that_are_numbers_are_numbers(ids):
    assert as_numbers(np.array(list(map(str, ids)), "S64")).tolist() == ids


def test_gaps_and_large_ids_are_ids(tmp_path):
    nodes, edges = people()
    number = {name: 10**18 + 11 * place for place, name in enumerate(nodes.id)}
    renamed = nodes.assign(id=nodes.id.map(number))
    moved = edges.assign(source=edges.source.map(number), target=edges.target.map(number))
    found, plain = read(written(tmp_path, renamed, moved), label="drink"), from_tables(nodes, edges, label="drink")
    assert torch.equal(found.edge_index, plain.edge_index)
    assert found.node_names == renamed.id.tolist()


@pytest.mark.parametrize("directed", [False, True])
def test_each_edge_is_there_once_as_pyg_has_it(directed):
    draw = torch.Generator().manual_seed(0)
    edge_index = torch.randint(0, 30, (2, 400), generator=draw)
    expected = coalesce(edge_index) if directed else to_undirected(edge_index)
    assert torch.equal(distinct(edge_index, 30, directed=directed), expected)
    assert distinct(edge_index[:, :0], 30, directed=directed).shape == (2, 0)


def test_weights_add_up_and_average():
    names = ["a", "b", "c", "d"]
    rows = [("a", "b", 1.0), ("a", "b", 2.0), ("b", "a", 5.0), ("b", "c", 4.0), ("c", "c", 9.0), ("c", "d", 1.0)]
    edges = Table(pd.DataFrame(rows, columns=["source", "target", "weight"]), "edges", str)
    links = joined(pd.Index(names), edges, Ends("source", "target", "weight"), directed=False)
    pairs = zip(links.edge_index.t().tolist(), links.edge_weight.tolist(), strict=True)
    found = {(names[source], names[target]): weight for (source, target), weight in pairs}
    once = {("a", "b"): 4.0, ("b", "c"): 4.0, ("c", "d"): 1.0}  # 1 + 2 one way, 5 the other: 4 on average
    assert found == once | {(target, source): weight for (source, target), weight in once.items()}
    assert links.loops == 1


def test_missing_labels_are_no_labels_and_are_in_no_mask():
    nodes, edges = people()
    nodes.loc[[2, 9], "drink"] = None
    with pytest.warns(UserWarning, match="2 of 60 nodes have no label, the first is 'p14'"):
        data = from_tables(nodes, edges, label="drink")
    assert (data.y == -1).nonzero().flatten().tolist() == [2, 9]
    assert not (data.train_mask | data.val_mask | data.test_mask)[[2, 9]].any()


def test_a_split_column_is_the_split():
    nodes, edges = people()
    nodes["split"] = ["train", "train", "valid", "TEST"] * 15
    data = from_tables(nodes, edges, label="drink")
    assert data.train_mask.tolist() == [place % 4 < 2 for place in range(60)]
    assert data.val_mask.tolist() == [place % 4 == 2 for place in range(60)]
    assert data.test_mask.tolist() == [place % 4 == 3 for place in range(60)]
    with pytest.raises(InputError, match=r"nodes, row 0: city must be train, val or test, is '(Rome|Oslo)'"):
        from_tables(nodes, edges, label="drink", split_column="city")


@pytest.mark.parametrize("words", [["train", "test", "holdout"], [" Train ", None, "dev", 3]])
def test_a_column_called_split_that_says_something_else_beside_is_refused(words):
    """It is neither a feature nor passed over, for somebody meant it to be the split."""
    nodes, edges = people()
    nodes["Split"] = [words[place % len(words)] for place in range(60)]
    with pytest.raises(InputError, match=r"nodes, row [23]: Split must be train, val or test, is ('holdout'|3)"):
        from_tables(nodes, edges, label="drink")
    named = from_tables(nodes, edges, label="drink", features=["age", "Split"])
    assert named.split == "random"
    assert "Split" in own_of(named).fitted.sources


@pytest.mark.parametrize("words", [[0, 1, 2], ["a", "b", "c"]])
def test_a_column_called_split_that_says_nothing_of_a_split_is_a_feature_and_this_is_said(words):
    nodes, edges = people()
    nodes["split"] = words * 20
    with pytest.warns(
        UserWarning, match=rf"split: does not say train.* \(its first value is {words[0]!r}\); it is a fea"
    ):
        data = from_tables(nodes, edges, label="drink")
    assert "split" in own_of(data).fitted.sources
    with pytest.warns(UserWarning, match="it is not read, and is not the split"):
        assert own_of(from_tables(nodes, edges, label="drink", features="age")).fitted.sources == ["age"] * 2
    new = from_tables(nodes, edges, like=data)
    assert torch.equal(new.x, data.x)


ODD = {
    "unknown ids": (
        lambda nodes, edges: (nodes, pd.concat([edges, pd.DataFrame({"source": ["p0"], "target": ["x"]})])),
        r"edges: 1 edge names no node and is left out, the first is 'x' \(edges, row \d+\)",
    ),
    "the same row again": (
        lambda nodes, edges: (pd.concat([nodes, nodes.iloc[[4]]]), edges),
        r"nodes: 1 row comes again and is left out, the first is id p28 \(nodes, row 60\)",
    ),
    "a class seen once": (
        lambda nodes, edges: (nodes.assign(drink=["gin", *nodes.drink[1:]]), edges),
        "class 'gin' is seen once, on node 'p0'",
    ),
    "a copy of the label": (
        lambda nodes, edges: (nodes.assign(cup=nodes.drink.str.upper()), edges),
        "cup: says the class of every labelled node",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_named(what):
    change, said = ODD[what]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        data = from_tables(*change(*people()), label="drink")
    assert any(pd.Series([str(each.message)]).str.contains(said).all() for each in heard), [
        str(w.message) for w in heard
    ]
    assert data.num_nodes == 60


def test_nothing_odd_is_said_of_nothing_odd(recwarn):
    from_tables(*people(), label="drink")
    assert not [str(each.message) for each in recwarn if "node" in str(each.message)]


def test_a_summary_counts_what_is_there():
    nodes, edges = people()
    nodes = nodes.assign(always=1, note=[f"note {n}" for n in range(60)])
    twice = pd.concat([edges, edges.head(5), pd.DataFrame({"source": ["p0"], "target": ["p0"]})])
    data = from_tables(nodes, twice, label="drink")
    said = summary_of(data)
    pairs = {frozenset(pair) for pair in edges.itertuples(index=False, name=None)}
    assert f"60 nodes, {len(pairs)} undirected edges" in said
    assert f"{homophily(data.edge_index, data.y):.0%} of the edges join nodes of one class" in said
    assert f"1 self-loop, {len(twice) - 1 - len(pairs)} edges that were there already" in said
    for drink, count in nodes.drink.value_counts().items():
        assert f"{drink} {count}" in said
    assert "left out: always (always 1)" in said
    assert "left out: note (text, 60 different values)" in said
    alone = 60 - len(set(edges.source) | set(edges.target))
    assert f"graph: {many(alone, 'node', 'nodes')} without an edge" in said


def test_a_graph_without_features_gets_some_of_its_structure():
    nodes, edges = people()
    data = from_tables(nodes[["id", "drink"]], edges, label="drink")
    assert "the nodes have none" in summary_of(data)
    degree = torch.bincount(data.edge_index[0], minlength=60).double()
    names = own_of(data).fitted.names
    ranked = data.x[:, names.index("degree")].double()
    assert torch.allclose(ranked, (degree - degree.mean()) / degree.std(correction=0), atol=1e-5)
    again = from_tables(nodes[["id"]], edges, like=data)
    assert torch.equal(again.x, data.x)


def test_a_new_graph_goes_through_the_same_columns():
    nodes, edges = people()
    data = from_tables(nodes, edges, label="drink")
    some = nodes.iloc[:30]
    inside = edges[edges.source.isin(some.id) & edges.target.isin(some.id)]
    new = from_tables(some[["id", "city", "age"]], inside, like=data)
    assert torch.equal(new.x, data.x[:30])
    assert new.get("y") is None
    other = from_tables(some.assign(drink="milk"), inside, like=data, label="drink")
    assert other.class_names == data.class_names
    assert other.y.tolist() == [data.class_names.index("milk")] * 30
    assert other.get("train_mask") is None
    with pytest.raises(InputError, match="has no column 'age'"):
        from_tables(some[["id", "city"]], inside, like=data)
    with pytest.raises(InputError, match="nodes, row 0: age must be a number, is 'old'"):
        from_tables(some.assign(age="old"), inside, like=data)


def test_a_card_gives_the_graph_its_name(tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    nodes, edges = people()
    written(folder, nodes.rename(columns={"id": "who"}), edges)
    card = tmp_path / "friends.yaml"
    card.write_text(card_text(card_of(str(folder), Columns(id="who", label="drink"))))
    first, again = load(str(card), seed=3), read(folder, id="who", label="drink", seed=3)
    for key in ("x", "edge_index", "y", "train_mask"):
        assert torch.equal(first[key], again[key])
    assert first.name == "friends"


def test_flags_say_what_is_what():
    from mowst.experiment.reading import config_of, parse

    line = "--dataset here/ --label drink --id who --split-column part --features age,city --nodes-file n.csv"
    columns = config_of(parse(flags(), line.split())).columns
    expected = Columns(id="who", label="drink", split_column="part", features="age,city", nodes_file="n.csv")
    assert columns == expected
    assert columns.listed == ["age", "city"]


@pytest.mark.parametrize(
    ("option", "value"), [("label", "x"), ("id", "x"), ("features", "age,x"), ("split_column", "x")]
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(option, value):
    with pytest.raises(InputError, match=f"{option}: unknown 'x'.*age.*city"):
        from_tables(*people(), **{"label": "drink", option: value})


@pytest.mark.parametrize("labels", [[0, 1, 2, 1], [3, 7, 7, 9]])
def test_arrays_like_another_graph_have_its_class_numbers(labels, tmp_path):
    """Though not all classes occur in them, and what are no classes there has no label."""
    edges = np.array([[0, 1, 2], [1, 2, 3]])
    np.savez(tmp_path / "first.npz", x=np.eye(8)[:, :2], edge_index=edges, y=labels * 2)
    np.savez(tmp_path / "other.npz", x=np.eye(4)[:, :2], edge_index=edges, y=[labels[2], labels[2], -1, labels[0]])
    first = read(tmp_path / "first.npz")
    other = read(tmp_path / "other.npz", like=first)
    assert other.y.tolist() == [int(first.y[2]), int(first.y[2]), -1, int(first.y[0])]


def test_endings_may_be_in_capitals(tmp_path):
    nx.write_graphml(network(), tmp_path / "G.GraphML")
    assert read(tmp_path / "G.GraphML", label="group").num_nodes == N
    (tmp_path / "bad.GRAPHML").write_bytes(
        b'<!DOCTYPE b [<!ENTITY a "ha">]>' + (tmp_path / "G.GraphML").read_bytes()[38:]
    )
    with pytest.raises(InputError, match="document type"):
        read(tmp_path / "bad.GRAPHML", label="group")


def test_reading_a_file_of_tensors_leaves_what_torch_may_read_as_it_was(tmp_path):
    """What PyG allows stays allowed: a graph of its own is read afterwards as before."""
    torch.serialization.add_safe_globals([Data])  # as PyG does when it reads its first graph
    before = set(torch.serialization.get_safe_globals())
    data = Data(x=torch.rand(4, 2), y=torch.tensor([0, 1, 0, 1]), edge_index=torch.tensor([[0, 1], [1, 2]]))
    torch.save(data, tmp_path / "g.pt")
    read(tmp_path / "g.pt")
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("names", [["a", "bb", "ø", "a b", "x" * 23, "x" * 24], ["007", "7", "x" * 70, "b"]])
def test_ends_that_are_text_are_found_as_they_are_written(tmp_path, names):
    draw = np.random.default_rng(0)
    ends = draw.integers(0, len(names), (2, 200))
    nodes = pd.DataFrame({"id": names, "label": ["tea", "milk"] * (len(names) // 2), "age": range(len(names))})
    edges = pd.DataFrame({"source": np.array(names)[ends[0]], "target": np.array(names)[ends[1]]})
    written(tmp_path, nodes, edges)
    found = read_edges(tmp_path / "edges.csv", lambda columns: columns[:2], pd.Series(names))
    assert found.rows.astype(str).to_numpy().tolist() == edges.to_numpy().tolist()
    edges.loc[40, "target"] = names[1] + "\t"
    edges.loc[41, "source"] = "x" * 100
    written(tmp_path, nodes, edges)
    with pytest.warns(UserWarning, match=r"2 edges name no node .* the first is .*\\t' \(edges\.csv, line 42\)"):
        read(tmp_path, label="label")
    edges.loc[42, "source"] = None
    written(tmp_path, nodes, edges)
    with pytest.raises(InputError, match="line 44: the source is missing"):
        read(tmp_path, label="label")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("g.adjlist", "dataset: g.adjlist is of no kind that is read: "),
        ("there/g", "dataset: there/g is of no kind that is read: "),
        ("nowhere", "dataset: there is no file or folder nowhere, and no graph of that name; --list names them"),
        ("coar", "dataset: there is no file or folder coar, and no graph of that name; did you mean cora"),
        ("no/where", "dataset: there is no file or folder no/where"),
        ("no/where.adjlist", "dataset: there is no file or folder no/where.adjlist"),
        ("no/where.csv", "dataset: there is no file or folder no/where.csv"),
    ],
)
def test_a_dataset_that_is_not_there_or_cannot_be_read_is_said_to_be_so(name, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    for path in ("g.adjlist", "there/g"):
        (tmp_path / path).write_text("1 2\n")
    with pytest.raises(InputError, match=f"^{said}"):
        load(name)
