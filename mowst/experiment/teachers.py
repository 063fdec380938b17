"""Teachers from outside a run: what another run left in a folder, or a file of logits.

`--teacher` is one of

    OUT, OUT/seed-0       a run; of OUT, seed k teaches the student of seed k
    OUT:strong            one model of it by name; by default the first it has of `SPEAKERS`, else its best
    ensemble(OUT)         all seeds of a run, or of one of its models (OUT:strong): the mean of their probabilities
    extrapolate(OUT)      its strong expert, taken further from its weak one; or extrapolate(OUT, beta=2, max_step=3)
    rebalance(TEACHER)    any of these, told how frequent the classes are among all nodes
    FILE.npz, FILE.safetensors   `logits` [N, C], optionally `reliability` [N], `hidden_0` [N, H], `hidden_1`, ... and
                          `split_sha256` (an array of one string; in safetensors: metadata)
    strong, weak          an expert of the run itself, which is not this module's business

A teacher that was trained on another split has seen labels that the student is tested on, so it is refused.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix
from torch import Tensor
from torch_geometric.data import Data

from graphkd import Extrapolated, Signals, Weighted, rebalance
from mowst.errors import InputError, unknown
from mowst.experiment.building import build_model, classes_of, prepare, seeded
from mowst.experiment.config import Config
from mowst.experiment.folder import read_config, read_json
from mowst.experiment.identity import labels_hash, split_hash
from mowst.experiment.teacher_files import FILES, read_arrays
from mowst.experiment.weights import read_weights
from mowst.models import ROLES, Mixture, log_pool
from mowst.training import observe, parse, wanted

SPEAKERS = ("mixture", "strong", "student")
"""The models that teach where none is named, the first that a run has; of a run without any, the expert that validates
best does."""

CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
OPTION = re.compile(r",\s*(\w+)\s*=\s*([^,=()]+)$")


class Teacher(NamedTuple):
    """A teacher and where it is from."""

    signals: Signals
    source: str
    """Folder and model, or file."""
    same_split: bool
    """Whether it is known to have been trained on the student's split; if not, it cannot be told."""
    folder: Path | None = None
    """Of the run, whose `model` can be built again for what else a loss wants to see."""
    model: str = ""


def read_teacher(config: Config, seed: int, data: Data, fabric: Fabric) -> Teacher | None:
    """Read a teacher from outside the run; a run's model is run again where a loss wants to see more than logits."""
    if config.kd is None or config.teacher is None or config.teacher in ROLES:
        return None
    teacher = read(config.teacher, seed, data)
    losses = parse(config.kd)
    more = wanted(losses) & {"teacher_hidden", "reliability"}
    if teacher.folder is None and not teacher.signals.hidden:
        check_logits_are_enough(teacher, losses)
    if not more or teacher.folder is None:
        return teacher
    theirs = read_config(teacher.folder)
    model = build_model(teacher.model, theirs, data.num_features, classes_of(data))
    model = read_weights(teacher.folder, teacher.model, model).to(fabric.device)
    with seeded(seed, fabric.device):
        return teacher._replace(signals=observe(model, prepare(data, theirs, fabric.device), more))


def check_logits_are_enough(teacher: Teacher, losses: Sequence[Weighted]) -> None:
    """Refuse losses that learn from hidden layers, of a teacher that has none.

    Raises:
        InputError: there is such a loss.
    """
    if names := [each.name for each in losses if "teacher_hidden" in each.loss.needs]:
        raise InputError(
            f"teacher {teacher.source}: has logits alone, no hidden layers for {', '.join(names)}; "
            "give a run (OUT or OUT:MODEL), or a file that holds hidden_0, hidden_1, ..."
        )


def read(teacher: str, seed: int, data: Data) -> Teacher:
    """Read the teacher of one seed's student on a graph.

    Raises:
        InputError: it is not there, was trained on another graph or split, or does not fit the graph.
    """
    path, call = Path(teacher), CALL.fullmatch(teacher.strip())
    if call is not None and not path.exists():
        found = read_made(call[1], call[2], seed, data)
    else:
        found = read_logits(path, data) if path.suffix in FILES else read_run(teacher, seed, data)
    logits, hidden, reliability = found.signals
    shape, size = list(logits.shape), [data.num_nodes, data["num_classes"]]
    if shape != size:
        raise InputError(f"teacher {found.source}: logits are {shape}, but {data.name} has nodes and classes {size}")
    others = (*hidden, *(() if reliability is None else (reliability,)))
    if any(len(signal) != len(logits) for signal in others):
        raise InputError(
            f"teacher {found.source}: hidden layers and reliability must have {len(logits)} rows, a node each"
        )
    if not all(signal.isfinite().all() for signal in (logits, *others)):
        raise InputError(f"teacher {found.source}: some entries are no finite numbers")
    check_numbering(found, data)
    return found


