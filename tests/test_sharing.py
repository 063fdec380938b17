"""A model card beside every run, a folder that the Hugging Face hub takes, and a program that needs no code of ours."""

import json
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch_geometric.data import Data
from torch_geometric.utils import erdos_renyi_graph

import mowst
from mowst import FusedGate, InputError, LearnedGate, Mowst, MowstClassifier, expert
from mowst.data import from_tables
from mowst.inference import exported, predict
from mowst.models import Panel
from mowst.report import command as report
from mowst.run import command
from tests.graphs import TRAINED, changed, good

QUICK = {"epochs": 2, "folds": 2, "device": "cpu", "strong": "gcn"}


@pytest.fixture(scope="module")
def fitted() -> MowstClassifier:
    return MowstClassifier(**QUICK).fit(changed(y=["abc"[k] for k in good().y]))


# Cards


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "good"
    options = ["--epochs", "2", "--folds", "2", "--seeds", "2", "--device", "cpu", "--strong", "gcn+neighbours"]
    assert command(["--dataset", "tests.graphs:good", *options, "--out", str(out)]) == 0
    return out


def parts_of(path: Path) -> tuple[dict[str, object], str]:
    nothing, front, text = path.read_text(encoding="utf-8").split("---\n", 2)
    assert not nothing
    return yaml.safe_load(front), text


def test_the_card_of_a_run_says_what_its_record_says(finished):
    front, text = parts_of(finished / "README.md")
    result = json.loads((finished / "result.json").read_text())
    assert front["library_name"] == "mowst"
    for name, words in {"mixture": "mixture", "weak": "weak expert alone", "neighbours": "neighbours alone"}.items():
        cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in result["scores"][name].values()]
        assert f"| {words} | {' | '.join(cells)} |" in text
    data = good()
    assert f"- nodes: {data.num_nodes}\n- edges: {data.num_edges}\n" in text
    assert f"{int(data.train_mask.sum())} to train on, {int(data.val_mask.sum())} for validation" in text
    assert "strong expert: gcn, neighbours" in text
    assert "keeps the labels of the training nodes" in text
    assert "mowst.run --dataset tests.graphs:good" in text


def test_the_python_in_a_runs_card_loads_it(finished):
    _, text = parts_of(finished / "README.md")
    code = text.partition("```python\n")[2].partition("```")[0].replace("'OUT'", repr(str(finished)))
    names = {}
    exec(code, names)
    assert names["classifier"].predict(good()).shape == (60,)


