"""Files of whole graphs are read as tables are: nothing in them is merged, turned or made up without a word."""

import json

import networkx as nx
import pytest

from mowst import run
from mowst.data import read
from mowst.errors import InputError
from mowst.experiment import reading
from tests.fuzzing.files import N, network


def network_file(folder, kind: str):
    """Write a graph of networkx, and return its file and text."""
    path = folder / f"g.{kind}"
    if kind == "json":
        path.write_text(json.dumps(nx.node_link_data(network(), edges="links"), indent=1))
    else:
        getattr(nx, f"write_{kind}")(network(), path)
    return path, path.read_text()


@pytest.mark.parametrize("one_line", [False, True])
@pytest.mark.parametrize("kind", ["graphml", "gexf", "gml", "json"])
def test_a_node_that_is_listed_twice_is_refused(kind, one_line, tmp_path):
    """networkx would make one node of both, which keeps the values of the later one."""
    path, text = network_file(tmp_path, kind)
    path.write_text(text.replace("p7", "p6").replace("\n", " " if one_line else "\n"))
    with pytest.raises(InputError, match=r"p6' was there already|have the same id, 'p6'|label 'p6' is duplicated"):
        read(path, label="group")


@pytest.mark.parametrize("kind", ["graphml", "gexf", "json"])
def test_edges_of_a_graph_file_that_name_no_node_of_its_are_left_out_and_named(kind, tmp_path):
    path, text = network_file(tmp_path, kind)
    path.write_text(text.replace('source="p3"', 'source="p99"').replace('"source": "p3"', '"source": "p99"'))
    with pytest.warns(UserWarning, match=r"1 edge names no node and is left out, the first is 'p99' \(g\.\w+, edge 'p"):
        found = read(path, label="group")
    assert found.num_nodes == N
    assert found.edge_index.size(1) == 2 * (N - 1)
    assert (found.y >= 0).all()


def test_a_file_of_several_graphs_is_refused(tmp_path):
    path, text = network_file(tmp_path, "graphml")
    path.write_text(text.replace("</graphml>", '<graph id="other" edgedefault="undirected"/></graphml>'))
    with pytest.raises(InputError, match=r"line \d+: a second graph begins"):
        read(path, label="group")


@pytest.mark.parametrize("kind", ["graphml", "gexf", "gml", "json"])
def test_a_direction_that_a_file_says_is_not_given_up_without_a_word(kind, tmp_path):
    G = nx.DiGraph(network().edges)
    nx.set_node_attributes(G, dict(network().nodes(data=True)))
    path, undirected = tmp_path / f"g.{kind}", network_file(tmp_path, kind)[1]
    if kind == "json":
        path.write_text(json.dumps(nx.node_link_data(G, edges="links")))
    else:
        getattr(nx, f"write_{kind}")(G, path)
    with pytest.warns(UserWarning, match=rf"g\.{kind}: says that its edges lead one way.*; --directed true keeps it"):
        both = read(path, label="group")
    one = read(path, label="group", directed=True)
    pairs = {(one.node_names[source], one.node_names[target]) for source, target in one.edge_index.t().tolist()}
    assert pairs == set(G.edges)
    assert both.edge_index.size(1) == 2 * len(pairs)
    path.write_text(undirected)
    with pytest.raises(
        InputError, match=rf"g\.{kind}: says that its edges have no direction; leave out --directed true"
    ):
        read(path, label="group", directed=True)


def test_links_lead_from_source_to_target_where_json_does_not_say_whether_they_do(tmp_path):
    held = nx.node_link_data(network(), edges="links")
    del held["directed"]
    held["links"] = [{"source": each["target"], "target": each["source"]} for each in held["links"]]
    (tmp_path / "g.json").write_text(json.dumps(held))
    one = read(tmp_path / "g.json", label="group", directed=True)
    pairs = {(one.node_names[source], one.node_names[target]) for source, target in one.edge_index.t().tolist()}
    assert pairs == {(each["source"], each["target"]) for each in held["links"]}


@pytest.mark.parametrize("multi", [False, True, None])
def test_links_of_json_that_come_again_add_up_as_those_of_tables(multi, tmp_path):
    """Whatever the file says of itself: networkx would keep the last one alone."""
    held = nx.node_link_data(network(), edges="links")
    held["links"] = [each | {"weight": 1.0, "key": ["x"]} for each in held["links"]]
    held["links"].append(held["links"][0] | {"weight": 2.5})
    held |= {} if multi is None else {"multigraph": multi}
    if multi is None:
        del held["multigraph"]
    (tmp_path / "g.json").write_text(json.dumps(held))
    data = read(tmp_path / "g.json", label="group")
    assert sorted(data.edge_weight.tolist()) == [1.0] * (2 * N - 2) + [3.5] * 2


@pytest.mark.parametrize("kind", ["graphml", "json"])
def test_edges_of_a_graph_file_without_a_weight_weigh_1_and_this_is_said(kind, tmp_path):
    G = network()
    nx.set_edge_attributes(G, dict.fromkeys(list(G.edges)[3:], 2.0), "weight")
    path = tmp_path / f"g.{kind}"
    path.write_text(json.dumps(nx.node_link_data(G, edges="links")) if kind == "json" else "")
    if kind == "graphml":
        nx.write_graphml(G, path)
    with pytest.warns(UserWarning, match=rf"weight: 3 of {N} edges have none, which is read as 1"):
        data = read(path, label="group")
    assert sorted(data.edge_weight.tolist()) == [1.0] * 6 + [2.0] * (2 * N - 6)


@pytest.mark.parametrize("form", ["--dataset {}", "--dataset={}"])
def test_a_graph_in_json_is_no_configuration(form, tmp_path, monkeypatch):
    """Nor has it the bounds of one."""
    monkeypatch.setattr("mowst.system.documents.LARGEST", 3)
    (tmp_path / "graph.json").write_text('{"nodes": [')
    given = form.format(tmp_path / "graph.json").split()
    assert reading.parse(run.flags(), given).dataset == str(tmp_path / "graph.json")
    with pytest.raises(InputError, match="configuration"):
        reading.parse(run.flags(), ["--config", str(tmp_path / "graph.json")])
