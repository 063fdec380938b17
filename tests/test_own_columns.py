"""Columns become features as scikit-learn's own transformers have them, and what they learned fits into a file."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch

from mowst.data.fitted import Fitted
from mowst.data.tables import Table
from mowst.data.understanding import CATEGORY, NUMBER, RANKED, as_columns, kinds_of, transformer
from mowst.errors import InputError


def table(rows: int = 400, seed: int = 0, *, other: bool = False) -> Table:
    """Columns of every kind, with missing values; another one has values that this one lacks."""
    draw = np.random.default_rng(seed)
    often = 1 / np.arange(1, 81) ** 2
    made = pd.DataFrame(
        {
            "age": draw.normal(40, 10, rows) * (5 if other else 1),
            "income": draw.lognormal(3, 2, rows) * (100 if other else 1),
            "steps": np.where(draw.random(rows) < 0.9, draw.integers(0, 40, rows), 10_000),
            "kids": draw.integers(0, 5, rows),
            "city": draw.choice(["Rome", "Oslo", "Bern", *["Nowhere"] * other], rows),
            "street": draw.choice([f"s{n}" for n in range(80)], rows, p=often / often.sum()),
            "member": draw.random(rows) > 0.5,
            "since": pd.Series(pd.date_range("2020-01-01", periods=rows)).dt.strftime("%Y-%m-%d"),
            "seen": pd.date_range("2021-01-01", periods=rows, freq="h"),
            "note": [f"words {n}" for n in range(rows)],
            "always": 1,
            "never": np.nan,
        }
    )
    for name in ("age", "income", "city", "since"):
        made[name] = made[name].where(draw.random(rows) > 0.1)
    made["member"] = made["member"].astype(object).where(draw.random(rows) > 0.1, None)
    return Table(made, "table", "row {}".format)


def fitted(held: Table) -> Fitted:
    return Fitted.of(held, kinds_of(held, list(held.rows.columns)))


def test_kinds_are_what_columns_hold():
    kinds = kinds_of(table(), list(table().rows.columns))
    wanted = {"age": NUMBER, "income": RANKED, "steps": RANKED, "kids": NUMBER, "city": CATEGORY, "street": CATEGORY}
    assert kinds.kept == wanted | dict.fromkeys(("member", "since", "seen"), NUMBER)
    assert list(kinds.dates) == ["since", "seen"]
    assert kinds.left == {"note": "text, 400 different values", "always": "always 1", "never": "empty"}


@pytest.mark.parametrize("rows", [30, 400, 2500])
@pytest.mark.parametrize("other", [False, True])
def test_features_are_those_of_scikit_learn(rows, other):
    held = table(rows)
    kinds = kinds_of(held, list(held.rows.columns))
    plain = as_columns(held, kinds.kept, list(kinds.dates))
    oracle = transformer(kinds.kept, plain).fit(plain)
    new = table(200, 1, other=True) if other else held
    expected = oracle.transform(as_columns(new, kinds.kept, list(kinds.dates)))
    kept = Fitted.read(json.loads(fitted(held).text()), "file")
    found = kept.features(new)
    assert found.dtype == torch.float32
    assert found.shape[1] == len(kept.names)
    np.testing.assert_allclose(found.numpy(), expected.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_what_was_learned_survives_a_file_exactly():
    held = table()
    first = fitted(held)
    again = Fitted.read(json.loads(first.text()), "file")
    assert again == first
    assert torch.equal(again.features(held), first.features(held))


def test_nothing_of_a_new_graph_changes_what_was_learned():
    held = table()
    kept = fitted(held)
    new = table(20, 2)
    alone = torch.cat([kept.features(Table(new.rows.iloc[[row]], "t", str)) for row in range(20)])
    assert torch.equal(alone, kept.features(new))


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held["columns"][0].pop("name"),
        lambda held: held["columns"][0].update(kind="pickle"),
        lambda held: held["columns"][0].update(scale=0.0),
        lambda held: held["columns"][0].update(mean=float("nan")),
        lambda held: held["columns"][0].update(mean="1"),
        lambda held: held["columns"][-1].update(values=[1, 2]),
        lambda held: next(c for c in held["columns"] if c["kind"] == RANKED).update(quantiles=[2.0, 1.0]),
        lambda held: held.update(columns=5),
        lambda held: held.update(steps="8"),
        lambda held: held.clear(),
    ],
)
def test_a_damaged_file_is_refused(change):
    held = json.loads(fitted(table()).text())
    change(held)
    with pytest.raises(InputError, match=r"columns\.json"):
        Fitted.read(held, "columns.json")


@pytest.mark.parametrize("value", [1e151, -1e300, 1e308, float("inf")])
@pytest.mark.parametrize("rows", [4, 1000])
def test_numbers_beyond_what_can_be_squared_are_refused_with_their_place(value, rows):
    numbers = np.random.default_rng(0).normal(size=rows)
    numbers[2] = value
    with pytest.raises(InputError, match=rf"^row 2: a is {re.escape(str(value))}; a feature must be from -1e"):
        fitted(Table(pd.DataFrame({"a": numbers}), "t", "row {}".format))


def test_large_numbers_within_bounds_become_finite_features():
    held = Table(pd.DataFrame({"a": [1e150, -1e150, 5.0, None] * 9}), "t", "row {}".format)
    assert bool(fitted(held).features(held).isfinite().all())
