"""Edges become simple and undirected as PyG makes them so, and stay what they are where they are so already."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.utils import coalesce, remove_self_loops, to_undirected

from mowst.data.simple import distinct, simplified, symmetric
from mowst.kernels import compressed, in_order

NODES = 6
EDGES = st.lists(st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=25)


def tensor(edges: list) -> torch.Tensor:
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t()


def expected(index, weight, simple, undirected):
    if simple:
        index, weight = remove_self_loops(index, weight)
        index, weight = coalesce(index, weight, num_nodes=NODES)
    if undirected:
        index, weight = to_undirected(index, weight, num_nodes=NODES, reduce="mean")
    return index, weight


@settings(max_examples=150, deadline=None)
@given(edges=EDGES, weighted=st.booleans(), simple=st.booleans(), undirected=st.booleans(), tidy=st.booleans())
def test_edges_become_what_pyg_makes_of_them(edges, weighted, simple, undirected, tidy):
    index = tensor(edges)
    weight = torch.arange(1.0, len(edges) + 1) if weighted else None
    if tidy and index.numel():
        index, weight = to_undirected(*coalesce(index, weight, num_nodes=NODES), num_nodes=NODES, reduce="mean")
    found = simplified(index, weight, NODES, simple=simple, undirected=undirected)
    right = expected(index, weight, simple, undirected)
    assert torch.equal(found[0], right[0])
    assert (found[1] is None and right[1] is None) or torch.equal(found[1], right[1])
    assert distinct(index, NODES) == len({(s, t) for s, t in index.t().tolist() if s != t})


def test_what_is_right_is_the_same_tensor():
    index = to_undirected(tensor([(0, 1), (1, 2), (4, 5)]))
    assert simplified(index, None, NODES, simple=True, undirected=True)[0] is index
    weight = torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    assert simplified(index, weight, NODES, simple=True, undirected=True)[1] is weight
    weight = torch.tensor([1.0, 5.0, 2.0, 2.0, 3.0, 3.0])
    assert not symmetric(index, weight, NODES)
    assert symmetric(index, None, NODES)


@settings(max_examples=100, deadline=None)
@given(edges=EDGES, order=st.booleans(), columns=st.booleans())
def test_counting_orders_as_sorting_does(edges, order, columns):
    row, column = tensor(edges)
    if columns:
        column = column.sort()[0]
    place = torch.argsort(row * NODES + column, stable=True)
    found = compressed(row, column, (NODES, NODES), order=order)
    assert torch.equal(found.column.long(), column[place])
    assert found.start.diff().tolist() == torch.bincount(row, minlength=NODES).tolist()
    if order:
        assert (torch.arange(len(row)) if found.order is None else found.order).tolist() == place.tolist()
    assert found.column.dtype == torch.int32
    assert in_order(row[place], column[place])


@pytest.mark.parametrize(("edges", "ordered", "strictly"), [
    ([(0, 1), (0, 2), (1, 0)], True, True),
    ([(0, 1), (0, 1), (1, 0)], True, False),
    ([(0, 2), (0, 1)], False, False),
    ([(1, 0), (0, 1)], False, False),
])  # fmt: skip
def test_an_order_is_seen(edges, ordered, strictly):
    assert in_order(*tensor(edges)) is ordered
    assert in_order(*tensor(edges), strictly=True) is strictly
