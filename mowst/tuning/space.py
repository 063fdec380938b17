"""What a study may choose: one dimension per field of the configuration, each only where it changes something.

Ranges stand beside the fields (`mowst.experiment.config`); an expert, a gate or a distillation loss brings those of its
constructor's parameters as `search`, a mapping; a person writes them as `mowst.tuning.ranges` has it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import cache
from itertools import product
from typing import Any, Protocol, runtime_checkable

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import BaseTrial

import graphkd
from mowst.errors import InputError, unknown
from mowst.experiment import Checked, Config, build, has_mixture, metadata, paired, used
from mowst.tuning.arguments import checked
from mowst.tuning.fields import (
    PARTS,
    configured,
    decides,
    effective,
    flat,
    losses_of,
    order,
    placed,
    under,
)
from mowst.tuning.ranges import asked_for, distribution, ends, inside

WEIGHT = (0.1, 10.0, "log")
"""What a study may search of a distillation loss's weight."""


@runtime_checkable
class Searched(Protocol):
    """An expert or a gate that brings ranges for its constructor's parameters."""

    search: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dimension(Checked):
    """One thing that a study chooses."""

    path: str
    """The field by its dotted name: lr, strong.dropout, gate.options.alpha."""
    distribution: BaseDistribution
    kind: str | None = None
    """The kind of expert or gate for which it is; none: for every one that takes it."""

    @property
    def name(self) -> str:
        """The name by which a study knows it; one field may have several ranges, and Optuna allows one a name."""
        return self.path if self.kind is None else f"{self.path} ({self.kind})"

    def applies(self, config: Config) -> bool:
        """Tell whether this dimension changes anything in a configuration."""
        head, *rest = self.path.split(".")
        if head not in PARTS or not rest or not used(config, config, head):
            return used(config, config, head)
        holder, kind = getattr(config, head), PARTS[head].kind(config)
        if self.kind not in (None, kind) or not used(config, holder, rest[0]):
            return False
        said = rest[0] == "kind" or metadata(holder, rest[0]).get("when") is not None
        return said or takes(PARTS[head].names.lookup(kind), rest[-1])


@dataclasses.dataclass(frozen=True)
class Space(Checked):
    """A configuration, and what is chosen anew in every trial."""

    config: Config
    dimensions: tuple[Dimension, ...]
    """In an order in which what decides comes before what it decides about."""

    @checked
    def draw(self, trial: BaseTrial) -> Config:
        """Let a trial choose a configuration."""
        config = self.config
        for dimension in self.dimensions:
            if dimension.applies(config):
                config = placed(config, dimension.path, suggest(trial, dimension))
        return config

    @checked
    def point(self, config: Config) -> dict[str, Any]:
        """Return where a configuration lies, by dimension; what lies outside a range is left out."""
        found, here = dict[str, Any](), self.config
        for dimension in self.dimensions:
            value = effective(config, dimension.path)
            if dimension.applies(here) and inside(value, dimension.distribution):
                found[dimension.name] = value
                here = placed(here, dimension.path, value)
        return found

    def described(self) -> dict[str, Any]:
        """Return all that makes trials of two studies comparable, in JSON's types."""
        chosen = {dimension.path for dimension in self.dimensions} | {"data_root", "device"}
        fixed = {path: value for path, value in flat(dataclasses.asdict(self.config)) if path not in chosen}
        return {each.name: json.loads(distribution_to_json(each.distribution)) for each in self.dimensions} | fixed


@checked
def make_space(config: Config, search: Mapping[str, Any] | None = None, fixed: Sequence[str] | Set[str] = ()) -> Space:
    """Return the space around a configuration.

    Args:
        config: what is not searched, and where the default lies.
        search: ranges, choices and single values by field, as in a space file; they narrow, add, or fix dimensions.
        fixed: fields, or parts such as "strong", that are not searched unless `search` names them.

    Raises:
        InputError: a field is unknown or says how trials are judged, a range is empty or holds what cannot be built.
    """
    if isinstance(fixed, str):
        raise InputError(f"fixed: must be a list of fields, got {fixed!r}")
    config = paired(config)
    for role, part in {"weak": config.weak, "strong": config.strong}.items():
        if len(part.members) != 1:
            raise InputError(
                f"space: {role}: a panel ({part.kind}) is not searched; tune one of its members, {role}.kind"
            )
    asked = {path: asked_for(path, given) for path, given in flat(search or {})}
    losses = {f"kd.{loss['name']}" for loss in losses_of(config.kd)}
    for path in asked:
        if path.startswith("kd.") and path.rpartition(".")[0] not in losses:
            raise unknown("space: loss", path.rpartition(".")[0], losses or ["none, for there is no --kd"])
    ranges = {path: value for path, value in asked.items() if isinstance(value, BaseDistribution)}
    config = configured(config, {path: value for path, value in asked.items() if path not in ranges})
    left = [each for each in defaults(config, ranges) if not any(under(each.path, name) for name in (*fixed, *asked))]
    left += [Dimension(path, value) for path, value in ranges.items() if ".options." not in path]
    build(config, 4, 3)
    for path, value in ranges.items():
        left += options(config, left, path, value) if ".options." in path else []
    left.sort(key=lambda each: order(each.path))
    space = Space(config, tuple(each for each in left if reachable(each, config, left)))
    if not space.dimensions:
        raise InputError("space: nothing is left to search; fix fewer fields")
    if lost := [path for path in ranges if path not in {each.path for each in space.dimensions}]:
        raise InputError(f"space: {lost[0]} changes nothing in this configuration; leave it out")
    for each in (each for each in space.dimensions if each.path in ranges):
        way = next(way for way in ways(config, left) if each.applies(way))
        for value in ends(each.distribution):
            build(placed(way, each.path, value), 4, 3)  # no trial shall fail for what was asked for here
    return space


