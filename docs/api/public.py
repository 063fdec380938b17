"""A hook of mkdocs: a line `public names of mowst.data` in a page becomes an entry of the reference for each of them.

What a room offers to others is what its `__init__.pyi` lists, so the reference lacks none and shows no other.
Constants are left out.
"""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^public names of ([\w.]+)$", re.MULTILINE)


def listed(room: str) -> dict[str, str]:
    """Return where each public name of a room is defined, by name."""
    found = {}
    for line in ast.parse((ROOT.joinpath(*room.split(".")) / "__init__.pyi").read_text()).body:
        if isinstance(line, ast.ImportFrom):
            place = f"{room}.{line.module}" if line.level else str(line.module)
            for name in line.names:
                found[name.name] = defined(place, name.name)
    return found


def defined(place: str, name: str) -> str:
    """Return where a name is defined that a module or a room has."""
    if (ROOT.joinpath(*place.split(".")) / "__init__.pyi").exists():
        return listed(place)[name]
    return f"{place}.{name}"


def entries(found: re.Match[str]) -> str:
    """Return the reference of a room; what another one offers, too, is linked to."""
    own, links = [], []
    for name, path in listed(found[1]).items():
        room = path.split(".")[1]
        if found[1] == "mowst" and (ROOT / "mowst" / room).is_dir():
            links.append(f"- [`{name}`][{path}], of `mowst.{room}`")
        elif not name.isupper():
            own.append(f"::: {path}\n    options:\n      show_root_heading: true")
    return "\n".join(links) + "\n\n" + "\n\n".join(own)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill a page."""
    return LINE.sub(entries, markdown)
