"""A file that a person was sent runs nothing: cards, configurations, run folders, and the files of graphs."""

import io
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
import yaml
from torch_geometric.data import Data, InMemoryDataset

from mowst import Config, InputError, load, names
from mowst.data import card, check
from mowst.data.unpickling import arrays, plain_files
from mowst.experiment import read_config
from mowst.experiment.reading import config_of, loss_names, parse, parser
from mowst.names import FROM_FILES, trust, vet
from mowst.predict import command as predict
from mowst.system.documents import read_yaml
from mowst.tuning.ranges import read_search

FIXTURE = Path(__file__).parent / "fixtures" / "run-0.1" / "seed-0"
CARD = {
    "loader": "mowst.data.built_in:digits",
    "splits": {"random": {"kind": "random"}},
    "metric": "accuracy",
    "licence": "x",
    "homepage": "x",
}
CALLED = []


def called(*_, **__):
    """What must not be called."""
    CALLED.append(1)
    return Data()


@pytest.fixture(autouse=True)
def nobody_is_trusted(monkeypatch):
    monkeypatch.setattr(names, "_trusted", set())
    CALLED.clear()
    yield
    assert not CALLED


def written(path: Path, entries) -> Path:
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"loader": "subprocess:getoutput", "arguments": {"cmd": "true"}}, "loader: names 'subprocess:getoutput'"),
        ({"loader": "subprocess.getoutput"}, "loader: names"),
        ({"loader": "torch.hub:load"}, "loader: names"),
        ({"loader": f"{__name__}:called"}, "add --trust tests"),
        ({"loader": "mowst.data.ogbn:unzip"}, "loader: names"),
        ({"loader": "mowst.data.loaders:Path"}, "loader: names"),
        ({"loader": "torch_geometric.datasets:Planetoid.process"}, "loader: names"),
        ({"transforms": {"subprocess:getoutput": {"cmd": "true"}}}, "transform: names 'subprocess:getoutput'"),
        ({"features": {"logging:basicConfig": {"filename": "x"}}}, "transform: names"),
        ({"transforms": {"base_transform": {}}}, "transform: names"),
        ({"folder": "../elsewhere"}, "leads out of the data root"),
        ({"folder": "/etc"}, "leads out of the data root"),
        ({"raw": "../x"}, "leads out of the data root"),
        ({"arguments": {"root": "/etc"}}, "root is for the data root"),
        ({"splits": {"random": {"kind": "random", "arguments": {"root": "/etc"}}}}, "root is for the data root"),
    ],
)
def test_a_card_names_our_own_and_pygs_and_stays_in_the_data_root(tmp_path, entries, words):
    with pytest.raises(InputError) as error:
        load(str(written(tmp_path / "card.yaml", CARD | entries)), tmp_path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_splits_file_may_not_lead_out_of_the_data_root_by_a_link(tmp_path):
    (tmp_path / "outside").write_bytes(b"x")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "split.npz").symlink_to(tmp_path / "outside")
    rest = {"sha256": "0", "repository": "x", "commit": "x", "origin": "x"}
    splits = {"splits": {"file": {"kind": "file", "path": "split.npz", **rest}}}
    with pytest.raises(InputError, match="by a link"):
        load(str(written(tmp_path / "card.yaml", CARD | splits)), tmp_path / "data")


def test_what_is_trusted_may_be_named(tmp_path):
    path = written(tmp_path / "card.yaml", CARD | {"loader": "tests.graphs:good"})
    with pytest.raises(InputError, match="--trust tests"):
        card(str(path))
    trust("tests.graphs")
    assert load(str(path)).num_nodes == 60
    with pytest.raises(InputError, match="--trust tests"):
        card(str(written(tmp_path / "other.yaml", CARD | {"loader": f"{__name__}:called"})))


def test_every_card_of_ours_passes():
    for name in [path.stem for path in (Path(__file__).parent.parent / "datasets").glob("*.yaml")]:
        assert card(name).name == name


