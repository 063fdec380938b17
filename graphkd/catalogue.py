"""Losses by name: short names, entry points (group "graphkd.losses"), dotted paths, and specifications of several.

A specification is a line such as `gld(k=5, weight=0.5) + nkd`, or the list that the same thing is in YAML:
`[{name: gld, k: 5, weight: 0.5}, nkd]`. `weight`, `warmup` (epochs until the weight is full) and `on` ("all" nodes or
"train") belong to the trainer, everything else to the loss. A loss stands first for `inner`:
`standardized(nkd(gamma=1), temperature=1)`. A bare word is a string: `gld(form=neighbourhood)`. The line is parsed,
never evaluated.
"""

from __future__ import annotations

import ast
import inspect
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graphkd import feature, graph, logit, relation
from graphkd.contract import DistillationLoss, choose
from graphkd.names import Names

COLON = re.compile(r"(?<=\w):(?=[A-Za-z_])")
BARE_WORD = re.compile(r"=\s*([a-z]+)\b(?!\()")
Entry = str | Mapping[str, Any]


def loss_class(found: Any) -> type[DistillationLoss]:
    """Refuse what is no class of losses."""
    if not (isinstance(found, type) and issubclass(found, DistillationLoss)):
        raise ValueError("is no graphkd.DistillationLoss")
    return found


_CLASSES = (*logit.LOSSES, *feature.LOSSES, *graph.LOSSES, *relation.LOSSES)
LOSSES: Names[type[DistillationLoss]] = Names(
    "loss",
    {name: cls for cls in _CLASSES for name in (cls.__name__.lower(), *sorted(cls.synonyms))},
    group="graphkd.losses",
    adapt=loss_class,
)


class Weighted(NamedTuple):
    """A loss as a trainer uses it: its share of the objective, epochs until that is reached, and the nodes it sees."""

    loss: DistillationLoss
    weight: float = 1.0
    warmup: int = 0
    on: str = "all"
    name: str = ""

    def weight_at(self, epoch: int) -> float:
        """Return the weight in an epoch (from 0): rising linearly over the warm-up."""
        return self.weight * min(1.0, (epoch + 1) / (self.warmup + 1))


def find(name: str) -> type[DistillationLoss]:
    """Return the class behind a short name, an entry point, or a dotted path `package.module.Class`.

    Raises:
        ValueError: there is none, or it is no loss.
    """
    return LOSSES.lookup(name)


def make(name: str, **options: Any) -> DistillationLoss:
    """Return the loss of that name with these options; `inner` may be a name or a mapping itself."""
    cls = find(name)
    known = {key: parameter.default for key, parameter in inspect.signature(cls).parameters.items()}
    if unknown := [key for key in options if key not in known]:
        raise ValueError(f"{name}: unknown option {unknown[0]!r}; choose from {', '.join(known) or 'none'}")
    for key, value in options.items():
        if not _alike(value, known[key]):
            raise ValueError(f"{name}: {key} must be like {known[key]!r}, got {value!r}")
    if isinstance(options.get("inner"), str | Mapping):
        options["inner"] = _inner(name, options["inner"])
    try:
        return cls(**options)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None


def build(losses: str | Entry | Sequence[Entry]) -> tuple[Weighted, ...]:
    """Return the weighted losses of a specification: a line, a mapping, or a list of names, lines and mappings."""
    if isinstance(losses, str):
        return tuple(_weighted(entry) for entry in parse(losses))
    if isinstance(losses, Mapping):
        return (_weighted(losses),)
    return tuple(weighted for entry in losses for weighted in build(entry))


def parse(line: str) -> list[dict[str, Any]]:
    """Return a line's losses as mappings: `parse("gld(k=5)+nkd")` is `[{"name": "gld", "k": 5}, {"name": "nkd"}]`."""
    try:
        dotted = COLON.sub(".", line.strip())  # package.module:Class
        tree = ast.parse(BARE_WORD.sub(_quoted, dotted), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(f"losses: cannot read {line!r}; write e.g. gld(k=5,weight=0.5)+nkd") from None
    return [_entry(term) for term in _terms(tree)]


def _quoted(match: re.Match[str]) -> str:
    word = match[1]  # such as `global` and `class`, which Python would not read as names
    return f"={word!r}" if keyword.iskeyword(word) else match[0]


def _terms(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [*_terms(node.left), *_terms(node.right)]
    return [node]


def _entry(node: ast.expr) -> dict[str, Any]:
    if isinstance(node, ast.Name | ast.Attribute):
        return {"name": ast.unparse(node)}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)) or len(node.args) > 1:
        raise ValueError(f"losses: cannot read {ast.unparse(node)!r}; write name or name(option=value, ...)")
    entry: dict[str, Any] = {"name": ast.unparse(node.func)}
    if node.args:
        entry["inner"] = _entry(node.args[0])
    for option in node.keywords:
        if option.arg is None or option.arg in entry:
            raise ValueError(f"losses: {ast.unparse(node)!r} gives {option.arg or '**'} in a way that cannot be read")
        entry[option.arg] = _value(option.value)
    return entry


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):
        return _entry(node)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"losses: {ast.unparse(node)!r} is no literal value") from None


def _alike(value: Any, default: Any) -> bool:
    kind = {bool: bool, int: int, float: (int, float), str: str}.get(type(default), object)
    return isinstance(value, kind) and (kind is object or isinstance(value, bool) == (kind is bool))  # type: ignore[arg-type]


def _weighted(entry: Mapping[str, Any]) -> Weighted:
    options = dict(entry)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"losses: {dict(entry)!r} has no name")
    weight, warmup, on = options.pop("weight", 1.0), options.pop("warmup", 0), options.pop("on", "all")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
        raise ValueError(f"{name}: weight must be a number from 0, got {weight!r}")
    if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
        raise ValueError(f"{name}: warmup must be a whole number of epochs, got {warmup!r}")
    choose(f"{name}: on", on, ("all", "train"))
    return Weighted(make(name, **options), float(weight), warmup, on, name)


def _inner(name: str, inner: Entry) -> DistillationLoss:
    entries = parse(inner) if isinstance(inner, str) else [dict(inner)]
    if len(entries) != 1 or not isinstance(entries[0].get("name"), str):
        raise ValueError(f"{name}: inner must be one loss, got {inner!r}")
    return make(**entries[0])
