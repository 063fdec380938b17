"""What README and docs show: every block of Python is run, every command is parsed, or run where its data is here."""

import ast
import itertools
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
import torch
from torch_geometric.nn.models import GCN

import mowst
from mowst.experiment.reading import parse
from mowst.inference import predict
from mowst.models import EdgelessMLP

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NO_COMMANDS = ("python3 -m venv", "source ", "pip ", ".venv/bin/", "python benchmarks/", "mkdocs ")


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language and "--8<--" not in text]


def commands(page: Path) -> list[list[str]]:
    """Return the command lines that a page shows, as words: `run`, its options."""
    lines = itertools.chain.from_iterable(text.replace("\\\n", " ").splitlines() for text in blocks(page, ""))
    shown = []
    for line in filter(None, (line.strip() for line in lines)):
        found = re.match(r"(?:mowst |python -m mowst[. ])(\w+)(.*)", line)
        assert found or line.startswith(NO_COMMANDS), f"{page.name}: what is {line!r}?"
        if found:
            shown.append([found[1], *shlex.split(found[2], comments=True)])
    return shown


def trained() -> dict[str, object]:
    """Return what docs/trust.md takes as given: a mixture, its graph, and what it says."""
    data = mowst.load("sbm")
    weak = EdgelessMLP([data.num_features, 8, data.num_classes])
    model = mowst.Mowst(weak, GCN(data.num_features, 8, 2, data.num_classes), mowst.LearnedGate()).eval()
    p = predict(model, data.x, data.edge_index)
    given = {"model": model, "data": data, "p": p, "logits": p.log(), "y": data.y, "edge_index": data.edge_index}
    return given | {"test": data.test_mask, "calibrating": data.val_mask, "node": 0}


def people(folder: Path) -> None:
    """Write the graph that docs/own-data.md speaks of, and another one with the same columns."""
    drawn = torch.Generator().manual_seed(0)
    for name, known in (("people", 60), ("other-people", 0)):
        y = torch.arange(90) % 2
        nodes = {"id": [f"p{i}" for i in range(90)], "age": (30 + 20 * y + torch.randn(90, generator=drawn)).tolist()}
        nodes |= {"city": [("Rome", "Oslo")[i % 2] for i in range(90)]}
        nodes |= {"field": [("physics", "law")[i] if k < known else None for k, i in enumerate(y.tolist())]}
        ends = torch.randint(90, (2, 300), generator=drawn).tolist()
        (folder / name).mkdir()
        pd.DataFrame(nodes).to_csv(folder / name / "nodes.csv", index=False)
        pairs = pd.DataFrame({"source": ends[0], "target": ends[1]}).map(lambda i: f"p{i}")
        pairs.to_csv(folder / name / "edges.csv", index=False)


def owned() -> dict[str, object]:
    """Return the tables and the graph that docs/own-data.md takes as given."""
    people(Path())
    nodes, edges = (pd.read_csv(f"people/{name}.csv") for name in ("nodes", "edges"))
    graph = nx.from_pandas_edgelist(edges)
    for row in nodes.itertuples():
        named = {"field": row.field} if isinstance(row.field, str) else {}
        graph.add_node(row.id, age=row.age, **named)
    return {"nodes": nodes, "edges": edges, "G": graph}


def taught() -> dict[str, object]:
    """Leave the student that docs/distillation.md reads."""
    flags = ["--preset", "fast", "--regime", "solo", "--kd", "uskd", "--epochs", "2", "--out", "runs/student"]
    run_command(["run", "--dataset", "sbm", "--seeds", "1", "--quiet", *flags])
    return {"data": mowst.load("sbm")}


GIVEN = {
    "trust.md": trained,
    "own-data.md": owned,
    "distillation.md": taught,
    "library.md": lambda: {"teacher_logits": torch.randn(3000, 4)},
}
"""What a page's blocks take as given, by page."""
FEWER = {"trials=20": "trials=1", "seeds=1)": "seeds=1, epochs=3)", "MowstClassifier()": "MowstClassifier(epochs=40)"}
"""What is done less often here than there."""


def run_command(words: list[str]) -> None:
    """Run a command as its page shows it."""
    assert import_module(f"mowst.{words[0]}").command(words[1:]) == 0


