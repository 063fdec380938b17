"""What is cut out of a graph answers as the whole graph does, and reads what brute force says it must."""

import networkx as nx
import pytest
import torch
from torch import nn
from torch_geometric.nn import SGConv, models
from torch_geometric.utils import k_hop_subgraph

from mowst.inference import frontier
from mowst.inference.frontier import Costs, at_nodes, run_frontier
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.sparse_features import prepare_features
from mowst.models.experts import expert
from mowst.models.reads import Reads, reads_of, run_module
from tests.graphs import TRAINED

N = 300
GNNS = [name for name in TRAINED if name != "mlp"]


def edges(directed: bool = True) -> torch.Tensor:
    """A sparse random graph with self-loops and duplicates; nodes 290 to 299 are isolated, node 0 has no edge in."""
    edge_index = torch.randint(N - 10, (2, 2 * N), generator=torch.Generator().manual_seed(0))
    edge_index = torch.cat([edge_index[:, edge_index[1] != 0], torch.tensor([[3, 3, 4, 4], [3, 3, 5, 5]])], dim=1)
    return edge_index if directed else torch.cat([edge_index, edge_index.flip(0)], dim=1)


def features(sparse: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, 12, generator=generator)
    return prepare_features(x * (torch.rand(N, 12, generator=generator) < 0.05)) if sparse else x


def build(name: str, num_layers: int = 2, **options) -> nn.Module:
    """An expert whose batch norms have statistics that matter."""
    torch.manual_seed(0)
    options = {"hidden_channels": 16, "norm": "batch_norm", "dropout": 0.5, **options}
    model = expert(name, 12, 4, num_layers=num_layers, **options)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize("norm", ["pair_norm", "graph_norm", "layer_norm", "batch_norm"])
def test_an_mlp_is_cut_only_where_its_norm_looks_at_single_nodes(norm):
    model = build("mlp", 2, norm=norm)
    whole = run_module(model, reads_of(model), features(), edges(False))
    some, touched = at_nodes(model, reads_of(model), features(), edges(False), torch.tensor([5, 200]))
    torch.testing.assert_close(some, whole[[5, 200]])
    assert (touched.nodes == 2) == (norm in ("layer_norm", "batch_norm"))


NODES = {
    "one": [17],
    "several, unsorted": [40, 3, 299, 0, 8],
    "isolated": [295, 296],
    "none": [],
    "all": list(range(N)),
}


@pytest.fixture
def always_cut(monkeypatch):
    monkeypatch.setattr(Costs, "too_dear", lambda self, nodes, entries: False)


@pytest.mark.usefixtures("always_cut")
@pytest.mark.parametrize("nodes", NODES.values(), ids=NODES)
@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("name", TRAINED)
def test_a_cut_answers_as_the_whole_graph_does(name, directed, nodes):
    edge_index, nodes = edges(directed), torch.tensor(nodes, dtype=torch.long)
    adjacency = Adjacency.from_edge_index(edge_index, N)
    for num_layers in (1, 3):
        model = build(name, num_layers)
        reads, edgeless = reads_of(model), name == "mlp"
        whole = {"mlp": (0, False), "sign": (3, False)}  # averages of the whole graph are made once, and kept
        told = whole.get(name, (num_layers, True))
        assert (reads.hops, reads.by_layer) == told, "no other expert by name is run whole for a few nodes"
        with torch.no_grad():
            want = run_module(model, reads, features(), adjacency)[nodes]
            plain = run_module(model, reads, features(), edge_index)[nodes]
        for graph in (adjacency, edge_index):
            got, touched = at_nodes(model, reads, features(), graph, nodes)
            assert touched.nodes == len(nodes) if edgeless else touched.nodes >= len(nodes)
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(got, plain, atol=1e-5, rtol=1e-4)


OPTIONS = [
    ("gcn-res", {"pre_linear": True}),
    ("sage-res", {"pre_linear": True, "residual": False}),
    ("sage", {"aggr": "max"}),
    ("sage", {"jk": "last", "act": "elu", "act_first": True}),
    ("gin", {"train_eps": True}),
    ("gat", {"heads": 4, "v2": True}),
    ("gcn", {"norm": "layer_norm"}),
    ("torch_geometric.nn.models.GCN", {"normalize": False}),
]


