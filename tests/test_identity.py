"""A run knows what it was made of: another graph, numbering or configuration is noticed."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from graphkd import Signals
from mowst import Config
from mowst.errors import InputError
from mowst.experiment import Opened, Teacher, read_teacher, run
from mowst.experiment.identity import config_hash, graph_hash, labels_hash, split_hash
from mowst.experiment.teachers import check_numbering, read
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
    assert config_hash(QUICK) == config_hash(dataclasses.replace(QUICK, data_root="elsewhere", device="auto"))
    assert config_hash(QUICK) != config_hash(dataclasses.replace(QUICK, normalize_features=True))


def test_a_record_says_what_the_run_was_made_of(tmp_path):
    result = run(QUICK, tmp_path)
    data = Opened(QUICK).seed(0).data
    record = json.loads((tmp_path / "seed-0" / "result.json").read_text())
    assert record["graph_sha256"] == graph_hash(data)
    assert record["labels_sha256"] == labels_hash(data)
    assert record["config_sha256"] == config_hash(QUICK)
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
