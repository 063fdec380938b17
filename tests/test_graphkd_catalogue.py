"""Losses by name, and several in one line."""

from __future__ import annotations

import sys
import time
from importlib.metadata import EntryPoint
from typing import Any

import class_resolver.base
import pytest
import yaml

import graphkd
from graphkd import GLD, KD, LOSSES, NKD, Standardized
from graphkd.catalogue import Weighted
from tests.graphkd_contract import SPECS, Outside


def test_a_line_and_the_same_in_yaml_give_the_same_losses():
    line = graphkd.build("gld(k=5, weight=0.5) + nkd + standardized(nkd(gamma=1.0), temperature=1, warmup=20)")
    listed = graphkd.build(
        yaml.safe_load("""
        - {name: gld, k: 5, weight: 0.5}
        - nkd
        - {name: standardized, inner: {name: nkd, gamma: 1.0}, temperature: 1, warmup: 20}
        """)
    )
    assert [str(w) for w in line] == [str(w) for w in listed]
    gld, nkd, standardized = line
    assert isinstance(gld.loss, GLD)
    assert (gld.loss.k, gld.weight) == (5, 0.5)
    assert isinstance(nkd.loss, NKD)
    assert nkd.weight == 1
    assert isinstance(standardized.loss, Standardized)
    assert standardized.loss.inner.gamma == 1.0
    assert standardized.loss.inner.temperature == 1
    assert standardized.warmup == 20


def test_words_need_no_quotes_not_even_those_that_python_keeps():
    for form in ("global", "class", "neighbourhood", "'class'"):
        assert graphkd.build(f"gld(form={form})")[0].loss.form == form.strip("'")
    assert graphkd.build("standardized(inner=dkd)")[0].loss.inner.beta == 8
    assert graphkd.build("rkd(seed=None)+dualhead(center=True)")[1].loss.center is True


def test_names_have_synonyms_and_options_are_shown():
    assert isinstance(graphkd.make("DHKD"), graphkd.DualHead)
    assert isinstance(graphkd.make("lskd", inner="kd"), Standardized)
    assert str(graphkd.make("kd", temperature=2)) == "KD(temperature=2, direction=forward)"


def test_a_weight_rises_over_its_warm_up():
    weighted = Weighted(KD(), weight=2.0, warmup=3)
    assert [weighted.weight_at(epoch) for epoch in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
    assert Weighted(KD()).weight_at(0) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nonsense", "unknown loss 'nonsense'; choose from dhkd, dist, dkd, dualhead"),
        ("kd(tau=1)", "kd: unknown option 'tau'; choose from temperature, direction"),
        ("kd(temperature=0)", "temperature must be above 0, got 0"),
        ("kd(temperature=hot)", "kd: temperature must be like 4.0, got 'hot'"),
        ("kd(temperature=True)", "kd: temperature must be like 4.0, got True"),
        ("rkd(samples=1.5)", "rkd: samples must be like 4096, got 1.5"),
        ("gld(k=many)", "gld: k must be a whole number from 1, below 2^63, got 'many'"),
        ("kd(direction=up)", "direction: unknown 'up'; choose from forward, reverse"),
        ("kd(weight=-1)", "kd: weight must be a number from 0, got -1"),
        ("kd(warmup=0.5)", "kd: warmup must be a whole number from 0 to 1,000,000,000, got 0.5"),
        ("kd(on=test)", "kd: on: unknown 'test'; choose from all, train"),
        ("no.such.module.Loss", "cannot import 'no.such.module.Loss'"),
        ("torch.nn.Linear", "loss 'torch.nn.Linear': is no graphkd.DistillationLoss"),
        ("kd(", "cannot read 'kd('"),
        ("", "cannot read ''"),
        ("kd - nkd", "cannot read 'kd - nkd'"),
        ("kd(temperature=2)(3)", "cannot read"),
        ("kd(**{'temperature': 2})", "cannot be read"),
        ("kd(temperature=[].append)", "no literal value"),
        ("standardized(gld)", "GLD is no loss on logits alone; choose kd, dkd or nkd"),
        ("standardized(kd+nkd)", "cannot read"),
        ("standardized(inner='kd+nkd')", "inner must be one loss"),
        ("ofa(num_classes=3)", "give both hidden_channels and num_classes, or neither"),
    ],
)
def test_mistakes_are_told_in_one_line(line, words):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below
        graphkd.build(line)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "kd"}
    for _ in range(depth):
        found = {"name": "standardized", "inner": found}
    return found


