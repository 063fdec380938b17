"""The gate fitted on held-out nodes against the experts, the plain fusions and the published mixtures; for the docs.

    python benchmarks/gating.py --data_root data [--only "photo/*"] [--seeds N] [--budget 3600] [--table]

A cell is one graph and one strong expert. Its experts and their twins are trained once a seed and kept in --work, so
that every variant below sees the same experts, differences are paired, and another variant costs seconds. One setting
serves all graphs; it was chosen on photo, amherst41, blogcatalog, tolokers, pubmed and actor alone.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from benchmarks.accuracy import EXPERT, HERE, PLAIN, put
from mowst.data import load
from mowst.evaluation import fusion, pooled, routable, sharpness, signal
from mowst.experiment import (
    Bench,
    Config,
    ExpertConfig,
    SeedRun,
    dump,
    fabric_of,
    metric_of,
    planned,
    prepare,
    run_seed,
)
from mowst.experiment.plan import schedule_of
from mowst.experiment.scoring import score
from mowst.models import ROLES, FusedGate, LogisticGate, Logits, Mixture, MonotoneGate, Mowst, Output, hard
from mowst.system import tune_process, write_arrays, write_text
from mowst.training import Loss, Outcome, Schedule, Term, Trainer, Twins, hide, joint
from mowst.training.held_out import calibrate, divide, fit_gate, rehearse, settle
from mowst.training.regimes import held_out, train_held_out

RESULTS = HERE / "results" / "gating"
CHOSEN_ON = ["photo", "amherst41", "blogcatalog", "tolokers", "pubmed", "actor"]
CONFIRMED_ON = ["cora", "computers", "cs", "dblp", "github", "facebook", "flickr-small", "twitch-de", "cornell5"]
CONFIRMED_ON += ["chameleon-filtered", "squirrel-filtered", "texas", "cornell"]
GRAPHS = [*CHOSEN_ON, *CONFIRMED_ON]
STRONG = ("gcn", "sage", "gat")
TEN_MASKS = ("actor", "tolokers", "chameleon-filtered", "squirrel-filtered", "texas", "cornell")
"""Graphs that are published with ten masks."""


class Experts(NamedTuple):
    """What one seed of a cell trained."""

    data: Data
    alone: dict[str, Tensor]
    """[N, C] logits of each expert."""
    twins: Twins
    seconds: dict[str, float]
    """Of training `weak`, `strong` and the `twins`."""


class Known(nn.Module):
    """An expert whose logits [N, C] are known."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        """Return them."""
        return self.logits


def train(config: Config, seed: int) -> Experts:
    """Train both experts alone, and a twin of each without one fold of the training nodes."""
    fabric = fabric_of(config)
    data = load(config.dataset, config.data_root, split=config.split, seed=seed)
    ready = prepare(data, config, fabric.device)
    bench = Bench(config, planned(config), ready, seed, fabric)
    done = {part: bench.train(part) for part in ROLES}
    start = time.perf_counter()
    torch.manual_seed(seed)
    trainer, schedule = bench.trainer("mixture"), schedule_of(config, seed)
    nodes = trainer.whole.train_mask.nonzero().squeeze(-1)
    folds = divide(nodes, trainer.whole.y, schedule.folds, schedule.seed)[: schedule.rehearsals]
    twins = rehearse(trainer, schedule, folds, {part: done[part].best_epoch for part in ROLES})
    seconds = {part: done[part].seconds for part in ROLES} | {"twins": time.perf_counter() - start}
    return Experts(data, {part: done[part].output.of("").values for part in ROLES}, twins, seconds)


def trainer_of(model: nn.Module, data: Data) -> Trainer:
    """Return a trainer that sees no test label."""
    seen = copy.copy(data)
    seen.y = hide(data.y, data.train_mask | data.val_mask)
    return Trainer(model, seen, signal("metric", metric_of(data)))


def kept(config: Config, seed: int, path: Path) -> Experts:
    """Return the experts of a seed from `path`, trained and written there if they are not there yet."""
    if not path.exists():
        found = train(config, seed)
        logits = {f"alone_{part}": found.alone[part] for part in ROLES}
        logits |= {f"held_{part}": found.twins.logits[part] for part in ROLES}
        seconds = np.array([found.seconds[name] for name in (*ROLES, "twins")])
        arrays = {name: value.float().numpy() for name, value in logits.items()}
        sharpness = np.array([found.twins.sharpness[part] for part in ROLES])
        write_arrays(path, **arrays, nodes=found.twins.nodes.numpy(), sharpness=sharpness, seconds=seconds)
    read = np.load(path, allow_pickle=False)
    alone, held = ({part: torch.from_numpy(read[f"{kind}_{part}"]) for part in ROLES} for kind in ("alone", "held"))
    data = load(config.dataset, config.data_root, split=config.split, seed=seed)
    twins = Twins(torch.from_numpy(read["nodes"]), held, dict(zip(ROLES, read["sharpness"].tolist(), strict=True)))
    return Experts(data, alone, twins, dict(zip((*ROLES, "twins"), read["seconds"].tolist(), strict=True)))


class Settled(NamedTuple):
    """Trained experts with a gate between them."""

    model: Mowst
    output: Mixture
    seconds: float
    """That the gate and the router took."""


def gated(gate: Callable[[], nn.Module], experts: Experts) -> Settled:
    """Put a gate between trained experts as the regime held-out does."""
    known = (Known(experts.alone[part]) for part in ROLES)
    model = Mowst(*known, gate(), LogisticGate())
    trainer = trainer_of(model, experts.data)
    start = time.perf_counter()
    settle(model, trainer, experts.twins, joint)
    return Settled(model, trainer.output(), time.perf_counter() - start)  # type: ignore[arg-type]


def unchecked(gate: Callable[[], nn.Module], experts: Experts) -> Mixture:
    """Put a gate between trained experts and keep its fit, whatever it does on validation nodes."""
    model = Mowst(*(Known(experts.alone[part]) for part in ROLES), gate())
    trainer = trainer_of(model, experts.data)
    calibrate(model, trainer, experts.twins)
    fit_gate(model.gate, experts.twins, trainer.whole, joint)
    return trainer.output()  # type: ignore[return-value]


def seen_before(experts: Experts) -> Experts:
    """Let the experts themselves be the twins, at the training nodes whose labels they were fitted on."""
    train = experts.data.train_mask
    there = {part: experts.alone[part][train] for part in ROLES}
    sharp = {part: sharpness(experts.alone[part][~train]) for part in ROLES}
    return experts._replace(twins=Twins(train.nonzero().squeeze(-1), there, sharp))


class Constant(FusedGate):
    """The same two weights at every node."""

    def measure(self, logits: Tensor) -> Tensor:
        """Leave the dispersions out."""
        return torch.zeros_like(super().measure(logits))


GATES: dict[str, Callable[[], nn.Module]] = {
    "fused": FusedGate,
    "fused, constant weights": Constant,
    "linear, logistic": LogisticGate,
    "linear, monotone": MonotoneGate,
}


def outputs(experts: Experts) -> tuple[dict[str, Output], float]:
    """Predict with every variant, and return how many seconds the default gate took."""
    data, (weak, strong) = experts.data, (experts.alone[part] for part in ROLES)
    found: dict[str, Output] = {"weak": Logits(weak), "strong": Logits(strong), "average": fusion.average(weak, strong)}
    found["stacked on val"] = fusion.stacked(weak, strong, data.y, data.val_mask.nonzero().squeeze(-1))
    for name, gate in GATES.items():
        settled = gated(gate, experts)
        model, found[name] = settled.model, settled.output
        if name == "fused":
            found["routed"] = hard(routable(model, settled.output, data.x), float(model.threshold))
            seconds = settled.seconds
    found["fused, no choice on validation"] = unchecked(FusedGate, experts)
    found["fused, fitted on seen nodes, no choice"] = unchecked(FusedGate, seen_before(experts))
    found["linear, fitted on seen nodes, no choice"] = unchecked(LogisticGate, seen_before(experts))
    calibrated = model.calibrated("weak", weak), model.calibrated("strong", strong)
    found |= {"calibrated": fusion.average(*calibrated), "evidence": fusion.evidence(*calibrated)}
    return found, seconds


def cell(config: Config, seeds: int, work: Path) -> dict[str, Any]:
    """Run the seeds of one cell."""
    runs, settings = [], sha256(dump(dataclasses.replace(config, data_root="")).encode()).hexdigest()[:8]
    for seed in range(seeds):
        experts = kept(config, seed, work / f"{config.dataset}-{config.strong.kind}-{seed}-{settings}.npz")
        metric, (found, gate_seconds) = metric_of(experts.data), outputs(experts)
        scores = {name: score(out, experts.data, metric, pooled) for name, out in found.items()}
        share = float(found["routed"].confidence[experts.data.test_mask].mean())  # type: ignore[union-attr]
        seconds = {**experts.seconds, "gate": gate_seconds}
        runs.append({"seed": seed, "scores": scores, "seconds": seconds, "routed_to_weak": share})
    return {"graph": config.dataset, "strong": config.strong.kind, "metric": experts.data.metric, "runs": runs}


def without_temperatures(trainer: Trainer, schedule: Schedule, objective: Loss, extra: Sequence[Term] = ()) -> Outcome:
    """Train as `held-out` does, and leave every temperature at 1."""
    with (
        mock.patch("mowst.training.held_out.temperature", return_value=1.0),
        mock.patch("mowst.training.held_out.like", return_value=1.0),
    ):
        return train_held_out(trainer, schedule, objective, extra)


uncalibrated = dataclasses.replace(held_out, steps=without_temperatures)


WHOLE = {
    "held-out": {},
    "no temperatures": {"regime": "benchmarks.gating:uncalibrated"},
    "cross-fitting, 5 folds": {"rehearsals": 5},
    "MLP distilled from the GNN": {"kd": "kd(temperature=1)", "teacher": "strong"},
    "then fine-tuned": {"regime": "fine-tuned"},
    "a quarter as wide MLP": {"weak": ExpertConfig("mlp", **{**EXPERT, "hidden_channels": 16})},
    "Mowst*": {"regime": "joint"},
}
"""Variants that need training of their own."""


def whole(config: Config, seeds: int, found: dict[str, Any]) -> dict[str, Any]:
    """Run a cell with each variant of the whole regime that is not found already."""
    for name, options in WHOLE.items():
        if name in found:
            continue
        runs = [run_seed(dataclasses.replace(config, **options), seed) for seed in range(seeds)]  # type: ignore[arg-type]
        found[name] = [
            {
                "scores": run.scores,
                "seconds": {part: each.seconds for part, each in run.fitted.items()},
                "served": routed_to_weak(run),
            }
            for run in runs
        ]
    return {"graph": config.dataset, "strong": config.strong.kind, "variants": found}


def routed_to_weak(run: SeedRun) -> float:
    """Return the share of test nodes that routing sends to the weak expert."""
    model, out = run.fitted["mixture"].model, run.fitted["mixture"].output
    confidence = routable(model, out, run.data.x).confidence  # type: ignore[arg-type]
    return float((confidence[run.data.test_mask] >= model.threshold).float().mean())  # type: ignore[operator]


def whole_lines(results: list[dict[str, Any]]) -> list[str]:
    """Return the table of such cells: pooled and routed test score, share to the MLP, seconds over the GNN's."""
    heads = ["variant", *(f"{result['graph']}, {result['strong']}" for result in results)]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in WHOLE:
        row = [name]
        for result in results:
            runs = result["variants"][name]
            pooled, routed = (statistics.fmean(run["scores"][k]["test"] for run in runs) for k in ("mixture", "routed"))
            share = 100 * statistics.fmean(run["served"] for run in runs)
            took = statistics.median(run["seconds"]["mixture"] / run["seconds"]["strong"] for run in runs)
            row.append(f"{pooled:.2f}; {routed:.2f} ({share:.0f} %); {took:.1f}")
        table.append("| " + " | ".join(row) + " |")
    return table


