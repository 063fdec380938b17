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
from typing import Any, NamedTuple, Self

from torch import nn

from graphkd import codes, feature, graph, logit, neighbours, relation, similarity
from graphkd.checks import choose, not_negative, shown, whole
from graphkd.contract import DistillationLoss
from graphkd.names import Names

COLON = re.compile(r"(?<=\w):(?=[A-Za-z_])")
BARE_WORD = re.compile(r"=\s*([a-z]+)\b(?!\()")
Entry = str | Mapping[str, Any]
LONGEST = 10_000
"""Characters of a line."""
MOST_EPOCHS = 10**9
EXAMPLE = "write e.g. gld(k=5,weight=0.5)+nkd"


def loss_class(found: Any) -> type[DistillationLoss]:
    """Refuse what is no class of losses."""
    if not (isinstance(found, type) and issubclass(found, DistillationLoss)):
        raise ValueError("is no graphkd.DistillationLoss")
    return found


_FAMILIES = (logit, feature, graph, relation, neighbours, similarity, codes)
_CLASSES = tuple(cls for family in _FAMILIES for cls in family.LOSSES)
LOSSES: Names[type[DistillationLoss]] = Names(
    "loss",
    {name: cls for cls in _CLASSES for name in (cls.__name__.lower(), *sorted(cls.synonyms))},
    group="graphkd.losses",
    adapt=loss_class,
)


class _Share(NamedTuple):
    loss: DistillationLoss
    weight: float = 1.0
    warmup: int = 0
    on: str = "all"
    name: str = ""


class Weighted(_Share):
    """A loss as a trainer uses it: its share of the objective, epochs until that is reached, and the nodes it sees.

    Raises:
        ValueError: the weight is negative, the warm-up no number of epochs, or `on` neither "all" nor "train".
    """

    __slots__ = ()

    def __new__(
        cls, loss: DistillationLoss, weight: float = 1.0, warmup: int = 0, on: str = "all", name: str = ""
    ) -> Self:
        """Check a loss's share, and return it."""
        if not isinstance(name, str):
            raise ValueError(f"name must be text, got {shown(name)}")
        where = f"{name}: " if name else ""
        if not isinstance(loss, nn.Module):
            raise ValueError(f"{where}loss must be one such as graphkd.KD(), got {shown(loss)}")
        not_negative(f"{where}weight", weight)
        whole(f"{where}warmup", warmup, most=MOST_EPOCHS)
        choose(f"{where}on", on, ("all", "train"))
        return super().__new__(cls, loss, float(weight), warmup, on, name)

    def weight_at(self, epoch: int) -> float:
        """Return the weight in an epoch (from 0): rising linearly over the warm-up."""
        whole("epoch", epoch)
        return self.weight * min(1.0, (epoch + 1) / (self.warmup + 1))


def find(name: str) -> type[DistillationLoss]:
    """Return the class behind a short name, an entry point, or a dotted path `package.module.Class`.

    Raises:
        ValueError: there is none, or it is no loss.
    """
    return LOSSES.lookup(name)


def make(name: str, **options: Any) -> DistillationLoss:
    """Return the loss of that name with these options; `inner` may be a name or a mapping itself.

    Raises:
        ValueError: there is no such loss, or it has no such options.
    """
    cls = find(name)
    known = {key: parameter.default for key, parameter in inspect.signature(cls).parameters.items()}
    if unknown := [key for key in options if key not in known]:
        raise ValueError(f"{name}: unknown option {shown(unknown[0])}; choose from {', '.join(known) or 'none'}")
    for key, value in options.items():
        if not _alike(value, known[key]):
            raise ValueError(f"{name}: {key} must be like {known[key]!r}, got {shown(value)}")
    try:
        if isinstance(options.get("inner"), str | Mapping):
            options["inner"] = _inner(options["inner"])
        return cls(**options)
    except RecursionError:
        raise ValueError(f"{name}: inner losses are nested too deeply") from None
    except (TypeError, ValueError) as error:
        said = str(error)
        raise ValueError(said if said.lower().startswith(f"{name}: ".lower()) else f"{name}: {said}") from None


