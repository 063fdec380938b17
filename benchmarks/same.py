"""Prove that two checkouts give bit-equal scores and predictions, by their command line alone.

    python benchmarks/same.py record BEFORE.json --python OLD/bin/python --data-root data
    python benchmarks/same.py record AFTER.json --python NEW/bin/python --data-root data
    python benchmarks/same.py compare BEFORE.json AFTER.json

Nothing of the project is imported, so its modules may lie anywhere. Commands run in a temporary folder with one thread
on the CPU, and use what is installed for `--python` (or the checkout that PYTHONPATH names, as an absolute path). The
same versions of torch and numpy on the same kind of machine are taken for granted. What FILE.json holds is not run
again, unless another configuration needs its folder; `--only NAME ...` records, or compares, some of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Configurations that may differ: name -> why. Every other difference is an error.
FOLDS, ROWS, TRIALS = (
    "folds follow the seed, and this one is not 0",
    "a weak turn runs the MLP on labelled nodes alone, as pre-training does",
    "the mixture of a trial, which has no baselines, is that of a run",
)
EXPECTED: dict[str, str] = {
    "rehearsals": FOLDS,
    "workers": FOLDS,
    "alternate": ROWS,
    "learned-separate": ROWS,
    "learned-joint": ROWS,
    "study": TRIALS,
    "study-cora": TRIALS,
    "study-goals": TRIALS,
}

# A configuration is a line of `python -m mowst.<line>`, after the arguments in USUAL. `runs/NAME` in it is what the
# configuration NAME leaves (it is run before), and `runs/NAME.npz` a file of the logits of that one's best model.
CONFIGURATIONS: dict[str, str] = {
    # Regimes.
    "held-out": "run --dataset sbm",
    "rehearsals": "run --dataset digits --rehearsals 5 --first_seed 3 --no-baselines",
    "fine-tuned": "run --dataset sbm --regime fine-tuned --folds 3",
    "joint": "run --dataset digits --regime joint",
    "alternate": "run --dataset digits --regime alternate --rounds 2 --epochs 15",
    "solo": "run --dataset digits --regime solo",
    "no-mixture": "run --dataset sbm --no-mixture --split per-class --eval_every 2",
    # Strong experts.
    "sage": "run --dataset sbm --strong sage --signal loss",
    "gat": "run --dataset digits --strong gat --strong.hidden_channels 32",
    "gin": "run --dataset sbm --strong gin --gate logistic",
    "gin-skip": "run --dataset sbm --strong gin-skip --regime joint --objective separate",
    "gcn-res": "run --dataset sbm --strong gcn-res --strong.num_layers 3 --strong.norm layer_norm",
    "sage-res": "run --dataset sbm --strong sage-res --strong.options '{pre_linear: true}' --signal expected",
    "gat-res": "run --dataset sbm --strong gat-res --strong.options '{heads: 4}' --strong.hidden_channels 32",
    "dotted": "run --dataset karate --strong torch_geometric.nn.models:GCN --strong.norm none --no-fast",
    "gnn-gnn": "run --dataset sbm --weak gcn --strong sage --weak.hidden_channels 32",
    # Gates, objectives, signals, optimisers.
    "learned-features": "run --dataset digits --regime joint --gate learned --gate.features true --pretrain both",
    "learned-joint-logits": "run --dataset sbm --regime joint --gate learned --objective joint-logits --pretrain none",
    "learned-separate": "run --dataset sbm --regime alternate --gate learned --objective separate --rounds 2",
    "learned-joint": "run --dataset sbm --regime alternate --objective joint --gate.detach true --rounds 2 --epochs 15",
    "logistic-joint": "run --dataset sbm --regime joint --gate logistic --pretrain weak --gate.dispersions [max]",
    "monotone": "run --dataset digits --gate monotone --gate.dispersions [max,margin] --signal expected",
    "power-joint": "run --dataset sbm --regime joint --gate power --gate.options '{alpha: 2.0}' --signal expected",
    "fused-joint": "run --dataset digits --regime joint --gate fused --signal loss",
    "average": "run --dataset sbm --ema_decay 0.9 --optimizer adam",
    "bf16": "run --dataset sbm --precision bf16-mixed",
    "workers": "run --dataset karate --seeds 2 --workers 2",
    # Real graphs: sparse features, masks of several kinds, ROC AUC.
    "cora": "run --dataset cora --epochs 20",
    "cora-normalized": "run --dataset cora --normalize_features true --strong sage --optimizer adam --epochs 20",
    "cora-joint": "run --dataset cora --split geom-gcn --first_seed 2 --strong gcn-res --regime joint --epochs 15",
    "cora-gat": "run --dataset cora --strong gat --strong.hidden_channels 16 --split random --epochs 15",
    "tolokers": "run --dataset tolokers --epochs 8 --weak.hidden_channels 16 --strong.hidden_channels 16",
    "tolokers-joint": "run --dataset tolokers --epochs 6 --regime joint --strong sage --strong.hidden_channels 16",
    # Distillation: every kind of teacher, losses on logits, hidden layers and edges.
    "taught-run": "run --dataset sbm --regime solo --teacher runs/held-out --kd nkd",
    "taught-model": "run --dataset sbm --regime solo --teacher runs/held-out:strong --kd ofa+krd",
    "taught-hidden": "run --dataset digits --regime joint --teacher runs/joint/seed-0 --kd 'lsp(of=hidden)'",
    "taught-file": "run --dataset sbm --regime solo --teacher runs/held-out.npz --kd 'standardized(nkd)+dkd'",
    "taught-strong": "run --dataset sbm --teacher strong --kd 'kd(temperature=2,weight=0.5,warmup=5)+glnn(on=train)'",
    "taught-strong-joint": "run --dataset sbm --regime joint --teacher strong --kd 'gld(k=3,weight=0.5)+rkd+dualhead'",
    "taught-strong-fine": "run --dataset sbm --regime fine-tuned --teacher strong --kd 'gld(form=neighbourhood,k=2)'",
    "taught-strong-solo": "run --dataset sbm --regime solo --teacher strong --kd lsp+kd",
    "taught-weak": "run --dataset digits --regime solo --teacher weak --kd kd",
    "taught-alternate": "run --dataset digits --regime alternate --teacher strong --kd ofa --rounds 2 --epochs 15",
    "no-teacher": "run --dataset digits --regime solo --kd uskd",
    # A trained mixture asked again.
    "pooled": "predict runs/held-out/seed-0",
    "routed": "predict runs/held-out/seed-0 --how routed",
    "sampled": "predict runs/joint/seed-0 --how sampled --seed 7",
    "nodes": "predict runs/cora/seed-0 --nodes 0,5,9",
    "nodes-routed": "predict runs/sage/seed-0 --nodes 3,1,2000 --how routed --threshold 0.4",
    # Studies of one worker, whose trials and pruning repeat themselves.
    "study": "tune --dataset sbm --pruner_options '{n_startup_trials: 1, n_warmup_steps: 3}' --trials 5",
    "study-cora": "tune --dataset cora --strong gcn --regime held-out --epochs 8 --finalists 1",
    "study-goals": "tune --dataset karate --goals [metric,share,parameters] --kd gld+kd --teacher strong",
}

TRAINING = "--data_root data --device cpu --seeds 1 --epochs 30 --patience 15 --quiet"
USUAL = {
    "run": f"{TRAINING} --out runs/NAME",
    "predict": "--data_root data --device cpu --save runs/NAME.npz",
    "tune": f"{TRAINING} --epochs 15 --trials 3 --workers 1 --retrain 1 --study runs/NAME.log --out runs/NAME",
}
GRAPHS = {"cora": "Planetoid/Cora", "tolokers": "HeterophilousGraph/tolokers"}  # under the data root
NEEDED = re.compile(r"runs/([\w-]+)(\.npz)?")  # in a line: what is run before it, and whether a file is made of it

Record = dict[str, dict[str, Any]]  # `scores` by name, and `arrays`: SHA-256 by name


class Recorder:
    """Runs configurations in a temporary folder, each with those whose folders it needs before it."""

    def __init__(self, python: str, work: Path, data_root: Path | None):
        self.python, self.work, self.records = python, work, dict[str, Record]()
        (work / "data").mkdir()
        for place in GRAPHS.values():  # copied, because PyG writes processed forms beside them
            if data_root and (data_root / place / "raw").is_dir():
                shutil.copytree(data_root / place, work / "data" / place, ignore=shutil.ignore_patterns("processed"))

    def record(self, name: str) -> Record:
        """Run a configuration, unless this folder has it, and return its record."""
        if name not in self.records:
            command, *words = shlex.split(CONFIGURATIONS[name])
            for other, suffix in NEEDED.findall(CONFIGURATIONS[name]):
                self.record(other)
                if suffix == ".npz":
                    self.write_logits(other)
            usual = USUAL[command].replace("NAME", name).split()
            self.call("-m", f"mowst.{command}", *usual, *words)
            self.records[name] = READERS[command](self.work / "runs" / name)
        return self.records[name]

    def call(self, *words: str) -> str:
        """Run Python and return what it prints; an error with the last line of what it says if it fails."""
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TMPDIR": str(self.work)}
        done = subprocess.run([self.python, *words], cwd=self.work, env=env, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or "nothing was said").splitlines()[-1]
            raise RuntimeError(f"`{shlex.join(words)}` ended with {done.returncode}: {said}")
        return done.stdout

    def write_logits(self, name: str) -> None:
        """Write the logits of a run's strong expert as the file of a teacher."""
        folder = self.work / "runs" / name / "seed-0"
        split = json.loads((folder / "result.json").read_text())["split"]["sha256"]
        with np.load(folder / "predictions.npz") as arrays:
            np.savez(self.work / "runs" / f"{name}.npz", logits=arrays["strong_logits"], split_sha256=np.array(split))

    def why_not(self, name: str) -> str:
        """Say why a configuration cannot be run here: a graph is missing."""
        line = CONFIGURATIONS[name]
        for graph, place in GRAPHS.items():
            if f"--dataset {graph} " in f"{line} " and not (self.work / "data" / place).is_dir():
                return f"there is no {place}/raw under --data-root"
        return next((reason for other, _ in NEEDED.findall(line) if (reason := self.why_not(other))), "")


