"""A run knows what it was made of: another graph, numbering or configuration is noticed."""

import dataclasses
import json
from contextlib import suppress

import numpy as np
import pytest
import torch

from graphkd import Signals
from mowst import Config
from mowst.errors import InputError
from mowst.experiment import Opened, Teacher, claim, read_config, read_teacher, run
from mowst.experiment.identity import graph_hash, labels_hash, split_hash, text_hash
from mowst.experiment.reload import reload
from mowst.experiment.teachers import check_numbering, read
from mowst.experiment.weights import read_scale
from tests.graphs import changed, good

QUICK = Config(dataset="tests.graphs:good", seeds=1, epochs=5, device="cpu", baselines=False)


def test_each_hash_answers_to_what_it_is_of_and_nothing_else():
    plain, other = good(), good()
    other.x[3, 1] += 1
    assert graph_hash(plain) != graph_hash(other)
    assert graph_hash(plain) != graph_hash(changed(edge_weight=torch.ones(plain.num_edges)))
    assert graph_hash(plain) == graph_hash(changed(y=1 - good().y))
    assert labels_hash(plain) == labels_hash(other) != labels_hash(changed(y=(good().y + 1) % 3))
    hidden = good()
    hidden.y[hidden.test_mask] = 0
    assert labels_hash(plain) == labels_hash(hidden)  # test labels are not looked at
    assert split_hash(plain) != split_hash(changed(val_mask=good().test_mask, test_mask=good().val_mask))


def test_a_record_says_what_the_run_was_made_of(tmp_path):
    result = run(QUICK, tmp_path)
    data = Opened(QUICK).seed(0).data
    record = json.loads((tmp_path / "seed-0" / "result.json").read_text())
    assert record["graph_sha256"] == graph_hash(data)
    assert record["labels_sha256"] == labels_hash(data)
    assert record["config_sha256"] == text_hash((tmp_path / "seed-0" / "config.yaml").read_text())
    assert result["runs"][0]["split"]["sha256"] == split_hash(data)


def test_a_teacher_that_numbers_its_classes_otherwise_is_refused(tmp_path):
    run(QUICK, tmp_path)
    data = Opened(QUICK).seed(0).data
    assert read(str(tmp_path), 0, data).same_split
    data.y = (data.y + 1) % 3
    with pytest.raises(InputError, match="numbers the classes"):
        read(str(tmp_path), 0, data)


def test_a_file_that_numbers_its_classes_otherwise_is_refused_with_the_right_numbers(tmp_path):
    data = Opened(QUICK).seed(0).data
    right = 4 * torch.nn.functional.one_hot(data.y, 3).float() + torch.randn(60, 3)
    config = dataclasses.replace(QUICK, kd="kd", regime="joint", teacher=str(tmp_path / "t.npz"))
    for logits, fine in ((right, True), (right[:, [2, 0, 1]], False), (torch.randn(60, 3), True)):
        np.savez(tmp_path / "t.npz", logits=logits.numpy(), split_sha256=split_hash(data))
        if fine:
            assert read_teacher(config, 0, data, None) is not None
        else:
            with pytest.raises(InputError, match=r"\[1, 2, 0\] were 0 to 2"):
                read_teacher(config, 0, data, None)


def test_weak_teachers_of_two_classes_are_not_called_renumbered():
    data = changed(y=good().y.clamp(max=1), num_classes=2, name="two")
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        check_numbering(Teacher(Signals(torch.randn(60, 2, generator=draw)), "weak", True), data)


@pytest.fixture
def finished(tmp_path):
    """A run of one seed, left in a folder."""
    run(QUICK, tmp_path / "run")
    return tmp_path / "run" / "seed-0"


def test_an_edited_configuration_is_refused(finished):
    path = finished / "config.yaml"
    reload(finished, read_config(finished))
    path.write_text(path.read_text().replace("normalize_features: false", "normalize_features: true"))
    with pytest.raises(InputError, match="not as the run wrote it"):
        reload(finished, read_config(finished))


def test_another_graph_is_said_and_another_numbering_refused(finished, monkeypatch, capsys):
    other = good()
    other.x = other.x + 1
    monkeypatch.setattr("tests.graphs.good", lambda: other)
    reload(finished, read_config(finished))
    assert "another graph than the run was trained on" in capsys.readouterr().err
    renumbered = other.clone()
    renumbered.y = (renumbered.y + 1) % 3
    monkeypatch.setattr("tests.graphs.good", lambda: renumbered)
    with pytest.raises(InputError, match="numbered otherwise"):
        reload(finished, read_config(finished))


def test_the_scale_of_the_features_is_kept_with_the_weights(tmp_path, monkeypatch):
    config = dataclasses.replace(QUICK, standardize=True)
    run(config, tmp_path)
    shifted = good()
    shifted.x = shifted.x * 7 + 5
    monkeypatch.setattr("tests.graphs.good", lambda: shifted)
    _, _, ready = reload(tmp_path / "seed-0", read_config(tmp_path / "seed-0"))
    monkeypatch.undo()
    wanted = (shifted.x - good().x.mean(0)) / good().x.std(0, correction=0)
    assert torch.allclose(ready.x, wanted, atol=1e-4)
    run(QUICK, tmp_path / "plain")
    with pytest.raises(InputError, match="standardised"):
        read_scale(tmp_path / "plain" / "seed-0")


@pytest.mark.parametrize("mark", ["{}", "[]", '{"files": 3, "config": ""}', '{"files": ["../x"], "config": ""}', "{"])
def test_a_damaged_mark_is_one_line_and_names_no_files_elsewhere(tmp_path, mark):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".mowst.json").write_text(mark)
    (tmp_path / "x").write_text("mine")
    with suppress(InputError), claim(str(tmp_path / "out"), QUICK, overwrite=True):
        pass
    assert (tmp_path / "x").read_text() == "mine"
