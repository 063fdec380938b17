"""The losses alone: a package of its own, built from the same source."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "packaging" / "graphkd"
OWN = {path.relative_to(ROOT).as_posix() for path in (ROOT / "graphkd").iterdir() if path.suffix in (".py", ".typed")}
WITHOUT = ("mowst", "optuna", "ogb", "lightning_fabric", "lightning", "plotly", "jsonargparse")
ALONE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WITHOUT}:
            raise ModuleNotFoundError(f"{{name}} is not there")

sys.meta_path.insert(0, Absent())
import graphkd, torch
assert graphkd.build("nkd + gld(k=2, weight=0.5)")[1].loss(torch.randn(4, 5), torch.randn(4, 5)) >= 0
assert not set({WITHOUT}) & {{name.partition(".")[0] for name in sys.modules}}
print(graphkd.__file__)
"""


def project(place: Path) -> dict:
    return tomllib.loads((place / "pyproject.toml").read_text())["project"]


def test_the_two_projects_agree():
    whole, losses = project(ROOT), project(PLACE)
    assert {key: losses[key] for key in ("version", "license", "requires-python")}.items() <= whole.items()
    assert set(losses["dependencies"]) <= set(whole["dependencies"])
    assert {name.partition(">")[0] for name in losses["dependencies"]} == {"torch", "torch-geometric", "class-resolver"}
    assert (PLACE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_losses_import_nothing_of_the_rest(tmp_path):
    (tmp_path / "graphkd").symlink_to(ROOT / "graphkd")
    said = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    assert Path(said.stdout.strip()).is_relative_to(tmp_path)


@pytest.mark.slow
def test_the_package_alone_installs_and_works(tmp_path):
    def pip(*words: str, python: str | Path = sys.executable) -> None:
        subprocess.run([str(python), "-m", "pip", *words], check=True, capture_output=True)

    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(PLACE))
    (wheel,) = tmp_path.glob("graphkd-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert names == OWN
    venv.create(tmp_path / "own", with_pip=True)
    python = tmp_path / "own" / "bin" / "python"
    pip("install", "--quiet", "--no-deps", "--no-index", str(wheel), python=python)
    site = next((tmp_path / "own").glob("lib/python3*/site-packages"))
    (site / "torch.pth").write_text(f"{Path(torch.__file__).parent.parent}\n")  # torch and PyG, not installed again
    said = subprocess.run([str(python), "-c", ALONE], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert Path(said.stdout.strip()).is_relative_to(site)
    ask = "from importlib.metadata import requires; print(*requires('graphkd'), sep='\\n')"
    said = subprocess.run([str(python), "-c", ask], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    needed = set(map(Requirement, said.stdout.splitlines()))
    assert {one for one in needed if one.marker is None} == set(map(Requirement, project(PLACE)["dependencies"]))
    assert {(one.name, str(one.marker)) for one in needed if one.marker} == {("scipy", 'extra == "positions"')}


@pytest.mark.slow
def test_its_source_distribution_builds_the_same_wheel(tmp_path):
    build = f"import hatchling.build as b; print(b.build_sdist({str(tmp_path)!r}))"
    venv.create(tmp_path / "builder", with_pip=True)
    python = tmp_path / "builder" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "hatchling>=1.27"], check=True, capture_output=True)
    subprocess.run([str(python), "-c", build], cwd=PLACE, check=True, capture_output=True)
    (packed,) = tmp_path.glob("graphkd-*.tar.gz")
    with tarfile.open(packed) as source:
        source.extractall(tmp_path / "source", filter="data")
    (place,) = (tmp_path / "source").iterdir()
    build = f"import hatchling.build as b; print(b.build_wheel({str(tmp_path)!r}))"
    subprocess.run([str(python), "-c", build], cwd=place, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("graphkd-*.whl")
    with zipfile.ZipFile(wheel) as built:
        assert {name for name in built.namelist() if ".dist-info/" not in name} == OWN
