import dataclasses
import json
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from mowst import Config, GateConfig
from mowst.errors import InputError
from mowst.evaluation.routing import routable
from mowst.experiment.folder import read_config
from mowst.experiment.reading import config_of, parse, parser
from mowst.experiment.reload import reload
from mowst.experiment.runs import run
from mowst.experiment.seed import run_seed
from mowst.inference.modes import predict
from mowst.predict import command as predict_command
from mowst.run import command
from mowst.system.main import main
from mowst.tuning.goals import GOALS

FAST = ["--dataset", "sbm", "--epochs", "4", "--seeds", "2", "--quiet"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "sbm"
    assert command([*FAST, "--out", str(out)]) == 0
    return out


def test_a_run_leaves_what_the_contract_names(finished):
    entries = ["README.md", "chosen.yaml", "config.yaml", "report.html", "result.json", "seed-0", "seed-1"]
    assert sorted(p.name for p in finished.iterdir()) == [".mowst.json", *entries]
    mark = json.loads((finished / ".mowst.json").read_text())
    held = sorted([*entries, "search"])  # which a search of `best` would have there
    assert mark == {"config": (finished / "config.yaml").read_text(), "files": held, "devices": None}
    files = ["config.yaml", "figures.json", "metrics.jsonl", "model.safetensors", "predictions.npz", "result.json"]
    files += ["trust.json"]
    assert sorted(p.name for p in (finished / "seed-0").iterdir()) == files
    result = json.loads((finished / "result.json").read_text())
    assert {
        "dataset",
        "metric",
        "seeds",
        "scores",
        "confidence",
        "trust",
        "seconds",
        "versions",
        "threads",
    } <= result.keys()
    assert result["seeds"] == [0, 1]
    assert {"weak", "strong", "average", "mixture"} <= result["scores"].keys()
    for split in ("val", "test"):
        single = [run["scores"]["mixture"][split] for run in result["runs"]]
        assert result["scores"]["mixture"][split] == pytest.approx([np.mean(single), np.std(single, ddof=1)])
    assert set(result["confidence"]) == {"mean", "share_weak"}


def test_the_test_score_is_that_of_the_predictions(finished, blocks):
    arrays = np.load(finished / "seed-0" / "predictions.npz")
    record = json.loads((finished / "seed-0" / "result.json").read_text())
    for name in ("weak", "strong", "mixture"):
        right = arrays[name].argmax(1)[blocks.test_mask] == blocks.y[blocks.test_mask].numpy()
        assert 100 * right.mean() == pytest.approx(record["scores"][name]["test"], abs=1e-4)
    average = (arrays["weak"] + arrays["strong"]).argmax(1)[blocks.test_mask]
    right = (average == blocks.y[blocks.test_mask].numpy()).mean()
    assert 100 * right == pytest.approx(record["scores"]["average"]["test"], abs=0.3)
    pool = arrays["mixture_confidence"][blocks.test_mask]
    assert record["confidence"]["mean"] == pytest.approx(pool.mean(), abs=1e-5)


def test_the_seconds_of_a_run_are_counted_once(tmp_path):
    start = time.perf_counter()
    result = run(Config(dataset="sbm", epochs=40, seeds=2))
    assert 0 < result["seconds"] <= time.perf_counter() - start
    for record in result["runs"]:
        assert record["seconds"]["mixture"] > record["seconds"]["weak"] + record["seconds"]["strong"]
        assert record["seconds_together"] == pytest.approx(record["seconds"]["mixture"], abs=0.01)


def test_the_gate_is_in_the_checkpoint(finished):
    names = load_file(finished / "seed-0" / "model.safetensors").keys()
    assert any(name.startswith("mixture.gate.") for name in names)


def test_predict_reproduces_the_run_bit_for_bit(finished, capsys, tmp_path):
    save = tmp_path / "again.npz"
    assert predict_command([str(finished / "seed-0"), "--save", str(save)]) == 0
    assert "bit for bit" in capsys.readouterr().out
    written = np.load(finished / "seed-0" / "predictions.npz")["mixture"]
    assert np.array_equal(np.load(save)["probabilities"], written)


@pytest.mark.parametrize("how", ["pooled", "routed"])
def test_predict_some_nodes_and_say_what_was_read(finished, capsys, tmp_path, how):
    ids, save = tmp_path / "ids.txt", tmp_path / "some.npz"
    ids.write_text("7\n3, 7\n0\n")
    common = [str(finished / "seed-0"), "--how", how, "--save", str(save)]
    predict_command(common)
    everything = np.load(save)
    capsys.readouterr()
    for nodes in (str(ids), "7,3,7,0"):
        predict_command([*common, "--nodes", nodes])
        said, some = capsys.readouterr().out, np.load(save)
        assert re.search(r"the strong expert read [\d,]+ of [\d,]+ nodes, [\d,]+ of [\d,]+ edges", said)
        assert ("4 nodes predicted" in said) == (how == "pooled")
        assert some["nodes"].tolist() == [7, 3, 7, 0]
        np.testing.assert_allclose(some["probabilities"], everything["probabilities"][[7, 3, 7, 0]], atol=1e-6)


@pytest.mark.parametrize("options", [[], ["--regime", "joint"], ["--regime", "joint", "--gate", "power"]])
def test_routed_predictions_are_those_whose_score_the_run_told(tmp_path, blocks, options):
    out, save = tmp_path / "run", tmp_path / "routed.npz"
    command([*FAST, *options, "--seeds", "1", "--no-baselines", "--out", str(out)])
    predict_command([str(out / "seed-0"), "--how", "routed", "--save", str(save)])
    right = torch.from_numpy(np.load(save)["prediction"]) == blocks.y
    record = json.loads((out / "seed-0" / "result.json").read_text())
    for split, mask in (("val", blocks.val_mask), ("test", blocks.test_mask)):
        assert 100 * right[mask].float().mean() == pytest.approx(record["scores"]["routed"][split], abs=1e-4)


def test_confidence_above_one_half_everywhere_does_not_route_every_node_to_the_weak_expert(tmp_path, blocks):
    out = tmp_path / "run"
    line = "--dataset sbm --regime joint --gate tests.test_extension_points:Halves --epochs 30 --seeds 1 --no-baselines"
    command([*line.split(), "--quiet", "--out", str(out)])
    arrays = np.load(out / "seed-0" / "predictions.npz")
    assert arrays["mixture_confidence"].min() >= 0.5
    strong = arrays["mixture_strong"].argmax(1)[blocks.val_mask] == blocks.y[blocks.val_mask].numpy()
    routed = json.loads((out / "seed-0" / "result.json").read_text())["scores"]["routed"]
    assert routed["val"] >= 100 * strong.mean() - 1e-4


def test_the_share_that_a_study_seeks_is_the_one_that_routing_sends(blocks):
    config = Config(dataset="sbm", regime="joint", gate=GateConfig("tests.test_extension_points:Halves"), epochs=30)
    done = run_seed(config, 0).fitted["mixture"]
    sent = (done.output.confidence < done.model.threshold)[blocks.val_mask].float().mean()
    assert sent > 0.1
    assert GOALS.lookup("share")(done, blocks) == pytest.approx(100 * float(sent))


def test_predict_needs_no_predictions_to_compare_with(finished, tmp_path, capsys):
    folder = tmp_path / "moved"
    shutil.copytree(finished / "seed-0", folder)
    (folder / "predictions.npz").unlink()
    assert predict_command([str(folder)]) == 0
    assert "nothing to compare them with" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["--threshold .nan --how routed", "--nodes="])
