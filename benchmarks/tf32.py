"""What TF32 does to accuracy, on a CPU: factors of float32 products are rounded as a CUDA device rounds them.

    python benchmarks/tf32.py --data_root DATA [--graphs cora photo] [--seeds 5] [--out tf32.json]

The factors of a product of matrices keep 10 bits of their mantissa, the nearest number, and are multiplied and added up
in float32 as before, forward and backward; sparse products stay as they are, as on the device. Each graph is trained
twice with each seed, `--preset fast`, and what is printed is the difference on test nodes, its mean and its deviation
over seeds, beside the deviation over seeds of one of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from mowst.experiment import Config, run

DROPPED = 13
"""Bits of a float32's mantissa, 23, that TF32 does not have."""
PRODUCTS = {"aten::mm": 2, "aten::addmm": 3, "aten::bmm": 2, "aten::baddbmm": 3, "aten::addmv": 3, "aten::mv": 2}
"""Operations, and how many of their arguments there are up to the second factor."""
GRAPHS = ("cora", "citeseer", "pubmed", "photo", "actor")
MODELS = ("weak", "strong", "mixture")


class TF32(TorchDispatchMode):
    """Rounds the factors of float32 products inside."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation."""
        end = PRODUCTS.get(op._schema.name)
        if end is not None:
            args = (*args[: end - 2], *map(rounded, args[end - 2 : end]), *args[end:])
        return op(*args, **(kwargs or {}))


def rounded(x: Tensor) -> Tensor:
    """Round float32 numbers to the nearest that has 10 bits of mantissa; other numbers are as they were."""
    if x.dtype != torch.float32 or x.layout != torch.strided:
        return x
    half = 1 << (DROPPED - 1)
    return ((x.contiguous().view(torch.int32) + half) & -(1 << DROPPED)).view(torch.float32)


def scores(config: Config, *, tf32: bool) -> list[dict[str, float]]:
    """Train every seed of an experiment, and return what each model scores on test nodes."""
    found = []
    for seed in config.all_seeds:
        one = Config(**{**vars_of(config), "seeds": 1, "first_seed": seed})
        if tf32:
            with TF32():
                result = run(one)
        else:
            result = run(one)
        found.append({name: result["scores"][name]["test"][0] for name in MODELS})
    return found


def vars_of(config: Config) -> dict[str, Any]:
    """Return the fields of a configuration."""
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def main() -> None:
    """Train, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", default="data")
    parser.add_argument("--graphs", nargs="*", default=list(GRAPHS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {}
    for graph in given.graphs:
        config = Config(dataset=graph, data_root=given.data_root, preset="fast", seeds=given.seeds, device="cpu")
        plain, coarse = scores(config, tf32=False), scores(config, tf32=True)
        found[graph] = {"seeds": given.seeds, "models": {name: compared(plain, coarse, name) for name in MODELS}}
        for name, each in found[graph]["models"].items():
            print(graph, name, *(f"{key} {value:+.2f}" for key, value in each.items()), flush=True)
        if given.out is not None:
            given.out.write_text(json.dumps(found, indent=1) + "\n")


def compared(plain: list[dict[str, float]], coarse: list[dict[str, float]], name: str) -> dict[str, float]:
    """Compare the scores of a model, in points."""
    apart = [other[name] - one[name] for one, other in zip(plain, coarse, strict=True)]
    of_seeds = stdev([one[name] for one in plain])
    return {"difference": fmean(apart), "its deviation": stdev(apart), "deviation over seeds": of_seeds}


if __name__ == "__main__":
    main()
