"""Sizes and a device, and how time is taken there, for `benchmarks/gpu.py` and its parts."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from lightning_fabric import Fabric
from torch_geometric.data import Data

from benchmarks.citation_like import ARXIV_NODES, citation_like
from mowst.kernels import Adjacency


class Bench:
    """Sizes and the device, and how time is taken there.

    Tiny: small graphs on the CPU.
    """

    def __init__(self, *, tiny: bool):
        self.tiny, self.device = tiny, torch.device("cpu" if tiny else "cuda")
        self.sizes = (200, 300) if tiny else (2_708, 20_000, ARXIV_NODES)
        self.lengths = (3, 6) if tiny else (40, 140)
        self.turns = 2 if tiny else 7

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long something takes once."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def ms(self, work: Callable[[], object]) -> float:
        """Return the median of several times, after two that do not count."""
        return 1e3 * median([self.seconds(work) for _ in range(self.turns + 2)][2:])

    def peak(self, work: Callable[[], object]) -> float:
        """Return how many GiB of the device something takes beyond what is there."""
        if self.device.type != "cuda":
            return 0.0 * self.seconds(work)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        self.wait()
        return float((torch.cuda.max_memory_allocated() - before) / 2**30)

    def fabric(self) -> Fabric:
        """Return what puts a trainer on the device."""
        return Fabric(accelerator=self.device.type, devices=1)

    def graph(self, nodes: int) -> Data:
        """Return a graph like ogbn-arxiv, prepared on the device."""
        data = citation_like(nodes).to(self.device)
        data.adj_t = Adjacency.from_edge_index(data.edge_index, nodes)
        return data
