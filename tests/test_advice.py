"""The plain paragraph below a run's table: it names the model that validates best, and says what the record says."""

import re

import pytest

from mowst.evaluation import advise

PRIVATE = re.compile(r"held.out|rehears|twin|evidence", re.IGNORECASE)


def result(*, mixture=81.0, average=70.0, seeds=3, metric="accuracy", routed=0.25, **more):
    """The record of a run with these validation scores, and test scores a point below them, seed by seed apart."""
    known = {"weak": 60.0, "strong": 80.0, "mixture": mixture, "average": average, "stacked-on-val": 99.0, **more}
    known["routed"] = mixture
    runs = [
        {
            "scores": {name: {"val": value, "test": value - 1 + seed} for name, value in known.items()},
            "seconds": {"weak": 1.0, "strong": 2.0, "mixture": 4.0},
        }
        for seed in range(seeds)
    ]
    return {
        "dataset": "some",
        "metric": metric,
        "seeds": list(range(seeds)),
        "scores": {name: {"val": [value, 0.0], "test": [value, 1.0]} for name, value in known.items()},
        "parameters": {"weak": 10, "strong": 20, "mixture": 30},
        "diagnosis": {
            "confidence": {"train": 0.9, "val": 0.5, "held_out": 0.6},
            "bins": [{"nodes": 1500 * seeds}, {"nodes": 1000 * seeds}],
            "routed": routed,
        },
        "runs": runs,
    }


@pytest.mark.parametrize(
    ("mixture", "average", "use"),
    [
        (81.0, 70.0, "mixture"),
        (80.0, 70.0, "strong"),  # of equals the one that costs less
        (70.0, 60.0, "strong"),
        (81.0, 82.0, "average"),
        (82.0, 82.0, "mixture"),
    ],
)
def test_it_names_the_model_that_validates_best_and_of_equals_the_cheapest(mixture, average, use):
    found = advise(result(mixture=mixture, average=average))
    assert found.use == use
    assert found.sentences["use"].startswith(f"Use {found.name}: ")
    assert found.other != use


def test_what_is_fitted_on_validation_nodes_is_not_compared_on_them():
    assert "99" not in advise(result()).paragraph()


def test_it_says_the_scores_of_the_record_and_the_differences_of_its_seeds():
    record = result(mixture=81.0)
    said = advise(record).paragraph()
    assert "81.00 ± 1.00 % accuracy on test nodes, 81.00 on the validation nodes" in said
    assert "+1.00 points with each of 3 seeds" in said
    assert "30 weights and took 4.0 s" in said
    assert "the strong one is asked for 75 % of the validation nodes" in said
    record["runs"][0]["scores"]["mixture"]["test"] += 3
    assert "+2.00 ± 1.73 points over 3 seeds (paired t-test: p = 0.18)" in advise(record).paragraph()


@pytest.mark.parametrize(("use", "words"), [("average", "runs both experts"), ("taught", "is a part of the mixture")])
def test_what_is_chosen_says_what_has_to_be_run(use, words):
    assert words in advise(result(**{use: 98.0})).sentences["cost"]


def test_chance_is_the_standard_error_of_a_share():
    said = advise(result(mixture=81.0)).paragraph()
    assert (
        f"2,500 validation nodes cannot tell differences of much less than {100 * (0.81 * 0.19 / 2500) ** 0.5:.1f}"
        in said
    )
    assert "chance" not in advise(result(metric="rocauc")).paragraph()


def test_one_seed_has_no_deviation_and_asks_for_more():
    found = advise(result(seeds=1))
    assert "±" not in found.paragraph()
    assert found.gain.deviation != found.gain.deviation
    assert any(step.startswith("--seeds") for step in found.steps)
    assert not any(step.startswith("--seeds") for step in advise(result(seeds=5)).steps)


def test_a_score_without_a_value_is_never_chosen_for_it():
    record = result(mixture=81.0)
    record["scores"]["mixture"]["val"] = [None, None]
    assert advise(record).use == "strong"
    for run in record["runs"]:
        run["scores"]["strong"]["test"] = None
    assert "the difference is not known" in advise(record).paragraph()


@pytest.mark.parametrize("mixture", [70.0, 81.0])
@pytest.mark.parametrize("metric", ["accuracy", "rocauc", "tests.mine:score"])
def test_no_private_word_is_needed(mixture, metric):
    said = advise(result(mixture=mixture, metric=metric, calibrated=75.0, evidence=74.0)).paragraph()
    assert not PRIVATE.search(said)


def test_after_a_search_it_is_a_longer_one_that_is_worth_a_try():
    record = result()
    record["parameters"] = {"weak": 10, "gcn": 20, "sage": 20, "mixture": 30}
    said = {preset: " ".join(advise(record | {"preset": preset}).steps) for preset in ("good", "best")}
    assert "--preset best, which tries more" in said["good"]
    assert "--preset best, which" not in said["best"]
    assert "a longer --budget" in said["best"]
