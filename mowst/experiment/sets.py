"""Sets of classes with a coverage that was asked for: whose labels calibrate them, and what they are on test nodes.

Labels are spent once: training nodes fit, validation nodes select, and a part of the validation nodes, drawn at random
and taken from the rest, calibrates. `sets.json` in the folder of a seed keeps the rule and the ids of these nodes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from mowst.errors import InputError
from mowst.evaluation import SetRule, degrees, fewest, measured, routable, thirds
from mowst.experiment.config import Config
from mowst.models import Mixture, Mowst


class Sets(NamedTuple):
    """The sets of one seed."""

    rule: SetRule
    calibrating: list[int]
    """Ids of the nodes whose labels fitted the rule."""
    report: dict[str, Any]
    """What they are on test nodes."""


def calibrating(config: Config, val: Tensor, seed: int) -> Tensor | None:
    """Draw half of the validation nodes, mask [N], to calibrate with; none where no coverage is asked for.

    Raises:
        InputError: they are too few for the coverage.
    """
    if config.coverage is None:
        return None
    nodes = val.nonzero().squeeze(-1)
    needed = 2 * fewest(config.coverage)
    if len(nodes) < needed:
        raise InputError(
            f"coverage {config.coverage}: needs {needed} validation nodes, half of them to calibrate with, and there "
            f"are {len(nodes)}"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = nodes[torch.randperm(len(nodes), generator=generator)[: len(nodes) // 2]]
    return index_to_mask(drawn, size=len(val))


def to_weak(found: tuple[Mowst, Mixture], data: Data) -> Tensor:
    """Tell which nodes are routed to the weak expert, mask [N] on the CPU."""
    model, out = found
    return (routable(model, out, data.x).confidence >= model.threshold).cpu()


@torch.no_grad()
def sets_of(found: tuple[Mowst, Mixture] | None, data: Data, config: Config, seed: int) -> Sets | None:
    """Calibrate the sets of a mixture, and measure them on test nodes: by expert, class and third of degree, too."""
    if found is None or "calibration_mask" not in data:
        return None
    assert config.coverage is not None
    probs, edge_index, nodes = found[1].log_probs().cpu().double().exp(), data.edge_index.cpu(), data.calibration_mask
    weak = to_weak(found, data)
    group = weak.long() if config.mondrian else None
    plain = SetRule(config.coverage, config.conformal, config.diffusion, seed, ())
    rule = plain.fit(probs, edge_index, data.y, nodes, group)
    sets, test, y = rule.sets(probs, edge_index, group), data.test_mask.cpu(), data.y.cpu()
    many = torch.where(test, degrees(edge_index, len(test)), torch.nan)
    groups = {
        "route": {"weak": test & weak, "strong": test & ~weak},
        "class": {str(label): test & (y == label) for label in range(probs.size(-1))},
        "degree": thirds(many),
    }
    by_group = {
        by: {name: measured(sets[mask], y[mask]) for name, mask in masks.items()} for by, masks in groups.items()
    }
    counts = {"select": int(data.val_mask.sum()), "calibrate": int(nodes.sum())}
    said = {"by": "route" if config.mondrian else "all", "nodes": counts}
    report = dataclasses.asdict(rule) | said | {"test": {"all": measured(sets[test], y[test]), **by_group}}
    return Sets(rule, nodes.nonzero().squeeze(-1).tolist(), report)