def test_the_class_recognised_least_is_that_of_the_confusion(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    for seed in (0, 1):
        path = copy / f"seed-{seed}" / "figures.json"
        drawn = json.loads(path.read_text()) | {"confusion": [[20, 0, 0], [5, 15, 0], [9, 0, 0]]}
        path.write_text(json.dumps(drawn))
    report([str(copy)])
    assert "Of the classes, 1 is recognised least: 75.0 % of its test nodes are." in (copy / "README.md").read_text()


def test_a_card_of_somebody_is_not_written_over(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    mark = json.loads((copy / ".mowst.json").read_text())
    (copy / ".mowst.json").write_text(json.dumps(mark | {"files": [*{*mark["files"]} - {"README.md"}]}))
    (copy / "README.md").write_text("mine")
    with pytest.raises(InputError, match=r"README.md: was not written by the run"):
        report([str(copy)])
    assert (copy / "README.md").read_text() == "mine"
    (copy / "README.md").unlink()
    report([str(copy)])
    assert (copy / "README.md").read_bytes() == (finished / "README.md").read_bytes()


def test_the_card_of_a_classifier_says_how_it_validates(fitted, tmp_path):
    front, text = parts_of(fitted.save(tmp_path / "kept") / "README.md")
    assert front["pipeline_tag"] == "graph-ml"
    data = changed(y=["abc"[k] for k in good().y])
    assert f"its accuracy is {100 * fitted.score(data, 'val_mask'):.2f} %" in text
    assert "- classes: a, b, c\n" in text
    assert "labels of the training nodes" not in text


# The hub


def test_a_folder_needs_no_hub_and_nothing_is_fetched_unasked(fitted, tmp_path):
    folder = fitted.save_pretrained(tmp_path / "kept")
    found = MowstClassifier.from_pretrained(folder)
    assert torch.equal(found.predict_proba(good()), fitted.predict_proba(good()))
    with pytest.raises(InputError, match=r"is no folder.*(download=True|pip install)"):
        MowstClassifier.from_pretrained("somebody/something", cache_dir=tmp_path / "cache")


def test_without_huggingface_hub_a_line_says_what_to_install(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for ask in (lambda: fitted.push_to_hub("a/b"), lambda: MowstClassifier.from_pretrained("a/b")):
        with pytest.raises(InputError, match=r"pip install 'mowst\[hub\]'"):
            ask()


@pytest.fixture
def uploaded(monkeypatch, tmp_path):
    """What would be sent to the hub, and how it was asked for, in place of the network."""
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def create(self, repo_id, **options):
        asked.update(options)
        return hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload(self, *, folder_path, **options):
        shutil.copytree(folder_path, tmp_path / "sent")
        return "https://huggingface.co/me/mine/commit/1"

    monkeypatch.setattr(hub.HfApi, "create_repo", create)
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    return tmp_path / "sent", asked


def test_the_mixin_pushes_what_save_writes_and_it_is_loaded_again(fitted, uploaded, tmp_path):
    sent, asked = uploaded
    assert fitted.push_to_hub("me/mine").startswith("https://")
    kept = fitted.save(tmp_path / "kept")
    assert {path.name: path.read_bytes() for path in sent.iterdir()} == {
        path.name: path.read_bytes() for path in kept.iterdir()
    }
    assert asked["private"] is True
    found = MowstClassifier.from_pretrained(sent)
    assert torch.equal(found.predict_proba(good()), fitted.predict_proba(good()))


def test_another_mixin_loads_the_layout_too(fitted, tmp_path):
    hub = pytest.importorskip("huggingface_hub")

    class Theirs(hub.ModelHubMixin):
        @classmethod
        def _from_pretrained(cls, *, model_id, config, **options):
            made = cls()
            made.read, made.classifier = config, MowstClassifier.load(model_id)
            return made

    found = Theirs.from_pretrained(fitted.save(tmp_path / "kept"))
    assert found.read["class_names"] == ["a", "b", "c"]
    assert torch.equal(found.classifier.predict_proba(good()), fitted.predict_proba(good()))


def test_what_was_fetched_before_is_found_without_the_network(fitted, tmp_path):
    pytest.importorskip("huggingface_hub")
    cache = tmp_path / "cache" / "models--me--mine"
    fitted.save(cache / "snapshots" / ("0" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("0" * 40)
    found = MowstClassifier.from_pretrained("me/mine", cache_dir=tmp_path / "cache")
    assert torch.equal(found.predict_proba(good()), fitted.predict_proba(good()))


@pytest.mark.parametrize("name", ["a b/c", "x/y/z", "-"])
def test_what_is_no_name_on_the_hub_is_a_line(name):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(InputError) as error:
        MowstClassifier.from_pretrained(name)
    assert "\n" not in str(error.value)


# Programs


def drawn(N: int, p: float) -> Data:
    return Data(x=torch.randn(N, 8), edge_index=erdos_renyi_graph(N, p))


def reloaded(program, path):
    torch.export.save(program, path)
    return torch.export.load(path).module()


def check_sizes(model, program) -> None:
    for data in (drawn(2, 1.0), drawn(30, 0.2), drawn(200, 0.02)):
        torch.testing.assert_close(program(data.x, data.edge_index), predict(model, data.x, data.edge_index))
    loops = drawn(9, 0.5)
    loops.edge_index = torch.cat([loops.edge_index, torch.tensor([[3, 4], [3, 4]])], dim=1)
    torch.testing.assert_close(program(loops.x, loops.edge_index), predict(model, loops.x, loops.edge_index))


def mixture(strong, gate=LearnedGate) -> Mowst:
    return Mowst(expert("mlp", 8, 3, hidden_channels=4, num_layers=2), strong, gate()).eval()


@pytest.mark.parametrize(
    "kind", ["gcn", *(pytest.param(kind, marks=pytest.mark.slow) for kind in TRAINED if kind not in ("gcn", "sign"))]
)
def test_an_exported_mixture_says_the_same_on_graphs_of_any_size(kind, tmp_path):
    torch.manual_seed(0)
    model = mixture(expert(kind, 8, 3, hidden_channels=4, num_layers=2, norm="batch_norm"), FusedGate)
    check_sizes(model, reloaded(exported(model, good().x, good().edge_index), tmp_path / "model.pt2"))


@pytest.mark.slow
def test_of_a_panel_those_are_exported_that_are_heard(tmp_path):
    torch.manual_seed(0)
    panel = Panel({kind: expert(kind, 8, 3, hidden_channels=4, num_layers=2) for kind in ("gcn", "sage", "trees")})
    model = mixture(panel)
    with pytest.raises(InputError, match=r"trees learned by counting or by trees.*such as strong='gcn'"):
        exported(model, good().x, good().edge_index)
    panel.active[2] = False
    check_sizes(model, reloaded(exported(model, good().x, good().edge_index), tmp_path / "model.pt2"))


@pytest.mark.slow
def test_an_exported_classifier_takes_features_as_they_come(tmp_path):
    data = good()
    data.x = data.x.abs() * 5 + 1
    for options in ({"standardize": True}, {"normalize_features": True}):
        classifier = MowstClassifier(**QUICK, **options).fit(data)
        program = reloaded(classifier.exported(data), tmp_path / "model.pt2")
        half = data.subgraph(torch.arange(60) < 31)
        for graph in (data, half):
            said = classifier.predict_proba(graph)
            torch.testing.assert_close(program(graph.x, graph.edge_index), said, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_a_line(fitted):
    data = changed(edge_weight=torch.ones(good().num_edges))
    with pytest.raises(InputError, match="edge_weight: is no part"):
        fitted.exported(data)

    class Odd(torch.nn.Module):
        def forward(self, x, edge_index):
            return x[:, :3] if float(x.sum()) > 0 else -x[:, :3]

    with pytest.raises(InputError, match=r"torch\.export cannot write it down"):
        exported(mixture(Odd()), good().x, good().edge_index)


@pytest.mark.slow
def test_the_python_of_the_docs_runs(tmp_path, monkeypatch):
    text = (Path(__file__).parent.parent / "docs" / "sharing.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other-graph").mkdir()
    for name, table in {"nodes": "id,age\na,3\nb,4\nc,9\n", "edges": "source,target\na,b\nb,c\n"}.items():
        (tmp_path / "other-graph" / f"{name}.csv").write_text(table)
    nodes = pd.DataFrame({"id": range(60), "age": range(60), "label": ["a", "b"] * 30})
    ring = pd.DataFrame({"source": range(60), "target": [(node + 2) % 60 for node in range(60)]})
    names = {"data": from_tables(nodes, ring), "mowst": mowst}
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) == 5
    for block in blocks:
        if "push_to_hub" not in block:  # that needs the network
            exec(block, names)
    assert names["run"](names["data"].x, names["data"].edge_index).shape == (60, 2)
