"""How boosted trees are grown: by scikit-learn, or by xgboost where it is installed and the graph lies on a GPU.

Either gives the same arrays, one row for each tree, which `mowst.models.trees` walks through without either of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mowst.errors import InputError
from mowst.models.learners import ABSENT, Judged

Table = np.ndarray[Any, Any]
VALUES = 256
"""Numbers that a category may have."""


class Wish(NamedTuple):
    """What trees are to be like."""

    learning_rate: float
    """How much of each tree is taken."""
    leaves: int
    """Of a tree, at most."""
    smallest: int
    """Nodes in a leaf, at least."""
    rounds: int
    """Of growing a tree for each class, at most."""
    categories: int
    """So many of the first columns are categories, whole numbers from 0."""


class Grown(NamedTuple):
    """Trees, and after how many rounds they stand."""

    rounds: int
    arrays: dict[str, Tensor]
    """As in `mowst.models.trees.Trees.sizes`."""


class Grow(Protocol):
    """A way to grow trees."""

    def __call__(self, table: Table, labels: Table, wish: Wish, judged: Judged | None, device: torch.device) -> Grown:
        """Grow trees on the nodes with a label.

        Args:
            table: [N, D] float64, NaN where a value is missing.
            labels: [N], below 0 where there is none; of at least two classes.
            wish: what they are to be like.
            judged: of all rounds the one is taken that these nodes like best; none: the last.
            device: where the graph lies.
        """


def by_scikit_learn(table: Table, labels: Table, wish: Wish, judged: Judged | None, device: torch.device) -> Grown:
    """Grow trees by `HistGradientBoostingClassifier`, on the CPU wherever the graph lies (`Grow`)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    nodes = (labels >= 0).nonzero()[0]
    grown = HistGradientBoostingClassifier(
        max_iter=wish.rounds,
        learning_rate=wish.learning_rate,
        max_leaf_nodes=wish.leaves,
        min_samples_leaf=wish.smallest,
        early_stopping=False,
        random_state=0,
        categorical_features=list(range(wish.categories)),
    ).fit(table[nodes], labels[nodes])
    nodes, column = judged_among(grown.classes_, judged)
    best = wish.rounds
    if len(nodes):
        staged = grown.staged_predict_proba(table[nodes])
        best = int(np.argmax([np.log(p[np.arange(len(column)), column].clip(ABSENT)).sum() for p in staged])) + 1
    return Grown(best, arrays_of(grown, best))


def by_xgboost(table: Table, labels: Table, wish: Wish, judged: Judged | None, device: torch.device) -> Grown:
    """Grow trees by xgboost (Chen and Guestrin, 2016, arXiv 1603.02754), on the device of the graph (`Grow`).

    It has no least number of nodes in a leaf, but a least sum of p (1 - p), which is at most a quarter for a node.

    Raises:
        InputError: xgboost is not installed.
    """
    if find_spec("xgboost") is None:
        raise InputError('trees: xgboost is not installed; pip install "mowst[xgboost]", or leave out by=xgboost')
    import xgboost

    nodes = (labels >= 0).nonzero()[0]
    classes, codes = np.unique(labels[nodes], return_inverse=True)
    shares = np.bincount(codes) / len(codes)
    base = np.log(shares[1:] / shares[0]) if len(classes) == 2 else np.log(shares)
    options = options_of(wish, len(classes), device)

    def matrix(rows: Table, wanted: Table) -> Any:
        kinds = ["c"] * wish.categories + ["float"] * (table.shape[1] - wish.categories)
        margin = np.tile(base, (len(rows), 1))
        return xgboost.DMatrix(table[rows], wanted, base_margin=margin, feature_types=kinds, enable_categorical=True)

    shown: dict[str, Any] = {}
    chosen, column = judged_among(classes, judged)
    watched = [(matrix(chosen, column), "judged")] if len(chosen) else []
    booster = xgboost.train(
        options, matrix(nodes, codes), wish.rounds, evals=watched, evals_result=shown, verbose_eval=False
    )
    best = int(np.argmin(next(iter(shown["judged"].values())))) + 1 if watched else wish.rounds
    held = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    each = 1 if len(classes) == 2 else len(classes)
    arrays = stacked([places_of(tree) for tree in held[: best * each]])
    arrays["tells_of"] = torch.arange(best * each) % each
    return Grown(best, arrays | {"seen": torch.from_numpy(classes.astype(np.int64)), "base": torch.from_numpy(base)})