@pytest.mark.usefixtures("always_cut")
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=[str(option) for option in OPTIONS])
def test_options_and_sparse_features_change_nothing_of_it(name, options, sparse):
    model, adjacency, nodes = build(name, **options), Adjacency.from_edge_index(edges(), N), torch.tensor([9, 200, 4])
    x = features(sparse)
    got, touched = at_nodes(model, reads_of(model), x, adjacency, nodes)
    assert touched.nodes < N / 2
    with torch.no_grad():
        want = run_module(model, reads_of(model), x, adjacency)[nodes]
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("always_cut")
def test_weights_of_edges_are_kept():
    weight = torch.rand(edges().size(1), generator=torch.Generator().manual_seed(2))
    adjacency, nodes = Adjacency.from_edge_index(edges(), N, weight), torch.arange(0, 60, 7)
    for name in ("gcn", "sage", "gin"):
        model = build(name)
        reads = reads_of(model)
        with torch.no_grad():
            want = run_module(model, reads, features(), adjacency)[nodes]
        got, _ = at_nodes(model, reads, features(), adjacency, nodes)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("always_cut")
@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("directed", [True, False])
def test_the_touched_are_counted_as_pyg_and_networkx_count_them(hops, directed):
    edge_index, nodes = edges(directed), torch.tensor([5, 33, 295])
    adjacency = Adjacency.from_edge_index(edge_index, N)
    model = build("sage", hops)
    _, touched = at_nodes(model, reads_of(model), features(), adjacency, nodes)
    within = k_hop_subgraph(nodes, hops, edge_index, num_nodes=N)[0]
    inner = k_hop_subgraph(nodes, hops - 1, edge_index, num_nodes=N)[0] if hops > 1 else nodes
    assert touched == (len(within), int(torch.isin(edge_index[1], inner).sum()), N, edge_index.size(1))

    against = nx.MultiDiGraph()
    against.add_nodes_from(range(N))
    against.add_edges_from(edge_index.flip(0).t().tolist())
    reached = set().union(*(nx.single_source_shortest_path_length(against, int(node), hops) for node in nodes))
    assert reached == set(within.tolist())


@pytest.mark.usefixtures("always_cut")
def test_normalised_graphs_count_their_self_loops():
    model, adjacency, nodes = build("gcn"), Adjacency.from_edge_index(edges(), N), torch.tensor([295])
    _, touched = at_nodes(model, reads_of(model), features(), adjacency, nodes)
    assert touched == (1, 1, N, len(adjacency.gcn().rows.column))


class OwnForward(models.GraphSAGE):
    """Inherits PyG's layers, but does something else with them."""

    def forward(self, x, edge_index):
        return super().forward(x - x.mean(0), edge_index)


class OwnLayers(models.GraphSAGE):
    """Says how its layers go one by one."""

    reads = Reads(hops=2, adjacency=True, sparse=True, by_layer=True)

    def forward(self, x, edge_index):
        return super().forward(2 * x, edge_index)

    def inference_per_layer(self, layer, x, edge_index, batch_size):
        if layer == 0:
            x = (2 * x[0], 2 * x[1])
        return super().inference_per_layer(layer, x, edge_index, batch_size)


class TwoHops(models.GCN):
    def init_conv(self, in_channels, out_channels, **kwargs):
        return SGConv(in_channels, out_channels, K=2)


class MeanOfAll(nn.Module):
    def forward(self, x, edge_index):
        return x.mean(0).expand(len(x), -1)


class NoConvolutions(nn.Module):
    """Has the method, but not what goes with it."""

    def forward(self, x, edge_index):
        return x

    def inference_per_layer(self, layer, x, edge_index, batch_size):
        return x[:batch_size]


