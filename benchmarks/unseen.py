"""Students on nodes that nobody has seen: the inductive setting of the published tables.

    python benchmarks/unseen.py --data_root data [--only cora photo] [--seeds 3] [--table]

Graphs, splits, teacher and students as in `published.py`, but a fifth of the test nodes, drawn with the seed, is cut
out with all its edges before anything is trained. Then the teacher answers for them on the whole graph, and a student
from their features alone. A graph is one JSON file in benchmarks/results/unseen with a line for each seed: what is
there is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from pathlib import Path

import torch
from accuracy import cell as words
from published import GRAPHS, STUDENTS
from students import Case, answers, load_graph, mean_of, rebalanced, says, student, teacher
from torch import Tensor
from torch_geometric.data import Data

from graphkd import Signals
from mowst.system import write_text

RESULTS = Path(__file__).parent / "results" / "unseen"
NAMES = ("alone", "glnn", "glnn, rebalanced", "krd, power refitted", "ffg2m")
SETTINGS = "seen", "unseen"
Runs = dict[str, dict[str, list[float]]]  # by seed and model: test accuracy on seen and on unseen nodes


def unseen_nodes(data: Data, seed: int) -> Tensor:
    """Draw a fifth of the test nodes, a mask [N]."""
    test = data.test_mask.nonzero().squeeze(-1)
    drawn = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[: round(len(test) / 5)]]
    unseen = torch.zeros_like(data.test_mask)
    unseen[drawn] = True
    return unseen


def percent(logits: Tensor, y: Tensor, rows: Tensor) -> float:
    """Return the accuracy over some nodes."""
    return round(100 * float((logits.argmax(-1) == y)[rows].float().mean()), 3)


def one_seed(graph: str, root: str, seed: int) -> dict[str, list[float]]:
    """Return the test accuracy on seen and on unseen nodes, by model."""
    whole = load_graph(graph, root, seed)
    unseen = unseen_nodes(whole, seed)
    left, seen = whole.subgraph(~unseen), whole.test_mask & ~unseen
    mean = mean_of(left)
    model = teacher(left, mean, seed)
    found, everywhere = says(model, left, mean), says(model, whole, mean_of(whole))["logits"]
    taught = Signals(found["logits"], (found["hidden"],), found["reliability"])
    of = Case(left, mean, {"teacher": taught, "rebalanced": rebalanced(taught, left)}, torch.empty(0, 0), seed)
    scores = {"teacher": [percent(taught.logits, left.y, left.test_mask), percent(everywhere, whole.y, unseen)]}
    for name in NAMES:
        logits = answers(student(of, STUDENTS[name]), whole.x)
        scores[name] = [percent(logits, whole.y, rows) for rows in (seen, unseen)]
    return scores


def read(graph: str) -> Runs:
    """Return what was run of a graph, by seed."""
    path = RESULTS / f"{graph}.json"
    runs: Runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    return runs


def table(seeds: int) -> list[str]:
    """Return the accuracies of the graphs that have all seeds, as Markdown."""
    held = {graph: list(runs.values())[:seeds] for graph in GRAPHS if len(runs := read(graph)) >= seeds}
    heads = [f"{graph}, {setting}" for graph in held for setting in SETTINGS]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in ("teacher", *NAMES):
        columns = [[run[name][i] for run in runs] for runs in held.values() for i in range(len(SETTINGS))]
        shown = [words({"test": [statistics.fmean(each), statistics.stdev(each)]}) for each in columns]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def main() -> None:
    """Run the seeds that are missing, then print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data_root", default="data")
    arguments.add_argument("--only", nargs="*", default=list(GRAPHS))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--table", action="store_true", help="only print the table")
    given = arguments.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for graph in () if given.table else given.only:
        for seed in range(given.seeds):
            if str(seed) not in (runs := read(graph)):
                runs[str(seed)] = one_seed(graph, given.data_root, seed)
                write_text(RESULTS / f"{graph}.json", json.dumps({"graph": graph, "runs": runs}, indent=1) + "\n")
                print(graph, seed, runs[str(seed)], flush=True)
    print("\n".join(table(given.seeds)))


if __name__ == "__main__":
    main()
