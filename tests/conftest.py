"""Small graphs that many tests share."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # programs that tests start run beside others, and need not say so

import pytest
import torch
from torch_geometric.data import Data

from mowst.data import load
from mowst.experiment.choosing import PRESETS
from mowst.names import trust

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would ours
trust("tests")  # cards and run folders of tests name graphs and parts of tests
PRESETS["good"] = PRESETS["fast"]  # a panel's seven experts take too long where a test is not about them
torch.set_num_threads(1)  # the graphs are tiny: threads would only wait for one another
torch.manual_seed(0)  # parameters that are drawn are the same in every process of the suite


@pytest.fixture
def tiny() -> Data:
    """Sixty nodes in three classes, a ring with chords, features that say something of the class."""
    generator = torch.Generator().manual_seed(0)
    N, C = 60, 3
    y = torch.arange(N) % C
    ring = torch.stack([torch.arange(N), (torch.arange(N) + 3) % N])
    chords = torch.randint(N, (2, 40), generator=generator)
    edge_index = torch.cat([ring, chords, ring.flip(0), chords.flip(0)], dim=1).unique(dim=1)
    x = torch.randn(N, 8, generator=generator) + 1.5 * torch.eye(C, 8)[y]
    fold = torch.randperm(N, generator=generator) % 4
    return Data(x=x, y=y, edge_index=edge_index, train_mask=fold < 2, val_mask=fold == 2, test_mask=fold == 3)


@pytest.fixture(scope="session")
def blocks() -> Data:
    """The stochastic block model by its name."""
    return load("sbm")
