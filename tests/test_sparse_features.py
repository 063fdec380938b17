"""Sparse features give every module what dense ones give, and reach it as a sparse product where that pays."""

import copy
import pickle
from contextlib import nullcontext, suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn.models import GAT, GCN, GIN, MLP, GraphSAGE

from mowst.errors import InputError
from mowst.kernels.adjacency import Adjacency
from mowst.kernels.sparse import Rows
from mowst.kernels.sparse_features import DENSEST, Passed, SparseFeatures, by_column, dense, prepare_features
from mowst.models.experts import expert
from mowst.models.reads import Reads, reads_of, suited, suited_features

N, WIDTH = 30, 50


def features(density: float = 0.05, ones: bool = False, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N, WIDTH, generator=generator)
    mask = x < density
    mask[3] = False
    return mask.to(dtype) if ones else (mask * torch.randn(N, WIDTH, generator=generator)).to(dtype)


def run(module: nn.Module, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """Output and parameter gradients."""
    torch.manual_seed(1)
    out = module(*inputs)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), list(module.parameters()))]


MODELS = {
    "mlp": lambda: MLP([WIDTH, 16, 4], dropout=0.5),
    "gcn": lambda: GCN(WIDTH, 16, 2, 4, normalize=False, dropout=0.5),
    "sage": lambda: GraphSAGE(WIDTH, 16, 2, 4),
    "gin": lambda: GIN(WIDTH, 16, 2, 4, train_eps=True),
    "gat": lambda: GAT(WIDTH, 16, 2, 4),
    "gcn-res": lambda: expert("gcn-res", WIDTH, 4, hidden_channels=16, num_layers=2, norm="layer_norm"),
    "sage-res": lambda: expert("sage-res", WIDTH, 4, hidden_channels=16, num_layers=2, norm="layer_norm"),
    "unknown": lambda: nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Dropout(0.5), nn.Linear(WIDTH, 4)),
}


@pytest.mark.parametrize("ones", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_gives_what_it_gives_on_dense_features(name, ones):
    torch.manual_seed(0)
    model, x = MODELS[name]().double(), features(ones=ones, dtype=torch.float64)
    adjacency = Adjacency.from_edge_index(torch.randint(0, N, (2, 90)), N)
    inputs = () if name in ("mlp", "unknown") else (suited(reads_of(model), adjacency),)
    prepared = prepare_features(x)
    assert isinstance(prepared, SparseFeatures)
    want, got = run(model, x, *inputs), run(model, prepared, *inputs)
    largest = max(float(oracle.norm()) for oracle in want)
    for value, oracle in zip(got, want, strict=True):
        torch.testing.assert_close(value, oracle, rtol=1e-9, atol=1e-12 * largest)


@pytest.mark.parametrize("name", ["mlp", "gcn", "gat", "sage", "gcn-res", "sage-res"])
def test_first_layer_never_makes_the_dense_matrix(name, monkeypatch):
    monkeypatch.setattr(SparseFeatures, "dense", lambda self: pytest.fail("dense matrix made"))
    model, x = MODELS[name](), prepare_features(features())
    reads, adjacency = reads_of(model), Adjacency.from_edge_index(torch.randint(0, N, (2, 90)), N)
    run(model, suited_features(reads, x), *(() if name == "mlp" else (suited(reads, adjacency),)))


@pytest.mark.parametrize("hidden", [8, 64])
def test_float32_first_layer_is_within_its_rounding_of_float64(hidden):
    x, linear = features(), nn.Linear(WIDTH, hidden)
    got, want = run(linear, prepare_features(x)), run(copy.deepcopy(linear).double(), x.double())
    for value, oracle in zip(got, want, strict=True):
        assert float((value.double() - oracle).norm()) < 1e-5 * float(oracle.norm())


def test_dense_matrix_is_made_once():
    x = prepare_features(features())
    assert x.dense() is x.dense()
    torch.testing.assert_close(x.dense(), features())
    torch.testing.assert_close(x + 1, features() + 1)
    torch.testing.assert_close(F.dropout(x, 0.0), features())
    torch.testing.assert_close(x[torch.tensor([3, 4])], features()[[3, 4]])
    assert (x.shape, x.dtype, x.size(0), x.is_sparse) == ((N, WIDTH), torch.float32, N, False)


@pytest.mark.parametrize("product", [torch.matmul, torch.mm, lambda x, w: x @ w, lambda x, w: F.linear(x, w.t())])
def test_products_and_their_gradients_equal_the_dense_ones_in_float64(product, monkeypatch):
    x, weight = features(dtype=torch.float64), torch.randn(WIDTH, 3, dtype=torch.float64, requires_grad=True)
    prepared = prepare_features(x)
    torch.testing.assert_close(prepared @ torch.ones(WIDTH, dtype=torch.float64), x.sum(1))
    monkeypatch.setattr(SparseFeatures, "dense", lambda self: pytest.fail("dense matrix made"))
    torch.testing.assert_close(product(prepared, weight), x @ weight)
    assert torch.autograd.gradcheck(lambda weight: product(prepared, weight), weight)


def test_sparse_layouts_of_torch_are_taken_and_duplicates_add_up():
    x = features()
    for layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        torch.testing.assert_close(dense(prepare_features(x.to_sparse(layout=layout))), x)
        torch.testing.assert_close(dense(x.to_sparse(layout=layout)), x)
    twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 1.0], (2, 3))
    assert dense(prepare_features(twice))[0, 1] == 2


