"""GraphLand's graphs (Bazhenov et al., 2025, arXiv 2409.14500) by their columns: numbers with gaps, and categories.

PyG's class makes features of them that have no gaps and no categories any more. Here a graph is made as of a person's
own tables, so that experts that take columns as they came see them so (`mowst.data.assembling.raw_of`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mowst.data.columns import Columns
from mowst.data.tables import Table, Tables

NODE, CLASS, PART = "(node)", "(class)", "(part)"
"""Columns beside the features."""


def graphland_tables(folder: Path, split: str) -> Tables:
    """Read the tables of a graph; categories are numbers in them, and become text, which is no quantity."""
    info: dict[str, Any] = yaml.safe_load((folder / "info.yaml").read_text(encoding="utf-8"))
    nodes = pd.read_csv(folder / "features.csv", index_col=0)
    classes = pd.read_csv(folder / "targets.csv", index_col=0)[info["target_name"]]
    masks = pd.read_csv(folder / f"split_masks_{split}.csv", index_col=0).astype(bool)
    edges = pd.read_csv(folder / "edgelist.csv").set_axis(["source", "target"], axis=1)
    categories = list(info["categorical_features_names"])
    numbers = dict.fromkeys((*info["numerical_features_names"], *info["fraction_features_names"]))
    nodes = nodes[[*numbers, *categories]].copy()
    for name in categories:
        nodes[name] = nodes[name].map(lambda value: f"{value:g}", na_action="ignore").astype(object)
    columns = Columns(
        id=NODE, label=CLASS, split_column=PART, features=list(nodes.columns), source="source", target="target"
    )
    nodes[PART] = pd.Series(None, index=nodes.index, dtype=object)
    for part in ("train", "val", "test"):
        nodes.loc[masks[part], PART] = part
    nodes[CLASS] = classes.astype("Int64").astype(object).where(classes.notna(), None)
    nodes.insert(0, NODE, nodes.index)
    known, links = (
        Table(each.reset_index(drop=True), name, f"{name}, row {{}}".format)
        for name, each in (("features.csv", nodes), ("edgelist.csv", edges))
    )
    return Tables(folder.name, known, links, columns)
