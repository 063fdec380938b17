"""Students on nodes that nobody has seen: the inductive setting of the published tables, in a plain loop.

    python benchmarks/unseen.py --data_root data [--only cora photo] [--seeds 3] [--table]

Graphs, splits, teacher and student as in `published.py`, but a fifth of the test nodes, drawn with the seed, is cut out
with all its edges before anything is trained. Then the teacher answers for them on the whole graph, and a student from
their features alone. Stopped on the likelihood of validation nodes. A graph is one JSON file in
benchmarks/results/unseen: what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from accuracy import cell as words
from distillation import CARDS
from published import GRAPHS
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models import MLP, GraphSAGE
from torch_geometric.utils import to_torch_csr_tensor

import graphkd
from graphkd import Signals
from mowst.data import load
from mowst.system import write_text

RESULTS = Path(__file__).parent / "results" / "unseen"
LOSSES = ("glnn", "krd(refit=True)", "ffg2m")
SETTINGS = "seen", "unseen"
EPOCHS, PATIENCE, LR = 500, 50, 0.01


Lesson = Callable[[Tensor], Tensor]
"""From logits [N, C] to a scalar."""


class Parted(NamedTuple):
    """A graph, and what is left of it."""

    whole: Data
    left: Data
    unseen: Tensor  # [N] mask


def part(data: Data, seed: int) -> Parted:
    """Cut a fifth of the test nodes out."""
    test = data.test_mask.nonzero().squeeze(-1)
    drawn = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[: round(len(test) / 5)]]
    unseen = torch.zeros_like(data.test_mask)
    unseen[drawn] = True
    return Parted(data, data.subgraph(~unseen), unseen)


def fit(model: nn.Module, given: tuple[Tensor, ...], loss: Lesson, data: Data, decay: float) -> None:
    """Train a model, and leave it as it was where the validation nodes were likeliest."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=decay)
    least, since, best = float("inf"), 0, model.state_dict()
    for _ in range(EPOCHS):
        model.train()
        value = loss(model(*given))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        held = float(F.cross_entropy(said(model, *given)[data.val_mask], data.y[data.val_mask]))
        since = 0 if held < least else since + 1
        if since == 0:
            least, best = held, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        elif since == PATIENCE:
            break
    model.load_state_dict(best)


@torch.no_grad()
def said(model: nn.Module, *given: Tensor) -> Tensor:
    """Return what a model says in evaluation, [N, C]."""
    logits: Tensor = model.eval()(*given)
    return logits


def percent(logits: Tensor, y: Tensor, rows: Tensor) -> float:
    """Return the accuracy over some nodes."""
    return 100 * float((logits.argmax(-1) == y)[rows].float().mean())


def one_seed(graph: str, root: str, seed: int) -> dict[str, list[float]]:
    """Return the test accuracy on seen and on unseen nodes, by model."""
    whole, left, unseen = part(load(str(CARDS / f"{graph}-published.yaml"), root, seed=seed), seed)
    adj, all_adj = (to_torch_csr_tensor(each.edge_index, size=each.num_nodes) for each in (left, whole))
    torch.manual_seed(seed)
    columns, C, seen = whole.num_features, int(whole.y.max()) + 1, whole.test_mask & ~unseen

    def labels(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits[left.train_mask], left.y[left.train_mask])

    teacher = GraphSAGE(columns, 128, 2, C, dropout=0.5, root_weight=False)
    fit(teacher, (left.x, adj), labels, left, 5e-3)
    answers, noisy = (said(teacher, x, adj) for x in (left.x, left.x + torch.randn_like(left.x)))
    everywhere = said(teacher, whole.x, all_adj)
    found = {"teacher": [percent(answers, left.y, left.test_mask), percent(everywhere, whole.y, unseen)]}
    taught = Signals(answers, reliability=graphkd.reliability(answers, noisy))
    for spec in ("alone", *LOSSES):
        student = MLP([columns, 128, C], dropout=0.5, norm=None)
        lesson = labels if spec == "alone" else partial(learn, graphkd.build(spec)[0].loss, taught, left.edge_index)
        fit(student, (left.x,), lesson, left, 5e-3 if spec == "alone" else 5e-4)
        found[spec] = [percent(said(student, whole.x), whole.y, rows) for rows in (seen, unseen)]
    return found


def learn(loss: graphkd.DistillationLoss, teacher: Signals, edge_index: Tensor, logits: Tensor) -> Tensor:
    """Return what a student is taught, a scalar."""
    return loss(logits, teacher, edge_index=edge_index).mean()


def table() -> list[str]:
    """Return the accuracies as Markdown."""
    paths = [path for graph in GRAPHS if (path := RESULTS / f"{graph}.json").exists()]
    held = [(path.stem, json.loads(path.read_text())) for path in paths]
    heads = [f"{graph}, {setting}" for graph, _ in held for setting in SETTINGS]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in ("teacher", "alone", *LOSSES):
        scores = [found["runs"] for _, found in held]
        columns = [[run[name][i] for run in runs] for runs in scores for i in range(len(SETTINGS))]
        shown = [words({"test": [statistics.fmean(each), statistics.stdev(each)]}) for each in columns]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    """Run the graphs that are missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--only", nargs="*", default=list(GRAPHS))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--table", action="store_true", help="only print the table")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    for graph in given.only:
        if given.table or (RESULTS / f"{graph}.json").exists():
            continue
        start = time.perf_counter()
        runs = [one_seed(graph, given.data_root, seed) for seed in range(given.seeds)]
        found = {"graph": graph, "seeds": given.seeds, "seconds": time.perf_counter() - start, "runs": runs}
        write_text(RESULTS / f"{graph}.json", json.dumps(found, indent=1) + "\n")
    print("\n".join(table()))


if __name__ == "__main__":
    main()