def test_predict_refuses_what_is_no_number(finished, line):
    with pytest.raises(InputError, match=line[:7]):
        predict_command([str(finished / "seed-0"), *line.split()])


def one_number_too_many(out, batch):
    return torch.zeros(len(batch.y) + 1)


def of_logits(out, batch):
    """An objective that knows no mixture."""
    return torch.nn.functional.cross_entropy(out, batch.y, reduction="none")


def test_the_cross_entropy_of_a_mixture_is_the_joint_objective():
    config = Config(dataset="sbm", regime="joint", epochs=4, seeds=1, baselines=False)
    objectives = ("joint", "mowst.training.objectives:cross_entropy", "separate")
    joint, named, separate = (run(dataclasses.replace(config, objective=name))["scores"] for name in objectives)
    assert named == joint != separate


def test_a_folder_that_cannot_be_written_is_said_before_any_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(SystemExit) as left:
            main(command, [*FAST, "--out", str(out)])
        assert left.value.code == 2
        assert "cannot be written" in capsys.readouterr().err


def test_without_test_nodes_the_test_score_is_no_number_and_the_run_is_written(tmp_path):
    command(["--dataset", "tests.graphs:untested", "--epochs", "2", "--seeds", "2", "--out", str(tmp_path / "run")])
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]["strong"]
    assert scores["test"] == [None, None], "what JSON has for it"
    assert all(isinstance(value, float) for value in scores["val"])