def options(config: Config, left: Sequence[Dimension], path: str, given: BaseDistribution) -> list[Dimension]:
    """Return the dimension of a constructor's parameter, for those kinds that can be built with it."""
    part = path.partition(".")[0]
    refused, kinds = dict[str, InputError](), list[str]()
    for kind, way in {PARTS[part].kind(way): way for way in ways(config, left)}.items():
        try:
            for value in ends(given):
                build(placed(way, path, value), 4, 3)
            kinds.append(kind)
        except InputError as error:
            refused[kind] = error
    if not kinds:
        names, option = PARTS[part].names, path.rpartition(".")[2]
        raise max(refused.items(), key=lambda each: takes(names.lookup(each[0]), option))[1]
    return [Dimension(path, given, kind) for kind in kinds] if refused else [Dimension(path, given)]


def defaults(config: Config, ranges: Mapping[str, BaseDistribution]) -> Iterator[Dimension]:
    """Yield a dimension for every field with a range, and for every range that an expert, a gate or a loss brings."""
    searched = {entry.name: entry.metadata.get("search") for entry in dataclasses.fields(Config)}
    if config.kd or not has_mixture(config):
        del searched["regime"]  # a student has none but its own, and held-out refuses some losses and teachers
    for name, given in searched.items():
        if name in PARTS:
            yield from part_defaults(name, config, getattr(ranges.get(f"{name}.kind"), "choices", None))
        elif given is not None:
            yield Dimension(name, distribution(name, offered(config, name, given)))
    for loss in losses_of(config.kd):
        for option, given in {"weight": WEIGHT, **graphkd.find(loss["name"]).search}.items():
            if option not in loss:
                yield Dimension(f"kd.{loss['name']}.{option}", distribution(option, given))


def part_defaults(part: str, config: Config, kinds: Sequence[str] | None) -> Iterator[Dimension]:
    """Yield the dimensions of an expert or a gate that may be of some kinds, by default of those beside the field."""
    holder = getattr(config, part)
    if kinds is None:
        named = [*(metadata(holder, "kind").get("search") or []), PARTS[part].kind(config)]
        kinds = offered(config, f"{part}.kind", named)
    own = {kind: brought(part, kind) for kind in kinds}
    names = [entry.name for entry in dataclasses.fields(holder)]
    for name in names:
        path = f"{part}.{name}"
        given = offered(config, path, metadata(holder, name).get("search"))
        if given is not None and any(name in ranges for ranges in own.values()):
            yield from (Dimension(path, distribution(path, given), kind) for kind in own if name not in own[kind])
        elif given is not None:
            yield Dimension(path, distribution(path, given))
    for kind, ranges in own.items():
        for name, given in ranges.items():
            path = f"{part}.{name}" if name in names else f"{part}.options.{name}"
            yield Dimension(path, distribution(path, given), kind)


def offered(config: Config, path: str, given: Any) -> Any:
    """Return the range of a field without what the rest of the configuration refuses: not every gate goes with an
    objective that was asked for.
    """
    return [value for value in given if allowed(config, path, value)] if given and decides(path) else given


def allowed(config: Config, path: str, value: Any) -> bool:
    """Tell whether a configuration may have a value."""
    try:
        placed(config, path, value)
    except InputError:
        return False
    return True


def brought(part: str, kind: str) -> Mapping[str, Any]:
    """Return the ranges that an expert or a gate has for its own parameters."""
    factory = PARTS[part].names.lookup(kind)
    return factory.search if isinstance(factory, Searched) else {}


def ways(config: Config, dimensions: Sequence[Dimension]) -> Iterator[Config]:
    """Yield the configuration with every combination of what decides about others."""
    deciding = sorted((each for each in dimensions if decides(each.path)), key=lambda each: order(each.path))
    for values in product(*(ends(each.distribution) for each in deciding)):
        yield configured(config, {each.path: value for each, value in zip(deciding, values, strict=True)})


def reachable(dimension: Dimension, config: Config, dimensions: Sequence[Dimension]) -> bool:
    """Tell whether a dimension changes anything anywhere in the space."""
    return any(dimension.applies(way) for way in ways(config, dimensions))


@cache
def takes(factory: Any, name: str) -> bool:
    """Tell whether a constructor takes a parameter, as far as its signature says."""
    parameters = inspect.signature(factory).parameters
    return name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


def suggest(trial: BaseTrial, dimension: Dimension) -> Any:
    """Ask a trial for a value, by Optuna's public methods, so that any kind of trial will do."""
    given = dimension.distribution
    if isinstance(given, CategoricalDistribution):
        return trial.suggest_categorical(dimension.name, given.choices)
    assert isinstance(given, IntDistribution | FloatDistribution)
    ask: Any = trial.suggest_int if isinstance(given, IntDistribution) else trial.suggest_float
    return ask(dimension.name, given.low, given.high, log=given.log)
