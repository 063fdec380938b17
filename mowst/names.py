"""Names for the variants of everything here: `graphkd.names`, speaking as this package does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeVar

import graphkd.names
from graphkd.checks import shown
from graphkd.names import callable_only as callable_only
from graphkd.names import is_path as is_path
from mowst.errors import InputError, meant

T = TypeVar("T")


class Names(graphkd.names.Names[T]):
    """The variants of one kind by short name, by `package.module:name`, or by an entry point of `mowst.<kind>`."""

    package = "mowst"

    def unknown(self, query: Any, choices: Iterable[str], reason: str) -> InputError:
        """Return the error for a name that stands for nothing of this kind."""
        names = sorted(choices)
        guess = "" if reason else meant(str(query), names)
        why = f" ({reason})" if reason else ""
        ways = f"choose from {', '.join(names)}, or give package.module:name"
        return InputError(f"{self.kind}: unknown {shown(query)}{why}; {guess}{ways}")


def resolve(what: str, path: str) -> Any:
    """Return the object at a dotted path.

    Raises:
        InputError: there is none; `what` says for what it was to be.
    """
    try:
        return graphkd.names.resolve(path)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from error


class FromFile(NamedTuple):
    """What a file may name of one kind, beside short names."""

    packages: tuple[str, ...]
    """Where it must be defined."""
    base: str
    """The class that it must be a kind of; "": any function or value defined there."""
    functions: tuple[str, ...] = ()
    """Functions that will do, too."""


FROM_FILES = {
    "loader": FromFile(
        ("torch_geometric.datasets", "mowst.data.loaders"),
        "torch_geometric.data:Dataset",
        (
            *(f"mowst.data.built_in:{name}" for name in ("digits", "digits_knn", "sbm")),
            "mowst.data.ogbn:ogbn",
            "mowst.data.own:graph_of_files",
        ),
    ),
    "transform": FromFile(("torch_geometric.transforms",), "torch_geometric.transforms:BaseTransform"),
    "expert": FromFile(("torch_geometric.nn.models", "mowst.models"), "torch.nn:Module"),
    "gate": FromFile(("mowst.models",), "torch.nn:Module"),
    "optimizer": FromFile(("torch.optim",), "torch.optim:Optimizer"),
    "loss": FromFile(("graphkd",), "graphkd:DistillationLoss"),
    "dispersion": FromFile(("mowst.models.dispersions",), ""),
    "objective": FromFile(("mowst.training.objectives", "mowst.training.distillation"), ""),
    "regime": FromFile(("mowst.training.regimes",), ""),
    "signal": FromFile(("mowst.evaluation.metrics",), ""),
}
"""A file that somebody was sent must not run anything: what it names is one of these, or of a trusted package."""

_trusted = set[str]()


def trust(*packages: str) -> None:
    """Let files name what is in some packages or modules, in this process from now on."""
    _trusted.update(packages)


def trusted() -> tuple[str, ...]:
    """Return the packages and modules that files may name, beside our own."""
    return tuple(sorted(_trusted))


def vet(what: str, kind: str, path: Any) -> None:
    """Refuse a dotted path out of a file that is neither one of ours nor of a package that is trusted.

    Args:
        what: the file and the field, for the message.
        kind: a key of `FROM_FILES`.
        path: what the file holds; a short name stands for what is ours, or installed.

    Raises:
        InputError: it is refused; nothing of it was imported.
    """
    if not isinstance(path, str) or not graphkd.names.is_path(path):
        return
    if kind == "expert" and "+" in path:  # several of them
        for each in path.split("+"):
            vet(what, kind, each)
        return
    dotted, allowed = path.replace(":", "."), FROM_FILES[kind]
    if any(_within(dotted, package) for package in _trusted):
        return
    if dotted in {function.replace(":", ".") for function in allowed.functions}:
        return
    if any(_within(dotted, package) for package in allowed.packages):
        found = resolve(what, path)
        home = found.__module__ if hasattr(found, "__module__") else ""
        right = not allowed.base or (isinstance(found, type) and issubclass(found, resolve(what, allowed.base)))
        if right and callable(found) and any(_within(home, package) for package in allowed.packages):
            return
    raise InputError(
        f"{what}: names {path!r}, and a file may name code of {', '.join(allowed.packages)} only; if you trust whoever "
        f"wrote it, add --trust {dotted.split('.', maxsplit=1)[0]}"
    )


def _within(dotted: str, package: str) -> bool:
    return dotted == package or dotted.startswith(f"{package}.")
