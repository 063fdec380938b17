"""Every configuration that comes with the project loads, builds and names a graph that there is a card for."""

import re

import pytest
import torch

from mowst.data import card
from mowst.errors import InputError
from mowst.experiment.building import build
from mowst.experiment.folder import dump, read_config
from mowst.experiment.reading import config_of, parse, parser
from mowst.system.resources import folder

PATHS = sorted(folder("configs").glob("*.yaml"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_configuration_loads_and_builds(path):
    config = config_of(parse(parser("run", ""), ["--config", str(path)]))
    entry = card(config.dataset)
    assert config.split is None or config.split in entry.splits
    model = build(config, 5, 3)
    x, edge_index = torch.randn(6, 5), torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
    assert model.eval()(x, edge_index).confidence.shape == (6,)
    assert path.read_text().startswith("#"), "says what it is and where it comes from"


def test_the_published_settings_are_all_there():
    assert len([path for path in PATHS if path.stem.startswith("mowst-")]) == 19


def test_a_configuration_survives_being_written(tmp_path):
    for path in PATHS:
        config = config_of(parse(parser("run", ""), ["--config", str(path)]))
        (tmp_path / "config.yaml").write_text(dump(config))
        assert read_config(tmp_path) == config


@pytest.mark.parametrize("text", ["lr: fast", "colour: blue", "strong: {colour: blue}", "- 1", "lr: [", "strong: gcm"])
def test_a_wrong_file_is_one_line(tmp_path, text):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        parse(parser("run", ""), ["--config", str(path)])
    assert not re.search(r"\n", str(caught.value))
