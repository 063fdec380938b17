"""The formulas as functions for everyone: their arguments are checked, then the formula is asked.

Inside of a loss the signals are checked already, by the contract; it asks the formula itself (`graphkd.logit.kd`).
Here `graphkd.kd` is the same with a `ValueError` for what would be wrong or break.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import torch

from graphkd import certificate as bounds
from graphkd import checks, codes, feature, logit, neighbours, relation, similarity, teacher

P = ParamSpec("P")
R = TypeVar("R")
Check = Callable[[str, dict[str, Any]], None]
"""`(name of the function, arguments by name)`: refuses them, or puts them right in place."""


def checked(formula: Callable[P, R], *tensors: Check, **rules: Callable[[str, Any], None]) -> Callable[P, R]:
    """Return a formula that refuses bad arguments: options by `checks.RULES` or their own rules, tensors by checks."""
    signature = inspect.signature(formula)
    known = {**checks.RULES, **rules}

    @functools.wraps(formula)
    def function(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return formula(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name in known.keys() & bound.arguments.keys():
            known[name](f"{formula.__name__}: {name}", bound.arguments[name])
        for check in tensors:
            check(formula.__name__, bound.arguments)
        return formula(*bound.args, **bound.kwargs)

    function.__module__ = __name__  # where it is found under its name: functions are pickled by that
    return function


def logits(first: str, second: str, *believed: str) -> Check:
    """Check two models' logits [N, C]; those that are believed, a teacher's, must say something in every row."""

    def check(where: str, given: dict[str, Any]) -> None:
        pair = {name: checks.logits(f"{where}: {name}", given[name]) for name in (first, second)}
        checks.alike(where, **pair)
        for name in believed:
            given[name] = checks.believable(f"{where}: {name}", pair[name].detach())

    return check


def representations(where: str, given: dict[str, Any]) -> None:
    """Check a student [N, H] and a teacher [N, H'], which must be finite."""
    student = checks.matrix(f"{where}: student", given["student"])
    wanted = checks.matrix(f"{where}: teacher", given["teacher"], student.size(0))
    checks.together(where, student=student, teacher=wanted)
    given["teacher"] = checks.finite(f"{where}: teacher", wanted.detach())


def target(where: str, given: dict[str, Any]) -> None:
    """Check labels [N]."""
    N, C = given["student"].shape
    given["target"] = checks.classes(f"{where}: target", given["target"], N, C)
    checks.together(where, student=given["student"], target=given["target"])


def linked(name: str, first: int = 2) -> Check:
    """Check node numbers in rows: edges or pairs [2, P], triples [3, P]."""

    def check(where: str, given: dict[str, Any]) -> None:
        given[name] = checks.nodes(f"{where}: {name}", given[name], first, given["student"].size(0))
        checks.together(where, student=given["student"], **{name: given[name]})

    return check


def trust(where: str, given: dict[str, Any]) -> None:
    """Check how far each node can be believed, [N]."""
    given["reliability"] = checks.shares(f"{where}: reliability", given["reliability"], given["student"].size(0))
    checks.together(where, student=given["student"], reliability=given["reliability"])


def single(where: str, given: dict[str, Any]) -> None:
    """Check one model's logits [N, C]."""
    given["logits"] = checks.believable(f"{where}: logits", checks.logits(f"{where}: logits", given["logits"]))


def frequent(where: str, given: dict[str, Any]) -> None:
    """Check how frequent the classes were in training, [C]: above 0."""
    if given["trained"] is None:
        return
    C, name = given["logits"].size(1), f"{where}: trained"
    what = f"a tensor [{C}], the share or the number of labels of each class, above 0"
    given["trained"] = checks.finite(name, checks.tensor(name, given["trained"], what, 1, lambda it: len(it) == C))
    if not bool((given["trained"] > 0).all()):
        raise ValueError(f"{name} must be {what}, got {float(given['trained'].min()):g}")


def square_graphs(where: str, given: dict[str, Any]) -> None:
    """Check two graphs, [k, k] and [l, l]."""
    given["first"], given["second"] = (checks.graph(f"{where}: {name}", given[name]) for name in ("first", "second"))
    checks.together(where, first=given["first"], second=given["second"])


def graphs(where: str, given: dict[str, Any]) -> None:
    """Check two graphs of equally many classes, [k, k]."""
    square_graphs(where, given)
    if given["first"].shape != given["second"].shape:
        sizes = [len(given["first"]), len(given["second"])]
        raise ValueError(f"{where}: first and second must be graphs of equally many classes, got {sizes}")


def layer(where: str, given: dict[str, Any]) -> None:
    """Check a teacher's hidden layer [N, H] with a node or more, which must be finite."""
    given["h"] = checks.finite(f"{where}: h", checks.matrix(f"{where}: h", given["h"]).detach())
    if not given["h"].numel():
        raise ValueError(f"{where}: h has no numbers, got {list(given['h'].shape)}")


models = logits("student", "teacher", "teacher")
kd = checked(logit.kd, models)
dkd = checked(logit.dkd, models, target)
nkd = checked(logit.nkd, models, target)
standardize = checked(logit.standardize, single)
ofa = checked(feature.ofa, models, target, gamma=checks.positive)
binary_kl = checked(feature.binary_kl, models)
uskd = checked(feature.uskd, logits("student", "weak"), target)
certificate = checked(bounds.certificate, graphs)
count = partial(checks.whole, least=1)
gromov_wasserstein = checked(bounds.gromov_wasserstein, square_graphs, steps=count, sinkhorn_steps=count)
lsp = checked(relation.lsp, representations, linked("edge_index"))
krd = checked(neighbours.krd, models, linked("edge_index"), trust)
hgmd = checked(neighbours.hgmd, models, linked("edge_index"))
high_frequency = checked(neighbours.high_frequency, models, linked("edge_index"))
dist = checked(similarity.dist, models)
rkd_distance = checked(relation.rkd_distance, representations, linked("pairs"))
rkd_angle = checked(relation.rkd_angle, representations, linked("triples", 3))
extrapolate = checked(teacher.extrapolate, logits("strong", "weak", "strong", "weak"))
reliability = checked(teacher.reliability, logits("logits", "noisy_logits", "logits", "noisy_logits"))
rebalance = checked(teacher.rebalance, single, frequent, steps=checks.whole)
sp = checked(similarity.sp, representations)
most_codes = partial(checks.whole, least=1, most=codes.MOST_CODES)
codebook = checked(codes.codebook, layer, size=most_codes, steps=checks.whole)