def read_run(out: Path) -> Record:
    """Read the scores and the predictions of every seed of a run."""
    found: Record = {"scores": {}, "arrays": {}}
    for folder in sorted(out.glob("seed-*")):
        result = json.loads((folder / "result.json").read_text())
        found["scores"][f"{folder.name} split"] = result["split"]["sha256"]
        found["scores"] |= {f"{folder.name} {path}": value for path, value in leaves(result["scores"])}
        found["arrays"] |= {f"{folder.name} {name}": value for name, value in hashes(folder / "predictions.npz")}
    if not found["arrays"]:
        raise RuntimeError(f"{out.name}: no seed has left predictions")
    return found


def read_study(out: Path) -> Record:
    """Read the trials out of a study's journal, and the finalists and their tests out of its folder."""
    found: Record = {"scores": {}, "arrays": {}}
    for line in out.with_suffix(".log").read_text().splitlines():
        entry = json.loads(line)
        trial = f"trial {entry.get('trial_id')}"
        if "param_name" in entry:
            value, attributes = entry["param_value_internal"], json.loads(entry["distribution"])["attributes"]
            value = attributes["choices"][int(value)] if "choices" in attributes else value
            found["scores"][f"{trial} {entry['param_name']}"] = value
        elif "intermediate_value" in entry:
            found["scores"][f"{trial} step {entry['step']}"] = entry["intermediate_value"]
        elif "trial_id" in entry and "state" in entry:
            found["scores"] |= {f"{trial} state": entry["state"], f"{trial} values": entry["values"]}
    result = json.loads((out / "result.json").read_text())
    found["scores"] |= {f"finalist {path}": value for path, value in leaves(result["finalists"])}
    found["scores"]["winner"] = result["finalists"][0]["trial"]
    for name in ("best", "default"):
        for kind, values in read_run(out / name).items() if (out / name).is_dir() else ():  # no `default` if it won
            found[kind] |= {f"{name} {key}": value for key, value in values.items()}
    return found


