"""Which neighbours and features spoke for a prediction of a run, by name."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

from torch_geometric.data import Data

from mowst.data.assembling import own_of
from mowst.experiment.asking import Query, asked
from mowst.experiment.building import seeded
from mowst.experiment.config import Config
from mowst.influence import Column, Felt, explain, voice_of
from mowst.kernels import Tabled
from mowst.models import ROLES, Mowst, Trees


class Grounds(NamedTuple):
    """What the answer for a node rests on, by name."""

    voice: str
    """Who answered."""
    predicted: Hashable
    """The class that this expert says."""
    probability: float
    neighbours: list[tuple[Hashable, Felt]]
    features: list[tuple[str, Felt]]
    of: int
    """How many other nodes the expert can see from here."""


def grounds_of(query: Query, config: Config, node: int, *, seed: int = 0, **options: Any) -> Grounds:
    """Return the neighbours and features that spoke most to the expert that answered for a node.

    Args:
        query: the model, and the graph that the node is of.
        config: of the run.
        node: number of the node.
        seed: of the masks that are learned.
        options: `how` and `threshold`, as of `mowst.inference.answer`.
    """
    ready, role = query.ready, ""
    if isinstance(query.model, Mowst):
        weak = asked(query, config, [node], **options).weak
        role = ROLES[0] if weak is not None and bool(weak[0]) else ROLES[1]
    voice = voice_of(query.model, ready, node, role)
    if not role:
        voice = voice._replace(name=f"the model {query.name}")
    sees_table = isinstance(voice.expert, Trees) and isinstance(ready.x, Tabled)
    names, columns = table_in(query.data) if sees_table else (features_in(query.data, ready), None)
    with seeded(seed, ready.x.device):
        found = explain(voice, ready, node, columns)
    return Grounds(
        voice.name,
        query.class_names[found.predicted],
        found.probability,
        [(query.names[each.place], each) for each in found.neighbours],
        [(names[each.place], each) for each in found.features],
        found.of,
    )


def features_in(data: Data, ready: Data) -> list[str]:
    """Return what the features of a graph are called, by default by their numbers."""
    own, count = own_of(data), ready.x.size(1)
    if own is not None and own.fitted is not None and len(own.fitted.names) == count:
        return own.fitted.names
    return [f"feature {place}" for place in range(count)]


def table_in(data: Data) -> tuple[list[str], list[Column]]:
    """Return the columns of the table that features were made of, by name, and where each of them is."""
    own = own_of(data)
    assert own is not None
    assert own.fitted is not None
    names, sources = own.fitted.raw_names, own.fitted.sources
    made = [[place for place, source in enumerate(sources) if source == name] for name in names]
    return names, [Column(features, raw) for raw, features in enumerate(made)]
