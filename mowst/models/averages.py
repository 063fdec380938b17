"""Features averaged over the neighbourhood: what trees and an MLP see of a graph without a layer that passes messages.

A node's own features X, the mean P X of its neighbours', the mean P² X of theirs, and so on, with P = D^-1 A (weighted
where edges have weights). They need no training, so that they are made once per graph: an `Adjacency` keeps them, or
a folder does (`OnDisk`), where they are more than memory should hold.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mowst.kernels import Adjacency, Averaged, Tabled, dense, take_columns
from mowst.system import needing, take_room, whole_file

NUMBERS, COLUMNS = 2**26, 8
"""Numbers of a block of columns that is averaged at a time, and its least columns: for each block the file is read."""
AVERAGES_LESS = "fewer features, by fewer --workers or --devices, and by a machine with more memory"
"""What takes less memory where features are averaged."""


def averages(x: Tensor, graph: Tensor, hops: int) -> list[Tensor]:
    """Return features [N, F] averaged over 1 to `hops` edges, one after the other: dense, [N, F] each.

    Args:
        x: features of all nodes, whatever their form; of some, if they bring their averages along (`Averaged`).
        graph: an `Adjacency`, or an `edge_index` [2, E], of which one is made.
        hops: from 0, where there is none.
    """
    if not hops:
        return []
    if isinstance(x, Averaged):
        return x.averages(hops)
    adjacency = graph if isinstance(graph, Adjacency) else Adjacency.from_edge_index(graph, len(x))
    mean, found = adjacency.averaging(), [dense(x)]
    with torch.autocast(found[0].device.type, enabled=False):
        for _ in range(hops):
            found.append(mean.times(found[-1]))
    return found[1:]


class OnDisk:
    """Averages that are made when they are first asked for, and then lie in files: FOLDER/KEY-hop-1.npy and so on.

    Args:
        folder: for the averages of all graphs.
        key: what tells this graph and its features from others.
        x: features of all nodes, [N, F], whatever their form.
        graph: of these nodes.
    """

    def __init__(self, folder: Path, key: str, x: Tensor, graph: Adjacency):
        self.folder, self.key, self.graph = folder, key, graph
        self.x = x.features if isinstance(x, Tabled) else x
        self.hop = cache(self._hop)

    def path(self, hop: int) -> Path:
        """Return the file of the averages over so many hops."""
        return self.folder / f"{self.key}-hop-{hop}.npy"

    def _hop(self, hop: int) -> Tensor:
        """Return the averages over so many hops, [N, F], mapped from their file.

        Raises:
            InputError: they cannot be written.
        """
        found = self._read(hop)
        if found is None:
            with needing("average features over neighbours", AVERAGES_LESS):
                self._write(hop)
            found = self._read(hop)
            assert found is not None
        return found

    def _read(self, hop: int) -> Tensor | None:
        """Map a file; none if there is none, or not a whole one of these numbers."""
        try:
            held = np.load(self.path(hop), mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        found = torch.from_numpy(held)
        return found if found.shape == self.x.shape and found.dtype == self.x.dtype else None

    @torch.no_grad()
    def _write(self, hop: int) -> None:
        """Average the features over one hop more than those of before, some columns at a time."""
        before, (nodes, width) = self.x if hop == 1 else self.hop(hop - 1), self.x.shape
        columns, rows = max(COLUMNS, NUMBERS // max(nodes, 1)), self.graph.averaging().rows
        kind = torch.empty(0, dtype=self.x.dtype).numpy().dtype
        with whole_file(self.path(hop)) as beside:
            with beside.open("wb") as stream:  # room is taken first: a full disk would end a program that maps it
                np.lib.format.write_array_header_1_0(
                    stream, {"descr": kind.str, "fortran_order": False, "shape": (nodes, width)}
                )
                take_room(stream.fileno(), stream.tell() + nodes * width * kind.itemsize)
            held = np.load(beside, mmap_mode="r+")
            for first in range(0, width, columns):
                last = min(first + columns, width)
                held[:, first:last] = rows.times(take_columns(before, first, last)).cpu().numpy()
            held.flush()
