"""What of a person's own graph is not as it stands there is said: which words, how many, and where the first is."""

import json
import re
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from mowst.data import from_networkx, from_tables, read, summary_of
from mowst.data.assembling import Like, own_of, raw_of
from mowst.data.fitted import Fitted
from mowst.data.numerals import strays
from mowst.errors import InputError, many
from tests.fuzzing.files import network
from tests.test_own_graphs import people, same, written


def test_words_that_are_read_as_no_label_are_named_and_counted(tmp_path):
    """In a text file pandas reads NA, None and the like as nothing; in a table or a graph file text stays a class."""
    nodes, edges = people()
    drink = nodes.drink.astype(object)
    drink[:9], drink[9], drink[10:13] = "NA", None, "None"
    nodes["drink"] = drink
    said = "13 of 60 nodes have no label, the first is 'p0'; 9 say 'NA', which is read as no label, 3 say 'None', which"
    twice = pd.concat([nodes.iloc[:1], nodes])  # a row that comes again moves no word to another node
    for made in (nodes, twice):
        with pytest.warns(UserWarning, match=said):
            data = read(written(tmp_path, made, edges), label="drink")
        assert (data.y < 0).tolist() == [place < 13 for place in range(60)]
    kept = pd.read_csv(tmp_path / "nodes.csv", keep_default_na=False, na_values=[""]).drop_duplicates()
    found = from_tables(kept, edges, label="drink")
    assert found.class_names == ["NA", "None", "coffee", "milk", "tea"]
    assert torch.equal(found.x, data.x)


@pytest.mark.parametrize("values", [[-1, 0, 1], [-1.0, 0.0, None]])
def test_minus_one_that_is_no_label_is_named_and_counted(values, tmp_path):
    nodes, edges = people()
    nodes["drink"] = [*values, 0, 1, 1] * 10
    with pytest.warns(
        UserWarning, match=r"nodes have no label, the first is 'p0'; 10 say -1, which is read as no label"
    ):
        read(written(tmp_path, nodes, edges), label="drink")
    np.savez(tmp_path / "g.npz", x=np.eye(6), edge_index=[[0, 1], [1, 2]], y=[-1, 0, 1, 0, 1, -1])
    with pytest.warns(UserWarning, match="2 of 6 nodes have no label; where -1 is a class of its own"):
        read(tmp_path / "g.npz")


def test_classes_that_the_graph_like_it_has_not_are_named_and_counted():
    nodes, edges = people()
    data = from_tables(nodes, edges, label="drink")
    with pytest.warns(UserWarning, match=r"2 of 60 nodes have no label.*; 2 say 'gin', which is no class of the graph"):
        from_tables(nodes.assign(drink=["gin"] * 2 + nodes.drink.tolist()[2:]), edges, like=data, label="drink")


def test_a_row_stands_where_it_stood_though_one_before_came_again():
    nodes, edges = people()
    nodes["age"] = nodes.age.astype(object)
    nodes.loc[20, "age"] = float("inf")
    again = pd.concat([nodes.iloc[:1], nodes])
    with pytest.raises(InputError, match="nodes, row 21: age is inf"):
        from_tables(again, edges, label="drink")


def numbers_and_words(column: pd.Series, words: dict[int, str]) -> pd.Series:
    """Return a column as text, with words in some rows."""
    return pd.Series([words.get(row, value) for row, value in enumerate(column.astype(str))])