def options_of(wish: Wish, classes: int, device: torch.device) -> dict[str, Any]:
    """Return what xgboost is asked for: trees that grow by their best leaf, as scikit-learn's do."""
    several = {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": classes}
    return {
        "device": str(device),
        "nthread": torch.get_num_threads(),
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": wish.leaves,
        "min_child_weight": wish.smallest / 4,
        "learning_rate": wish.learning_rate,
        "verbosity": 0,
        **({"objective": "binary:logistic", "eval_metric": "logloss"} if classes == 2 else several),
    }


GROWERS: dict[str, Grow] = {"scikit-learn": by_scikit_learn, "xgboost": by_xgboost}
WAYS = "auto", *GROWERS


def grower(by: str, device: torch.device) -> Grow:
    """Return the way to grow trees that a word names; `auto`: xgboost on a GPU where it is installed."""
    if by != "auto":
        return GROWERS[by]
    return by_xgboost if device.type == "cuda" and find_spec("xgboost") is not None else by_scikit_learn


def judged_among(classes: Table, judged: Judged | None) -> tuple[Table, Table]:
    """Return the judged nodes [n] that have one of these classes, and the place of each one's class among them."""
    if judged is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    y, place = judged.y.cpu().numpy(), {label: column for column, label in enumerate(classes.tolist())}
    column = np.array([place.get(label, -1) for label in y.tolist()], dtype=np.int64)
    return judged.nodes.cpu().numpy()[column >= 0], column[column >= 0]


class Places(NamedTuple):
    """The places [m] of one tree, as `mowst.models.trees.Trees.sizes` has them."""

    feature: Table
    threshold: Table
    left: Table
    right: Table
    missing_left: Table
    value: Table
    divisions: dict[int, Table]
    """By place that asks for a category: which values [VALUES] go to the left."""


def stacked(trees: Sequence[Places]) -> dict[str, Tensor]:
    """Return trees as arrays [T, M], each padded to the largest by leaves that say nothing."""
    most = max(len(tree.feature) for tree in trees)
    divides, rows = np.full((len(trees), most), -1), list[Table]()
    filled: dict[str, list[Table]] = {name: [] for name in Places._fields[:-1]}
    for own, tree in zip(divides, trees, strict=True):
        rest = np.arange(len(tree.feature), most)
        ends = {"threshold": np.inf + rest, "left": rest, "right": rest, "missing_left": rest >= 0}
        for name, held in filled.items():
            held.append(np.append(tree._asdict()[name], ends.get(name, 0 * rest)))
        for place, row in tree.divisions.items():
            own[place] = len(rows)
            rows.append(row)
    found = {name: torch.from_numpy(np.stack(held).astype(np.float64)) for name, held in filled.items()}
    if rows:
        found |= {"divides": torch.from_numpy(divides), "goes_left": torch.from_numpy(np.array(rows, dtype=bool))}
    return found


def places_of(tree: dict[str, Any]) -> Places:
    """Return a tree of xgboost's JSON. It goes left where float32(x) < t, or where a category is not in the list."""
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    leaf, own = left < 0, np.arange(len(left))
    at = np.array(tree["split_conditions"], dtype=np.float32)
    below = (np.nextafter(at, np.float32(-np.inf)).astype(np.float64) + at) / 2  # rounds to less than t up to here
    listed = np.array(tree["categories"], dtype=np.int64)
    divisions = dict[int, Table]()
    for place, start, count in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):
        row = np.ones(VALUES, dtype=bool)
        row[listed[start : start + count]] = False
        divisions[place] = row
    return Places(
        feature=np.where(leaf, 0, tree["split_indices"]),
        threshold=np.where(leaf, np.inf, below),
        left=np.where(leaf, own, left),
        right=np.where(leaf, own, right),
        missing_left=leaf | np.array(tree["default_left"], dtype=bool),
        value=np.where(leaf, at, 0.0),
        divisions=divisions,
    )


def arrays_of(grown: Any, rounds: int) -> dict[str, Tensor]:
    """Return the trees of scikit-learn's first rounds as arrays."""
    classes = len(grown._predictors[0])
    predictors = [tree for by_class in grown._predictors[:rounds] for tree in by_class]
    trees = list[Places]()
    for predictor in predictors:
        tree = predictor.nodes
        leaf, own = tree["is_leaf"].astype(bool), np.arange(len(tree))
        places = Places(
            feature=np.where(leaf, 0, tree["feature_idx"]),
            threshold=np.where(leaf, np.inf, tree["num_threshold"]),
            left=np.where(leaf, own, tree["left"]),
            right=np.where(leaf, own, tree["right"]),
            missing_left=leaf | tree["missing_go_to_left"].astype(bool),
            value=np.where(leaf, tree["value"], 0.0),
            divisions=divisions_of(grown, predictor),
        )
        trees.append(places)
    found = stacked(trees)
    found["tells_of"] = torch.arange(len(trees)) % classes
    found["seen"] = torch.from_numpy(grown.classes_.astype(np.int64))
    found["base"] = torch.from_numpy(np.asarray(grown._baseline_prediction, dtype=np.float64).reshape(-1))
    return found


def divisions_of(grown: Any, predictor: Any) -> dict[int, Table]:
    """Return where a tree of scikit-learn asks for a category, and which numbers go to the left there.

    It counts only the numbers that it has seen; the others go where a missing value goes.
    """
    found = dict[int, Table]()
    if grown.is_categorical_ is None:
        return found
    seen = grown._preprocessor.named_transformers_["encoder"].categories_
    for place in (predictor.nodes["is_categorical"] & ~predictor.nodes["is_leaf"]).nonzero()[0].tolist():
        node = predictor.nodes[place]
        numbers = seen[node["feature_idx"]]
        numbers = numbers[~np.isnan(numbers)].astype(int)
        bits = np.unpackbits(predictor.raw_left_cat_bitsets[node["bitset_idx"]].view(np.uint8), bitorder="little")
        row = np.full(VALUES, bool(node["missing_go_to_left"]))
        row[numbers] = bits[: len(numbers)].astype(bool)
        found[place] = row
    return found