def check_numbering(teacher: Teacher, data: Data) -> None:
    """Refuse a teacher whose classes are numbered otherwise than the graph's, as far as training nodes can tell.

    Raises:
        InputError: it is right on at least twice as many of them, and on most, once its classes are renumbered, and on
            so many more that this is no chance.
    """
    y, guess = data.y[data.train_mask], teacher.signals.logits.argmax(-1)[data.train_mask.cpu()]
    hits = confusion_matrix(y.cpu(), guess, labels=range(int(data["num_classes"])))
    rows, columns = linear_sum_assignment(-hits)
    right, best = hits.trace() / len(y), hits[rows, columns].sum() / len(y)
    if best > max(0.5, 2 * right) and (best - right) * len(y) ** 0.5 > 4:
        raise InputError(
            f"teacher {teacher.source}: is right on {right:.0%} of the training nodes, and on {best:.0%} if its "
            f"classes {columns.tolist()} were 0 to {len(columns) - 1}; number them as {data.name} does"
        )


def read_run(teacher: str, seed: int, data: Data) -> Teacher:
    """Read the teacher out of a run's folder, from the predictions that it wrote."""
    folder, name = run_folder(teacher, seed)
    record = read_json(folder / "result.json")
    try:
        validated = {model: record["scores"][model]["val"] or 0.0 for model in record["parameters"]}
        dataset, split, trained = record["dataset"], record["split"]["name"], record["seed"]
        same = record["split"]["sha256"] == split_hash(data)
        numbered = record.get("labels_sha256")  # which older runs do not have
    except (KeyError, TypeError):
        raise InputError(f"teacher {folder}: result.json is not the record of a run of one seed") from None
    if name and name not in validated:
        raise unknown(f"teacher {folder}: model", name, validated)
    if dataset != data.name:
        raise InputError(f"teacher {folder}: was trained on {dataset}, not on {data.name}")
    if not same:
        raise InputError(
            f"teacher {folder}: was trained on another split of {data.name} ({split}, seed {trained}) "
            "and may have seen the student's test labels; give a run with the same split and seed"
        )
    if numbered not in (None, labels_hash(data)):
        raise InputError(
            f"teacher {folder}: numbers the classes of {data.name} otherwise; train it anew on the labels of now"
        )
    spoken = [speaker for speaker in SPEAKERS if speaker in validated]
    name = name or (spoken[0] if spoken else max(validated, key=lambda model: validated[model]))
    try:
        logits = run_logits(read_arrays(folder / "predictions.npz")[0], name)
        if len(logits) != data.num_nodes:
            raise InputError(
                f"teacher {folder}: speaks of {len(logits)} nodes only; run it with --predictions.nodes all"
            )
    except KeyError as error:
        raise InputError(f"teacher {folder}: predictions.npz has no {error}") from None
    return Teacher(Signals(logits), f"{folder}:{name}", True, folder, name)


def run_folder(teacher: str, seed: int) -> tuple[Path, str]:
    """Return the folder of the seed's run, and the name of the model that is to teach, "" where none is named."""
    folder, name = Path(teacher), ""
    if not folder.exists() and ":" in teacher:
        place, _, name = teacher.rpartition(":")
        folder = Path(place)
    if not folder.is_dir():
        raise InputError(
            f"teacher {teacher}: no such run folder; give a run, RUN:MODEL, a {' or '.join(FILES)} file, "
            f"or {' or '.join(ROLES)}"
        )
    if not (folder / "predictions.npz").is_file():
        folder = folder / f"seed-{seed}"
        if not folder.is_dir():
            held = ", ".join(sorted(path.name for path in folder.parent.glob("seed-*"))) or "no run of a seed"
            raise InputError(f"teacher {folder.parent}: has no {folder.name}, holds {held}")
    return folder, name


def run_logits(arrays: dict[str, Tensor], name: str) -> Tensor:
    """Return a model's logits [N, C] from a run's arrays: of a mixture, the log of its pooled probabilities."""
    if f"{name}_logits" in arrays:
        return arrays[f"{name}_logits"]
    weak, strong, confidence = (arrays[f"{name}_{part}"] for part in ("weak", "strong", "confidence"))
    return log_pool(Mixture(weak, strong, confidence, arrays.get(f"{name}_scale")))


