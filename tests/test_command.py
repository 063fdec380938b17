"""The command `mowst`, and what `--help` and `--help all` show."""

import re
import tomllib
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from mowst import Config
from mowst.__main__ import COMMANDS, command
from mowst.errors import InputError, meant
from mowst.experiment import helping, reading


def shown(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        command(list(words))
    assert ended.value.code == 0
    return capsys.readouterr().out


def options(text: str) -> list[str]:
    return re.findall(r"^  (?:-h, )?--([\w.]+)", text, re.MULTILINE)


def test_every_command_can_be_called_by_its_name(capsys):
    assert command([]) == 0
    listed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in listed
        assert shown(capsys, name, "--help").startswith(f"usage: mowst {name} [options]")
        assert callable(import_module(f"mowst.{name}").command)


def test_the_entry_point_is_there():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    place, _, name = project["scripts"]["mowst"].partition(":")
    assert callable(getattr(import_module(place), name))


def test_the_version_is_that_of_the_package(capsys):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"mowst {version('mowst')}\n"


def test_another_word_is_refused_with_what_was_meant():
    with pytest.raises(InputError, match="did you mean report"):
        command(["reprot"])


def test_the_rest_of_the_words_go_to_the_command():
    with pytest.raises(InputError, match="--datasett; did you mean --dataset"):
        command(["run", "--datasett", "cora"])


@pytest.mark.parametrize("name", helping.FIRST)
def test_help_shows_a_dozen_options_in_their_order_and_says_how_many_more_there_are(name, capsys):
    first, every = shown(capsys, name, "--help"), shown(capsys, name, "--help", "all")
    few, all_of_them = options(first), options(every)
    wanted = [each.removeprefix("columns.").removesuffix(".kind") for each in helping.FIRST[name].split()]
    assert few == [*wanted, "help"]
    assert 10 <= len(few) <= 14
    assert int(re.search(r"--help all shows (\d+) more", first)[1]) == len(all_of_them) - len(few)
    assert len(all_of_them) == len(set(all_of_them)) == len(import_module(f"mowst.{name}").flags()._actions)


def test_what_help_shows_is_what_can_be_given(capsys):
    known = import_module("mowst.run").flags()._option_string_actions
    for option in options(shown(capsys, "run", "--help", "all")):
        assert reading.short_kinds([f"--{option}"])[0] in known


def test_every_field_of_a_configuration_has_a_group():
    grouped = " ".join(helping.ABOUT.values()).split()
    parts = {"columns", "weak", "strong", "gate", "predictions"}
    assert sorted([*grouped, *parts]) == sorted(entry.name for entry in fields(Config))


@pytest.mark.parametrize("words", [["--help=all"], ["--dataset", "x", "-h", "all"], ["--help", "all", "--out", "x"]])
def test_all_is_asked_for_in_any_way(words):
    assert helping.help_asked(words) == "all"


@pytest.mark.parametrize("words", [["-h"], ["all", "--help"], ["--help", "--all"]])
def test_a_help_without_all_is_short(words):
    assert helping.help_asked(words) == "first"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_may_be_cut_short(name):
    made = import_module(f"mowst.{name}").flags()
    known = {flag for flag in made._option_string_actions if flag.startswith("--") and not flag.startswith("--no_")}
    cut = {flag[:-1] for flag in known if len(flag) > 4} - known - {"--hel"}
    for short in sorted(word for word in cut if reading.short_kinds([word])[0] not in known):
        with pytest.raises(InputError, match=rf"unknown argument {re.escape(short)}; did you mean --"):
            reading.parse(made, ["folder", f"{short}=3"] if name in ("predict", "report") else [f"{short}=3"])


@pytest.mark.parametrize("words", [["--seed", "3"], ["--seed=3"]])
def test_a_seed_is_not_the_number_of_seeds(words):
    with pytest.raises(InputError, match="unknown argument --seed; did you mean --seeds or --first_seed"):
        command(["run", *words])


@pytest.mark.parametrize("name", ["run", "tune"])
@pytest.mark.parametrize(
    ("line", "flag"),
    [("--label field", "label"), ("--columns.weight=null", "weight"), ("--config FILE", "label"), ("--id=x", "id")],
)
def test_what_is_what_in_a_graph_needs_a_graph(name, line, flag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("some.yaml").write_text("columns: {label: field}")
    with pytest.raises(InputError, match=f"^--{flag} is for a graph of your own, and --dataset is missing"):
        command([name, *line.replace("FILE", "some.yaml").split()])
    with pytest.raises(InputError, match="digits is none"):
        command([name, *line.replace("FILE", "some.yaml").split(), "--dataset", "digits"])
    assert [path.name for path in Path().iterdir()] == ["some.yaml"]


def test_a_graph_called_like_the_default_one_may_be_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    Path("digits/edges.csv").write_text("source,target\na,b\n")
    words = ["--label", "field"]
    parsed = reading.parse(import_module("mowst.run").flags(), words)
    assert reading.asked_for(parsed, words).columns.label == "field"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("people", "unknown argument people; a graph is given by --dataset people"),
        ("--coverage x", "coverage: must be a number, got x"),
        ("--checkpoint_epochs abc", "checkpoint_epochs: must be a whole number from 1, got abc"),
        ("--devices 0", "devices: must be a whole number from 1, got 0"),
        ("--features", "--columns.features: needs a value"),
        ("--gate.dispersions", "--gate.dispersions: needs a value"),
        ("--abstain_risk 0", "abstain_risk: must be above 0 and below 1, got 0.0"),
    ],
)
def test_a_wrong_word_is_said_plainly(line, said):
    with pytest.raises(InputError) as error:
        command(["run", *line.split()])
    assert str(error.value) == said


def test_letters_in_another_order_are_the_same_word():
    assert meant("gnc", ["gin", "gat", "gcn"]) == "did you mean gcn? "
    assert meant("gim", ["gin", "gat", "gcn"]) == "did you mean gin? "
    with pytest.raises(InputError, match="did you mean gcn"):
        command(["run", "--dataset", "sbm", "--strong", "gnc"])


def test_names_that_look_like_a_file_are_said_to_be_none():
    from mowst.experiment.nodes import numbers_of

    names = pd.Index(["a", "b.txt"])
    assert numbers_of(names, ["b.txt"], "--nodes") == [1]
    with pytest.raises(InputError, match=r"--nodes: there is no file ids\.txt, and no node is called ids"):
        numbers_of(names, ["ids.txt"], "--nodes")
