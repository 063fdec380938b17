"""Dataset classes for files that PyG has no class for, in PyG's own manner: `raw/`, `processed/`, `download`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.data.download import download_google_url
from torch_geometric.datasets import GraphLandDataset, HeterophilousGraphDataset

from mowst.data.assembling import graph_of
from mowst.data.graphland import graphland_tables
from mowst.errors import InputError, unknown


class FilteredWiki(HeterophilousGraphDataset):
    """Chameleon and Squirrel without their duplicate nodes (Platonov et al. 2023, arXiv 2302.11640).

    The files have the heterophilous graphs' format and place of origin; only PyG's list of names must be stepped round.
    """

    def __init__(self, root: str, name: str):
        self.name = name
        InMemoryDataset.__init__(self, root)
        self.load(self.processed_paths[0])


class _PublishedFiles(InMemoryDataset):
    """A graph from files of Lim et al. 2021 (LINKX, arXiv 2110.14446), kept on Google Drive."""

    drive: ClassVar[dict[str, str]] = {}  # file name -> id

    def __init__(self, root: str):
        super().__init__(root)
        self.load(self.processed_paths[0])

    @property
    def raw_file_names(self) -> list[str]:
        return list(self.drive)

    @property
    def processed_file_names(self) -> str:
        return "data.pt"

    def download(self) -> None:
        for name, drive_id in self.drive.items():
            download_google_url(drive_id, self.raw_dir, name)

    def process(self) -> None:
        try:
            data = self.read(*map(Path, self.raw_paths))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{type(self).__name__}: {self.raw_dir} is not in the published layout: {error}"
            ) from error
        self.save([data], self.processed_paths[0])

    def read(self, *paths: Path) -> Data:
        """Turn the raw files, in the order of `drive`, into one graph."""
        raise NotImplementedError


class Pokec(_PublishedFiles):
    """Friendships on Pokec, to predict gender: `pokec.mat` with edge_index [2, E], node_feat [N, 65], label [1, N]."""

    drive: ClassVar = {"pokec.mat": "1dNs5E7BrWJbgcHeQ_zuy5Ozp2tRCWG0y"}

    def read(self, *paths: Path) -> Data:
        from scipy.io import loadmat

        matrices = loadmat(paths[0])
        x = torch.tensor(matrices["node_feat"], dtype=torch.float)
        edge_index = torch.tensor(matrices["edge_index"].astype("int64"))
        return Data(x=x, edge_index=edge_index, y=torch.tensor(matrices["label"].astype("int64")).view(-1))


class TwitchGamer(_PublishedFiles):
    """Mutual follows on Twitch, to predict mature content: 7 account features, each standardised as in LINKX."""

    drive: ClassVar = {
        "twitch-gamer_feat.csv": "1fA9VIIEI8N0L27MSQfcBzJgRQLvSbrvR",
        "twitch-gamer_edges.csv": "1XLETC6dG3lVl7kDmytEJ52hvDMVdxnZ0",
    }

    def read(self, *paths: Path) -> Data:
        import pandas as pd

        accounts, follows = (pd.read_csv(path) for path in paths)
        ids, y = pd.Index(accounts.pop("numeric_id")), accounts.pop("mature")
        for day in ("created_at", "updated_at"):
            accounts[day] = accounts[day].str.replace("-", "").astype(int)
        accounts["language"] = pd.factorize(accounts["language"])[0]
        x = torch.tensor(accounts.to_numpy(dtype="float64"))
        x = (x - x.mean(0)) / x.std(0).clamp_min(1e-12)
        ends = [torch.tensor(ids.get_indexer(follows.iloc[:, side])) for side in (0, 1)]
        return Data(x=x.float(), edge_index=torch.stack(ends), y=torch.tensor(y.to_numpy(dtype="int64")))


class GraphLand(GraphLandDataset):
    """One of GraphLand's graphs with classes: `features.csv`, `targets.csv`, `edgelist.csv`, masks, and `info.yaml`.

    Args:
        root: folder of all of them.
        name: of the graph.
        split: RL, random, 10 % to train; RH, random, 50 %; TH, by time, 50 %.
    """

    def __init__(self, root: str, name: str, split: str = "RL"):
        with_classes = [each for each, task in self.GRAPHLAND_DATASETS.items() if task != "regression"]
        for what, given, there in (("name", name, with_classes), ("split", split, ["RL", "RH", "TH"])):
            if given not in there:
                raise unknown(f"GraphLand: {what}", given, there)
        self.name, self.split = name, split
        InMemoryDataset.__init__(self, root)  # what PyG's own would make of the columns is not asked for
        folder = Path(self.raw_dir) / name
        try:
            self.graph = graph_of(graphland_tables(folder, split))
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{name}: {folder} is not in the published layout: {error}") from error

    @property
    def processed_dir(self) -> str:
        """Where nothing is put."""
        return str(Path(self.root) / self.name / "processed")

    @property
    def processed_file_names(self) -> list[str]:
        """No file: tables are read when they are asked for."""
        return []

    def len(self) -> int:
        """Return that there is one graph."""
        return 1

    def get(self, idx: int) -> Data:
        """Return the graph."""
        return self.graph
