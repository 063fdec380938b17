"""What a person says of the files of a graph.

It imports nothing that takes long, for a command line's help has it as flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import get_type_hints

from mowst.system.typed import check_type_of


@dataclass(frozen=True)
class Columns:
    """What is what in the files of one's own graph; what is not said is found by its name."""

    id: str | None = None
    """Column of the nodes' ids; by default one called id, node_id, node, name or key, else the first."""
    source: str | None = None
    """Column of the edges' sources; by default one called source, src or from, else the first."""
    target: str | None = None
    """Column of the edges' targets; by default one called target, dst or to, else the second."""
    label: str | None = None
    """Column of the nodes' classes, empty where a node has none; by default one called label, class or y."""
    features: list[str] | str | None = None
    """Columns that are features, as a list or with commas; by default all that are nothing else."""
    split_column: str | None = None
    """Column that says train, val or test; by default one called split, else the split is drawn."""
    weight: str | None = "weight"
    """Column of the edges' weights, if there is one of that name; none: edges have no weights."""
    nodes_file: str | None = None
    """File of the nodes within the folder; by default nodes.csv, .tsv or .parquet."""
    edges_file: str | None = None
    """File of the edges within the folder; by default edges.csv, .tsv or .parquet."""
    directed: bool = False
    """Whether an edge leads from its source to its target only."""

    def __post_init__(self) -> None:
        hints = get_type_hints(Columns)
        for entry in fields(self):
            check_type_of(entry.name, getattr(self, entry.name), hints[entry.name])

    def within(self, names: Sequence[str]) -> Columns:
        """Return what is what on a graph that may lack labels and a split, and whose features are known already."""
        left = {name: held for name in ("label", "split_column") if (held := getattr(self, name)) in names}
        return replace(self, **{"label": None, "split_column": None, "features": None} | left)

    @property
    def listed(self) -> list[str] | None:
        """The columns that are features, if they are named."""
        if isinstance(self.features, str):
            return [name.strip() for name in self.features.split(",")]
        return self.features
