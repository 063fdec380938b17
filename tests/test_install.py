"""The wheel, the editable installation and the bare checkout each find cards and configurations, from anywhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ASK = (
    "from mowst.system.resources import folder; from mowst.data import names; import mowst;"
    "print(mowst.__file__, len(names()), len(list(folder('configs').glob('*.yaml'))))"
)


def ask(python: str | Path, cwd: Path, **env: str) -> list[str]:
    done = subprocess.run([str(python), "-c", ASK], cwd=cwd, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_bare_checkout_works_from_elsewhere(tmp_path):
    place, cards, configs = ask(sys.executable, tmp_path, PYTHONPATH=str(ROOT))
    assert Path(place).parent == ROOT / "mowst"
    assert int(cards) == len(list((ROOT / "datasets").glob("*.yaml"))) > 40
    assert int(configs) == len(list((ROOT / "configs").glob("*.yaml"))) >= 19


def test_datasets_is_no_package():
    assert not list((ROOT / "datasets").glob("*.py"))


@pytest.mark.slow
def test_the_wheel_carries_cards_and_configurations(tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("mowst-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} <= {"mowst", "graphkd", wheel.name.split("-py3")[0] + ".dist-info"}
    assert {"mowst/py.typed", "graphkd/py.typed"} <= set(names)
    place, cards, configs = ask(sys.executable, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert Path(place).is_relative_to(tmp_path / "site")
    assert int(cards) == len(list((ROOT / "datasets").glob("*.yaml")))
    assert int(configs) == len(list((ROOT / "configs").glob("*.yaml")))


def test_no_public_name_is_hidden_by_a_command_of_the_same_name():
    import mowst

    modules = {path.stem for path in (ROOT / "mowst").iterdir()}
    assert not modules & set(mowst.__all__)