def read_made(name: str, words: str, seed: int, data: Data) -> Teacher:
    """Read a teacher that is made of several models: `name(OUT)`, or `name(OUT, option=number)`.

    Raises:
        InputError: it is called otherwise, has no such option, or cannot be made of this run.
    """
    said, options = f"teacher {name}({words})", {}
    while (option := OPTION.search(words)) is not None:
        words = words[: option.start()]
        try:
            options[option[1]] = float(option[2])
        except ValueError:
            raise InputError(f"{said}: {option[1]} must be a number, is {option[2].strip()}") from None
    if name not in MADE:
        raise unknown(f"{said}:", name, MADE)
    if wrong := [key for key in options if key not in MADE[name].options]:
        raise unknown(f"{said}: option", wrong[0], MADE[name].options)
    return MADE[name].read(words.strip(), seed, data, options)


def read_ensemble(run: str, seed: int, data: Data, options: Mapping[str, float]) -> Teacher:
    """Read all seeds of a run, whose probabilities are averaged; each must be of the student's split."""
    place, _, name = ("", "", "") if Path(run).exists() else run.rpartition(":")
    folder = Path(place or run)
    seeds = sorted(folder.glob("seed-*"), key=lambda path: (len(path.name), path.name))
    if not seeds:
        raise InputError(f"teacher ensemble({run}): holds no run of a seed; give the folder of a whole run, OUT")
    first = read_run(f"{seeds[0]}:{name}" if name else str(seeds[0]), seed, data)
    teachers = [first, *(read_run(f"{path}:{first.model}", seed, data) for path in seeds[1:])]
    log_probs = torch.stack([teacher.signals.logits.log_softmax(-1) for teacher in teachers])
    logits = log_probs.logsumexp(0) - math.log(len(teachers))
    return Teacher(Signals(logits), f"{len(seeds)} seeds of {folder}:{first.model}", True)


def read_extrapolated(run: str, seed: int, data: Data, options: Mapping[str, float]) -> Teacher:
    """Read the strong and the weak expert of a run, and go from the one through the other."""
    teacher = read_run(run, seed, data)
    assert teacher.folder is not None, "a run has a folder"
    arrays = read_arrays(teacher.folder / "predictions.npz")[0]
    experts = [arrays.get(f"{role}_logits", arrays.get(f"mixture_{role}")) for role in ("strong", "weak")]
    if any(expert is None for expert in experts):
        raise InputError(
            f"teacher extrapolate({run}): needs a run with a weak and a strong expert, such as a mixture's"
        )
    strong, weak = (Signals(expert) for expert in experts if expert is not None)
    try:
        signals = Extrapolated(**options)(strong, weak)
    except ValueError as error:
        raise InputError(f"teacher extrapolate({run}): {error}") from None
    return Teacher(signals, f"{teacher.folder}:strong, extrapolated from its weak expert", True)


def read_rebalanced(teacher: str, seed: int, data: Data, options: Mapping[str, float]) -> Teacher:
    """Read a teacher, and correct what it says for the shares of classes in which its labels and all nodes differ."""
    found = read(teacher, seed, data)
    labels = torch.bincount(data.y[data.train_mask].cpu(), minlength=data["num_classes"])
    if not labels.all():
        raise InputError(f"teacher rebalance({teacher}): no training node is of class {int(labels.argmin())}")
    signals = found.signals._replace(logits=rebalance(found.signals.logits, labels))
    return found._replace(signals=signals, source=f"{found.source}, rebalanced", folder=None)


class Made(NamedTuple):
    """A kind of teacher that is made of several models."""

    read: Callable[[str, int, Data, Mapping[str, float]], Teacher]
    options: tuple[str, ...] = ()


MADE = {
    "ensemble": Made(read_ensemble),
    "extrapolate": Made(read_extrapolated, ("beta", "max_step")),
    "rebalance": Made(read_rebalanced),
}


def read_logits(path: Path, data: Data) -> Teacher:
    """Read a file of logits; one that does not name its split is taken, with a warning."""
    arrays, split = FILES[path.suffix](path)
    if "logits" not in arrays or arrays["logits"].dim() != 2:
        raise InputError(f"teacher {path}: must hold `logits` [N, C], holds {', '.join(sorted(arrays)) or 'nothing'}")
    if split is None:
        warnings.warn(f"{path} has no split_sha256: that its split is the student's cannot be checked", stacklevel=2)
    elif split != split_hash(data):
        raise InputError(f"teacher {path}: is of another split of {data.name} and may have seen test labels")
    layers = sorted((key for key in arrays if key.startswith("hidden_")), key=lambda key: (len(key), key))
    signals = Signals(arrays["logits"], tuple(arrays[key] for key in layers), arrays.get("reliability"))
    return Teacher(signals, str(path), split is not None)
