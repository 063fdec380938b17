"""Dataset classes for files that PyG has no class for, in PyG's own manner: `raw/`, `processed/`, `download`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.data.download import download_google_url
from torch_geometric.datasets import HeterophilousGraphDataset

from mowst.errors import InputError


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