def main() -> None:
    """Run the cells that are missing, print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--work", default="runs/gating", help="folder of the trained experts' logits")
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--seeds", type=int, help="of each cell; by default all ten masks, or 5")
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--again", action="store_true", help="run cells that are there again, with kept experts")
    arguments.add_argument("--whole", action="store_true", help="run the variants that need training of their own")
    arguments.add_argument("--table", action="store_true", help="only write the table")
    given = arguments.parse_args()
    start = time.perf_counter()
    for graph in GRAPHS:
        for strong in STRONG:
            path = RESULTS / f"{graph}-{strong}{'-whole' * given.whole}.json"
            wanted = any(fnmatch(f"{graph}/{strong}", pattern) for pattern in given.only) and not given.table
            there = json.loads(path.read_text()) if path.exists() and not given.again else {}
            done = there and (not given.whole or there["variants"].keys() == WHOLE.keys())
            if not wanted or done or time.perf_counter() - start > given.budget:
                continue
            config = dataclasses.replace(PLAIN, dataset=graph, strong=ExpertConfig(strong, **EXPERT))
            config = dataclasses.replace(config, data_root=given.data_root, device="cpu")
            with tune_process(True):
                seeds = given.seeds or (10 if graph in TEN_MASKS else 5)
                if given.whole:
                    result = whole(config, seeds, there.get("variants", {}))
                else:
                    result = cell(config, seeds, Path(given.work))
            write_text(path, json.dumps(result, indent=1) + "\n")
            if given.whole:
                continue
            means = {name: round(mean(result, name), 2) for name in result["runs"][0]["scores"]}
            print(f"{graph}/{strong}: {json.dumps(means)}", flush=True)
    if found := read("-whole"):
        put(HERE.parent / "docs" / "gating.md", "gating-whole", "\n".join(whole_lines(found)))
    if found := read():
        print(table := "\n".join(lines(found)))
        put(HERE.parent / "docs" / "gating.md", "gating", table)
        put(HERE.parent / "docs" / "results.md", "gating", "\n".join(comes_to(found)))


def read(kind: str = "") -> list[dict[str, Any]]:
    """Return the cells that have been run."""
    paths = (RESULTS / f"{graph}-{strong}{kind}.json" for graph in GRAPHS for strong in STRONG)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def mean(result: dict[str, Any], name: str, split: str = "test") -> float:
    """Mean score of a variant over the seeds, in percent."""
    return statistics.fmean(run["scores"][name][split] for run in result["runs"])


def better(result: dict[str, Any]) -> str:
    """Return the expert that is better on test nodes: the bar, chosen with hindsight."""
    return max(ROLES, key=lambda name: mean(result, name))


def gain(result: dict[str, Any], name: str = "fused") -> tuple[float, float]:
    """Mean difference to the better expert and its paired standard error, in points."""
    bar = better(result)
    gains = [run["scores"][name]["test"] - run["scores"][bar]["test"] for run in result["runs"]]
    error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return statistics.fmean(gains), error


def cost(result: dict[str, Any]) -> float:
    """Return the seconds of the whole regime over those of the strong expert alone."""
    return statistics.median(sum(run["seconds"].values()) / run["seconds"]["strong"] for run in result["runs"])


def lines(results: list[dict[str, Any]]) -> list[str]:
    """Return the table of results as Markdown, and what it comes to."""
    shown = ["weak", "strong", "average", "calibrated", "evidence", "fused"]
    heads = [
        "graph",
        *("MLP", "GNN", *shown[2:5], "**fused**"),
        "against the better expert",
        "routed (share to the MLP)",
    ]
    heads += ["cost", "stacked on val"]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for result in results:
        shift, error = gain(result)
        share = 100 * statistics.fmean(run["routed_to_weak"] for run in result["runs"])
        row = [f"{result['graph']}, {result['strong']} ({len(result['runs'])})"]
        row += [f"{mean(result, name):.2f}" for name in shown]
        row += [f"{shift:+.2f} ± {error:.2f}", f"{mean(result, 'routed'):.2f} ({share:.0f} %)", f"{cost(result):.1f}"]
        table.append("| " + " | ".join([*row, f"{mean(result, 'stacked on val'):.2f}"]) + " |")
    return [*table, "", *comes_to(results)]


def comes_to(results: list[dict[str, Any]]) -> list[str]:
    """Say what the table comes to, for each way to put the experts together."""
    heads = [
        "variant",
        "mean gain over the better expert",
        "worst",
        "cells more than 0.3 and one standard error below it",
    ]
    table = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in results[0]["runs"][0]["scores"]:
        gains = [gain(result, name) for result in results]
        shifts = [shift for shift, _ in gains]
        below = sum(shift < -max(0.3, error) for shift, error in gains)
        table.append(f"| {name} | {statistics.fmean(shifts):+.2f} | {min(shifts):+.2f} | {below} of {len(gains)} |")
    return table


if __name__ == "__main__":
    main()