def test_features_that_would_not_gain_stay_as_they_are():
    for x in (features(DENSEST * 2.0), torch.randn(N, 4), torch.zeros(N, 4, dtype=torch.long), torch.zeros(N)):
        assert prepare_features(x) is x
        assert dense(x) is x
    prepared = prepare_features(features())
    assert prepare_features(prepared) is prepared


def test_unknown_modules_get_plain_features():
    class Declares(nn.Module):
        reads = Reads(sparse=True)

    x = prepare_features(features())
    assert type(suited_features(reads_of(nn.Linear(3, 4)), x)) is torch.Tensor
    assert suited_features(reads_of(Declares()), x) is x
    assert suited_features(reads_of(MODELS["mlp"]()), x) is x


def test_autocast_computes_and_returns_bfloat16():
    torch.manual_seed(0)
    linear, x = nn.Linear(WIDTH, 8), features()
    with torch.autocast("cpu", torch.bfloat16):
        want, got = run(linear, x), run(linear, prepare_features(x))
    for value, oracle in zip(got, want, strict=True):
        assert value.dtype == oracle.dtype
        torch.testing.assert_close(value, oracle, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))])
def test_data_with_sparse_features_can_be_copied_and_pickled(make):
    data = make(Data(x=prepare_features(features())))
    torch.testing.assert_close(data.x @ torch.eye(WIDTH), features())
    assert data.num_nodes == N
    assert data.num_features == WIDTH
    assert data.to("cpu").x is data.x


def test_transpose_of_a_wide_matrix_shares_nothing_by_mistake():
    square = Rows.from_entries(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([1.0, 2.0]), (2, 2))
    assert square.transposed(2).value.tolist() == [2.0, 1.0]
    wide = Rows.from_entries(torch.tensor([0, 1]), torch.tensor([2, 0]), None, (2, 3))
    assert wide.transposed(3).entries()[0].tolist() == [0, 2]


def test_a_copy_of_a_graph_keeps_its_features_sparse():
    x = prepare_features((torch.rand(50, 40) < 0.05).float())
    copied = Data(x=x).clone().x
    assert isinstance(copied, SparseFeatures)
    assert torch.equal(F.linear(copied, torch.ones(2, 40)), F.linear(x, torch.ones(2, 40)))
    dense(copied).mul_(2)
    assert torch.equal(dense(x), x @ torch.eye(40))


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_features_passed_along_edges_are_two_factors_to_a_weight_and_dense_to_the_rest(reduce):
    x, weight = features(dtype=torch.float64), torch.randn(WIDTH, 3, dtype=torch.float64, requires_grad=True)
    adjacency = Adjacency.from_edge_index(torch.randint(0, N, (2, 90)), N)
    passed, plain = adjacency.aggregate(prepare_features(x), reduce), adjacency.aggregate(x, reduce)
    assert isinstance(passed, Passed)
    assert passed.shape == plain.shape
    torch.testing.assert_close(passed @ weight, plain @ weight)
    assert torch.autograd.gradcheck(lambda weight: passed @ weight, weight)
    for view in (passed.clone(), passed.detach(), passed + 0, passed[:]):
        torch.testing.assert_close(view, plain)
    assert passed.dense() is passed.dense()


