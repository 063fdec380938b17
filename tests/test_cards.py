"""Every card that is shipped can be read and points at something; what a card must not hold is refused."""

from pathlib import Path

import pytest
import yaml

from mowst.data import Card, card, catalogue, names
from mowst.data.cards import METRICS, read_card
from mowst.data.splits import SPLITS
from mowst.errors import InputError
from mowst.names import resolve
from mowst.system.resources import folder

WANTED = """cora citeseer pubmed computers photo cs physics cora-ml dblp citeseer-full wiki-cs actor cornell texas
wisconsin roman-empire amazon-ratings minesweeper tolokers questions chameleon-filtered squirrel-filtered penn94 reed98
amherst41 cornell5 johnshopkins55 genius twitch-de twitch-en twitch-es twitch-fr twitch-pt twitch-ru github facebook
blogcatalog flickr-small flickr deezer-europe polblogs karate pokec twitch-gamer ogbn-arxiv ogbn-products
ogbn-papers100M digits digits-knn sbm hm-categories pokec-regions web-topics tolokers-2 city-reviews artnet-exp
web-fraud"""

MINIMAL = {
    "loader": "torch_geometric.datasets:KarateClub",
    "metric": "accuracy",
    "splits": {"random": {"kind": "random"}},
    "licence": "none",
    "homepage": "none",
}


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}, sort_keys=False))
    return path


def test_all_promised_names_have_a_card():
    assert names() == sorted(WANTED.split(), key=str.lower)


@pytest.mark.parametrize("name", names())
def test_card_is_complete_and_its_loader_imports(name):
    entry = card(name.upper())
    assert entry.name == name
    assert callable(resolve("loader", entry.loader))
    assert entry.metric in METRICS
    assert entry.licence
    assert entry.homepage.startswith("http")
    assert entry.exercised in ("real", "fixture", "never")
    assert entry.counts
    assert all(split.kind in SPLITS for split in entry.splits.values())
    assert "random" in entry.splits


def test_cards_are_data_and_no_python():
    assert not list(folder("datasets").glob("**/*.py"))


@pytest.mark.parametrize("name", ["computers", "photo", "cs", "twitch-de"])
def test_card_of_a_split_file_says_where_it_was_published(name):
    split = next(iter(card(name).splits.values()))
    assert split.kind == "file"
    assert len(split.file.sha256) == 64
    assert split.file.repository.startswith("github.com/")
    assert split.file.commit
    assert split.file.origin


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": 1}, "colour"),
        ({"metric": "f1"}, "f1"),
        ({"splits": {}}, "splits"),
        ({"splits": {"a": {"kind": "nonsense"}}}, "nonsense"),
        ({"splits": {"a": {"kind": "random", "fraction": 1}}}, "fraction"),
        ({"splits": {"a": "random"}}, "must be a mapping"),
        ({"splits": {"a": {"kind": "file"}}}, "missing"),
        ({"counts": [{"stars": 1}]}, "stars"),
    ],
)
def test_wrong_card_is_refused_in_one_line(tmp_path, changes, said):
    with pytest.raises(InputError, match=said) as caught:
        read_card(write(tmp_path / "mine.yaml", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["loader: [", "just words", "", "loader: a:b"])
def test_file_that_is_no_card_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_card(path)
    assert "\n" not in str(caught.value)


def test_unknown_name_lists_the_choices():
    with pytest.raises(InputError, match=r"corra.*cora"):
        card("corra")


def test_catalogue_has_a_row_a_card_and_sees_what_is_on_disk(tmp_path):
    raw = tmp_path / "Twitch" / "PT" / "raw"
    raw.mkdir(parents=True)
    (raw / "PT.npz").touch()
    before = sorted(tmp_path.rglob("*"))
    rows = {row.name: row for row in catalogue(tmp_path)}
    assert set(rows) == set(names())
    assert {name for name, row in rows.items() if row.on_disk} == {"twitch-pt", "digits", "digits-knn", "sbm", "karate"}
    assert rows["cora"][1:8] == (2708, 5278, 1433, 7, "accuracy", "public", ("geom-gcn", "random", "per-class"))
    assert sorted(tmp_path.rglob("*")) == before
    assert isinstance(card("cora"), Card)