def build(losses: str | Entry | Sequence[Entry]) -> tuple[Weighted, ...]:
    """Return the weighted losses of a specification: a line, a mapping, or a list of names, lines and mappings.

    Raises:
        ValueError: it cannot be read, or a loss of it cannot be made.
    """
    if isinstance(losses, str):
        return tuple(_weighted(entry) for entry in parse(losses))
    if isinstance(losses, Mapping):
        return (_weighted(losses),)
    if not isinstance(losses, Sequence) or not all(isinstance(entry, str | Mapping) for entry in losses):
        raise ValueError(
            f"losses: must be a line such as gld(k=5,weight=0.5)+nkd, or a list of such and of mappings such as "
            f"{{name: gld, k: 5}}, got {shown(losses)}"
        )
    return tuple(weighted for entry in losses for weighted in build(entry))


def parse(line: str) -> list[dict[str, Any]]:
    """Return a line's losses as mappings: `parse("gld(k=5)+nkd")` is `[{"name": "gld", "k": 5}, {"name": "nkd"}]`.

    Raises:
        ValueError: it cannot be read.
    """
    if not isinstance(line, str) or len(line) > LONGEST:
        raise ValueError(f"losses: must be a line of at most {LONGEST} characters, got {shown(line)}")
    try:
        return [_entry(term) for term in _terms(_tree(line))]
    except (RecursionError, MemoryError):
        raise ValueError(f"losses: {shown(line)} is nested too deeply; {EXAMPLE}") from None


def _tree(line: str) -> ast.expr:
    dotted = COLON.sub(".", line.strip())  # package.module:Class
    try:
        return ast.parse(BARE_WORD.sub(_quoted, dotted), mode="eval").body
    except (SyntaxError, ValueError):
        raise ValueError(f"losses: cannot read {shown(line)}; {EXAMPLE}") from None


def _quoted(match: re.Match[str]) -> str:
    word = match[1]  # such as `global` and `class`, which Python would not read as names
    return f"={word!r}" if keyword.iskeyword(word) else match[0]


def _terms(node: ast.expr) -> list[ast.expr]:
    pending, terms = [node], []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pending += [node.right, node.left]
        else:
            terms.append(node)
    return terms


def _entry(node: ast.expr) -> dict[str, Any]:
    if isinstance(node, ast.Name | ast.Attribute):
        return {"name": ast.unparse(node)}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)) or len(node.args) > 1:
        raise ValueError(f"losses: cannot read {shown(ast.unparse(node))}; write name or name(option=value, ...)")
    entry: dict[str, Any] = {"name": ast.unparse(node.func)}
    if node.args:
        entry["inner"] = _entry(node.args[0])
    for option in node.keywords:
        if option.arg is None or option.arg in entry:
            given = shown(ast.unparse(node))
            raise ValueError(f"losses: {given} gives {option.arg or '**'} twice, or in a way that cannot be read")
        entry[option.arg] = _value(option.value)
    return entry


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Call):
        return _entry(node)
    try:
        return ast.literal_eval(node)
    except (TypeError, ValueError):
        raise ValueError(f"losses: {shown(ast.unparse(node))} is no literal value") from None


def _alike(value: Any, default: Any) -> bool:
    kind = {bool: bool, int: int, float: (int, float), str: str}.get(type(default), object)
    return isinstance(value, kind) and (kind is object or isinstance(value, bool) == (kind is bool))  # type: ignore[arg-type]


def _weighted(entry: Mapping[str, Any]) -> Weighted:
    name, options = _named("losses", entry)
    share = {key: options.pop(key) for key in ("weight", "warmup", "on") if key in options}
    return Weighted(make(name, **options), **share, name=name)


def _inner(inner: Entry) -> DistillationLoss:
    entries: Sequence[Mapping[str, Any]] = parse(inner) if isinstance(inner, str) else [inner]
    if len(entries) != 1:
        raise ValueError(f"inner must be one loss, got {shown(inner)}")
    name, options = _named("inner", entries[0])
    return make(name, **options)


def _named(where: str, entry: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a loss that is given as a mapping."""
    options = dict(entry)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ValueError(f"{where}: {shown(dict(entry))} has no name, such as name: kd")
    if wrong := [key for key in options if not isinstance(key, str)]:
        raise ValueError(f"{where}: {name}: an option has a name in words, got {shown(wrong[0])}")
    return name, options