READERS: dict[str, Callable[[Path], Record]] = {
    "run": read_run,
    "predict": lambda out: {"scores": {}, "arrays": dict(hashes(out.with_suffix(".npz")))},
    "tune": read_study,
}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield everything in nested mappings and lists with its path."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path} {key}".strip())
    else:
        yield path, tree


def hashes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of every array of an `.npz`, and the SHA-256 of its type, shape and bytes."""
    with np.load(path, allow_pickle=False) as arrays:
        for name in sorted(arrays.files):
            head = f"{arrays[name].dtype.str} {arrays[name].shape} ".encode()
            yield name, hashlib.sha256(head + arrays[name].tobytes()).hexdigest()


def record(file: Path, python: str, data_root: Path | None, names: list[str]) -> int:
    """Run every configuration that a file lacks, and write the file after each; 1 if one of them failed."""
    known: dict[str, Record] = json.loads(file.read_text()) if file.exists() else {}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="same-") as work:
        recorder = Recorder(python, Path(work), data_root)
        where = "from importlib.util import find_spec; print(find_spec('mowst').origin)"
        print("package:", recorder.call("-c", where).strip(), flush=True)
        for name in names:
            start, reason = time.perf_counter(), "is there already" if name in known else recorder.why_not(name)
            try:
                if not reason:
                    known[name] = recorder.record(name)
                    beside = file.with_name(f".{file.name}-{os.getpid()}")
                    beside.write_text(json.dumps(known, indent=1) + "\n")
                    os.replace(beside, file)
                said = f"skipped, {reason}" if reason else f"{time.perf_counter() - start:.1f} s"
            except (RuntimeError, OSError, LookupError) as error:
                failed, said = failed + 1, f"FAILED, {type(error).__name__}: {error}"
            print(f"{name}: {said}", flush=True)
    return int(failed > 0)


def difference(before: Record | None, after: Record | None) -> str:
    """Say what differs between two records: the first score, and every array; nothing if they are equal."""
    if before is None or after is None:
        return f"is not in {'BEFORE' if before is None else 'AFTER'}"
    scores, arrays = (
        [key for key in {**before[kind], **after[kind]} if shown(before[kind], key) != shown(after[kind], key)]
        for kind in ("scores", "arrays")
    )
    found = [f"arrays {', '.join(arrays)}"] if arrays else []
    if scores:
        change = f"{shown(before['scores'], scores[0])} -> {shown(after['scores'], scores[0])}"
        found.insert(0, f"{len(scores)} scores, first {scores[0]}: {change}")
    return "; ".join(found)


def shown(values: dict[str, Any], key: str) -> str:
    """Write a value so that equal means equal in every bit, and not a number equals itself."""
    return json.dumps(values[key]) if key in values else "missing"


def compare(before: dict[str, Record], after: dict[str, Record], names: list[str]) -> int:
    """Print a line per configuration; 1 if one differs that is not expected to, or none is there."""
    wrong = 0
    names = [name for name in names if name in before or name in after]
    for name in names:
        found = difference(before.get(name), after.get(name))
        wrong += bool(found) and name not in EXPECTED
        print(f"{name}: {found or 'equal'}" + (f" (expected to differ: {EXPECTED[name]})" if name in EXPECTED else ""))
    print(f"{len(names)} of {len(CONFIGURATIONS)} configurations compared, {wrong} differ unexpectedly")
    return int(wrong > 0 or not names)


def main() -> int:
    """Parse the command line, record or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the configurations and keep what they come to")
    recording.add_argument("file", type=Path, help="a JSON file to write, or to complete")
    recording.add_argument("--python", default=sys.executable, help="of an environment with the checkout installed")
    recording.add_argument("--data-root", type=Path, help="folder of real graphs, which is only read")
    comparing = commands.add_parser("compare", help="compare two files, exit code 1 if they differ")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    for each in (recording, comparing):
        each.add_argument("--only", nargs="+", choices=CONFIGURATIONS, metavar="NAME", help="some configurations")
    given = parser.parse_args()
    names = [name for name in CONFIGURATIONS if not given.only or name in given.only]
    if given.command == "compare":
        return compare(json.loads(given.before.read_text()), json.loads(given.after.read_text()), names)
    python = os.path.abspath(shutil.which(given.python) or given.python)
    return record(given.file, python, given.data_root, names)


if __name__ == "__main__":
    sys.exit(main())
