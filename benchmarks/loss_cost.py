"""What an epoch of each distillation loss takes beside one of plain KD, at the size of ogbn-arxiv.

    python benchmarks/loss_cost.py [--only "gld*"] [--repeats 5] [--budget 3600] [--table]

170,000 nodes, 40 classes, 1.2 million edges at random; an epoch is an MLP student's (2 x 128) pass, the loss, the
gradient and a step of Adam. Epochs of the loss and of KD take turns, so that what else the machine does hits both; the
ratio is that of their medians. A cell is a loss and one JSON file in benchmarks/results/loss_cost/DEVICE: what is there
is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn.models import MLP

import graphkd
from graphkd import KD, DistillationLoss, Signals, hidden_of
from mowst.system import write_text

RESULTS = Path(__file__).parent / "results" / "loss_cost"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
N, C, H, EDGES = 170_000, 40, 128, 1_200_000
LOSSES = (
    *("glnn", "dkd", "nkd", "standardized", "uskd", "ofa", "dualhead", "lsp(width=5)", "rkd", "krd", "krd(refit=True)"),
    *("hgmd", "hgmd(mixup=True)", "ffg2m", "sp", "dist", "hint", "vqgraph", "gld", "gld(form=class)"),
    "gld(form=neighbourhood)",
)


class Given(NamedTuple):
    """What a loss is given, beside what the student says."""

    x: Tensor
    teacher: Signals
    target: Tensor
    edge_index: Tensor


def given() -> Given:
    """Draw features, a teacher, labels and edges."""
    torch.manual_seed(0)
    x, theirs, logits = (torch.randn(N, width, device=DEVICE) for width in (H, H, C))
    target, edge_index = (torch.randint(high, size, device=DEVICE) for high, size in ((C, (N,)), (N, (2, EDGES))))
    return Given(x, Signals(logits, (theirs,)), target, edge_index)


class Epochs:
    """A student and how long an epoch of it takes."""

    def __init__(self, loss: DistillationLoss, given: Given):
        torch.manual_seed(0)
        self.student = MLP([H, H, C], norm=None).to(DEVICE)
        self.layers, self.given, self.loss = hidden_of(self.student), given, loss
        loss.prepare(self.signals(), given.teacher)
        self.loss.to(DEVICE)
        self.optimizer = torch.optim.Adam([*self.student.parameters(), *loss.parameters()], lr=1e-3)

    def signals(self) -> Signals:
        """Run the student."""
        return Signals(self.student(self.given.x), tuple(self.layers))

    def seconds(self) -> float:
        """Train for one epoch."""
        finish()
        start = time.perf_counter()
        _, teacher, target, edge_index = self.given
        value = self.loss(self.signals(), teacher, target=target, edge_index=edge_index).mean()
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        finish()
        return time.perf_counter() - start


def finish() -> None:
    """Wait until the device has done what it was asked to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def cost(spec: str, given: Given, repeats: int) -> dict[str, Any]:
    """Return the median seconds of an epoch of a loss and of plain KD, in turns; the first of each is not counted."""
    (weighted,) = graphkd.build(spec)
    both = [Epochs(loss, given) for loss in (weighted.loss, KD())]
    turns = [[each.seconds() for each in both] for _ in range(repeats + 1)][1:]
    seconds, plain = (statistics.median(side) for side in zip(*turns, strict=True))
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    found = {"loss": spec, "seconds": seconds, "kd": plain, "ratio": seconds / plain, "repeats": repeats}
    return {**found, "device": name, "threads": torch.get_num_threads()}


def place(spec: str) -> Path:
    """Return the file of a cell."""
    words = "".join(letter if letter.isalnum() else " " for letter in spec).split()
    return RESULTS / DEVICE.type / f"{'-'.join(words)}.json"


def table() -> list[str]:
    """Return the ratios as Markdown, of every device there is."""
    devices = sorted(folder.name for folder in RESULTS.glob("*") if folder.is_dir())
    lines = [f"| loss | {' | '.join(devices)} |", "|---" * (len(devices) + 1) + "|"]
    for spec in LOSSES:
        paths = [RESULTS / device / place(spec).name for device in devices]
        shown = [f"{json.loads(path.read_text())['ratio']:.2f}" if path.exists() else "not run" for path in paths]
        lines.append(f"| `{spec}` | {' | '.join(shown)} |")
    return lines


def main() -> None:
    """Run the cells that are missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", nargs="*", default=["*"])
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--budget", type=float, default=float("inf"), help="seconds after which no cell is begun")
    arguments.add_argument("--table", action="store_true", help="only print the table")
    asked = arguments.parse_args()
    warnings.simplefilter("ignore")
    start, drawn = time.perf_counter(), given()
    for spec in LOSSES:
        wanted = any(fnmatch(spec, pattern) for pattern in asked.only) and not place(spec).exists()
        if asked.table or not wanted or time.perf_counter() - start > asked.budget:
            continue
        found = cost(spec, drawn, asked.repeats)
        write_text(place(spec), json.dumps(found, indent=1) + "\n")
        print(f"{spec}: {found['seconds']:.2f} s, KD {found['kd']:.2f} s", flush=True)
    print("\n".join(table()))


if __name__ == "__main__":
    main()