@pytest.mark.parametrize(
    "fields",
    [
        {"regime": f"{__name__}:called"},
        {"dataset": f"{__name__}:called"},
        {"strong": {"kind": f"{__name__}:called"}},
        {"weak": {"kind": "torch.hub:load"}},
        {"strong": {"kind": "torch.nn:Module"}},
        {"strong": {"kind": "torch_geometric.nn.models.basic_gnn:torch.load"}},
        {"gate": {"kind": "subprocess:getoutput"}},
        {"gate": {"dispersions": ["variance", "os:system"]}},
        {"objective": "os:system"},
        {"optimizer": "logging:basicConfig"},
        {"optimizer": "torch.optim:lr_scheduler"},
        {"signal": "os:system"},
        {"kd": "nkd+os.system", "teacher": "strong"},
        {"kd": [{"name": "standardized", "inner": {"name": f"{__name__}:called"}}], "teacher": "strong"},
        {"kd": ["standardized(tests.test_trust.called)"], "teacher": "strong"},
    ],
)
def test_a_configuration_out_of_a_file_names_no_code_of_others(tmp_path, fields):
    path = written(tmp_path / "config.yaml", {"dataset": "karate"} | fields)
    with pytest.raises(InputError, match="--trust") as error:
        parse(parser("run", ""), ["--config", str(path)])
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="--trust"):
        read_config(tmp_path)


def test_on_the_command_line_a_path_is_as_free_as_ever(tmp_path):
    typed = ["--dataset", "tests.graphs:good", "--strong", "tests.test_extension_points:Backbone"]
    config = config_of(parse(parser("run", ""), typed))
    assert config.strong.kind.startswith("tests")
    path = written(tmp_path / "config.yaml", {"dataset": "tests.graphs:good"})
    made = parser("run", "")
    from mowst.experiment.reading import add_trust

    add_trust(made)
    assert parse(made, ["--config", str(path), "--trust", "tests"]).dataset == "tests.graphs:good"


def test_a_files_names_of_pyg_and_torch_are_taken(tmp_path):
    fields = {
        "strong": {"kind": "torch_geometric.nn.models:GraphSAGE"},
        "optimizer": "torch.optim:RMSprop",
        "objective": "mowst.training.objectives:joint",
        "kd": "graphkd.logit.KD(temperature=2.5)+nkd",
        "teacher": "strong",
        "gate": {"dispersions": ["mowst.models.dispersions:margin"]},
    }
    config = config_of(parse(parser("run", ""), ["--config", str(written(tmp_path / "c.yaml", fields))]))
    assert isinstance(config, Config)
    assert config.optimizer == "torch.optim:RMSprop"


def test_every_name_of_a_specification_is_looked_at():
    assert {"a.b", "nkd", "x:Y"} <= set(loss_names("a.b(k=5, weight=0.5) + nkd + standardized(x:Y)"))
    nested = [{"name": "a.b", "inner": {"name": "c.d", "inner": "e.f"}}, "g.h"]
    assert {"a.b", "c.d", "e.f", "g.h"} <= set(loss_names(nested))


