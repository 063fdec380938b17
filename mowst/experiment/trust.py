"""How far the predictions of one seed can be trusted; here the test labels are looked at, once, as for its scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.evaluation import abstention, belief, beliefs, degrees, local_homophily, thirds
from mowst.experiment.bench import Fitted
from mowst.experiment.calibrated import to_weak
from mowst.experiment.scoring import mixture_in
from mowst.models import ROLES, Mixture, Mowst, Output


@torch.no_grad()
def trust_of(fitted: Mapping[str, Fitted], data: Data, tempered: Output | None) -> dict[str, Any]:
    """Measure how far what one seed has trained can be trusted on test nodes.

    Args:
        fitted: the models.
        data: the graph.
        tempered: what the mixture says once it is calibrated, if there is one.

    Returns: `calibration`, by model: NLL, Brier score and calibration error over `all` test nodes; of the mixture also
    by the expert that a node is routed to, by thirds of degree and of local homophily; as `mixture_weak` and
    `mixture_strong` of the experts as the mixture hears them; as `mixture_tempered` of its probabilities after
    they were calibrated on validation nodes. `answers`, by model: what may be had by not answering.
    """
    test, y = data.test_mask.cpu(), data.y.cpu()
    outputs: dict[str, Output] = {name: each.output.cpu() for name, each in fitted.items()}
    if (found := mixture_in(fitted)) is not None:
        outputs |= {f"mixture_{role}": found[1].of(role).cpu() for role in ROLES}
    if tempered is not None:
        outputs["mixture_tempered"] = tempered
    calibration: dict[str, Any] = {
        name: {"all": belief(out.rows(test), y[test])._asdict()} for name, out in outputs.items()
    }
    if found is not None:
        out = found[1].cpu().rows(test)
        for by, groups in groups_of(found, data).items():
            within = beliefs(out, y[test], {name: mask[test] for name, mask in groups.items()})
            calibration["mixture"][by] = {name: each._asdict() for name, each in within.items()}
    answered = {}
    for name in [each for each in outputs if each in {*fitted, "mixture_tempered"}]:
        speaks = outputs["mixture" if name == "mixture_tempered" else name]
        probs, guess = (out.rows(test).log_probs().double() for out in (outputs[name], speaks))
        answered[name] = abstention.answers(probs.exp(), y[test], guess.argmax(dim=-1))._asdict()
    return {"calibration": calibration, "answers": answered}


def groups_of(found: tuple[Mowst, Mixture], data: Data) -> dict[str, dict[str, Tensor]]:
    """Part the test nodes by `route`, `degree` and `homophily`: masks [N] by name, on the CPU.

    Labels are looked at where a mask of the split has the node, and nowhere else.
    """
    test, edge_index = data.test_mask.cpu(), data.edge_index.cpu()
    known = test | (data.train_mask | data.val_mask).cpu()
    weak = to_weak(found, data)
    missing = torch.full_like(test, torch.nan, dtype=torch.float64)
    many = degrees(edge_index, len(test)).double()
    alike = local_homophily(edge_index, data.y.cpu().masked_fill(~known, -1))
    return {
        "route": {"weak": test & weak, "strong": test & ~weak},
        "degree": thirds(torch.where(test, many, missing)),
        "homophily": thirds(torch.where(test, alike, missing)),
    }
