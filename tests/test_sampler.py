"""Who draws neighbours: one contract for all of them, and that PyG's loaders take ours."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch_geometric.typing
from scipy.stats import binomtest, chisquare
from torch_geometric.data import Data
from torch_geometric.loader import NodeLoader
from torch_geometric.nn.models import GraphSAGE
from torch_geometric.sampler import NodeSamplerInput, SamplerOutput

from mowst.errors import InputError
from mowst.kernels import ALL, SAMPLERS, Adjacency, Drawn, NeighbourSampler, neighbourhood, sampler, sampling
from mowst.kernels.sampler import drawn_by
from mowst.training import Neighbours, feed_of
from tests.graphs import good


def directed(weighted: bool) -> Adjacency:
    """A directed graph with isolated nodes, a self-loop, and perhaps weights."""
    torch.manual_seed(3)
    edges = torch.randint(0, 25, (2, 120))
    edges = torch.cat([edges[:, edges[0] != edges[1]], torch.tensor([[4], [4]])], dim=1).unique(dim=1)
    return Adjacency.from_edge_index(edges, 30, torch.rand(edges.size(1)) + 0.1 if weighted else None)


class OneByOne:
    """Stands for PyG's sampler: it is called as that is, draws as that does, and answers in its form."""

    def __init__(self, data: Data, num_neighbors: list[int], *, is_sorted: bool):
        assert is_sorted
        assert torch.equal(data.edge_index[1], data.edge_index[1].sort().values)
        self.edges, self.fanouts = data.edge_index, num_neighbors

    def sample_from_nodes(self, index: NodeSamplerInput) -> SamplerOutput:
        place = {node: i for i, node in enumerate(index.node.tolist())}
        row, col, edge, front = [], [], [], list(place)
        for fanout in self.fanouts:
            met = len(place)
            for node in front:
                into = (self.edges[1] == node).nonzero().squeeze(-1)
                into = into if fanout == ALL else into[torch.randperm(len(into))[:fanout]]
                for each in into.tolist():
                    source = int(self.edges[0, each])
                    row.append(place.setdefault(source, len(place)))
                    col.append(place[node])
                    edge.append(each)
            front = list(place)[met:]
        return SamplerOutput(*map(torch.tensor, (list(place), row, col, edge)))


@pytest.fixture(params=["torch", "numba", "pyg", "one by one"])
def by(request, monkeypatch) -> str:
    """Neighbours are drawn in plain torch, by compiled code, by PyG where it can, and by a double of that."""
    if request.param == "torch":
        monkeypatch.setattr(sampling, "compiled", lambda: None)
    if request.param == "numba":
        pytest.importorskip("numba")
    if request.param == "pyg" and not (torch_geometric.typing.WITH_PYG_LIB or torch_geometric.typing.WITH_TORCH_SPARSE):
        pytest.skip("neither pyg-lib nor torch-sparse is installed")
    if request.param == "one by one":
        monkeypatch.setattr(sampler, "NeighborSampler", OneByOne)
        monkeypatch.setattr(torch_geometric.typing, "WITH_PYG_LIB", True)
    return "mowst" if request.param in ("torch", "numba") else "pyg"


