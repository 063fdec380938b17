"""The fields of a configuration by dotted name: lr, strong.dropout, gate.options.alpha, kd.gld.temperature.

The options of a distillation loss go by the loss's name in `kd`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import graphkd
from mowst.experiment import Config, used
from mowst.models import EXPERTS, GATES
from mowst.names import Names


class Part(NamedTuple):
    """A part of the configuration that is of some kind."""

    names: Names[Any]
    kind: Callable[[Config], str]


PARTS = {
    "weak": Part(EXPERTS, lambda config: config.weak.kind),
    "strong": Part(EXPERTS, lambda config: config.strong.kind),
    "gate": Part(GATES, lambda config: config.gate_kind),
}
JUDGES = {"dataset", "columns", "data_root", "split", "signal", "seeds", "first_seed", "mixture", "baselines", "device"}
"""By what trials are judged, and where they run: the same for all of a study."""


def order(path: str) -> int:
    """Return the place of a field: what it is that others depend on comes before them."""
    return 0 if path == "regime" else 1 if path.endswith(".kind") else 2


def decides(path: str) -> bool:
    """Tell whether others may depend on a field."""
    return order(path) < 2


def under(path: str, name: str) -> bool:
    """Tell whether a path is a field, or lies within the part of that name."""
    return path == name or path.startswith(f"{name}.")


def flat(mapping: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings by dotted name."""
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value


def taken(config: Config, path: str) -> Any:
    """Return the value at a dotted name."""
    found: Any = config
    for name in path.split("."):
        found = entry_of(found, name)
    return found


def entry_of(holder: Any, name: str) -> Any:
    """Return a field of a configuration, an option, or the loss of that name in a specification."""
    if isinstance(holder, str | list):
        return next(loss for loss in losses_of(holder) if loss["name"] == name)
    return holder[name] if isinstance(holder, Mapping) else getattr(holder, name)


def losses_of(kd: Any) -> list[dict[str, Any]]:
    """Return the losses of a specification, each as a mapping of its name and options."""
    found = graphkd.parse(kd) if isinstance(kd, str) else [kd] if isinstance(kd, Mapping) else kd or []
    return [loss for each in found for loss in ([dict(each)] if isinstance(each, Mapping) else losses_of(each))]


def effective(config: Config, path: str) -> Any:
    """Return the value at a dotted name; what is not set, as the regime or the constructor has it."""
    head, _, name = path.partition(".")
    if name == "kind":
        return PARTS[head].kind(config)
    factory: Any
    if head == "kd" and name:
        loss, _, option = name.partition(".")
        given, factory = entry_of(config.kd, loss), graphkd.find(loss)
    else:
        option = name.removeprefix("options.")
        if option == name:
            return taken(config, path)
        given, factory = getattr(config, head).options, PARTS[head].names.lookup(PARTS[head].kind(config))
    parameters = inspect.signature(factory).parameters
    return given.get(option, parameters[option].default if option in parameters else None)


def placed(config: Config, path: str, value: Any) -> Config:
    """Return a configuration that has a value at a dotted name; a part that becomes of another kind begins anew."""
    changed: Config = replaced(config, path, value)
    for part, (_, kind) in PARTS.items() if decides(path) else ():
        if kind(changed) != kind(config):
            changed = renewed(changed, part)
    return changed


def replaced(holder: Any, path: str, value: Any) -> Any:
    """Return a configuration, a part, options or losses with a value at a dotted name."""
    name, dot, rest = path.partition(".")
    if isinstance(holder, str | list):
        losses = losses_of(holder)
        return [replaced(loss, rest, value) if loss["name"] == name else loss for loss in losses]
    if isinstance(holder, Mapping):
        return {**holder, name: value}
    return dataclasses.replace(holder, **{name: replaced(getattr(holder, name), rest, value) if dot else value})


def renewed(config: Config, part: str) -> Config:
    """Return a configuration with a part that has no options, and defaults where it had what its kind does not use."""
    holder = getattr(config, part)
    unused = [entry for entry in dataclasses.fields(holder) if not used(config, holder, entry.name)]
    fresh = {entry.name: entry.default for entry in unused} | {"options": {}}
    return dataclasses.replace(config, **{part: dataclasses.replace(holder, **fresh)})


def configured(config: Config, params: Mapping[str, Any]) -> Config:
    """Return a configuration with what a trial chose, by the names of dimensions."""
    for path, value in sorted(params.items(), key=lambda each: order(each[0])):
        config = placed(config, path.partition(" ")[0], value)
    return config