UNKNOWN = {
    "forward of one's own": OwnForward(12, 8, 2, 4),
    "convolution of two hops": TwoHops(12, 8, 2, 4),
    "normalises by itself": models.GCN(12, 8, 2, 4),
    "norm over all nodes": models.GraphSAGE(12, 8, 2, 4, norm="graph_norm"),
    "layer norm over all nodes": models.GraphSAGE(12, 8, 2, 4, norm="layer_norm"),
    "batch statistics in evaluation": models.GraphSAGE(
        12, 8, 2, 4, norm="batch_norm", norm_kwargs={"track_running_stats": False}
    ),
    "jumping knowledge": models.GraphSAGE(12, 8, 2, 4, jk="cat"),
    "against the edges": models.GraphSAGE(12, 8, 2, 4, flow="target_to_source"),
    "no convolution": MeanOfAll(),
    "layers of which nothing is known": NoConvolutions(),
}


@pytest.mark.usefixtures("always_cut")
@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("model", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_known_for_certain_runs_on_the_whole_graph(model):
    adjacency, nodes = Adjacency.from_edge_index(edges(), N), torch.tensor([7, 2])
    by_its_layers = isinstance(model, models.GraphSAGE) and model.jk_mode == "cat"  # how far it reaches is known
    assert (reads_of(model).hops, reads_of(model).by_layer) == (2 if by_its_layers else None, False)
    got, touched = at_nodes(model.eval(), reads_of(model), features(), adjacency, nodes)
    assert (touched.nodes, touched.edges) == (touched.of_nodes, touched.of_edges) == (N, edges().size(1))
    with torch.no_grad():
        torch.testing.assert_close(got, run_module(model, reads_of(model), features(), adjacency)[nodes])


@pytest.mark.usefixtures("always_cut")
def test_a_model_that_says_how_its_layers_go_can_be_cut():
    model, adjacency, nodes = OwnLayers(12, 8, 2, 4).eval(), Adjacency.from_edge_index(edges(), N), torch.tensor([7, 2])
    got, touched = at_nodes(model, reads_of(model), features(), adjacency, nodes)
    assert touched.nodes < N
    with torch.no_grad():
        torch.testing.assert_close(got, run_module(model, reads_of(model), features(), adjacency)[nodes])


def test_the_cheaper_is_chosen():
    """A node in a large sparse graph is cut out, most of its nodes are not, and nor is anything of a tiny one."""
    large, model = 20_000, build("gcn", hidden_channels=256)
    reads = reads_of(model)
    edge_index = torch.randint(large, (2, 3 * large), generator=torch.Generator().manual_seed(0))
    adjacency, x = Adjacency.from_edge_index(edge_index, large), torch.randn(large, 12)
    assert at_nodes(model, reads, x, adjacency, torch.tensor([3]))[1].nodes < 200
    assert at_nodes(model, reads, x, adjacency, torch.arange(large // 2))[1].nodes == large
    tiny = Adjacency.from_edge_index(edges(), N)
    assert at_nodes(model, reads, features(), tiny, torch.tensor([3]))[1].nodes == N


def test_the_search_stops_where_it_becomes_too_dear():
    """A hub two hops away: the first ring is cheap, and its rows are counted, not read."""
    fan = torch.stack([torch.arange(2, N), torch.ones(N - 2, dtype=torch.long)])
    adjacency = Adjacency.from_edge_index(torch.cat([torch.tensor([[1], [0]]), fan], dim=1), N)
    seen = []

    def limit(nodes, entries):
        seen.append((list(nodes), list(entries)))
        return entries[-1] > 100

    assert frontier.frontier(adjacency.rows, torch.tensor([0]), 3, limit) is None
    assert seen == [([1], [1]), ([1, 2], [1, N - 1])]
    cut = frontier.frontier(adjacency.rows, torch.tensor([0]), 2)
    assert cut.sizes == (1, 2, N)
    assert cut.matrix(0).shape == (1, 2)
    assert cut.matrix(1).shape == (2, N)


def test_layers_see_no_more_than_their_own_ring(monkeypatch):
    model, adjacency = build("sage", 3), Adjacency.from_edge_index(edges(), N)
    cut = frontier.frontier(adjacency.rows, torch.tensor([5, 33]), 3)
    widths, run_layer = [], frontier.run_layer
    monkeypatch.setattr(frontier, "run_layer", lambda *args: widths.append(len(args[3])) or run_layer(*args))
    run_frontier(model, reads_of(model), features(), cut)
    assert widths == list(cut.sizes[:0:-1])
    assert sorted(widths, reverse=True) == widths