@pytest.mark.parametrize("dates", [False, True])
@pytest.mark.parametrize("words", [{6: "-"}, {0: "?", 41: "-", 59: "?"}])
def test_a_few_words_among_numbers_or_dates_are_missing_and_named(dates, words, tmp_path):
    """The graph is the one with nothing in these places, and another graph is read by the same words."""
    nodes, edges = people()
    nodes["age"] = pd.date_range("2001-02-03", periods=60).strftime("%Y-%m-%d") if dates else np.arange(60) % 45 + 0.5
    worded, empty = nodes.copy(), nodes.copy()
    worded["age"] = numbers_and_words(nodes.age, words)
    empty["age"] = nodes.age.where(~nodes.index.isin(list(words)))
    kind, first, distinct = "date" if dates else "number", min(words), list(dict.fromkeys(words.values()))
    named = ", ".join(map(repr, distinct)).replace("?", "[?]")
    many = f"is no {kind} and is" if len(words) == 1 else f"are no {kind}s and are"
    said = rf"age: {len(words)} of 60 values {many} read as missing: {named}, the first in nodes\.csv, line"
    with pytest.warns(UserWarning, match=f"{said} {first + 2}$"):
        data = read(written(tmp_path, worded, edges), label="drink")
    plain = from_tables(empty, edges, label="drink")
    assert torch.equal(data.x, plain.x)
    assert torch.equal(raw_of(data).values.nan_to_num(-9.0), raw_of(plain).values.nan_to_num(-9.0))
    kept = Fitted.read(json.loads(own_of(data).fitted.text()), "file")
    new = from_tables(worded, edges, like=Like(kept, data.class_names))
    assert torch.equal(new.x, data.x)
    worded.loc[30, "age"] = "unknown"
    with pytest.raises(InputError, match=r"nodes, row 30: age must be .*, is 'unknown'"):
        from_tables(worded, edges, like=data)


@pytest.mark.parametrize(
    "column",
    [
        [*"abcdef", *map(str, range(54))],
        ["?"] * 4 + ["7"] * 56,
        [str(n % 4) for n in range(60)],
        [["?"]] + [[n] for n in range(59)],
        ["a", "b"] * 30,
        ["True"] * 30 + ["False"] * 29 + ["?"],
    ],
)
def test_more_words_make_a_column_of_text_as_ever(column):
    assert strays(pd.Series(column, dtype=object)) == []


@pytest.mark.filterwarnings("ignore:.*no column is called id")
@pytest.mark.parametrize("called", ["id", "who"])
@pytest.mark.parametrize("edge_ids", [["source", "target"], ["edge"], ["target"]])
def test_a_named_index_holds_the_ids(called, edge_ids):
    nodes, edges = people()
    edges = edges.assign(edge=range(len(edges)), kind="friend")
    indexed = nodes.rename(columns={"id": called}).set_index(called), edges.set_index(edge_ids)
    same(from_tables(*indexed, label="drink"), from_tables(nodes, edges, label="drink"))


def test_an_index_that_holds_something_else_is_no_column():
    nodes, edges = people()
    same(
        from_tables(nodes.rename_axis("place"), edges.rename_axis("place"), label="drink"),
        from_tables(nodes, edges, label="drink"),
    )


@pytest.mark.parametrize("form", ["table", "csv", "index without a name"])
def test_ids_for_want_of_such_a_column_are_those_of_the_first_and_this_is_said(form, tmp_path):
    nodes, edges = people()
    lost = nodes.set_index("id").rename_axis(None) if "index" in form else nodes.drop(columns="id")
    way = r"\(no column is called id, so the first, 'age', is taken for the ids; --id names another\)"
    with pytest.raises(InputError, match=r"nodes(\.csv, line 5|, row 3): the id is missing " + way):
        read(written(tmp_path, lost, edges), label="drink") if form == "csv" else from_tables(
            lost, edges, label="drink"
        )
    with pytest.warns(UserWarning, match="no column is called id, so the first, 'who', is taken"):
        from_tables(nodes.rename(columns={"id": "who"}), edges, label="drink")


@pytest.mark.parametrize("blank", [" {}", "{} ", "\t{}\u00a0"])
def test_blanks_around_labels_and_categories_make_no_other_ones_and_are_said(blank, tmp_path):
    nodes, edges = people()
    blanks = nodes.assign(drink=nodes.drink.astype(object), city=nodes.city.astype(object))
    for name in ("drink", "city"):
        blanks.loc[7:30:3, name] = blanks.loc[7:30:3, name].map(blank.format)
    for form in (read, from_tables):
        args = (written(tmp_path, blanks, edges),) if form is read else (blanks, edges)
        first = blanks.drink[7]
        where = r"nodes\.csv, line 9" if form is read else "nodes, row 7"
        said = re.escape(
            f"drink: blanks are left out around 8 values; the first is {first!r}, read as {nodes.drink[7]!r}"
        )
        with pytest.warns(UserWarning, match=rf"{said} \({where}\)") as heard:
            data = form(*args, label="drink")
        assert any(str(each.message).startswith("city: blanks are left out around 8 values") for each in heard)
        same(data, from_tables(nodes, edges, label="drink"))
        with pytest.warns(UserWarning, match="city: blanks"):
            assert torch.equal(from_tables(blanks, edges, like=data).x, data.x)