@pytest.mark.parametrize(
    "line",
    [
        "--no-mixture --weak.num_layers 3",
        "--regime solo --kd uskd --objective mowst.training.distillation:no_labels",
        "--gate.dispersions+=margin",
    ],
)
def test_a_flag_that_changes_something_is_not_named(tmp_path, capsys, line):
    command([*FAST, *line.split(), "--out", str(tmp_path / "run")])
    assert "changes nothing" not in capsys.readouterr().err


def test_a_flag_that_changes_nothing_is_named(tmp_path, capsys):
    line = "--regime joint --rehearsals 5 --folds 7 --strong.dropout 0.1 --gate_lr 0.1 --no-baselines"
    command([*FAST, *line.split(), "--out", str(tmp_path / "run")])
    notes = [each for each in capsys.readouterr().err.splitlines() if each.startswith("note: --")]
    assert [note.split()[1] for note in notes] == ["--rehearsals", "--folds"]


@pytest.mark.parametrize("nodes", ["one", "1.5", "no/such/file", "100000", "=-1", f"{10**30}"])
def test_predict_says_which_nodes_it_takes(finished, nodes):
    flag = ["--nodes" + nodes] if nodes.startswith("=") else ["--nodes", nodes]
    with pytest.raises(InputError, match="nodes") as error:
        predict_command([str(finished / "seed-0"), *flag])
    assert "\n" not in str(error.value)


def test_a_reloaded_mixture_predicts_in_every_mode(finished):
    folder = finished / "seed-0"
    model, _, ready = reload(folder, read_config(folder))
    out = model(ready.x, ready.adj_t)
    nodes = torch.tensor([5, 3, 8])
    torch.testing.assert_close(
        predict(model, ready.x, ready.adj_t, nodes=nodes), predict(model, ready.x, ready.adj_t)[nodes]
    )
    for threshold, expert in ((0.0, out.weak), (1.1, out.strong)):
        routed = predict(model, ready.x, ready.adj_t, how="routed", threshold=threshold)
        torch.testing.assert_close(routed, expert.softmax(-1))
    drawn = predict(model, ready.x, ready.adj_t, how="sampled", generator=torch.Generator().manual_seed(0))
    weak = (drawn == out.weak.softmax(-1)).all(-1)
    strong = (drawn == out.strong.softmax(-1)).all(-1)
    assert (weak | strong).all()
    confidence = routable(model, out, ready.x).confidence
    assert weak.float().mean().item() == pytest.approx(confidence.mean().item(), abs=0.05)


def test_a_saved_configuration_repeats_the_run(finished, tmp_path):
    again = tmp_path / "again"
    command(["--config", str(finished / "config.yaml"), "--quiet", "--out", str(again)])
    one, two = (json.loads((out / "result.json").read_text())["scores"] for out in (finished, again))
    assert one == two


def test_short_kinds_and_their_options_on_one_command_line(tmp_path):
    out = tmp_path / "run"
    line = "--dataset sbm --epochs 2 --seeds 1 --strong sage --strong.hidden_channels 24 --gate=power --no-baselines"
    command([*line.split(), "--quiet", "--out", str(out)])
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["strong"]["kind"], config["strong"]["hidden_channels"]) == ("sage", 24)
    assert (config["gate"]["kind"], config["baselines"]) == ("power", False)
    assert "weak" not in json.loads((out / "result.json").read_text())["scores"]


def test_experts_alone_need_no_mixture(tmp_path):
    result = run(Config(dataset="sbm", epochs=2, seeds=1, mixture=False), tmp_path / "run")
    plain = {"largest-class", "average", "stacked-on-val", "label-propagation", "correct-and-smooth"}
    assert set(result["scores"]) == {"weak", "strong"} | plain
    with pytest.raises(InputError, match=r"holds no mixture but weak, strong; say which, e\.g\. --model weak"):
        predict_command([str(tmp_path / "run" / "seed-0")])


def test_bf16_and_float32_agree_roughly():
    score = {}
    for precision in ("32-true", "bf16-mixed"):
        config = Config(dataset="digits", epochs=40, seeds=1, baselines=False, precision=precision)
        score[precision] = run(config)["scores"]["mixture"]["val"][0]
    assert abs(score["32-true"] - score["bf16-mixed"]) < 5


