"""YAML files of people whom one need not know: read within bounds, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mowst.errors import InputError

LARGEST, DEEPEST = 2**20, 20
"""Bytes of a file, and how deep its values may be nested."""


class Plain(yaml.SafeLoader):
    """Reads values that are written out: no anchors, which can make much of little, and no endless nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Make a node, as PyYAML does."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases (& and *) are not taken: write the value out")
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"values are nested more than {DEEPEST} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(what: str, path: Path) -> Any:
    """Read a YAML file.

    Raises:
        InputError: it cannot be read, is too large, or is not plain YAML; `what` says what it was to be.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{what} {path}: has more than {LARGEST:,} bytes, which none of this kind needs")
        return yaml.load(path.read_text(encoding="utf-8"), Plain)
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}: not plain YAML: {' '.join(str(error).split())}") from error
