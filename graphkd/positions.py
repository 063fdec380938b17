"""What NOSMOG gives a student beside its teacher: where a node lies, and noise that it must withstand.

Tian et al., 2023, arXiv:2208.10010. Its third part, representational similarity, is the loss `SP(normalize=False)`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import AddLaplacianEigenvectorPE, AddRandomWalkPE

from graphkd.checks import MOST_WEIGHTS, choose, finite, matrix, nodes, positive, shown, whole

KINDS = ("laplacian", "walks")


def positions(edge_index: Tensor, num_nodes: int, size: int = 16, kind: str = "laplacian") -> Tensor:
    """Return features [N, size] of where each node lies in the graph, to be put beside the features of an MLP student.

    "laplacian": the eigenvectors of the smallest non-trivial eigenvalues of the normalised Laplacian, an undirected
    graph's, scaled to a mean square of 1 and with the entry that is largest in size positive (ours). "walks": the
    probabilities of being back after 1 to `size` steps. Both by PyG's transforms, where the paper learns DeepWalk
    vectors. A node that is not in the graph has none: the student needs the graph again for new nodes.

    Raises:
        ValueError: an argument is none of these, or there are not more nodes than `size` + 1.
    """
    choose("positions: kind", kind, KINDS)
    whole("positions: num_nodes", num_nodes, 1)
    whole("positions: size", size, 1, max(1, MOST_WEIGHTS // num_nodes))
    edge_index = nodes("positions: edge_index", edge_index, 2, num_nodes)
    if kind == "walks":
        data = Data(edge_index=edge_index, num_nodes=num_nodes)
        return AddRandomWalkPE(size, attr_name="at")(data)["at"]
    if size + 1 >= num_nodes:
        raise ValueError(f"positions: {num_nodes} nodes have no {size} eigenvectors beside the first; take fewer")
    options = {"v0": torch.ones(num_nodes).numpy()}  # or scipy begins anywhere, and the result is another each time
    data = Data(edge_index=edge_index.cpu(), num_nodes=num_nodes)
    with torch.random.fork_rng(devices=[]):  # PyG draws signs
        found = AddLaplacianEigenvectorPE(size, attr_name="at", is_undirected=True, **options)(data)["at"]
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))
    return (found * largest.sign() * num_nodes**0.5).to(edge_index.device)


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
