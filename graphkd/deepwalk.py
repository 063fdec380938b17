"""Where nodes lie, as DeepWalk learns it: by factorising, in closed form, the matrix that it factorises by walking.

Notation. A graph's adjacency A, degrees D, volume vol = Σ D, a walk's step P = D⁻¹ A, a window of T steps. DeepWalk
(Perozzi et al., 2014, arXiv:1403.6652) with one negative sample a pair factorises, of nodes and the nodes met within T
steps of them, the logarithm of how much more often they meet than by chance: log(vol / T Σ_{r=1..T} Pʳ D⁻¹). NetMF (Qiu
et al., 2018, arXiv:1710.02971, equations 5 and 7) takes log max(1, ·) of it and its truncated SVD U Σ V', and U √Σ for
the nodes. The matrix is symmetric, so U are its eigenvectors and Σ the sizes of its eigenvalues. By
S = D^(-1/2) A D^(-1/2) it is log max(1, vol / T D^(-1/2) Σ Sʳ D^(-1/2)), and that is formed a block of columns at a
time: up to `EXACT` nodes from S itself, beyond from its `PAIRS` largest eigenvalues (their algorithm 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.utils import to_scipy_sparse_matrix, to_undirected

EXACT = 20_000
"""Nodes up to which nothing is approximated. What is above chance is held: at most 8 bytes a pair of nodes."""
MOST = 100_000
"""Nodes above which all pairs are too many, also a block at a time."""
SMALL = 500
"""Rows up to which all eigenvalues are taken: a matrix of few different rows is too much for an iteration."""
NOTHING = 1e-5
"""Beside the largest eigenvalue, of one that float32 cannot tell from 0."""
PAIRS = 256
BLOCK = 1024
MORE, PASSES = 32, 4
"""Of the iteration that factorises without holding the matrix: columns beyond those asked for, and passes."""

Matrix = NDArray[np.float32]
Columns = Callable[[slice], Matrix]


def factors(edge_index: Tensor, num_nodes: int, size: int, window: int) -> Tensor:
    """Return U √Σ, [N, size] in order of size, with the entry that is largest in size positive; zeros without edges.

    Raises:
        ValueError: there are more than `MOST` nodes.
    """
    if num_nodes > MOST:
        raise ValueError(f'positions: {num_nodes:,} nodes are more than the {MOST:,} of "deepwalk"; take "laplacian"')
    edge_index = to_undirected(edge_index.cpu(), num_nodes=num_nodes)
    A = to_scipy_sparse_matrix(edge_index, num_nodes=num_nodes).tocsr().astype(np.float32)
    degrees = np.asarray(A.sum(1)).ravel()
    root = 1 / np.sqrt(degrees.clip(1))
    S = A.multiply(root[:, None]).multiply(root[None]).tocsr()
    chance = degrees.sum() / window
    if num_nodes <= EXACT:
        values, vectors = held(steps(S, root, chance, window), num_nodes, size)
    else:
        values, vectors = streamed(spectral(S, root, chance, window), num_nodes, size)
    sizes = np.abs(values)
    order = np.argsort(-sizes, kind="stable")[:size]
    sizes = np.where(sizes > NOTHING * sizes.max(), sizes, 0)
    found = vectors[:, order] * np.sqrt(sizes[order])
    largest = np.take_along_axis(found, np.abs(found).argmax(0)[None], 0)
    return torch.from_numpy(np.where(largest < 0, -found, found).astype(np.float32))


def blocks(N: int) -> Iterator[slice]:
    """Yield all columns, so many at a time."""
    return (slice(start, min(start + BLOCK, N)) for start in range(0, N, BLOCK))


def above_chance(ratio: Matrix) -> Matrix:
    """Return log max(1, ·)."""
    return np.log(ratio.clip(1, out=ratio), out=ratio)


def steps(S: Any, root: Matrix, chance: float, window: int) -> Columns:
    """Return a function to columns [N, B] of the matrix, by walking from their nodes."""

    def columns(which: slice) -> Matrix:
        walked = S[:, which].toarray() * root[which]
        total = walked.copy()
        for _ in range(window - 1):
            walked = S @ walked
            total += walked
        total *= np.float32(chance) * root[:, None]
        return above_chance(total)

    return columns


def spectral(S: Any, root: Matrix, chance: float, window: int) -> Columns:
    """Return a function to columns [N, B] of the matrix, by the largest eigenvalues of S."""
    values, vectors = eigen(S, min(PAIRS, len(root) - 1), "LA")
    left = root[:, None] * vectors
    right = left * (chance * sum(values**r for r in range(1, window + 1)))
    return lambda which: above_chance(left @ right[which].T)


def held(columns: Columns, N: int, size: int) -> tuple[Matrix, Matrix]:
    """Return the eigenvalues that are largest in size, and their vectors, of a matrix that is held in memory."""
    from scipy.sparse import csr_array, vstack  # of whoever wants positions alone

    if N <= SMALL:
        return np.linalg.eigh(columns(slice(0, N)))
    return eigen(vstack([csr_array(columns(which).T) for which in blocks(N)]).tocsr(), size, "LM")


def streamed(columns: Columns, N: int, size: int) -> tuple[Matrix, Matrix]:
    """Return about the same of a matrix whose blocks are made anew each pass (Halko et al., 2011, arXiv:0909.4061)."""
    basis = start(N, min(size + MORE, N))
    for _ in range(PASSES):
        basis = np.linalg.qr(times(columns, basis))[0]
    values, turned = np.linalg.eigh(basis.T @ times(columns, basis))
    return values, basis @ turned


def times(columns: Columns, right: Matrix) -> Matrix:
    """Return the symmetric matrix times another, [N, K]."""
    return np.concatenate([columns(which).T @ right for which in blocks(len(right))])


def eigen(matrix: Any, size: int, which: str) -> tuple[Matrix, Matrix]:
    """Return eigenvalues and vectors of a symmetric scipy matrix."""
    from scipy.sparse.linalg import eigsh

    if matrix.nnz == 0:
        return np.zeros(size, np.float32), np.zeros((matrix.shape[0], size), np.float32)
    values, vectors = eigsh(matrix, size, which=which, v0=start(matrix.shape[0], 1)[:, 0])
    return values, vectors


def start(N: int, width: int) -> Matrix:
    """Return where an iteration begins, [N, width]: drawn, and the same each time."""
    return np.random.default_rng(0).standard_normal((N, width), np.float32)
