"""`report.html` says what `result.json` says, needs nothing from anywhere, and is made again without the graph."""

import dataclasses
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch_geometric.data import Data

from mowst import Config, ExpertConfig, GateConfig
from mowst.errors import InputError
from mowst.experiment import run
from mowst.experiment.reading import config_of, parse, parser
from mowst.experiment.repeat import command_of
from mowst.report import command as report
from mowst.reporting.charts import Chart, axes
from mowst.reporting.grids import Grid, latex, markdown
from mowst.reporting.page import Page
from mowst.reporting.table import ordered, percent
from mowst.run import command
from tests.graphs import good

SMALL = {"weak": ExpertConfig("mlp", hidden_channels=4), "strong": ExpertConfig("gcn", hidden_channels=4)}
HERE = "tests.test_report"
ODD = ["<script>alert(1)</script>", "a & b", '"><img src=x onerror=alert(2)>']
WANTED = ["Confidence and correctness", "Score and cost along the threshold", "By degree", "By local homophily"]
ALWAYS = ["Reliability", "Risk and coverage", "Confusion of classes", "Learning curves"]


def odd_names() -> Data:
    """A graph whose classes have names that a page must not take for markup."""
    data = good()
    data.class_names = ODD
    return data


def without_test_nodes() -> Data:
    data = good()
    data.test_mask = torch.zeros(60, dtype=torch.bool)
    return data


