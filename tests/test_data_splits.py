"""Laws of the split protocols."""

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from mowst.data.splits import index_file, per_class, random, shipped_masks
from mowst.errors import InputError


@pytest.fixture
def data():
    y = torch.arange(1000) % 4
    y[::10] = -1
    return Data(y=y, num_nodes=1000)


DRAWN = [random, per_class, lambda data, seed: per_class(data, seed, train=5, val_per_class=7)]


@pytest.mark.parametrize("protocol", DRAWN)
def test_masks_are_disjoint_and_cover_exactly_the_labelled_nodes(data, protocol):
    total = sum(mask.long() for mask in protocol(data, 0))
    assert torch.equal(total, (data.y >= 0).long())


@pytest.mark.parametrize("protocol", DRAWN)
def test_equal_seeds_give_equal_masks_and_others_do_not(data, protocol):
    assert torch.equal(torch.stack(protocol(data, 3)), torch.stack(protocol(data, 3)))
    assert not torch.equal(protocol(data, 3).train, protocol(data, 4).train)


def test_drawing_a_split_leaves_the_global_generator_alone(data):
    before = torch.get_rng_state()
    random(data, 0)
    per_class(data, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_split_has_the_fractions_of_the_labelled_nodes(data):
    assert [int(mask.sum()) for mask in random(data, 0, train=0.6, val=0.2)] == [540, 180, 180]


@pytest.mark.parametrize("fractions", [(0.0, 0.5), (0.7, 0.7), (1.5, 0.1), (0.5, -0.1)])
def test_impossible_fractions_are_refused(data, fractions):
    with pytest.raises(InputError, match="fractions"):
        random(data, 0, train=fractions[0], val=fractions[1])


def test_per_class_counts_each_class(data):
    train, val, _ = per_class(data, 0, train=5, val_per_class=7)
    for label in range(4):
        assert int((data.y[train] == label).sum()) == 5
        assert int((data.y[val] == label).sum()) == 7
    assert int(per_class(data, 0, train=5, val=33).val.sum()) == 33


def test_class_smaller_than_asked_gives_what_it_has(data):
    data.y[data.y == 3] = 0
    data.y[1] = 3
    train, _, _ = per_class(data, 0, train=5, val=10)
    assert int((data.y[train] == 3).sum()) == 1


def test_seed_takes_the_kth_of_several_masks_modulo_their_number(data):
    columns = torch.eye(1000, 3, dtype=torch.bool)
    data.train_mask, data.val_mask, data.test_mask = columns, columns.roll(1, 0), columns.roll(2, 0)[:, 0]
    for seed in range(7):
        train, val, test = shipped_masks(data, seed)
        assert train.nonzero().item() == seed % 3
        assert val.nonzero().item() == seed % 3 + 1
        assert test.nonzero().item() == 2  # one mask for all seeds, as in WikiCS


def test_absent_masks_are_named(data):
    with pytest.raises(InputError, match="train_mask"):
        shipped_masks(data, 0)


def test_index_file_takes_row_of_the_seed_and_leaves_unlabelled_nodes_out(data, tmp_path):
    rows = np.array([[0, 1, 2], [3, 4, 5]])
    np.savez(tmp_path / "split.npz", train=rows, valid=rows + 6, test=rows + 12)
    train, val, test = index_file(data, 3, path=tmp_path / "split.npz")
    assert train.nonzero().view(-1).tolist() == [3, 4, 5]
    assert val.nonzero().view(-1).tolist() == [9, 11]  # 10 has no label
    assert test.nonzero().view(-1).tolist() == [15, 16, 17]


@pytest.mark.parametrize("arrays", [{"train": [1]}, {"train": [1], "valid": [2], "test": [5000]}])
def test_wrong_index_file_is_refused(data, tmp_path, arrays):
    np.savez(tmp_path / "split.npz", **{key: np.array(value) for key, value in arrays.items()})
    with pytest.raises(InputError, match=r"split\.npz"):
        index_file(data, 0, path=tmp_path / "split.npz")


def test_pickle_in_an_index_file_is_not_opened(data, tmp_path):
    np.savez(tmp_path / "split.npz", train=np.array([{}], dtype=object), valid=[1], test=[2])
    with pytest.raises(InputError):
        index_file(data, 0, path=tmp_path / "split.npz")
