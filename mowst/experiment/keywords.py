"""The parameters of an estimator: fields of `Config`, each a keyword, written down once, in `Config`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import nn

from mowst.errors import InputError, unknown
from mowst.experiment.config import Config
from mowst.experiment.plan import regime_of
from mowst.models import ROLES

OF_A_RUN = {
    *("dataset", "columns", "data_root", "split", "seeds", "first_seed", "predictions", "mixture", "baselines"),
    *("coverage", "conformal", "diffusion", "mondrian", "abstain_risk", "forget"),
}
"""Fields that an estimator has no use for: where a graph is, what is compared, calibrated, forgotten and written."""
FIELDS = tuple(entry.name for entry in dataclasses.fields(Config) if entry.name not in OF_A_RUN)
KINDS = ("weak", "strong", "gate")
"""Fields that may be given as the name of a kind."""

F = TypeVar("F", bound=Callable[..., Any])


def with_fields(method: F) -> F:
    """Put the fields in the place of `**options` in what `inspect.signature` tells of a method; none by default."""
    told = inspect.signature(method)
    plain = [each for each in told.parameters.values() if each.kind is not each.VAR_KEYWORD]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in FIELDS]
    vars(method)["__signature__"] = told.replace(parameters=[*plain, *more])
    return method


def refuse_unknown(names: Iterable[str]) -> None:
    """Refuse what is no field.

    Raises:
        InputError: one is none; perhaps another one was meant.
    """
    if wrong := [name for name in names if name not in FIELDS]:
        raise unknown("MowstClassifier: option", wrong[0], FIELDS)


def by_path(given: Any, name: str) -> str:
    """Say how a module of one's own is given: by its dotted path, so that it can be built and read again."""
    kind = given if inspect.isroutine(given) or isinstance(given, type) else type(given)
    path = f"{kind.__module__}:{kind.__qualname__}"
    takes = "" if name == "gate" else "; its class takes (in_channels, out_channels, ...)"
    return f"give a module of your own by its path, {name}={path!r}{takes}"


def configuration(config: Config | None, seed: int, given: Mapping[str, Any]) -> Config:
    """Return the configuration that the parameters of an estimator say.

    Args:
        config: a whole one, or none for the defaults.
        seed: looked at as well.
        given: values by field; none: as in `config`.

    Raises:
        InputError: one is not what it must be, or no mixture would be trained.
    """
    if config is not None and not isinstance(config, Config):
        raise InputError(f"config: must be a mowst.Config, is {config!r}; an expert is given as strong='sage'")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"seed: must be a whole number from 0 to 2**32 - 1, is {seed!r}")
    base = config or Config()
    changed = {name: value for name, value in given.items() if value is not None}
    for name in changed.keys() & set(KINDS):
        if isinstance(changed[name], str):
            changed[name] = dataclasses.replace(getattr(base, name), kind=changed[name])
        elif isinstance(changed[name], nn.Module | type) or callable(changed[name]):
            raise InputError(f"{name}: {by_path(changed[name], name)}")
    found = dataclasses.replace(base, **changed)
    if regime_of(found).alone:
        raise InputError(f"MowstClassifier: regime {found.regime} trains no mixture")
    if found.teacher not in (None, *ROLES):
        raise InputError(f"MowstClassifier: teacher {found.teacher}: only mowst.run reads one; give strong")
    if found.coverage is not None or found.abstain_risk is not None:
        raise InputError("MowstClassifier: coverage and abstain_risk: only mowst.run keeps nodes to calibrate with")
    return found