WRITERS = {
    "+=": lambda h: h.__iadd__(1),
    "relu_": lambda h: h.sub_(1).relu_(),
    "item": lambda h: h.__setitem__(0, 5.0),
    "detached": lambda h: h.detach().add_(1),
    "view": lambda h: h[:5].add_(1),
    "flat": lambda h: h.view(-1).zero_(),
    "dropout": lambda h: F.dropout(h, inplace=True),
}


@pytest.mark.parametrize("passed", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_kept_of_sparse_features_is_never_written_into(name, passed):
    adjacency = Adjacency.from_edge_index(torch.randint(0, N, (2, 90)), N)
    x = prepare_features(features())
    h = adjacency @ x if passed else x
    before = [(h + 0).clone(), (adjacency @ x + 0).clone(), h @ torch.ones(WIDTH, 2)]
    with suppress(InputError):
        WRITERS[name](h)
    for now, then in zip([h + 0, adjacency @ x + 0, h @ torch.ones(WIDTH, 2)], before, strict=True):
        assert torch.equal(now, then)


def test_what_is_kept_may_be_written_into_something_else():
    x, plain = prepare_features(features()), features()
    assert torch.equal(torch.ones(N, WIDTH).add_(x), plain + 1)
    assert torch.equal(torch.ones(N, WIDTH).copy_(x), plain)
    assert torch.equal(torch.add(x, 1, out=torch.empty(N, WIDTH)), plain + 1)


def test_named_arguments_make_a_product_too():
    x, weight = prepare_features(features()), torch.randn(3, WIDTH)
    torch.testing.assert_close(F.linear(input=x, weight=weight), features() @ weight.t())
    torch.testing.assert_close(torch.matmul(input=x, other=weight.t()), features() @ weight.t())
    assert copy.deepcopy(Adjacency.from_edge_index(torch.tensor([[0], [1]]), N) @ x).shape == x.shape


def test_a_graph_is_not_multiplied_by_another():
    adjacency = Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3)
    with pytest.raises(InputError, match="can only multiply a dense matrix"):
        adjacency @ adjacency


@pytest.mark.parametrize("name", [name for name in MODELS if name != "unknown"])
def test_weights_that_lie_as_sparse_features_read_them_train_to_the_same_numbers(name):
    x, adjacency = prepare_features(features()), Adjacency.from_edge_index(torch.randint(0, N, (2, 90)), N)
    y, trained, strides = torch.randint(4, (N,)), [], []
    torch.manual_seed(0)
    fresh = MODELS[name]()
    for turned in (False, True):
        model = copy.deepcopy(fresh)
        inputs = () if name == "mlp" else (suited(reads_of(model), adjacency),)
        torch.manual_seed(1)
        with by_column(model, x) if turned else nullcontext():
            optimizer = torch.optim.AdamW(model.parameters(), fused=True)
            for _ in range(3):
                optimizer.zero_grad()
                F.cross_entropy(model(x, *inputs), y).backward()
                optimizer.step()
            wide = [weight for weight in model.parameters() if weight.shape == (16, WIDTH)]
            strides.append([(weight.stride(), weight.grad.stride()) for weight in wide])
        trained.append(model)
    assert set(strides[0]) == {((WIDTH, 1), (WIDTH, 1))}
    assert set(strides[1]) == {((1, 16), (1, 16))}, "neither weights nor gradients are turned"
    for plain, turned in zip(*(model.parameters() for model in trained), strict=True):
        assert torch.equal(plain, turned)
        assert turned.is_contiguous()


def test_weights_stay_as_they_lie_beside_dense_features():
    model = MODELS["mlp"]()
    with by_column(model, features()):
        assert all(weight.is_contiguous() for weight in model.parameters())
