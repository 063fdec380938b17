"""Decimal commas in files whose columns something else separates."""

import numpy as np
import pytest
import torch

from mowst.data import from_tables, read
from mowst.data.assembling import own_of
from tests.test_own_graphs import people, same


def with_commas(folder, nodes, edges, sep=";"):
    """Write tables as a spreadsheet does in countries that write 1,5."""
    for name, held in (("nodes", nodes), ("edges", edges)):
        held.to_csv(folder / f"{name}.csv", index=False, sep=sep, decimal=",")
    return folder


@pytest.mark.parametrize("sep", [";", "\t", "|"])
def test_decimal_commas_are_read_as_points_where_no_comma_separates_columns(sep, tmp_path):
    nodes, edges = people()
    nodes["large"] = np.arange(60) * 1234.5 - 9
    nodes["part"] = np.arange(60) / 8 + 100.125 * (np.arange(60) % 2)
    edges["weight"] = np.arange(len(edges)) / 4
    with_commas(
        tmp_path,
        nodes.assign(large=nodes.large.map("{:,.1f}".format).str.translate(str.maketrans(",.", ".,"))),
        edges,
        sep,
    )
    with pytest.warns(
        UserWarning, match=r"nodes\.csv: age, large, part: a comma is read as the decimal point, "
    ) as heard:
        data = read(tmp_path, label="drink")
    assert any("edges.csv: weight: a comma is read as the decimal point" in str(each.message) for each in heard)
    plain = from_tables(nodes, edges, label="drink")
    same(data, plain)
    assert torch.equal(data.edge_weight, plain.edge_weight)
    with pytest.warns(UserWarning, match="a comma is read"):
        assert torch.equal(read(tmp_path, like=plain).x, plain.x)


def test_few_words_among_numbers_with_commas_are_missing(tmp_path):
    nodes, edges = people()
    text = nodes.age.astype(str).str.replace(".", ",").where(nodes.age.notna(), None)
    text[6] = "-"
    with pytest.warns(
        UserWarning,
        match=r"age: 1 of 59 values is no number and is read as missing: '-', the first in nodes\.csv, line 8",
    ):
        data = read(with_commas(tmp_path, nodes.assign(age=text), edges), label="drink")
    same(data, from_tables(nodes.assign(age=nodes.age.where(nodes.index != 6)), edges, label="drink"))


@pytest.mark.parametrize("told", [False, True])
def test_a_comma_that_may_stand_between_thousands_is_read_only_where_another_column_tells(told, tmp_path):
    nodes, edges = people()
    nodes["height"] = [f"1,{n}" if told else n for n in range(60)]
    nodes["size"] = [f"{n % 9 + 1},{n % 7}50" for n in range(60)]
    nodes = nodes.drop(columns="age")
    words = (
        "height, size: a comma is read" if told else "size: '1,050' may be 1050 or 1.050, and is read as text; write"
    )
    with pytest.warns(UserWarning, match=words):
        data = read(with_commas(tmp_path, nodes, edges), label="drink")
    assert ("size" in own_of(data).fitted.names) == told


def test_commas_elsewhere_stay(tmp_path):
    """In ids, in words, beside points, and in a file whose columns they separate."""
    nodes, edges = people()
    name = {old: f"{place // 10},{place % 10}" for place, old in enumerate(nodes.id)}
    moved = edges.assign(source=edges.source.map(name), target=edges.target.map(name), id=0)
    named = nodes.assign(id=nodes.id.map(name), city=nodes.city + ",1", mixed=["1,5", "1.5"] * 30).drop(columns="age")
    for sep in (";", ","):
        for held, file in ((named, "nodes"), (moved, "edges")):
            held.to_csv(tmp_path / f"{file}.csv", index=False, sep=sep)
        data = read(tmp_path, label="drink")
        assert data.node_names == list(name.values())
        assert own_of(data).table["mixed"].tolist() == ["1,5", "1.5"] * 30