@pytest.mark.parametrize("kind", FROM_FILES)
def test_no_kind_takes_what_lies_in_the_working_directory(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    for path in ("evil:x", "evil.x", "mowst.models.evil:x", "graphkd:re.compile", "torch.optim:os.system"):
        with pytest.raises(InputError):
            vet("file", kind, path)


def test_a_run_folder_that_was_tampered_with_runs_nothing(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "run")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    written(tmp_path / "run" / "config.yaml", config | {"regime": f"{__name__}:called"})
    with pytest.raises(InputError, match="regime: names"):
        predict([str(tmp_path / "run")])
    written(tmp_path / "run" / "card.yaml", CARD | {"loader": f"{__name__}:called"})
    written(tmp_path / "run" / "config.yaml", config | {"dataset": str(tmp_path / "run" / "card.yaml")})
    with pytest.raises(InputError, match="loader: names"):
        predict([str(tmp_path / "run")])


@pytest.mark.parametrize(
    "fields",
    [{"strong.kind": ["gcn", f"{__name__}:called"]}, {"strong": {"kind": "os:system"}}, {"regime": "os:system"}],
)
def test_a_space_file_names_no_code_of_others(tmp_path, fields):
    path = written(tmp_path / "space.yaml", fields)
    with pytest.raises(InputError, match="--trust"):
        read_search(str(path), [])
    assert read_search(None, ["strong.kind=gcn,tests.graphs:good"])["strong.kind"] == ["gcn", "tests.graphs:good"]
    (tmp_path / "space.yaml").write_text(BOMB)
    with pytest.raises(InputError, match="anchors and aliases"):
        read_search(str(path), [])


# --- YAML

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "anchors and aliases"),
        ("a: &a [*a]", "anchors and aliases"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 20"),
        ("a: " + "{b: " * 3000 + "}" * 3000, "nested more than 20"),
        ("a: " + "9" * 4400, "not plain YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not plain YAML"),
        ("a: [", "not plain YAML"),
        ("a: " + "x" * 2**20, "bytes"),
        ("a: \x00", "not plain YAML"),
    ],
)
def test_yaml_is_read_within_bounds(tmp_path, text, words):
    (tmp_path / "config.yaml").write_text(text)
    shutil.copy(tmp_path / "config.yaml", tmp_path / "card.yaml")
    began = time.monotonic()
    for read in (
        lambda: read_yaml("file", tmp_path / "config.yaml"),
        lambda: card(str(tmp_path / "card.yaml")),
        lambda: parse(parser("run", ""), ["--config", str(tmp_path / "config.yaml")]),
        lambda: parse(parser("run", ""), [f"--config={tmp_path / 'config.yaml'}"]),
    ):
        with pytest.raises(InputError) as error:
            read()
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    assert time.monotonic() - began < 10


# --- Pickles


class Runs:
    """A pickle that runs code when it is read."""

    def __reduce__(self):
        return called, ()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_are_unpickled_and_nothing_else(protocol):
    matrix = scipy.sparse.random(5, 4, 0.5, format="csr", random_state=0)
    held = {"x": np.arange(6.0).reshape(2, 3), "y": [np.int64(3), "word", (1, 2)], "matrix": matrix}
    found = arrays(io.BytesIO(pickle.dumps(held, protocol)))
    assert np.array_equal(found["x"], held["x"])
    assert found["y"] == held["y"]
    assert (found["matrix"] != matrix).nnz == 0
    for wrong in (Runs(), [Runs()], {"x": Runs()}, os.system, np.fromfile, torch.nn.Linear(1, 1)):
        with pytest.raises(pickle.UnpicklingError, match="arrays and plain values alone"):
            arrays(io.BytesIO(pickle.dumps(wrong, protocol)))


class Kept(InMemoryDataset):
    """A dataset whose processed copy may be anybody's."""

    def __init__(self, root, force_reload=False):
        super().__init__(root, force_reload=force_reload)
        self.load(self.processed_paths[0])

    raw_file_names = ()
    processed_file_names = "data.pt"

    def download(self):
        """There is nothing to fetch."""

    def process(self):
        from tests.graphs import good

        self.save([good()], self.processed_paths[0])


def test_a_processed_copy_that_runs_code_is_made_anew(tmp_path):
    trust("tests")
    path = written(tmp_path / "card.yaml", CARD | {"loader": f"{__name__}:Kept", "folder": "kept"})
    check(load(str(path), tmp_path))
    copy = tmp_path / "kept" / "processed" / "data.pt"
    torch.save((Runs(),), copy)
    assert load(str(path), tmp_path).num_nodes == 60
    with plain_files():
        assert isinstance(torch.load(copy)[0], dict)


def test_outside_of_loading_pickles_are_as_ever():
    before = pickle.load
    with plain_files():
        assert pickle.load is not before
    assert pickle.load is before
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
