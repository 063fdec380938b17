"""torch-scatter is optional: used through PyG where it is installed, switched off where it cannot work."""

from types import SimpleNamespace

import pytest
import torch
import torch_geometric.typing
from torch_geometric.utils import scatter, softmax

from mowst.system.native import guard_scatter


@pytest.fixture
def cpu_build(monkeypatch):
    monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", True)
    monkeypatch.setattr(torch.ops, "torch_scatter", SimpleNamespace(cuda_version=lambda: -1), raising=False)


def test_a_cpu_build_is_switched_off_on_cuda_with_a_warning(cpu_build):
    with pytest.warns(UserWarning, match="CPU build"):
        guard_scatter(torch.device("cuda"))
    assert torch_geometric.typing.WITH_TORCH_SCATTER is False
    guard_scatter(torch.device("cuda"))  # says it once


def test_a_cpu_build_serves_a_cpu(cpu_build):
    guard_scatter(torch.device("cpu"))
    assert torch_geometric.typing.WITH_TORCH_SCATTER is True


def test_a_cuda_build_stays_on(cpu_build, monkeypatch):
    monkeypatch.setattr(torch.ops, "torch_scatter", SimpleNamespace(cuda_version=lambda: 12080), raising=False)
    guard_scatter(torch.device("cuda"))
    assert torch_geometric.typing.WITH_TORCH_SCATTER is True


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max", "mul"])
def test_results_do_not_depend_on_it(reduce, monkeypatch):
    pytest.importorskip("torch_scatter", reason="torch-scatter is not installed")
    torch.manual_seed(0)
    x, index = torch.randn(50, 3), torch.randint(8, (50,))
    found = []
    for with_it in (True, False):
        monkeypatch.setattr(torch_geometric.typing, "WITH_TORCH_SCATTER", with_it)
        found.append((scatter(x, index, dim_size=8, reduce=reduce), softmax(x, index)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