def test_isolated_nodes_are_fine():
    result = run(Config(dataset="tests.graphs:isolated", epochs=2, seeds=1))
    assert result["scores"]["mixture"]["test"][0] >= 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--dataset coral", ["there is no file or folder coral", "did you mean cora?", "--list"]),
        ("--strong gcnn", ["'gcnn'", "did you mean gcn?", "sage"]),
        ("--gate oracle", ["'oracle'", "learned"]),
        ("--regime turns", ["'turns'", "alternate"]),
        ("--pretrain all", ["'all'", "both"]),
        ("--rehearsals 9", ["rehearsals", "5"]),
        ("--signal val_acc", ["'val_acc'", "expected"]),
        ("--precision bf16", ["'bf16'", "bf16-mixed"]),
        ("--matmul medium --device cpu", ["matmul", "CUDA", "highest"]),
        ("--capture true --device cpu", ["capture", "CUDA", "cpu"]),
        ("--capture perhaps", ["capture", "perhaps", "auto"]),
        ("--matmul coarse", ["matmul", "coarse", "medium"]),
        ("--split shuffled", ["'shuffled'", "random"]),
        ("--colour blue", ["--colour"]),
        ("--strong.colour blue", ["--strong.colour"]),
        ("--strong.hiden-channels 8", ["did you mean --strong.hidden_channels?"]),
        ("--strong.hidden_channels wide", ["strong.hidden_channels", "must be int", "wide"]),
        ("--lr", ["--lr: needs a value"]),
        ("--config datasets/cora.yaml", ["datasets/cora.yaml: unknown field"]),
        ("--strong.hidden_channels 0", ["hidden_channels", "at least 1", "0"]),
        ("--lr -1", ["lr", "above 0"]),
        ("--config nowhere.yaml", ["nowhere.yaml"]),
        ("--device gpu5", ["device", "gpu5", "auto", "cpu"]),
        ("--device tpu", ["device", "tpu", "auto", "cpu"]),
        ("--gate.features true --gate power", ["power", "features"]),
        ('--gate.options {"depth":3}', ["depth"]),
        ("--no-mixture --no-baselines", ["nothing to train"]),
        ("--dataset tests.graphs:not_a_number", ["node 7", "nan"]),
        ("--dataset tests.graphs:infinite", ["inf"]),
        ("--dataset tests.graphs:missing_node", ["60"]),
        ("--dataset tests.graphs:overlapping", ["overlap"]),
        ("--dataset tests.graphs:untrained", ["train"]),
        ("--dataset tests.graphs:unvalidated", ["val_mask", "empty"]),
        ("--strong.kind torch.nn", ["torch.nn", "module"]),
        ('--strong.options {"add_self_loops":false}', ["strong expert gcn", "add_self_loops"]),
        ("--optimizer torch.optim.Rprop", ["Rprop", "weight_decay"]),
        ("--objective tests.test_run:of_logits", ["objective", "Mixture"]),
        ("--objective tests.test_run:one_number_too_many", ["objective", "shape [3001]", "[N]"]),
        ("--dataset tests.graphs:label_out_of_range", ["label"]),
        ("--dataset tests.graphs:one_class", ["class"]),
        ("--dataset tests.graphs:no_edges", ["edge"]),
    ],
)
def test_bad_input_gets_one_line_exit_code_2_and_no_folder(flags, words, tmp_path, capsys):
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as left:
        main(command, ["--dataset", "sbm", "--epochs", "1", "--seeds", "1", "--out", str(out), *flags.split()])
    said = capsys.readouterr().err
    assert left.value.code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