@pytest.fixture(params=["torch", "numba"])
def ours(request, monkeypatch) -> str:
    """Neighbours are drawn in plain torch, then by compiled code."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(sampling, "compiled", lambda: None)
    return request.param


def number(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


# --- The contract


def test_neighbours_are_drawn_uniformly_without_replacement(by):
    degree, fanout, rounds = 6, 3, 1000
    edges = torch.stack([torch.arange(1, degree + 1), torch.zeros(degree, dtype=torch.long)])
    draws = SAMPLERS[by](Adjacency.from_edge_index(edges, degree + 1), degree + 1, (fanout,))
    generator, counts = number(0), dict.fromkeys(itertools.combinations(range(degree), fanout), 0)
    for _ in range(rounds):
        drawn = draws.draw(torch.tensor([0]), generator)
        counts[tuple(sorted(drawn.entry.tolist()))] += 1  # a KeyError where one is drawn twice
    assert chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("fanouts", [(2,), (2, 3), (ALL, 1), (ALL, ALL), (1, 1, 1)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_neighbourhood_is_seeds_first_then_what_the_hops_reach(by, fanouts, weighted):
    whole = directed(weighted)
    target, source = whole.rows.entries()
    seeds = torch.tensor([7, 3, 28, 4])  # 28 is isolated
    drawn = SAMPLERS[by](whole, 30, fanouts).draw(seeds, number(1))
    nodes = drawn.nodes
    assert nodes[:4].tolist() == seeds.tolist()
    assert len(nodes.unique()) == len(nodes)
    assert torch.equal(nodes[drawn.target], target[drawn.entry])
    assert torch.equal(nodes[drawn.source], source[drawn.entry])
    assert len(drawn.entry.unique()) == len(drawn.entry)
    degree, expected, front, met, within = whole.rows.start.diff(), {}, seeds.tolist(), set(seeds.tolist()), [4]
    for fanout in fanouts:
        for node in front:
            expected[node] = int(degree[node]) if fanout == ALL else min(fanout, int(degree[node]))
        near = {int(s) for t, s in zip(nodes[drawn.target], nodes[drawn.source], strict=True) if int(t) in front}
        front, met = sorted(near - met), met | near
        within.append(len(met))
        assert set(nodes[: within[-1]].tolist()) == met  # ring after ring
    taken = torch.bincount(nodes[drawn.target], minlength=30)
    assert {node: int(taken[node]) for node in expected} == expected
    assert drawn.sizes == tuple(within)
    assert len(nodes) == within[-1]


def test_a_draw_follows_from_its_number_and_leaves_torchs_own_numbers_alone(by):
    draws, before = SAMPLERS[by](directed(False), 30, (2, 2)), torch.get_rng_state()
    first, again, other = (draws.draw(torch.arange(5), number(each)) for each in (0, 0, 1))
    assert torch.equal(first.entry, again.entry)
    assert not torch.equal(first.entry, other.entry)
    assert torch.equal(torch.get_rng_state(), before)


def check_average(whole: Adjacency, draw, rounds: int) -> None:
    """Compare products with what is drawn, on average, with those of the whole graph."""
    identity = torch.eye(30)
    sums = {"gcn": torch.zeros(30, 30), "averaging": torch.zeros(30, 30), "itself": torch.zeros(30, 30)}
    for _ in range(rounds):
        part = whole.thinned(draw())
        sums["gcn"] += part.gcn().times(identity) / rounds
        sums["averaging"] += part.averaging().times(identity) / rounds
        sums["itself"] += part.times(identity) / rounds
    for name, expected in (("gcn", whole.gcn()), ("averaging", whole.averaging()), ("itself", whole)):
        for dim in (0, 1):
            theirs = expected.times(identity).sum(dim)
            torch.testing.assert_close(sums[name].sum(dim), theirs, atol=0.05, rtol=0.12)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_drawn_is_right_on_average(by, weighted):
    whole, generator = directed(weighted), number(0)
    draws = SAMPLERS[by](whole, 30, (2,))
    check_average(whole, lambda: draws.draw(torch.arange(30), generator), 300)


# --- Ours


@pytest.mark.parametrize("kind", sampling.KINDS)
def test_compiled_code_draws_what_torch_draws(kind):
    fast = pytest.importorskip("mowst.kernels.compiled").neighbourhood
    for weighted, fanouts, start in itertools.product(
        [False, True], [(2,), (3, 5), (ALL, 2), (2, ALL), (1,) * 4], [0, 1]
    ):
        rows, seeds = directed(weighted).rows, torch.randperm(30)[:7]
        found = [draw(rows, seeds, fanouts, number(start), kind) for draw in (fast, sampling.in_torch)]
        for one, other in zip(*found, strict=True):
            same = isinstance(one, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
            assert same or (not isinstance(one, torch.Tensor) and one == other)


def test_two_threads_draw_at_once_as_one_after_the_other(ours):
    rows = Adjacency.from_edge_index(torch.randint(0, 3000, (2, 40_000)), 3000).rows

    def draw(start: int) -> Drawn:
        generator = number(start)
        return neighbourhood(rows, torch.randperm(3000, generator=generator)[:100], (5, 5), generator)

    alone = [draw(start) for start in range(20)]
    with ThreadPoolExecutor(2) as threads:
        for one, other in zip(alone, threads.map(draw, range(20)), strict=True):
            assert all(map(torch.equal, one[:4], other[:4]))


# --- LABOR


@pytest.mark.parametrize("weighted", [False, True])
def test_labor_is_right_on_average(ours, weighted):
    whole, generator = directed(weighted), number(0)
    check_average(whole, lambda: neighbourhood(whole.rows, torch.arange(30), (2,), generator, "labor"), 600)


def test_labor_draws_each_neighbour_with_its_chance_and_all_nodes_look_at_the_same_numbers(ours):
    whole, generator, rounds, fanout = directed(False), number(0), 1000, 2
    target, source = whole.rows.entries()
    chance, counts = (fanout / whole.rows.start.diff()[target]).clamp(max=1), torch.zeros(len(source))
    for _ in range(rounds):
        drawn = neighbourhood(whole.rows, torch.arange(30), (fanout,), generator, "labor")
        counts[drawn.entry] += 1
        left = torch.ones(len(source), dtype=torch.bool)
        left[drawn.entry] = False
        largest = torch.zeros(30).scatter_reduce(0, source[left], chance[left], "amax")  # of what was not drawn
        assert bool((chance[~left] >= largest[source[~left]]).all())  # a number below one chance is below larger ones
        torch.testing.assert_close(drawn.times, 1 / chance[drawn.entry].double(), atol=1e-6, rtol=0)
    for count, each in zip(counts.int().tolist(), chance.tolist(), strict=True):
        assert (each == 1 and count == rounds) or binomtest(count, rounds, each).pvalue > 1e-4


def test_labor_meets_fewer_nodes_with_as_many_edges():
    rows = Adjacency.from_edge_index(torch.randint(0, 400, (2, 12_000), generator=number(5)), 400).rows
    seeds, met, edges = torch.arange(60), {"uniform": 0, "labor": 0}, {"uniform": 0, "labor": 0}
    for kind, start in itertools.product(met, range(20)):
        drawn = neighbourhood(rows, seeds, (4,), number(start), kind)
        met[kind] += len(drawn.nodes)
        edges[kind] += len(drawn.entry)
    assert edges["labor"] == pytest.approx(edges["uniform"], rel=0.1)
    assert met["labor"] < 0.8 * met["uniform"]


# --- PyG's loaders


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sampling.KINDS)
def test_pygs_loader_takes_our_sampler_and_workers_do_not_matter(workers, kind):
    data = good()
    data.edge_index = torch.randint(0, 60, (2, 600), generator=number(2))
    data.weight = torch.rand(data.num_edges)
    torch.manual_seed(0)
    ours, model = NeighbourSampler(data.edge_index, 60, (3, 2), kind=kind), GraphSAGE(8, 4, 2, 3)
    loader = NodeLoader(data, ours, input_nodes=data.train_mask, batch_size=12, num_workers=workers)
    batches, seeds = list(loader), data.train_mask.nonzero().squeeze(-1)
    for part, asked in zip(batches, seeds.split(12), strict=True):
        assert torch.equal(part.n_id[: part.batch_size], asked)
        assert torch.equal(part.n_id[part.edge_index], data.edge_index[:, part.e_id])
        assert torch.equal(part.weight, data.weight[part.e_id])
        assert torch.equal(part.x, data.x[part.n_id])
        whole = model(part.x, part.edge_index)[: part.batch_size]
        hops = {f"num_sampled_{what}_per_hop": part[f"num_sampled_{what}"] for what in ("nodes", "edges")}
        torch.testing.assert_close(model(part.x, part.edge_index, **hops)[: part.batch_size], whole)
        again = ours.sample_from_nodes(NodeSamplerInput(None, asked))
        assert torch.equal(ours.edge_permutation[again.edge], part.e_id)
        sizes = drawn_by(part.edge_index, part.n_id, len(asked), 2).sizes
        assert sizes == tuple(torch.tensor(part.num_sampled_nodes).cumsum(0).tolist())
    ours.epoch = 1
    assert any(not torch.equal(*pair) for pair in zip((b.n_id for b in batches), (b.n_id for b in loader), strict=True))


def test_what_a_sampler_cannot_do_is_a_line(monkeypatch):
    data = good()
    for fanouts in ((0,), (3, -2)):
        with pytest.raises(InputError, match="must be numbers of neighbours, or -1 for all"):
            NeighbourSampler(data.edge_index, 60, fanouts)
    with pytest.raises(InputError, match="kind: unknown 'labour'; did you mean labor"):
        NeighbourSampler(data.edge_index, 60, (3,), kind="labour")
    ours = NeighbourSampler(data.edge_index, 60, (3,))
    with pytest.raises(InputError, match="a batch has a node twice"):
        ours.sample_from_nodes(NodeSamplerInput(None, torch.tensor([1, 2, 1])))
    with pytest.raises(InputError, match="not around edges"):
        ours.sample_from_edges(None)
    assert feed_of("neighbors(5,3,kind=labor)") == Neighbours((5, 3), kind="labor")
    with pytest.raises(InputError, match=r"by=pyg\) draws uniformly"):
        feed_of("neighbors(5,kind=labor,by=pyg)")
    monkeypatch.setattr(torch_geometric.typing, "WITH_PYG_LIB", False)
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SPARSE", False)
    with pytest.raises(InputError, match="needs pyg-lib or torch-sparse, which are not installed"):
        feed_of("neighbors(5,by=pyg)")
