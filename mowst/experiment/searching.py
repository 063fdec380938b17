"""The preset `best`: candidates are tried one after another, and those that bring something become the panel.

The list is fixed and in order; a budget of time only decides where it ends. Candidates are trained alone on the first
seed and judged on validation nodes, by ensemble selection (`mowst.training.select`): not who is best alone is kept,
but who adds to the others. Most are stopped early (`mowst.experiment.rungs`). Where the list ends before the budget,
those that are heard are tried again from other first weights. What comes out is a plain configuration, which repeats
the run without the search.
"""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from mowst.errors import InputError
from mowst.experiment.bench import Bench
from mowst.experiment.checkpoint import Checkpoint, Saving, kept
from mowst.experiment.choosing import HELD_BACK, PRESETS, composed
from mowst.experiment.config import Config, has_candidates
from mowst.experiment.expert import ExpertConfig
from mowst.experiment.folder import CHOSEN, SEARCH, dump
from mowst.experiment.opening import Opened, basis
from mowst.experiment.plan import seats_of
from mowst.experiment.sharing import SharedGraph
from mowst.experiment.together import takes_seeds
from mowst.experiment.trying import Told, Tried
from mowst.system import read_yaml, write_text


def searches(config: Config) -> bool:
    """Tell whether a configuration asks for candidates to be tried first."""
    return config.preset == "best" and has_candidates(config)


def search(
    config: Config,
    told: Told = lambda line: None,
    place: Path | None = None,
    saving: Saving | None = None,
    shared: SharedGraph | None = None,
) -> Config:
    """Try the candidates of a configuration's preset, and return it with those as strong expert that are worth keeping.

    Args:
        config: asks for `auto`.
        told: called with a line about each candidate.
        place: a run's folder. It keeps how far the search is, from where the same call goes on; at its end the
            first seed of the run has there what was trained of those kept, and need not train them again, unless
            several devices share its steps.
        saving: how often that is written; none: nothing is.
        shared: opens the graph, for the devices that will train the run; by default for one, as it is for candidates.

    Raises:
        InputError: the configuration or the data does not allow it.
        FloatingPointError: training diverged.
    """
    shared = shared or SharedGraph()
    opened, seed = shared.open(config), config.first_seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run says it
        together = shared.devices > 1 and not takes_seeds(opened.config, shared.devices, len(config.all_seeds))
    seats = seats_of(opened.config, "strong")
    if not seats:
        return opened.config
    config.predictions.check(name for name in opened.plan.written if name not in seats)  # which need not be kept
    bench = opened.bench(seed)
    if place is None or saving is None:
        return tried(bench, told)
    with kept(place / SEARCH, lambda: basis(opened, seed) | {"devices": shared.devices}, saving) as journal:
        bench.journal, hands_on = journal, config.baselines and config.mixture and not together
        done = Tried(bench, told, again=not hands_on)
        found = done.chosen()
        if hands_on:
            hand_on(place, shared.open(found), saving, done.phases(journal))
        return found


def hand_on(place: Path, chosen: Opened, saving: Saving, phases: list[dict[str, Any]]) -> None:
    """Let the first seed of a run in a folder begin with phases that a search has trained."""
    seed = chosen.config.first_seed
    begun = Checkpoint(place / f"seed-{seed}", lambda: basis(chosen, seed), saving)
    begun.journal.load_state_dict({"finished": phases, "underway": None})
    begun.write()


def tried(bench: Bench, told: Told = lambda line: None) -> Config:
    """Train the members of a bench's strong expert alone, and return its configuration with those worth keeping.

    Args:
        bench: of a configuration whose strong expert is all candidates, with a budget for them.
        told: called with a line about each candidate.
    """
    if not seats_of(bench.config, "strong"):
        return bench.config
    return Tried(bench, told).chosen()


def settled(
    config: Config,
    place: Path | None,
    told: Told = lambda line: None,
    saving: Saving | None = None,
    shared: SharedGraph | None = None,
) -> Config:
    """Return what a run trains: where candidates are to be tried first, what came of it, also if that was before.

    Args:
        config: of the run.
        place: the run's folder, which keeps the choice, and as `search` says; none: nothing is kept.
        told: called with a line about each candidate.
        saving: how often it is written how far it is; none: never.
        shared: as of `search`.

    Raises:
        InputError: as of `search`; or what the folder keeps is not what it wrote.
    """
    if not searches(config):
        return config
    if place is not None and (place / CHOSEN).exists():
        return recalled(config, place / CHOSEN)
    found = search(config, told, place, saving, shared)
    if place is not None:
        write_text(place / CHOSEN, dump(replace(found, batch=config.batch)))
        shutil.rmtree(place / SEARCH, ignore_errors=True)
    # Of a seed that has begun memory does not choose batches again.
    begun = place is not None and (place / f"seed-{config.first_seed}").exists()
    return found if begun else replace(found, batch=config.batch)


def recalled(config: Config, path: Path) -> Config:
    """Return what was chosen before for a configuration, by the file that was written then.

    Of the file only the choice is taken, among the preset's candidates, and everything else must be as in the
    configuration: so a file that was edited changes no run, and names no code.

    Raises:
        InputError: it is damaged, or of another configuration.
    """
    held = read_yaml("configuration", path)
    with suppress(InputError, TypeError, KeyError):
        strong = ExpertConfig(**held["strong"])
        known = [alike(member) for member in composed(config, PRESETS[config.preset]).strong.members.values()]
        if all(alike(member) in known for member in strong.members.values()) and strong.members:
            for pace, rehearsals in product(({}, HELD_BACK), (config.rehearsals, config.folds)):
                found = replace(config, strong=strong, rehearsals=rehearsals, **pace)
                if dump(replace(found, batch=held["batch"])) == path.read_text(encoding="utf-8"):
                    return found
    raise InputError(f"{path}: is not what the search for this run wrote; take it away to search again")


def alike(expert: ExpertConfig) -> ExpertConfig:
    """Return a candidate without what is not the list's to say: its draw, and norm, which the graph may forbid."""
    return replace(expert, seed=0, norm="none")
