"""Small runs that are killed (SIGKILL) at random moments and started again until they are done, against whole ones.

    python benchmarks/kills.py --kills 200

Every regime, a panel, experts without gradients, and every kind of batches takes its turn. What a run leaves must be
the same, bit for bit, as what one leaves that nobody has disturbed, and no checkpoint may be unreadable.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from mowst.experiment import Config, ExpertConfig, GateConfig, Opened, Saving, run

SMALL = {"hidden_channels": 8, "num_layers": 2, "dropout": 0.3}
WEAK = ExpertConfig(kind="mlp", **SMALL)
BASE = Config(
    dataset="sbm",
    weak=WEAK,
    strong=ExpertConfig(kind="sage", **SMALL),
    epochs=12,
    patience=6,
    rounds=2,
    seeds=1,
    ema_decay=0.9,
    device="cpu",
)
CASES = {
    "held-out": BASE,
    "held-out, taught": replace(BASE, kd="nkd+kd", teacher="strong"),
    "fine-tuned": replace(BASE, regime="fine-tuned", eval_every=2),
    "joint": replace(BASE, regime="joint", kd="ofa+nkd", teacher="strong", gate=GateConfig(features=True)),
    "alternate": replace(BASE, regime="alternate"),
    "solo": replace(BASE, regime="solo", kd="kd+gld(k=2)", teacher="strong"),
    "panel": replace(BASE, strong=ExpertConfig(kind="sage+neighbours", **SMALL), rehearsals=2),
    "trees": replace(BASE, weak=ExpertConfig(kind="trees", **SMALL)),
    "held-out, parts": replace(BASE, batch="parts(3)"),
    "alternate, parts": replace(BASE, regime="alternate", kd="ofa+nkd", teacher="strong", batch="parts(3)"),
    "joint, neighbors": replace(BASE, regime="joint", batch="neighbors(5,3,size=400)"),
    "alternate, hops": replace(
        BASE, regime="alternate", batch="hops(size=256)", strong=ExpertConfig(kind="sign", **SMALL)
    ),
    "fine-tuned, neighbors": replace(BASE, regime="fine-tuned", batch="neighbors(5,3,size=400)"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="How many in all.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    moments, kills, counts = random.Random(options.seed), 0, dict.fromkeys(CASES, 0)
    whole: dict[str, tuple[dict[str, object], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        while kills < options.kills:
            for name, config in CASES.items():
                opened = Opened(config)
                if name not in whole:
                    whole[name] = undisturbed(config, opened, Path(folder) / "whole" / name)
                expected, seconds = whole[name]
                out = Path(folder) / str(kills) / name
                killed = until_done(config, opened, out, moments, seconds / 2)
                assert left(out) == expected, f"{name}: another result after {killed} kills"
                kills, counts[name] = kills + killed, counts[name] + killed
                print(f"{kills:4d} kills, all results the same; {name}: {counts[name]}", flush=True)
                if kills >= options.kills:
                    break
    print(json.dumps({"kills": kills, "by_case": counts, "seed": options.seed}))


def undisturbed(config: Config, opened: Opened, out: Path) -> tuple[dict[str, object], float]:
    """Run from beginning to end, and return what it leaves and how long it took, in another process."""
    start = time.perf_counter()
    assert forked(config, opened, out, None)
    return left(out), time.perf_counter() - start


def until_done(config: Config, opened: Opened, out: Path, moments: random.Random, span: float) -> int:
    """Start a run again and again, kill it after at most so many seconds, and return how often it was killed."""
    killed = 0
    while not forked(config, opened, out, moments.uniform(0, span)):
        killed += 1
        span *= 1.02  # a span too short for one epoch would never end
    return killed


def forked(config: Config, opened: Opened, out: Path, seconds: float | None) -> bool:
    """Run in a process of its own, which is killed after so many seconds; tell whether it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with contextlib.redirect_stdout(sys.stderr):
                run(config, out, opened=opened, saving=Saving(minutes=0))
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    if seconds is not None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                break
            time.sleep(0.001)
        else:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    else:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.waitstatus_to_exitcode(status) == 0, f"{out}: failed"
    return True


def left(out: Path) -> dict[str, object]:
    """Return what a run leaves, without times: weights, predictions, scores and histories."""
    found: dict[str, object] = {}
    for seed in sorted(out.glob("seed-*")):
        found |= {key: value.numpy().tobytes() for key, value in load_file(seed / "model.safetensors").items()}
        lines = [json.loads(line) for line in (seed / "metrics.jsonl").read_text().splitlines()]
        found["history"] = [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
        found["scores"] = json.loads((seed / "result.json").read_text())["scores"]
        found["predictions"] = (seed / "predictions.npz").read_bytes()
        found["files"] = sorted(path.name for path in seed.iterdir())
    return found


if __name__ == "__main__":
    main()