def test_a_precision_that_the_device_lacks_stops_a_run_and_is_replaced_in_a_prediction(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    run(Config(dataset="sbm", epochs=2, seeds=1, baselines=False, precision="bf16-mixed"), out)
    monkeypatch.setattr("mowst.experiment.building.supports", lambda device, precision: precision == "32-true")
    with pytest.raises(InputError, match=r"'bf16-mixed'.*32-true"):
        run(Config(dataset="sbm", precision="bf16-mixed"))
    assert predict_command([str(out / "seed-0")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: precision 'bf16-mixed'")
    assert said.count("\n") == 1
    with pytest.raises(InputError, match="gpu5"):
        predict_command([str(out / "seed-0"), "--device", "gpu5"])


def test_a_folder_with_a_run_is_refused_unless_told(finished, tmp_path):
    before = (finished / "result.json").read_bytes()
    with pytest.raises(InputError, match="holds a run already"):
        command([*FAST, "--out", str(finished)])
    assert (finished / "result.json").read_bytes() == before
    out = tmp_path / "twice"
    command([*FAST, "--out", str(out)])
    command([*FAST, "--seeds", "1", "--out", str(out), "--overwrite"])
    assert not (out / "seed-1").exists()


def test_of_a_folder_of_all_seeds_the_best_one_is_asked(finished, capsys):
    predict_command([str(finished)])
    runs = json.loads((finished / "result.json").read_text())["runs"]
    best = max(runs, key=lambda record: record["scores"]["mixture"]["val"])["seed"]
    said = capsys.readouterr().out
    assert f"seed-{best}" in said.replace("\n", "")
    assert "bit for bit" in said


def test_nodes_that_are_asked_for_are_told_one_by_one(finished, capsys):
    predict_command([str(finished / "seed-0"), "--nodes", "5,17"])
    said = capsys.readouterr().out
    probs = np.load(finished / "seed-0" / "predictions.npz")["mixture"]
    for node in (5, 17):
        assert f"node {node}: class {probs[node].argmax()}, probability {probs[node].max():.3f}" in said


def test_damaged_runs_are_refused_in_a_line(finished, tmp_path):
    with pytest.raises(InputError, match="not a run of one seed"):
        predict_command([str(tmp_path)])
    broken = tmp_path / "seed-0"
    broken.mkdir()
    for path in (finished / "seed-0").iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(InputError, match="cannot be read"):
        predict_command([str(broken)])
    (broken / "result.json").write_text("{")
    with pytest.raises(InputError, match="not the record of a run"):
        predict_command([str(broken)])


def test_list_names_every_graph(capsys):
    assert command(["--list"]) == 0
    said = capsys.readouterr().out
    for words in ("cora", "ogbn-papers100M", "twitch-de", "111,059,956", "rocauc", "public, geom-gcn", "never"):
        assert words in said
    assert "…" not in said


def test_help_explains_every_field():
    shown = subprocess.run(
        [sys.executable, "-m", "mowst.run", "--help", "all"], capture_output=True, text=True, check=True
    ).stdout
    for flag in ("--strong.hidden_channels", "--gate.detach", "--signal", "--overwrite"):
        words = shown.split(f"  {flag}")[1].split("\n  --")[0].split()
        assert len(words) > 5, flag


def test_the_command_prints_a_table(tmp_path):
    line = [sys.executable, "-m", "mowst.run", "--dataset", "sbm", "--epochs", "3", "--seeds", "1", "--out"]
    line += [str(tmp_path / "run"), "--precision", "bf16-mixed"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    for words in (
        "weak expert alone",
        "gcn alone",
        "hop-trees alone",
        "mixture",
        "confidence",
        "s of training",
    ):
        assert words in done.stdout
    assert "3 epochs" in done.stderr
    assert not re.search("Warning|AMP", done.stderr), "what libraries say is left out"


def test_a_run_that_cannot_be_built_costs_no_older_run(tmp_path):
    out = tmp_path / "run"
    command([*FAST, "--out", str(out)])
    before = (out / "result.json").read_bytes()
    with pytest.raises(InputError, match="depth"):
        command([*FAST, "--out", str(out), "--overwrite", "true", "--gate.options", '{"depth": 3}'])
    assert (out / "result.json").read_bytes() == before
    assert (out / "seed-0" / "model.safetensors").exists()


def test_a_run_that_diverges_costs_no_older_run(tmp_path):
    out = tmp_path / "run"
    command([*FAST, "--out", str(out)])
    (out / "note.txt").write_text("mine")
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(FloatingPointError):
        command([*FAST, "--out", str(out), "--overwrite", "true", "--lr", "1e30"])
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    command([*FAST, "--seeds", "1", "--out", str(out), "--overwrite", "true"])
    own = {".mowst.json", "README.md", "chosen.yaml", "config.yaml", "report.html", "result.json", "seed-0"}
    assert {path.name for path in out.iterdir()} == {*own, "note.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_divergence_is_one_line_and_exit_code_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(command, [*FAST, "--lr", "1e30", "--out", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert left.value.code == 1
    assert said.startswith("error: training diverged")
    assert said.count("\n") == 1


def test_a_command_line_without_a_word_is_the_default():
    assert config_of(parse(parser("run", ""), [])) == Config()
