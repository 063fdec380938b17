"""The preset `best`: candidates are tried one after another, and those that bring something become the panel.

The list is fixed and in order; a budget of time only decides where it ends. Candidates are trained alone on the first
seed and judged on validation nodes, by ensemble selection (`mowst.training.select`): not who is best alone is kept,
but who adds to the others. What comes out is a plain configuration, which repeats the run without the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mowst.errors import InputError
from mowst.experiment.bench import Bench
from mowst.experiment.choosing import HELD_BACK, PRESETS, composed
from mowst.experiment.config import Config, has_candidates, seconds
from mowst.experiment.expert import ExpertConfig
from mowst.experiment.folder import CHOSEN, dump
from mowst.experiment.opening import Opened
from mowst.experiment.plan import seats_of
from mowst.system import read_yaml, write_text
from mowst.training import select

Told = Callable[[str], None]


def searches(config: Config) -> bool:
    """Tell whether a configuration asks for candidates to be tried first."""
    return config.preset == "best" and has_candidates(config)


def search(config: Config, told: Told = lambda line: None) -> Config:
    """Try the candidates of a configuration's preset, and return it with those as strong expert that are worth keeping.

    The next one is begun as long as the time so far, and that of training those kept once more with a twin each,
    are within the budget; the first one always is.

    Args:
        config: asks for `auto`.
        told: called with a line about each candidate.

    Raises:
        InputError: the configuration or the data does not allow it.
        FloatingPointError: training diverged.
    """
    opened = Opened(config)
    seats = seats_of(opened.config, "strong")
    if not seats:
        return opened.config
    config.predictions.check(name for name in opened.plan.kept if name not in seats)  # which need not be kept
    return tried(opened.bench(config.first_seed), told)


def tried(bench: Bench, told: Told = lambda line: None) -> Config:
    """Train the members of a bench's strong expert alone, and return its configuration with those worth keeping.

    Args:
        bench: of a configuration whose strong expert is all candidates, with a budget for them.
        told: called with a line about each candidate.
    """
    config, y = bench.config, bench.ready.y[bench.ready.val_mask]
    seats = seats_of(config, "strong")
    if not seats:
        return config
    budget, start = seconds(config.budget), time.perf_counter()
    said, took, weights = dict[str, Tensor](), dict[str, float](), dict[str, float]()
    for name in ("weak", *seats):
        spent = time.perf_counter() - start
        again = 2 * sum(took[kept] for kept, weight in weights.items() if weight)
        if len(said) > 1 and spent + again > budget:
            told(f"{config.budget} are spent: {len(said) - 1} of {len(seats)} candidates were tried")
            break
        fitted = bench.train(name)
        said[name], took[name] = fitted.output.of("").values[bench.ready.val_mask], fitted.own_seconds
        weights = select(said, y)
        score = 100 * fitted.history[-1]["best"]
        told(f"{name}: {score:.2f} on validation nodes alone, {took[name]:.1f} s, weight {weights[name]:.2f}")
    strong = config.strong
    listed = dict(zip(seats, zip(strong.kind.split("+"), strong.each, strict=True), strict=True))
    heard = [name for name in listed if weights.get(name)] or [next(iter(listed))]
    told(f"kept: {', '.join(heard)}")
    return composed(config, tuple(listed[name] for name in heard))


def settled(config: Config, place: Path | None, told: Told = lambda line: None) -> Config:
    """Return what a run trains: where candidates are to be tried first, what came of it, also if that was before.

    Args:
        config: of the run.
        place: the run's folder, which keeps the choice; none: nothing is kept.
        told: called with a line about each candidate.

    Raises:
        InputError: as of `search`; or what the folder keeps is not what it wrote.
    """
    if not searches(config):
        return config
    if place is not None and (place / CHOSEN).exists():
        return recalled(config, place / CHOSEN)
    found = replace(search(config, told), batch=config.batch)
    if place is not None:
        write_text(place / CHOSEN, dump(found))
    return found


def recalled(config: Config, path: Path) -> Config:
    """Return what was chosen before for a configuration, by the file that was written then.

    Of the file only the choice is taken, and everything else must be as in the configuration: so a file that was edited
    changes no run, and names no code.

    Raises:
        InputError: it is damaged, or of another configuration.
    """
    held = read_yaml("configuration", path)
    with suppress(InputError, TypeError, KeyError):
        strong = ExpertConfig(**held["strong"])
        if {kind for kind, _ in PRESETS[config.preset]}.issuperset(strong.kind.split("+")):
            for pace in ({}, HELD_BACK):
                found = replace(config, strong=strong, **pace)
                if dump(replace(found, batch=held["batch"])) == path.read_text(encoding="utf-8"):
                    return found
    raise InputError(f"{path}: is not what the search for this run wrote; take it away to search again")
