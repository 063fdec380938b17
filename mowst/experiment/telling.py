"""What `predict` prints of one prediction, or of a model, beside the predictions: what they rest on."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from mowst.errors import InputError
from mowst.experiment.asking import Query, nodes_named
from mowst.experiment.config import Config
from mowst.experiment.explaining import grounds_of
from mowst.experiment.reasons import reasons_of
from mowst.probes import as_table, probe


def one_node(query: Query, flag: str, word: str) -> int:
    """Return the number of the node that a flag names.

    Raises:
        InputError: it names none, or several.
    """
    named = nodes_named(query, [word], flag)
    if len(named) != 1:
        raise InputError(f"{flag} {word!r}: must name one node")
    return named[0]


def tell_labels(query: Query, home: Query, config: Config, word: str) -> None:
    """Print which training labels spoke most for the prediction of a node; `home` is the graph of these labels."""
    node = one_node(query, "--why", word)
    found = reasons_of(query, home, config, node)
    print(f"node {query.names[node]}: class {found.predicted}. Of {found.of:,} training labels these moved that most,")
    print("in nats by which each raises the log-probability of the class (below 0: the label speaks against it):")
    if found.standing:
        print(f"(through all of the model but {' and '.join(found.standing)}, which would have to be trained anew)")
    for each in found.spoke:
        print(f"{each.score:+.3g}  node {each.node}, class {each.label}")


def tell_grounds(query: Query, config: Config, word: str, **options: Any) -> None:
    """Print which neighbours and features spoke most for what was answered for a node; options as of `grounds_of`."""
    node = one_node(query, "--explain", word)
    found = grounds_of(query, config, node, **options)
    print(f"node {query.names[node]}: {found.voice} says class {found.predicted}, probability {found.probability:.3f}")
    for what, spoke in (("neighbours", found.neighbours), ("features", found.features)):
        if not spoke:
            print(f"{what}: none changes what it says")
            continue
        masks = "" if spoke[0][1].mask is None else "; in brackets, how much of it the answer needs (GNNExplainer)"
        print(f"{what}: nats by which the class's log-odds change without each, and the probability{masks}")
        for name, each in spoke:
            mask = "" if each.mask is None else f"  ({each.mask:.2f})"
            word = ("node " if each.direct else "further away, node ") * (what == "neighbours")
            print(f"{each.moved:+.3f}  {each.without:.3f}{mask}  {word}{name}")


def show_layers(query: Query) -> None:
    """Print what each layer of the model knows.

    Raises:
        InputError: the graph has no training and validation nodes.
    """
    if not {"train_mask", "val_mask", "y"} <= set(query.ready.keys()):
        raise InputError("--layers: the graph has no training and validation nodes to fit and score probes on")
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(as_table(probe(query.model, query.ready)))
