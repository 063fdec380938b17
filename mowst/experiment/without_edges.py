"""`--batch hops`: features that bring their averages along, and experts that look at nothing else of the graph."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor, nn

from mowst.errors import InputError
from mowst.experiment.config import Config
from mowst.experiment.identity import tensors_hash
from mowst.kernels import Adjacency, Averaged, SparseFeatures, Tabled, unit_rows
from mowst.models import OnDisk, by_rows, reads_of
from mowst.training import Hops, feed_of


def has_no_edges(config: Config) -> bool:
    """Tell whether the batches of a configuration have no edges."""
    return config.batch != "auto" and isinstance(feed_of(config.batch), Hops)


def with_averages(config: Config, x: Tensor, graph: Adjacency) -> Tensor:
    """Return features [N, F] with their averages over hops, which lie under the folder of graphs, if batches need them.

    Graphs and features that are the same share the files.
    """
    if not has_no_edges(config):
        return x

    def on_disk(x: Tensor) -> OnDisk:
        held = x.features if isinstance(x, Tabled) else x
        parts = (held.rows.start, held.rows.column, held.rows.value) if isinstance(held, SparseFeatures) else (held,)
        known = (*parts, graph.rows.start, graph.rows.column, graph.rows.value)
        key = tensors_hash(*(each for each in known if each is not None))[:32]
        return OnDisk(Path(config.data_root) / "averages", key, x, graph)

    return Averaged(x, on_disk(x).hop, unit_hop=cache(lambda: on_disk(unit_rows(x)).hop))


def without_edges(config: Config, what: str, expert: nn.Module) -> nn.Module:
    """Let an expert look at no edge, if batches have none.

    Raises:
        InputError: it needs them.
    """
    if has_no_edges(config) and reads_of(by_rows(expert)).hops != 0:
        raise InputError(
            f"batch: hops: the {what} looks at edges, and these batches have none; take sign, hop-trees, mlp or trees, "
            "or --batch parts(10)"
        )
    return expert