def test_blanks_around_labels_of_networkx_are_left_out_and_said():
    G, blank = network(), network()
    blank.nodes["p3"]["group"], blank.nodes["p5"]["group"] = " b", "b "
    with pytest.warns(UserWarning, match="blanks are left out around 2 labels; the first is ' b', read as 'b'"):
        found = from_networkx(blank, "group", ["size"])
    assert torch.equal(found.y, from_networkx(G, "group", ["size"]).y)
    named = from_networkx(blank, "group", ["size"], class_names=["a", " b", "b ", "b"])
    assert sorted(named.y.unique().tolist()) == [0, 1, 2, 3]


def test_nothing_but_blanks_is_no_label():
    nodes, edges = people()
    with pytest.warns(UserWarning, match="1 of 60 nodes has no label"):
        data = from_tables(nodes.assign(drink=["  ", *nodes.drink[1:]]), edges, label="drink")
    assert int(data.y[0]) == -1


VECTORS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "float32": lambda row: np.array(row, np.float32),
    "tensor": torch.tensor,
    "numbers of numpy": lambda row: [np.float64(each) for each in row],
}


@pytest.mark.parametrize("form", VECTORS)
@pytest.mark.parametrize("missing", [False, True])
def test_a_column_of_vectors_is_a_column_for_each_number(form, missing):
    nodes, edges = people()
    rows = np.random.default_rng(0).integers(-9, 9, (60, 3)) / 4
    apart = nodes.assign(**{f"place {each}": rows[:, each] for each in range(3)})
    held = [VECTORS[form](row) for row in rows.tolist()]
    if missing:
        held[4] = None
        apart.loc[4, ["place 0", "place 1", "place 2"]] = np.nan
    data = from_tables(nodes.assign(place=pd.Series(held, dtype=object)), edges, label="drink")
    plain = from_tables(apart, edges, label="drink")
    same(data, plain)
    assert own_of(data).fitted == own_of(plain).fitted


@pytest.mark.parametrize("change", [lambda n: [0.5] * (n % 2 + 1), lambda n: [[n]], lambda n: {n: 1}, lambda n: n + 1j])
def test_columns_that_hold_no_feature_are_left_out_and_this_is_said(change):
    nodes, edges = people()
    with pytest.warns(
        UserWarning, match=r"place: is left out, it holds (lists or tables|complex numbers); a feature is"
    ):
        data = from_tables(nodes.assign(place=[change(n) for n in range(60)]), edges, label="drink")
    same(data, from_tables(nodes, edges, label="drink"))


def test_vectors_do_not_replace_a_column_that_is_called_so():
    nodes, edges = people()
    both = nodes.assign(place=[[n, 0.5] for n in range(60)], **{"place 1": range(60)})
    with pytest.warns(UserWarning, match="place: is left out"):
        assert "place 1" in own_of(from_tables(both, edges, label="drink")).fitted.sources


def test_complex_numbers_lose_nothing_without_a_word():
    nodes, edges = people()
    data = from_tables(nodes, edges, label="drink")
    with pytest.raises(InputError, match=r"row 0: age must be a number, is \(?0j"):
        from_tables(nodes.assign(age=np.arange(60) * 1j), edges, like=data)
    with pytest.raises(InputError, match=r"edges, row 0: weight is \(?0?[+]?1j.*; a weight must be a number from 0"):
        from_tables(nodes, edges.assign(weight=1j), label="drink")
    G = network()
    nx.set_node_attributes(G, {node: np.array([1 + 2j]) for node in G}, "wave")
    with pytest.raises(InputError, match=r"attribute 'wave' of node 'p0' is .*, not a number or a vector"):
        from_networkx(G, "group", ["wave"])


