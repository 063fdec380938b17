"""Where the source of graphkd lies: beside this file in a source distribution, two folders up in the repository."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Source(BuildHookInterface):
    """Bring the source into what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include the package `graphkd` under its name, where it is not here already."""
        here, source = Path(self.root), Path(self.root).parent.parent / "graphkd"
        if not (here / "graphkd").is_dir():  # which the builder finds on its own
            build_data["force_include"][str(source)] = "graphkd"