def own() -> dict[str, Any]:
    found: dict[str, Any] = {"name": "standardized"}
    found["inner"] = found
    return found


@pytest.mark.parametrize(
    "losses",
    [
        "kd(" * 5000,
        "kd(" * 5000 + ")" * 5000,
        "standardized(" * 100 + "kd" + ")" * 100,
        "kd" + "+kd" * 100_000,
        "a." * 4000 + "b",
        "a.b" * 100_000,
        "kd(temperature=" + "-" * 9000 + "1)",
        "kd(temperature=" + "[" * 4000 + "]" * 4000 + ")",
        "kd(temperature={[]: 1})",
        f"kd(temperature={'9' * 5000})",
        f"kd(weight={'9' * 4000})",
        f"kd(warmup={'9' * 4000})",
        f"gld(k={'9' * 4000})",
        "kd(temperature=1e400)",
        "kd(weight=1e400)",
        "rkd(samples=1000000000000)",
        "rkd(seed=99999999999999999999999)",
        "ofa(hidden_channels=[1000000000], num_classes=5)",
        "kd(temperature=1, temperature=2)",
        "kd(weight=1, weight=2)",
        "kd(name='nkd')",
        "standardized(inner=3)",
        "standardized(kd, inner=kd)",
        "kd\0",
        "\ud800",
        "kd\n+nkd",
        ["kd", None],
        ["kd", 3],
        [["kd"]],
        [{"name": "kd", 3: 4}],
        [{"name": "kd", "self": 1}],
        {"name": "standardized", "inner": {"name": "kd", 3: 4}},
        nested(300),
        nested(5000),
        own(),
        b"kd",
        graphkd.Weighted(KD()),
    ],
    ids=lambda it: str(it)[:30] if isinstance(it, str) else type(it).__name__,
)
def test_nonsense_is_refused_at_once_in_one_short_line(losses):
    start = time.perf_counter()
    with pytest.raises(ValueError) as error:  # noqa: PT011 - any words, but one line
        graphkd.build(losses)
    assert time.perf_counter() - start < 1
    assert str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_long_sum_is_read_in_order():
    line = "kd + (nkd + gld) + " + " + ".join(["dkd"] * 300)
    assert [each["name"] for each in graphkd.parse(line)] == ["kd", "nkd", "gld", *["dkd"] * 300]


def test_a_temperature_given_to_a_wrapper_leaves_the_callers_loss_alone():
    inner = KD(temperature=2.0)
    assert Standardized(inner, temperature=1.0).inner.temperature == 1
    assert inner.temperature == 2


def test_nothing_in_a_line_is_executed():
    with pytest.raises(ValueError, match="temperature must be like"):
        graphkd.build("kd(temperature=__import__('os').getpid())")


def test_a_loss_from_outside_is_found_by_its_path():
    for path in ("tests.graphkd_contract.Outside", "tests.graphkd_contract:Outside"):
        assert type(graphkd.make(path, power=3)) is Outside
    assert graphkd.build([{"name": "tests.graphkd_contract:Outside", "weight": 2}])[0].weight == 2


def test_a_loss_from_outside_is_found_by_its_entry_point(monkeypatch):
    entry = EntryPoint("outside", "tests.graphkd_contract:Outside", "graphkd.losses")
    monkeypatch.setattr(class_resolver.base, "entry_points", lambda group: [entry] * (group == "graphkd.losses"))
    monkeypatch.setattr(LOSSES.found, "lookup_dict", dict(LOSSES.found.lookup_dict))
    LOSSES.found.register_entrypoint("graphkd.losses")
    assert type(graphkd.make("outside")) is Outside
    assert "outside" in LOSSES.names


@pytest.mark.parametrize("spec", SPECS)
def test_every_loss_says_what_it_computes_and_where_it_is_from(spec):
    cls = graphkd.find(graphkd.parse(spec)[0]["name"])
    assert cls.__doc__
    assert cls is Outside or cls.__name__ in graphkd.__doc__ + sys.modules[cls.__module__].__doc__