@pytest.mark.parametrize("form", ["tables", "arrays"])
def test_weights_that_are_all_0_are_said(form, tmp_path):
    nodes, edges = people()
    if form == "tables":
        with pytest.warns(UserWarning, match="weight: is 0 on all edges, which then join nothing for experts that use"):
            from_tables(nodes, edges.assign(weight=0.0), label="drink")
        return
    np.savez(tmp_path / "g.npz", x=np.eye(6), edge_index=[[0, 1], [1, 2]], y=[0, 1, 0, 1, 0, 1], edge_weight=[0.0, 0.0])
    with pytest.warns(UserWarning, match="edge_weight: is 0 on all edges"):
        read(tmp_path / "g.npz")


def test_weights_of_which_one_is_not_0_are_not_spoken_of(recwarn):
    nodes, edges = people()
    from_tables(nodes, edges.assign(weight=[1.0] + [0.0] * (len(edges) - 1)), label="drink")
    assert not [str(each.message) for each in recwarn if "weight" in str(each.message)]


@pytest.mark.parametrize("ids", ["text", "numbers"])
def test_a_table_without_rows_is_refused_by_its_name(ids, tmp_path):
    nodes, edges = people()
    nodes = nodes if ids == "text" else nodes.assign(id=range(60))
    with pytest.raises(InputError, match=r"^edges\.csv: has no rows, and so the graph no edges$"):
        read(written(tmp_path, nodes, edges[:0]), label="drink")
    with pytest.raises(InputError, match=r"^edges: has no rows, and so the graph no edges$"):
        from_tables(nodes, edges[:0], label="drink")
    with pytest.raises(InputError, match=r"^nodes\.csv: has no rows"):
        read(written(tmp_path, nodes[:0], edges), label="drink")


@pytest.mark.parametrize(
    ("form", "value", "why"),
    [
        ("csv", 0.25, "a real number"),
        ("csv", -7.0, "below 0"),
        ("table", 0.25, "a real number"),
        ("table", -7.0, "below 0"),
        ("words", 0.25, "a real number"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_place_and_node(form, value, why, tmp_path):
    nodes, edges = people()
    nodes["drink"] = np.where(np.arange(60) == 9, value, np.arange(60) % 3 * 1.0)
    if form == "words":
        nodes["drink"] = nodes.drink.astype(object).where(nodes.index != 30, "tea")
    place = r"nodes\.csv, line 11" if form == "csv" else "nodes, row 9"
    with pytest.raises(
        InputError, match=rf"^drink: .*{place} \(node 'p63'\).*{why}|^drink: .*{why}.*{place} \(node 'p63'\)"
    ):
        read(written(tmp_path, nodes, edges), label="drink") if form == "csv" else from_tables(
            nodes, edges, label="drink"
        )


def test_one_is_spoken_of_as_one():
    assert many(1, "row comes", "rows come") == "1 row comes"
    assert [many(number, "row comes", "rows come") for number in (0, 2, 1000)] == [
        "0 rows come",
        "2 rows come",
        "1,000 rows come",
    ]
    nodes, edges = people()
    nodes = pd.concat([nodes.assign(drink=[None, *nodes.drink[1:]]), nodes.tail(1)])
    edges = edges[(edges != "p7").all(axis=1)]
    edges = pd.concat([edges.drop_duplicates(), pd.DataFrame({"source": ["p0", "p0"], "target": ["p0", "nobody"]})])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        data = from_tables(nodes, edges, label="drink", features="age")
    said = "\n".join([*(str(each.message) for each in heard), summary_of(data)])
    for part in (
        "1 of 60 nodes has no label",
        "1 row comes again and is left out",
        "1 edge names no node and is left out",
    ):
        assert part in said
    for part in ("graph: 1 node without an edge", "left out: 1 self-loop", "1 column becomes 2"):
        assert part in said
