"""A graph like ogbn-arxiv in size, degrees and homophily, drawn on the spot, so that speed needs no download.

Papers cite papers of their own class with probability `HOMOPHILY`, and heavy-tailed popularity decides which; citations
are then made symmetric. Labels are far easier than arxiv's: a graph for timing, not for accuracy.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

ARXIV_NODES = 169_343
CITATIONS_PER_NODE = 1_166_243 / ARXIV_NODES
FEATURES, CLASSES, HOMOPHILY = 128, 40, 0.65
TRAIN, TRAIN_OR_VALIDATION = 0.54, 0.72


def citation_like(num_nodes: int = ARXIV_NODES, seed: int = 0) -> Data:
    """Draw a graph with `x` [N, 128], `y` of 40 classes, a symmetric `edge_index` and the three masks."""
    random = np.random.default_rng(seed)
    shares = np.arange(1, CLASSES + 1) ** -0.7
    y = random.choice(CLASSES, size=num_nodes, p=shares / shares.sum())
    edge_index = _citations(y, random)
    centre = random.standard_normal((CLASSES, FEATURES)).astype(np.float32)
    clarity = random.beta(0.7, 1.0, num_nodes).astype(np.float32)[:, None]
    x = centre[y] * clarity + 1.3 * random.standard_normal((num_nodes, FEATURES)).astype(np.float32)
    rank = np.argsort(random.permutation(num_nodes)) / num_nodes
    masks = {
        "train_mask": rank < TRAIN,
        "val_mask": (rank >= TRAIN) & (rank < TRAIN_OR_VALIDATION),
        "test_mask": rank >= TRAIN_OR_VALIDATION,
    }
    data = Data(x=torch.from_numpy(x), y=torch.from_numpy(y), edge_index=torch.from_numpy(edge_index))
    data.update({name: torch.from_numpy(mask) for name, mask in masks.items()})
    return data


def _citations(y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw citing and cited paper of each citation, [2, E]: both directions of each pair, once, and no self-loop."""
    N = len(y)
    activity = random.lognormal(0, 1.1, N)
    expected = activity / activity.sum() * round(CITATIONS_PER_NODE * N)
    citing = np.repeat(np.arange(N), np.floor(expected + random.random(N)).astype(np.int64))
    popularity = random.pareto(1.2, N) + 0.15
    popularity = np.minimum(popularity, popularity.mean() * 1500)
    own_class = random.random(len(citing)) < HOMOPHILY

    # Papers laid end to end, each as long as it is popular and classes in a row: a dart at a stretch picks a paper.
    by_class = np.argsort(y, kind="stable")
    length = np.concatenate([[0], np.cumsum(popularity[by_class])])
    border = length[np.searchsorted(y[by_class], np.arange(CLASSES + 1))]
    low = np.where(own_class, border[y[citing]], 0)
    high = np.where(own_class, border[y[citing] + 1], length[-1])
    dart = low + random.random(len(citing)) * (high - low)
    cited = by_class[np.minimum(np.searchsorted(length, dart, side="right") - 1, N - 1)]

    real = citing != cited
    citing, cited = citing[real], cited[real]
    pair = np.unique(np.concatenate([citing * N + cited, cited * N + citing]))
    return np.stack([pair // N, pair % N])
