import pytest
import torch
from torch_geometric.nn import GCNConv, models
from torch_geometric.utils import to_torch_csr_tensor

from mowst.errors import InputError
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.sparse import Rows
from mowst.models.experts import GCN, Residual, expert
from mowst.models.layers import NarrowGCNConv
from mowst.models.reads import reads_of, run_module
from tests.graphs import TRAINED

NAMES = TRAINED
GNNS = [name for name in NAMES if name != "mlp"]


def build(name, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"hidden_channels": 16, "num_layers": 2, "dropout": 0.0, "norm": "batch_norm", **options}
    return expert(name, 8, 3, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("norm", ["none", "batch_norm", "layer_norm"])
def test_every_expert_gives_logits(tiny, name, num_layers, norm):
    logits = build(name, num_layers=num_layers, norm=norm, dropout=0.5)(tiny.x, tiny.edge_index)
    assert logits.shape == (60, 3)
    logits.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_renumbering_the_nodes_renumbers_the_logits(tiny, name):
    model = build(name).eval()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    place = torch.empty_like(order)
    place[order] = torch.arange(60)
    for edges in (tiny.edge_index, Adjacency.from_edge_index(tiny.edge_index, 60)):
        moved_edges = place[tiny.edge_index]
        if isinstance(edges, Adjacency):
            moved_edges = Adjacency.from_edge_index(moved_edges, 60)
        moved = run_module(model, reads_of(model), tiny.x[order], moved_edges)
        torch.testing.assert_close(
            moved, run_module(model, reads_of(model), tiny.x, edges)[order], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("name", NAMES)
def test_the_prepared_adjacency_changes_no_logits_and_no_gradients(tiny, name):
    results = []
    for edges in (tiny.edge_index, Adjacency.from_edge_index(tiny.edge_index, 60)):
        model = build(name)
        logits = run_module(model, reads_of(model), tiny.x, edges)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for plain, prepared in zip(*results, strict=True):
        torch.testing.assert_close(prepared, plain, atol=1e-4, rtol=1e-4)


def test_gcn_is_pygs_gcn(tiny):
    options = {"in_channels": 8, "hidden_channels": 16, "num_layers": 3, "out_channels": 3, "norm": "batch_norm"}
    ours, theirs = GCN(**options), models.GCN(**options)
    ours.load_state_dict(theirs.state_dict())
    for edges in (tiny.edge_index, Adjacency.from_edge_index(tiny.edge_index, 60)):
        torch.testing.assert_close(ours(tiny.x, edges), theirs(tiny.x, tiny.edge_index), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("in_channels", "out_channels"), [(5, 9), (9, 5), (7, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_gcn_layer_passes_on_the_narrower_side_and_is_pygs_all_the_same(
    tiny, monkeypatch, in_channels, out_channels, bias
):
    ours, theirs = (
        kind(in_channels, out_channels, normalize=False, bias=bias).double() for kind in (NarrowGCNConv, GCNConv)
    )
    theirs.load_state_dict(ours.state_dict())
    adjacency = Adjacency.from_edge_index(tiny.edge_index, tiny.num_nodes).gcn()
    x = torch.randn(tiny.num_nodes, in_channels, dtype=torch.double, requires_grad=True)
    mask = torch.randn(tiny.num_nodes, out_channels, dtype=torch.double)
    results, widths = [], []
    times = Rows.times
    monkeypatch.setattr(Rows, "times", lambda self, other: widths.append(other.size(1)) or times(self, other))
    for conv in (ours, theirs):
        out = conv(x, adjacency)
        (out * mask).sum().backward()
        results.append([out, x.grad.clone(), *(conv.get_parameter(name).grad for name in conv.state_dict())])
        x.grad = None
    assert widths[:2] == [min(in_channels, out_channels)] * 2
    torch.testing.assert_close(*results)


def test_the_first_product_of_a_gcn_that_widens_is_computed_once(tiny, monkeypatch):
    products = []
    times = Rows.times
    monkeypatch.setattr(Rows, "times", lambda self, other: products.append(other.size(1)) or times(self, other))
    adjacency = Adjacency.from_edge_index(tiny.edge_index, tiny.num_nodes)
    model = expert("gcn", tiny.num_features, 3, hidden_channels=64, num_layers=2)
    for _ in range(4):
        model(tiny.x, adjacency).sum().backward()
    assert products.count(tiny.num_features) == 2  # seen to be constant when it comes the second time


@pytest.mark.parametrize(("name", "theirs"), [("sage", models.GraphSAGE), ("gin", models.GIN)])
def test_the_others_are_pygs_classes(name, theirs):
    assert type(build(name)) is theirs


def test_heads_share_the_width_of_a_residual_gat_or_are_averaged(tiny):
    for options in ({"heads": 4}, {"heads": 4, "concat": False}):
        model = build("gat-res", **options)
        assert [conv.heads for conv in model.convs] == [4, 4]
        assert model(tiny.x, tiny.edge_index).shape == (60, 3)


def test_mlp_looks_at_no_edges(tiny):
    model = build("mlp").eval()
    assert torch.equal(model(tiny.x, tiny.edge_index), model(tiny.x, tiny.edge_index[:, :1]))
    assert torch.equal(model(tiny.x, tiny.edge_index), model(tiny.x))


def test_an_integer_dropout_is_taken():
    build("mlp", dropout=0)


def test_layer_norm_is_per_node(tiny):
    for name in ("mlp", "gcn", "gcn-res"):
        model = build(name, norm="layer_norm").eval()
        lonely = tiny.edge_index[:, (tiny.edge_index != 5).all(dim=0)]
        changed = tiny.x.clone()
        changed[5] *= 100
        others = torch.arange(60) != 5
        torch.testing.assert_close(model(changed, lonely)[others], model(tiny.x, lonely)[others])


def test_without_skip_and_edges_a_residual_gcn_layer_is_an_mlp_layer(tiny):
    no_edges = torch.empty(2, 0, dtype=torch.long)
    model = build("gcn-res", residual=False, num_layers=1, norm="none").eval()
    conv, out = model.convs[0], model.lin_out
    torch.testing.assert_close(model(tiny.x, no_edges), out((conv.lin(tiny.x) + conv.bias).relu()))


def test_residual_counts_its_options():
    assert build("gcn-res", pre_linear=True).lin_in is not None
    assert build("sage-res", residual=False).skips is None
    assert isinstance(build("gin-skip"), Residual)


def test_any_pyg_model_by_dotted_path(tiny):
    model = expert("torch_geometric.nn.models:GAT", 8, 3, hidden_channels=8, num_layers=2, dropout=0.1, heads=2)
    assert type(model) is models.GAT
    linkx = expert("torch_geometric.nn.models:LINKX", 8, 3, num_nodes=60, hidden_channels=8, num_layers=2, dropout=0.1)
    assert linkx(tiny.x, tiny.edge_index).shape == (60, 3)
    gcn2 = expert("torch_geometric.nn.models.GraphUNet", 8, 3, hidden_channels=8, depth=2, norm="batch_norm")
    assert gcn2(tiny.x, tiny.edge_index).shape == (60, 3)


def test_plain_pyg_gcn_takes_the_prepared_adjacency(tiny):
    model = expert("torch_geometric.nn.models:GCN", 8, 3, hidden_channels=8, num_layers=2, dropout=0.0).eval()
    prepared = run_module(model, reads_of(model), tiny.x, Adjacency.from_edge_index(tiny.edge_index, 60))
    torch.testing.assert_close(prepared, model(tiny.x, tiny.edge_index), atol=1e-5, rtol=1e-4)
    csr = to_torch_csr_tensor(tiny.edge_index.flip(0), size=(60, 60))
    torch.testing.assert_close(model(tiny.x, csr), model(tiny.x, tiny.edge_index), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gnn", {}, "choose from gat, gat-res, gcn"),
        ("torch_geometric.nn.models:Nothing", {}, "Nothing"),
        ("gcn", {"flavour": 3}, "flavour"),
        ("gat", {"heads": 7, "hidden_channels": 16, "num_layers": 2}, "expert gat"),
        ("gcn", {"norm": "cosmic_norm"}, "cosmic_norm"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(name, options, words):
    with pytest.raises(InputError) as caught:
        expert(name, 8, 3, **{"hidden_channels": 16, "num_layers": 2, "dropout": 0.0, **options})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