class Reader(HTMLParser):
    """Reads a page as a browser does: words by tag, tables, addresses, scripts."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags, self.words, self.tables, self.addresses, self.scripts = [], [], [], [], []
        self.inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        numbers = [place for place, given in enumerate(self.given("script")) if given.get("id") == "charts"]
        self.charts = json.loads(self.scripts[numbers[0]]) if numbers else []

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.tags.append((tag, dict(attributes)))
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, words):
        if self.inside == "script":
            self.scripts[-1] += words
        elif self.inside != "style":
            self.words.append(words)
        if self.inside in ("td", "th"):
            self.tables[-1][-1][-1] += words

    def given(self, tag):
        return [given for name, given in self.tags if name == tag]

    def text(self):
        return " ".join(self.words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "odd"
    run(Config(dataset=f"{HERE}:odd_names", epochs=8, seeds=2, **SMALL), out)
    return out


@pytest.fixture(scope="module")
def page(finished):
    return Reader(finished / "report.html")


def record_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_every_score_on_the_page_is_that_of_the_record(finished, page):
    record, table = record_of(finished), page.tables[0]
    expected = {
        words: [percent(*record["scores"][name][split], alone=False) for split in ("val", "test")]
        for name, words in ordered(record).items()
    }
    assert {row[0]: row[1:3] for row in table[1:]} == expected
    for name, row in zip(ordered(record), table[1:], strict=True):
        gains = [each["scores"][name]["test"] - each["scores"]["mixture"]["test"] for each in record["runs"]]
        if name != "mixture":
            assert row[3] == f"{np.mean(gains):+.2f} ± {np.std(gains, ddof=1):.2f}"


def test_the_page_begins_with_the_answer(finished, page):
    record = record_of(finished)
    best = max(found["val"][0] for name, found in record["scores"].items() if name in record["parameters"])
    first = page.text().index("Use ")
    assert first < page.text().index("Results")
    assert f"{best:.2f} on the validation nodes" in page.text() or "Use the" in page.text()


def test_the_page_needs_nothing_from_anywhere(finished, page):
    assert page.addresses == []
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "img", "iframe", "object", "embed", "base", "form"}
    policy = next(given["content"] for tag, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    own = "".join([*page.words, *(script for script in page.scripts if "plotly.js v" not in script[:300])])
    assert "http://" not in own
    assert "https://" not in own
    assert (finished / "report.html").stat().st_size < 8e6


def test_names_of_classes_are_words_and_no_markup(page):
    assert len(page.scripts) == 3, "those of the page itself: numbers, plotly, drawing"
    assert not any("onerror" in given for _, given in page.tags)
    assert ODD[0] in page.text()
    drawn = json.dumps(page.charts)
    assert "<script" not in drawn
    assert "<img" not in drawn


def test_no_number_ends_the_script_that_holds_it(tmp_path):
    page, words = Page("</title>"), "</script><b>&amp;"
    page.add_charts([Chart(words, words, [{"name": words, "x": [float("nan")]}], axes("<a>", "y"))])
    (tmp_path / "page.html").write_text(page.html(), encoding="utf-8")
    found = Reader(tmp_path / "page.html")
    assert found.charts[0]["data"] == [{"name": words, "x": [None]}]
    assert found.charts[0]["layout"]["xaxis"]["title"]["text"] == "&lt;a&gt;"
    assert found.words.count(words) == 2
    assert not found.given("b")


def test_all_charts_are_there_and_plotly_takes_them(page):
    titles = page.text()
    for title in (*WANTED, *ALWAYS):
        assert title in titles
    assert len(page.charts) == sum("data-chart" in given for _, given in page.tags) >= len(WANTED) + len(ALWAYS)
    for chart in page.charts:
        go.Figure(chart["data"], chart["layout"])  # which knows the name and the type of every field


def test_the_charts_show_what_was_predicted(finished, page):
    """The routed share, the accuracy by homophily and the confusion, from the predictions and the graph anew."""
    data, record = odd_names(), record_of(finished)
    test, y = data.test_mask.numpy(), data.y.numpy()
    arrays = [np.load(finished / f"seed-{seed}" / "predictions.npz") for seed in (0, 1)]
    counts = sum(
        np.histogram2d(y[test], each["mixture"].argmax(1)[test], bins=3, range=[[0, 3]] * 2)[0] for each in arrays
    )
    heat = next(chart["data"][0] for chart in page.charts if chart["data"][0]["type"] == "heatmap")
    np.testing.assert_allclose(heat["z"], 100 * counts / counts.sum(1, keepdims=True), atol=0.01)
    assert np.trace(counts) / counts.sum() * 100 == pytest.approx(record["scores"]["mixture"]["test"][0], abs=1e-4)
    figures = [json.loads((finished / f"seed-{seed}" / "figures.json").read_text()) for seed in (0, 1)]
    for figure, each in zip(figures, arrays, strict=True):
        nodes = sum(found["nodes"] for found in figure["degree"])
        right = sum(found["mixture"] for found in figure["degree"])
        assert (nodes, right) == (test.sum(), (each["mixture"].argmax(1) == y)[test].sum())
        assert sum(found["nodes"] for found in figure["homophily"]) == test.sum()
        ends = figure["routing"]["curves"]["here"]["score"]
        for role, score in (("weak", ends[0]), ("strong", ends[-1])):
            alone = (each[f"mixture_{role}"].argmax(1) == y)[test].mean()
            assert score == pytest.approx(100 * alone, abs=1e-3)
        assert all((each["mixture"].argmax(1) != y)[wrong["node"]] for wrong in figure["mistakes"])


def test_the_page_is_made_again_without_the_graph(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = (copy / "report.html").read_bytes()
    for path in [*copy.rglob("*.npz"), *copy.rglob("*.safetensors"), copy / "report.html"]:
        path.unlink()
    assert report([str(copy)]) == 0
    assert (copy / "report.html").read_bytes() == before


def test_an_older_run_has_a_page_without_charts_of_its_predictions(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    for path in copy.rglob("figures.json"):
        path.unlink()
    report([str(copy)])
    words = Reader(copy / "report.html").text()
    assert "kept no figures" in words
    assert "Learning curves" in words


SHAPES = {
    "experts alone": {"mixture": False},
    "one seed": {"seeds": 1},
    "solo": {"regime": "solo"},
    "a student": {"regime": "solo", "teacher": "strong", "kd": "kd(temperature=1)"},
    "turns": {"regime": "alternate", "rounds": 2},
    "a panel": {"strong": ExpertConfig("gcn+sage", hidden_channels=4)},
    "no test nodes": {"dataset": f"{HERE}:without_test_nodes"},
    "by likelihood": {"signal": "loss"},
}


@pytest.mark.parametrize("fields", SHAPES.values(), ids=SHAPES)
def test_a_run_of_any_shape_has_a_page(tmp_path, fields):
    config = Config(**{"dataset": f"{HERE}:odd_names", "epochs": 3, "seeds": 2, **SMALL, **fields})
    result = run(config, tmp_path / "run")
    found = Reader(tmp_path / "run" / "report.html")
    rows = {row[0] for row in found.tables[0][1:]}
    assert rows == set(ordered(result).values())
    for title in ALWAYS:
        assert title in found.text()
    assert (WANTED[0] in found.text()) == ("mixture" in result["parameters"])
    assert not re.search(r"held.out|rehears|twin|evidence", found.text().split("To repeat it")[0])


def test_it_can_be_left_out(tmp_path):
    line = f"--dataset {HERE}:odd_names --epochs 2 --seeds 1 --quiet --report false --out {tmp_path / 'run'}"
    command(line.split())
    assert not list(tmp_path.rglob("report.html"))
    assert not list(tmp_path.rglob("figures.json"))
    assert (tmp_path / "run" / "result.json").exists()


CONFIGURATIONS = [
    Config(),
    Config(dataset="cora", seeds=5, split="random", weak=ExpertConfig("mlp", dropout=0.0), baselines=False, lr=1e-5),
    Config(kd="gld(k=5,weight=0.5)+nkd", teacher="strong", data_root="a b; c'd"),
    Config(
        strong=ExpertConfig("gcn+gcn", each=[{"norm": "none"}, {"options": {"bias": False}}]),
        gate=GateConfig("learned", options={"num_layers": 1}, dispersions=["max"]),
        kd=[{"name": "gld", "k": 3}, "nkd"],
        teacher="strong",
        regime="joint",
        objective="joint",
    ),
]


@pytest.mark.parametrize("config", CONFIGURATIONS)
def test_the_command_is_the_configuration(config):
    words = shlex.split(command_of(dataclasses.asdict(config)))
    assert words[:3] == ["python", "-m", "mowst.run"]
    assert (len(words) == 3) == (config == Config())
    assert config_of(parse(parser("run", ""), words[3:])) == config


# --- Several runs


@pytest.fixture(scope="module")
def two(finished, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "wide_100%"
    run(Config(dataset=f"{HERE}:odd_names", epochs=12, seeds=2, **SMALL), other)
    return finished, other


def test_runs_stand_side_by_side_with_their_own_numbers(two, tmp_path, capsys):
    assert report([*map(str, two), "--out", str(tmp_path / "cmp")]) == 0
    found, records = Reader(tmp_path / "cmp" / "report.html"), [record_of(folder) for folder in two]
    assert found.tables[0][0] == ["", "odd", "wide_100%"]
    named = {words: name for name, words in ordered(records[0]).items()}
    for row in found.tables[0][1:]:
        assert row[1:] == [percent(*each["scores"][named[row[0]]]["test"], alone=False) for each in records]
    text = (tmp_path / "cmp" / "table.md").read_text()
    means = [record["scores"][name]["test"][0] for record in records for name in named.values()]
    bold = re.findall(r"\*\*([\d.]+) ±", text)
    assert {float(each) for each in bold[:-1]} == {round(max(means), 2)}
    assert r"wide\_100\%" in (tmp_path / "cmp" / "table.tex").read_text()
    assert "wide_100%" in capsys.readouterr().out


def test_runs_are_tested_in_pairs_only_on_the_same_splits(two, tmp_path):
    _, other = two
    copy = shutil.copytree(other, tmp_path / "copy")
    record = record_of(copy)
    record["runs"][1]["split"]["sha256"] = "0" * 64
    (copy / "result.json").write_text(json.dumps(record))
    for folders, words in ((two, 0), ((two[0], copy), 1)):
        out = tmp_path / f"cmp-{words}"
        report([*map(str, folders), "--out", str(out)])
        assert (out / "table.md").read_text().count("other splits or seeds") == words


def test_what_is_there_is_not_replaced(two, tmp_path):
    report([str(two[0]), "--out", str(tmp_path)])
    with pytest.raises(InputError, match="--overwrite"):
        report([str(two[0]), "--out", str(tmp_path)])
    report([*map(str, two), "--out", str(tmp_path), "--overwrite"])
    with pytest.raises(InputError, match="is the folder of a run"):
        report([str(two[0]), "--out", str(two[1]), "--overwrite"])
    mine = shutil.copytree(two[0], tmp_path / "copy")
    mark = (
        json.loads((mine / ".mowst.json").read_text())
        if (mine / ".mowst.json").exists()
        else {"config": "", "files": []}
    )
    (mine / ".mowst.json").write_text(json.dumps({**mark, "files": ["result.json", "config.yaml"]}))
    (mine / "report.html").write_text("mine")
    with pytest.raises(InputError, match="was not written by the run"):
        report([str(mine)])
    (mine / "report.html").unlink()
    report([str(mine)])
    assert "report.html" in json.loads((mine / ".mowst.json").read_text())["files"]


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "seed-0/figures.json", "seed-1/metrics.jsonl"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": []}', "a: [", '{"runs": 3, "seeds": [0]}', "null"])
def test_a_damaged_run_is_a_line(finished, tmp_path, name, text):
    copy = shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("*.npz", "*.safetensors"))
    (copy / "report.html").unlink()
    (copy / name).write_text(text)
    if name.endswith("jsonl") and not text:
        report([str(copy)])  # no validation was recorded: there are no curves
        return
    with pytest.raises(InputError) as error:
        report([str(copy)])
    assert "\n" not in str(error.value)
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize("place", ["seed-0", "nowhere"])
def test_what_is_no_whole_run_is_said(finished, place):
    with pytest.raises(InputError, match="run"):
        report([str(finished / place)])


def test_words_are_no_markup_in_any_table():
    words = "a|b *c* _d_ <e> & 5% #f $g$ ^h ~i {j} \\k [l](m)"
    grid = Grid(words, ["", words], [[words, words]], frozenset({(0, 1)}))
    row = markdown(grid).splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert not re.search(r"(?<!\\)[<\[_#]", row)
    body = latex(grid).split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == 1
    assert not re.search(r"(?<!\\)[%#_]|(?<!\\)\$[^<>|\\-]", body)
    assert body.count(r"\textbf{") == 1
