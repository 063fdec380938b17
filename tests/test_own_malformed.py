"""Files of graphs that are damaged, or made to do harm, end in one line; nothing else is read, and nothing run."""

import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import pytest

from mowst.data import open_graph, read
from mowst.data.columns import Columns
from mowst.data.own import card_of
from mowst.errors import LONGEST, InputError
from tests.fuzzing import Limits, judging
from tests.fuzzing.files import MALFORMED, SECRET, SOUND, damaged, file_cases

LABEL = {"csv": "group", "csv with a byte-order mark": "group", "csv with semicolons": "group", "tsv": "group"}
LABEL |= dict.fromkeys(("graphml", "gexf", "gml", "json"), "group")


def opened(path: Path, label: str | None):
    """Read a graph as a command does, with the column that is meant if there is one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read(path, label=label)
        except InputError as error:
            if label is None or "label: unknown" not in str(error):
                raise
            return read(path)


@pytest.mark.parametrize("kind", SOUND)
def test_sound_files_are_read(kind, tmp_path):
    found = opened(SOUND[kind](tmp_path), LABEL.get(kind))
    assert found.num_nodes == 24
    assert found.edge_index.size(1) == 48
    assert found.y.tolist() == [0, 1] * 12


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_cannot_be_read_is_refused_in_a_line(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        opened(MALFORMED[kind](tmp_path), "group")
    said = str(error.value)
    assert "\n" not in said
    assert len(said) <= LONGEST + 5
    assert SECRET not in said
    assert "root:" not in said
    assert not os.path.exists("ran")


def test_no_other_file_is_opened(tmp_path, monkeypatch):
    """Whatever a file names, its reader opens nothing but what was given."""
    monkeypatch.chdir(tmp_path)
    touched = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("open", "socket.connect", "os.system", "subprocess.Popen"):
            touched.append(str(arguments[0]))

    watching = False
    sys.addaudithook(hook)
    for kind in MALFORMED:
        if "entity" in kind or "outside" in kind or "names" in kind or "runs" in kind:
            folder = tmp_path / kind.replace(" ", "-")
            folder.mkdir()
            path, watching = MALFORMED[kind](folder), True
            with pytest.raises(InputError):
                opened(path, "group")
            watching = False
    foreign = [name for name in touched if not name.startswith((str(tmp_path), sys.prefix, sys.base_prefix))]
    assert not [name for name in foreign if "passwd" in name or "secret" in name or "127" in name]
    assert not any(name.endswith("secret.csv") for name in touched)


@pytest.mark.parametrize("number", range(40))
def test_damage_ends_in_a_graph_or_in_a_line(number, tmp_path):
    with suppress(InputError):
        opened(damaged(number, tmp_path), "group")


@pytest.mark.slow
def test_files_end_within_bounds_as_commands():
    """Each in a process of its own, within 10 s and 2 GiB; `benchmarks/fuzz.py --files` tries all 300."""
    with judging() as judge:
        for case in file_cases(300)[::7]:
            verdict = judge(case, Limits(10, 2 * 2**30))
            assert verdict.fine, f"{verdict}\n{case}"
            assert verdict.outcome == "refused" or not case.kind.startswith("refused"), f"{verdict}\n{case}"


def test_a_card_of_ones_own_graph_names_no_code(tmp_path):
    entry = card_of(str(SOUND["csv"](tmp_path)), Columns(label="group"))
    assert entry.loader == "mowst.data.own:graph_of_files"
    assert open_graph(entry).of_seed(0).num_nodes == 24
