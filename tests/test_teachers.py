"""Distillation as a command: every kind of teacher, what a run leaves, and what must be refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mowst import Config, ExpertConfig
from mowst.data import load
from mowst.errors import InputError
from mowst.experiment.building import build_model
from mowst.experiment.folder import read_config
from mowst.experiment.identity import split_hash
from mowst.experiment.runs import run
from mowst.experiment.weights import read_weights
from mowst.run import command
from mowst.system.main import main
from tests.graphs import changed, good

GRAPH = "tests.graphs:good"
LINE = ["--dataset", GRAPH, "--epochs", "4", "--quiet"]
SOLO = [*LINE, "--regime", "solo"]


def result(out) -> dict:
    return json.loads((out / "result.json").read_text())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher") / "run"
    command([*LINE, "--epochs", "12", "--seeds", "2", "--out", str(out)])
    return out


@pytest.mark.parametrize("kind", ["folder of a seed", "folder", "named model", "npz", "safetensors", "strong", "weak"])
def test_every_kind_of_teacher_end_to_end(teacher, kind, tmp_path):
    run_0 = teacher / "seed-0"
    logits = np.load(run_0 / "predictions.npz")["strong_logits"]
    split = split_hash(load(GRAPH))
    np.savez(tmp_path / "t.npz", logits=logits, split_sha256=split)
    save_file({"logits": torch.from_numpy(logits)}, tmp_path / "t.safetensors", metadata={"split_sha256": split})
    given = {
        "folder of a seed": run_0,
        "folder": teacher,
        "named model": f"{teacher}:strong",
        "npz": tmp_path / "t.npz",
        "safetensors": tmp_path / "t.safetensors",
    }.get(kind, kind)
    out = tmp_path / "run"
    line = [*SOLO, "--seeds", "1", "--teacher", str(given), "--kd", "kd(temperature=2,weight=0.5)+nkd"]
    assert command([*line, "--out", str(out)]) == 0
    scores, written = result(out)["scores"], result(teacher)["runs"][0]["scores"]
    assert {"weak", "student", "teacher"} <= scores.keys()
    assert ("strong" in scores) == (kind == "strong")
    expected = {"strong": scores.get("strong"), "weak": scores["weak"]}.get(kind)
    if expected is None:
        model = "mixture" if kind.startswith("folder") else "strong"
        expected = {part: [score, 0.0] for part, score in written[model].items()}
        assert result(out)["runs"][0]["teacher"]["same_split"]
    for part in ("val", "test"):
        assert scores["teacher"][part] == pytest.approx(expected[part], abs=1e-4)


def test_each_seed_has_its_own_teacher(teacher, tmp_path):
    out = tmp_path / "run"
    command([*SOLO, "--seeds", "2", "--teacher", str(teacher), "--kd", "glnn", "--no-baselines", "--out", str(out)])
    for mine, theirs in zip(result(out)["runs"], result(teacher)["runs"], strict=True):
        assert set(mine["scores"]) == {"largest-class", "student", "teacher"}
        assert mine["scores"]["teacher"]["test"] == pytest.approx(theirs["scores"]["mixture"]["test"], abs=1e-4)


def test_a_student_can_teach(teacher, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    command([*SOLO, "--seeds", "1", "--teacher", str(teacher), "--kd", "glnn", "--out", str(first)])
    command([*SOLO, "--seeds", "1", "--teacher", str(first), "--kd", "glnn", "--out", str(second)])
    assert result(second)["scores"]["teacher"] == result(first)["scores"]["student"]


def test_a_line_and_the_same_in_yaml_give_the_same_run(tmp_path):
    (tmp_path / "kd.yaml").write_text("teacher: strong\nkd:\n- {name: gld, k: 2, weight: 0.5, warmup: 2}\n- nkd\n")
    line, yaml = tmp_path / "line", tmp_path / "yaml"
    solo = [*SOLO, "--seeds", "1"]
    command([*solo, "--teacher", "strong", "--kd", "gld(k=2,weight=0.5,warmup=2)+nkd", "--out", str(line)])
    command(["--config", str(tmp_path / "kd.yaml"), *solo, "--out", str(yaml)])
    command(["--config", str(yaml / "config.yaml"), "--quiet", "--out", str(tmp_path / "again")])
    assert result(line)["scores"] == result(yaml)["scores"] == result(tmp_path / "again")["scores"]


def test_a_saved_student_predicts_without_the_graph(teacher, tmp_path):
    command([*SOLO, "--seeds", "1", "--teacher", str(teacher), "--kd", "glnn", "--out", str(tmp_path / "run")])
    folder = tmp_path / "run" / "seed-0"
    student = read_weights(folder, "student", build_model("student", read_config(folder), 8, 3)).eval()
    written = torch.from_numpy(np.load(folder / "predictions.npz")["student"])
    torch.testing.assert_close(student(good().x).softmax(-1), written)


def test_without_a_teacher_a_teacher_free_loss_trains(tmp_path):
    command([*SOLO, "--seeds", "1", "--kd", "uskd", "--out", str(tmp_path / "run")])
    assert set(result(tmp_path / "run")["scores"]) == {"largest-class", "label-propagation", "weak", "student"}


@pytest.mark.parametrize("regime", ["joint", "alternate"])
@pytest.mark.parametrize("outside", [False, True])
def test_a_mixture_learns_too(teacher, regime, outside, tmp_path):
    who = str(teacher) if outside else "strong"
    line = [*LINE, "--seeds", "1", "--rounds", "2", "--regime", regime, "--no-baselines", "--teacher", who]
    command([*line, "--kd", "kd+dualhead(warmup=3)+lsp(width=5,of=hidden)", "--out", str(tmp_path / "run")])
    assert ("teacher" in result(tmp_path / "run")["scores"]) == outside
    assert any(key.startswith("kd.1.heads") for key in load_file(tmp_path / "run" / "seed-0" / "model.safetensors"))


def test_soft_labels_alone_bring_a_student_to_its_teacher(tmp_path):
    experts = {"weak": ExpertConfig("gcn"), "strong": ExpertConfig("sage")}
    config = Config(dataset="sbm", regime="solo", teacher="strong", kd="glnn", epochs=40, seeds=1, **experts)
    run(replace(config, objective="mowst.training.distillation:no_labels"), tmp_path / "run")
    arrays = np.load(tmp_path / "run" / "seed-0" / "predictions.npz")
    agree = (arrays["student"].argmax(1) == arrays["strong"].argmax(1)).mean()
    assert agree > 0.75  # chance is 0.25


# What must be refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--regime solo --kd nkd", ["nkd", "teacher"]),
        ("--regime solo --teacher strong", ["--kd"]),
        ("--regime solo --teacher strong --kd gdl", ["'gdl'", "gld"]),
        ("--regime solo --teacher strong --kd nkd(gama=1)", ["gama", "gamma"]),
        ("--regime solo --teacher strong --kd nkd(", ["cannot read"]),
        ("--regime solo --teacher strong --kd nkd(weight=-1)", ["weight"]),
        ("--regime held-out --teacher nowhere --kd nkd", ["nowhere", "holds out", "strong", "joint"]),
        ("--regime held-out --teacher strong --kd nkd+ofa", ["ofa", "hidden layers", "logits only", "joint"]),
        ("--regime solo --teacher nowhere --kd nkd", ["nowhere", "run folder"]),
        ("--regime solo --teacher nowhere.npz --kd nkd", ["nowhere.npz", "cannot be read"]),
        ("--regime solo --teacher strong --kd nkd --objective joint", ["joint", "solo"]),
        ("--regime solo --teacher strong --kd ofa --weak.num_layers 1", ["ofa", "hidden"]),
        ("--regime joint --teacher weak --kd nkd", ["weak", "solo"]),
        ("--no-mixture --teacher strong --kd nkd", ["solo"]),
        ("--regime tests.test_extension_points:once --teacher strong --kd nkd", ["once", "extra"]),
        ("--dataset tests.test_teachers:two_classes --regime solo --teacher strong --kd standardized", ["2 class"]),
    ],
)
def test_bad_input_gets_one_line_exit_code_2_and_no_folder(flags, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(command, [*LINE, "--seeds", "1", "--out", str(tmp_path / "run"), *flags.split()])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.count("\n") == 1
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


def two_classes():
    return changed(y=good().y.clamp(max=1))


def test_another_split_or_graph_is_refused_before_anything_is_written(teacher, tmp_path):
    out = tmp_path / "run"

    def attempt(*words):
        command([*SOLO, "--kd", "glnn", "--out", str(out), *words])

    with pytest.raises(InputError, match=r"another split of .* seed 0"):
        attempt("--split", "random", "--teacher", str(teacher / "seed-0"))
    with pytest.raises(InputError, match=r"was trained on tests.graphs:good, not on sbm"):
        attempt("--teacher", str(teacher), "--dataset", "sbm")
    with pytest.raises(InputError, match="has no seed-2, holds seed-0, seed-1"):
        attempt("--seeds", "3", "--teacher", str(teacher))
    with pytest.raises(InputError, match=r"unknown 'stron'; .*choose from mixture, strong, weak"):
        attempt("--teacher", f"{teacher}:stron")
    assert not list(tmp_path.iterdir())


def test_the_split_is_compared_not_the_seed(tmp_path):
    graph = ["--dataset", "sbm", "--epochs", "1", "--quiet"]
    command([*graph, "--seeds", "1", "--no-mixture", "--out", str(tmp_path / "t")])
    line = [*graph, "--regime", "solo", "--teacher", str(tmp_path / "t" / "seed-0"), "--kd", "glnn"]
    with pytest.raises(InputError, match="seed 0"):
        command([*line, "--seeds", "2", "--out", str(tmp_path / "s")])  # the second seed's split is another one
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files_of_logits_are_checked(suffix, tmp_path):
    path = tmp_path / f"t{suffix}"

    def written(split=None, **arrays):
        tensors = {name: torch.as_tensor(value) for name, value in arrays.items()}
        if suffix == ".npz":
            np.savez(path, **arrays, **({} if split is None else {"split_sha256": split}))
        else:
            save_file(tensors, path, metadata=None if split is None else {"split_sha256": split})
        return ["--teacher", str(path), "--kd", "glnn", "--seeds", "1", "--out", str(tmp_path / "run"), *SOLO]

    good, mine = np.zeros((60, 3), np.float32), split_hash(load(GRAPH))
    for arguments, words in (
        ({"logits": good, "split": "0" * 64}, "another split"),
        ({"logits": good[:50], "split": mine}, r"\[50, 3\].*\[60, 3\]"),
        ({"logits": good[:, :2].copy(), "split": mine}, r"\[60, 2\]"),
        ({"logits": good + np.float32("nan"), "split": mine}, "finite"),
        ({"logit": good, "split": mine}, "must hold `logits`"),
        ({"logits": good, "hidden_0": good[:50], "split": mine}, "must have 60 rows"),
        ({"logits": good, "reliability": good[:, 0] - np.float32("inf"), "split": mine}, "finite"),
    ):
        line = written(**arguments)
        with pytest.raises(InputError, match=words):
            command(line)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match="cannot be read"):
        command(line)
    assert not (tmp_path / "run").exists()
    line = written(logits=good)
    with pytest.warns(UserWarning, match="cannot be checked"):
        command(line)
    assert not result(tmp_path / "run")["runs"][0]["teacher"]["same_split"]


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "t.npz", logits=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="allow_pickle"):
        command([*SOLO, "--teacher", str(tmp_path / "t.npz"), "--kd", "glnn", "--out", str(tmp_path / "run")])


def test_a_loss_from_outside_by_its_dotted_path(teacher, tmp_path):
    name = "tests.test_extension_points.Squared"
    command(
        [*SOLO, "--seeds", "1", "--teacher", str(teacher), "--kd", f"{name}(weight=2)", "--out", str(tmp_path / "r")]
    )
    assert "student" in result(tmp_path / "r")["scores"]


def test_a_run_as_teacher_gives_hidden_layers_and_reliabilities(teacher, tmp_path):
    for model in ("mixture", "strong"):
        line = [
            *SOLO,
            "--seeds",
            "1",
            "--teacher",
            f"{teacher}:{model}",
            "--kd",
            "krd+lsp(width=5,of=hidden)+rkd(of=hidden)",
        ]
        command([*line, "--out", str(tmp_path / model)])
        score = result(tmp_path / model)["scores"]["teacher"]["test"][0]
        assert score == pytest.approx(result(teacher)["runs"][0]["scores"][model]["test"], abs=1e-3)
