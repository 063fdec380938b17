"""What NOSMOG gives a student beside its teacher: where a node lies, and noise that it must withstand.

Tian et al., 2023, arXiv:2208.10010. Its third part, representational similarity, is the loss `SP(normalize=False)`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE

from graphkd.checks import MOST_WEIGHTS, choose, finite, matrix, nodes, positive, shown, whole
from graphkd.deepwalk import factors

KINDS = ("laplacian", "walks", "deepwalk")


def positions(edge_index: Tensor, num_nodes: int, size: int = 16, kind: str = "laplacian", window: int = 10) -> Tensor:
    """Return features [N, size] of where each node lies in the graph, to be put beside the features of an MLP student.

    "deepwalk": what the paper's DeepWalk vectors are learned to be, in closed form (NetMF, see `graphkd.deepwalk`):
    nodes lie close that meet on walks of up to `window` steps, which this kind alone has; edges lead both ways. Exact
    up to 20,000 nodes, from 256 eigenvalues up to 100,000, refused beyond. "laplacian": the eigenvectors of the
    smallest non-trivial eigenvalues of the normalised Laplacian, an undirected graph's. "walks": the probabilities of
    being back after 1 to `size` steps. The last two by PyG's transforms, the first two with scipy. Ours: the entry of
    a column that is largest in size is positive, and the mean square is 1, of each eigenvector and of all of
    "deepwalk", whose first columns are the largest. A node without edges has zeros there; one that is not in the graph
    has no position: the student needs the graph again for new nodes.

    Raises:
        ValueError: an argument is none of these, there are not more nodes than `size` + 1, or too many for "deepwalk".
        ImportError: scipy, which this package does not bring, is not there.
    """
    choose("positions: kind", kind, KINDS)
    whole("positions: num_nodes", num_nodes, 1)
    whole("positions: size", size, 1, max(1, MOST_WEIGHTS // num_nodes))
    whole("positions: window", window, 1, 1000)
    edge_index = nodes("positions: edge_index", edge_index, 2, num_nodes)
    if kind == "walks":
        data = Data(edge_index=edge_index, num_nodes=num_nodes)
        return AddRandomWalkPE(size, attr_name="at")(data)["at"]
    if size + 1 >= num_nodes:
        raise ValueError(f"positions: {num_nodes} nodes have no {size} eigenvectors beside the first; take fewer")
    if find_spec("scipy") is None:
        raise ImportError(f"positions of kind {kind} need scipy; pip install scipy, or take walks")
    if kind == "laplacian":
        return laplacian(edge_index, num_nodes, size).to(edge_index.device)
    return deepwalk(edge_index, num_nodes, size, window).to(edge_index.device)


def laplacian(edge_index: Tensor, num_nodes: int, size: int) -> Tensor:
    """Return the eigenvectors of the Laplacian, [N, size]."""
    options = {"v0": torch.ones(num_nodes).numpy()}  # or scipy begins anywhere, and the result is another each time
    data = Data(edge_index=edge_index.cpu(), num_nodes=num_nodes)
    with torch.random.fork_rng(devices=[]):  # PyG draws signs
        found: Tensor = AddLaplacianEigenvectorPE(size, attr_name="at", is_undirected=True, **options)(data)["at"]
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))
    return found * largest.sign() * num_nodes**0.5


def deepwalk(edge_index: Tensor, num_nodes: int, size: int, window: int) -> Tensor:
    """Return DeepWalk's vectors, [N, size]."""
    found = factors(edge_index, num_nodes, size, window)
    return found / found.square().mean().sqrt().clamp(min=1e-12)


def worst_noise(x: Tensor, loss: Callable[[Tensor], Tensor], size: float = 0.05, steps: int = 5) -> Tensor:
    """Return noise [N, F], no entry above `size`, that raises a student's loss: projected gradient ascent on features.

    NOSMOG's adversarial features (Madry et al., 2018, arXiv:1706.06083): from uniform noise, `steps` steps of a quarter
    of `size` along the sign of the gradient of `loss(x + noise)`, a scalar. Train on the loss at `x + noise` as well
    (their weight is .1). No parameter gains a gradient here.

    Raises:
        ValueError: an argument is none of these, or the loss does not depend on the features.
    """
    x = finite("worst_noise: x", matrix("worst_noise: x", x)).detach()
    if not callable(loss):
        raise ValueError(f"worst_noise: loss must be a function of features, got {shown(loss)}")
    positive("worst_noise: size", size)
    whole("worst_noise: steps", steps, 1)
    noise = torch.empty_like(x).uniform_(-size, size)
    for _ in range(steps):
        noise.requires_grad_()
        value = loss(x + noise)
        if not (isinstance(value, Tensor) and value.dim() == 0 and value.requires_grad):
            raise ValueError(f"worst_noise: loss must return a scalar that depends on the features, got {shown(value)}")
        (slope,) = torch.autograd.grad(value, noise)
        noise = (noise.detach() + size / 4 * slope.sign()).clamp(-size, size)
    return noise
