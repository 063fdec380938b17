"""Where cards and configurations are: inside an installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """Return the folder `datasets` or `configs`, wherever this copy of the package keeps it."""
    package = Path(__file__).parent.parent
    places = (package / "_resources" / name, package.parent / name)
    return next((place for place in places if place.is_dir()), places[-1])
