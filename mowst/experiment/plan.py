"""What is trained for a configuration, in which order, and who teaches whom: resolved once for all who train."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from mowst.errors import InputError
from mowst.experiment.config import Config
from mowst.experiment.expert import ExpertConfig
from mowst.models import ROLES
from mowst.training import REGIMES, Regime, Schedule

FINAL = "final"
"""What the mixture is called whose experts were trained again on validation labels."""


@dataclass(frozen=True)
class Plan:
    """What one seed trains."""

    models: tuple[str, ...]
    """`weak` and `strong` (each alone), and the `mixture`, or the `student`, in this order; the last is what is judged.
    Experts that a mixture starts from are trained for it even where they are not among these."""
    teacher: str | None = None
    """The expert of this run that teaches the student, once it is trained alone."""
    learns: str = ""
    """The expert of a mixture that distillation losses teach; "": the whole model."""
    final: bool = False
    """Whether the mixture is trained once more at the end, on validation labels, too."""
    taught_by: str = ""
    """The expert of a mixture that teaches it; "": signals from outside the model, if there are any."""

    @property
    def written(self) -> tuple[str, ...]:
        """What a run writes down."""
        return (*self.models, *(FINAL,) * self.final)

    @property
    def judged(self) -> str:
        """What the run is about."""
        return self.models[-1]


def regime_of(config: Config) -> Regime:
    """Return the regime that a configuration names."""
    return REGIMES.lookup(config.regime)


class Seat(NamedTuple):
    """A place on a panel."""

    role: str
    expert: ExpertConfig


def seats_of(config: Config, *roles: str) -> dict[str, Seat]:
    """Return the members of the panels among the experts in some roles (none: all), by what they are called.

    Raises:
        InputError: two panels have an expert of one name.
    """
    found = dict[str, Seat]()
    for role in roles or ROLES:
        members = {"weak": config.weak, "strong": config.strong}[role].members
        for name, expert in members.items() if len(members) > 1 else ():
            if name in found:
                raise InputError(f"weak and strong: both panels have {name}; leave it out of one of them")
            found[name] = Seat(role, expert)
    return found


def name_of(config: Config, part: str) -> str:
    """Return what a part of a mixture is called on its own: its role, or, of a panel, its name there."""
    role, _, place = part.partition(".members.")
    return list(seats_of(config, role))[int(place)] if place else role


def expert_named(config: Config, name: str) -> ExpertConfig:
    """Return the expert that is called so: by its role, its name on a panel, or as the `student` of a regime."""
    if name in (seats := seats_of(config)):
        return seats[name].expert
    role = name if name in ROLES else regime_of(config).alone or "weak"
    return {"weak": config.weak, "strong": config.strong}[role]


def schedule_of(config: Config, seed: int, name: str = "mixture") -> Schedule:
    """Return the pace that the phases of one seed share, or that of an expert on its own."""
    known = {entry.name for entry in fields(config)}
    pace = {entry.name: getattr(config, entry.name) for entry in fields(Schedule) if entry.name in known}
    if name not in ("mixture", FINAL):
        return Schedule(**pace | expert_named(config, name).training, seed=seed)
    own = dict[str, dict[str, Any]]()
    for role, expert in {"weak": config.weak, "strong": config.strong}.items():
        members = list(expert.members.values())
        parts = [role] if len(members) == 1 else [f"{role}.members.{place}" for place in range(len(members))]
        own |= {part: member.training for part, member in zip(parts, members, strict=True) if member.training}
    return Schedule(**pace, seed=seed, own=own)


def planned(config: Config) -> Plan:
    """Return what a run trains: the experts to compare with, and what it is about."""
    student = regime_of(config).alone
    if student is None:
        alone = tuple(
            name for role in ROLES for name in (*seats_of(config, role), *(role,) * (not seats_of(config, role)))
        )
        models = (*alone * config.baselines, *("mixture",) * config.mixture)
        return Plan(
            models, learns="weak", final=config.use_validation, taught_by="strong" if config.teacher in ROLES else ""
        )
    without = (student,) * (config.baselines or config.kd is None)
    teacher = config.teacher if config.teacher in ROLES else None
    models = (*without, *((teacher,) if teacher else ()), *("student",) * (config.kd is not None))
    return Plan(tuple(dict.fromkeys(models)), teacher)


def judged_alone(config: Config) -> Plan:
    """Return the same without anything to compare with: the mixture, the student, or the strong expert alone."""
    if not config.mixture and regime_of(config).alone is None:
        return Plan(("strong",))
    return planned(replace(config, mixture=True, baselines=False))