def executed(page: Path) -> dict[str, object]:
    """Run the blocks of a page one after the other, and return what names then stand for."""
    names: dict[str, object] = GIVEN.get(page.name, dict)()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks(page, "python"):
            for there, here in FEWER.items():
                block = block.replace(there, here)
            exec(compile(block, page.name, "exec"), names)
    return names


@pytest.mark.parametrize("name", ["README.md", "library.md", "distillation.md", "trust.md", "own-data.md"])
def test_the_blocks_of_a_page_run_one_after_the_other(name, tmp_path, monkeypatch, capsys):
    (page,) = (page for page in PAGES if page.name == name)
    monkeypatch.chdir(tmp_path)
    names = executed(page)
    said = capsys.readouterr().out
    if name == "library.md":
        assert "Mr. Hi" in said
        gate = names["Cautious"](["variance"])
        assert gate(torch.zeros(3, 2), torch.zeros(3, 1)).confidence.tolist() == [0.0] * 3
    if name == "README.md":
        assert float(said.rpartition("test nodes:")[2]) > 0.7
    if name == "distillation.md":
        assert "torch.Size([200])" in said


@pytest.mark.slow
def test_the_study_of_a_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(executed(ROOT / "docs" / "tuning.md")["study"].trials) == 1


def test_no_block_is_left_out():
    run = {"README.md", "library.md", "distillation.md", "trust.md", "own-data.md", "sharing.md", "tuning.md"}
    assert {page.name for page in PAGES if blocks(page, "python")} == run
    kinds = {kind for page in PAGES for kind, _ in BLOCK.findall(page.read_text())}
    assert kinds <= {"", "python", "text"}  # text is no code
    fences = sum(line.startswith("```") for page in PAGES for line in page.read_text().splitlines())
    assert fences == 2 * sum(len(BLOCK.findall(page.read_text())) for page in PAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_every_command_is_one(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, *words in commands(page):
        parse(import_module(f"mowst.{name}").flags(), words)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # that nodes have no label is what the page is about
@pytest.mark.parametrize("page", ["README.md", "index.md"])
def test_commands_on_data_that_is_here_do_what_the_page_says(page, tmp_path, monkeypatch):
    """Those of graphs that need a download, and the many trials of a study, are parsed only."""
    monkeypatch.chdir(tmp_path)
    people(tmp_path)
    (page,) = (each for each in PAGES if each.name == page)
    short = ["--epochs", "5", "--seeds", "1", "--strong", "gcn"]
    for words in commands(page):
        if words[0] != "tune":
            run_command([*words, *(short if words[0] == "run" else [])])
    predicted = pd.read_csv("predictions.csv")
    assert len(predicted) == 30
    assert set(predicted["predicted"]) <= {"physics", "law"}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]*)", page.read_text()):
            assert (page.parent / target).exists() or target.startswith("api/"), f"{page.name}: {target}"


def test_scripts_write_between_marks_that_are_there():
    for script in (ROOT / "benchmarks").glob("*.py"):
        for call in ast.walk(ast.parse(script.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "put":
                place, mark = call.args[:2]
                if isinstance(mark, ast.Constant):
                    path = ROOT.joinpath(*re.findall(r"'([\w.]+)'", ast.unparse(place)))
                    assert f"<!-- {mark.value}: begin -->" in path.read_text(), script.name


def test_the_first_run_reads_what_it_left(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "examples" / "first_run.py"))["main"]
    assert main(15, tmp_path / "first") > 50
    assert "node 9: class" in capsys.readouterr().out


def test_a_loop_of_ones_own_learns():
    assert runpy.run_path(str(ROOT / "examples" / "pyg_loop.py"))["main"](25) > 0.6


def test_a_taught_student_is_better_than_one_alone():
    scores = runpy.run_path(str(ROOT / "examples" / "graph_free.py"))["main"](30)
    assert scores["student taught"] > scores["student alone"] + 0.02


def test_every_example_is_a_tutorial():
    page = (ROOT / "docs" / "tutorials.md").read_text()
    for script in (ROOT / "examples").glob("*.py"):
        assert f'--8<-- "examples/{script.name}"' in page
