"""First run: train a mixture beside its parts on a graph that needs no download, and read what it left.

python examples/first_run.py [--epochs 200] [--out runs/first]
"""

import argparse
import csv
from pathlib import Path

from mowst.experiment import Config, run
from mowst.predict import command as predict


def main(epochs: int, out: Path) -> float:
    """Train, print a line for each model, write predictions by name; return the mixture's test score in percent."""
    # The same as: mowst run --dataset sbm --preset fast --seeds 2 --epochs 200 --out runs/first
    config = Config(dataset="sbm", preset="fast", seeds=2, epochs=epochs, patience=50)
    result = run(config, out)

    # Every model was trained with the same budget. Choose by validation scores; test scores are there to be reported.
    for name, score in result["scores"].items():
        (val, _), (test, deviation) = score["val"], score["test"]
        print(f"{name:15} validation {val:5.1f} %   test {test:5.1f} ± {deviation:.1f} %")

    # The folder can be read again at any time. Some nodes, by number, to a table:
    predict([str(out), "--nodes", "0,5,9", "--out", str(out / "some.csv")])
    with (out / "some.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            print(f"node {row['id']}: class {row['predicted']}, {row['expert']} expert, p = {row['probability']}")
    return float(result["scores"]["mixture"]["test"][0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/first"))
    given = parser.parse_args()
    main(given.epochs, given.out)
