"""What GLD costs, forward and backward: against plain KD on the same logits, and as the number of edges grows.

python benchmarks/gld_cost.py [--nodes 170000] [--classes 40] [--k 10] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from graphkd import GLD, KD, Signals

RESULT = Path(__file__).parent / "results" / "gld_cost.json"


def seconds(step: Callable[[], None], repeats: int) -> float:
    """Return the median time of a step, after one that is not counted."""
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def training_step(loss: torch.nn.Module, logits: Tensor, teacher: Tensor, edge_index: Tensor | None) -> None:
    logits.grad = None
    loss(Signals(logits), Signals(teacher), edge_index=edge_index).mean().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=170_000)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(args.nodes, args.classes, generator=draw).requires_grad_()
    teacher = torch.randn(args.nodes, args.classes, generator=draw)
    graphs = {E: torch.randint(args.nodes, (2, E), generator=draw) for E in (1_200_000, 4_800_000)}
    cases: dict[str, tuple[torch.nn.Module, Tensor | None]] = {"kd": (KD(), None)}
    cases |= {f"gld {form}": (GLD(form, k=args.k), None) for form in ("global", "class")}
    cases |= {f"gld neighbourhood {E:,} edges": (GLD("neighbourhood", k=args.k), graph) for E, graph in graphs.items()}
    times = {}
    for name, (loss, graph) in cases.items():
        times[name] = seconds(lambda loss=loss, graph=graph: training_step(loss, logits, teacher, graph), args.repeats)
        print(f"{name:36s} {1000 * times[name]:9.1f} ms {times[name] / times['kd']:7.2f} x KD", flush=True)
    few, many = (times[f"gld neighbourhood {E:,} edges"] for E in graphs)
    ratios = {"global_over_kd": times["gld global"] / times["kd"], "edges_x4": many / few}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"global / KD {ratios['global_over_kd']:.2f} (wanted <= 3), 4 x the edges {ratios['edges_x4']:.2f} (<= 4.4)")
    print(f"peak memory {peak:.2f} GiB")
    record = {"options": vars(args), "seconds": times, "ratios": ratios, "peak_gib": peak}
    record |= {"torch": torch.__version__, "threads": torch.get_num_threads(), "machine": platform.machine()}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
