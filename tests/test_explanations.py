"""PyG's explainers on our experts say of an edge what they say on PyG's own models."""

import pytest
import torch
from torch_geometric.explain import (
    AttentionExplainer,
    Explainer,
    ExplainerAlgorithm,
    Explanation,
    GNNExplainer,
    GraphMaskExplainer,
    ModelConfig,
)
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import models

from mowst import LearnedGate, Mowst
from mowst.kernels.adjacency import Adjacency
from mowst.models.experts import expert
from tests.graphs import TRAINED
from tests.test_propagation import N, edges

GNNS = [name for name in TRAINED if name not in ("mlp", "sign")]  # edges make sign's features once, before it is asked
SIZE = {"hidden_channels": 16, "num_layers": 2, "norm": "batch_norm"}
NODE = ModelConfig(mode="multiclass_classification", task_level="node", return_type="raw")
PYGS = {"gcn": models.GCN, "gat": models.GAT}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return expert(name, 7, 4, **SIZE).double().eval()


def features() -> torch.Tensor:
    return torch.randn(N, 7, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def masked(model: torch.nn.Module, logits: torch.Tensor, *, graph: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Output behind a mask of edges, and its gradient with respect to that mask, for a weighted sum of the output."""
    mask = torch.nn.Parameter(logits.clone())
    set_masks(model, mask, edges(), apply_sigmoid=True)
    out = model(features(), edges() if graph is None else graph)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=out.dtype)
    gradient = torch.autograd.grad((out * weight).sum(), mask)[0]
    clear_masks(model)
    return [out.detach(), gradient]


def logits() -> torch.Tensor:
    return torch.randn(edges().size(1), generator=torch.Generator().manual_seed(3), dtype=torch.double)


@pytest.mark.parametrize("name", PYGS)
def test_a_masked_expert_and_its_gradient_are_pygs(name):
    ours, theirs = build(name), PYGS[name](7, 16, 2, 4, norm="batch_norm").double().eval()
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(masked(ours, logits()), masked(theirs, logits()))


@pytest.mark.parametrize("name", ["gcn", "gat", "gcn-res", "gat-res"])
def test_a_prepared_graph_is_masked_edge_by_edge_as_plain_edges_are(name):
    model = build(name)
    prepared = masked(model, logits(), graph=Adjacency.from_edge_index(edges(), N))
    torch.testing.assert_close(prepared, masked(model, logits()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", GNNS)
def test_an_open_mask_changes_nothing_and_a_closed_one_is_a_graph_of_self_loops(name):
    model = build(name)
    untouched = model(features(), edges()).detach()
    opened, _ = masked(model, torch.full((edges().size(1),), 50.0, dtype=torch.double))
    torch.testing.assert_close(opened, untouched, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model(features(), edges()).detach(), untouched, rtol=0, atol=0)
    if name in ("sage", "sage-res", "gin", "gin-skip"):
        closed, _ = masked(model, torch.full((edges().size(1),), -800.0, dtype=torch.double))
        torch.testing.assert_close(closed, model(features(), edges()[:, :0]).detach())


@pytest.mark.parametrize("name", GNNS)
def test_an_edge_out_of_reach_has_no_gradient_and_one_in_reach_has_some(name):
    model, mask = build(name), torch.nn.Parameter(logits())
    set_masks(model, mask, edges())
    gradient = torch.autograd.grad(model(features(), edges())[9].square().sum(), mask)[0]
    clear_masks(model)
    reached = torch.zeros(N, dtype=torch.bool).index_fill(0, torch.tensor([9]), True)
    for _ in range(2):
        within = reached[edges()[1]]
        reached[edges()[0, within]] = True
    loops = edges()[0] == edges()[1]
    assert (gradient[~within] == 0).all()
    assert (gradient[within & ~loops] != 0).any()


def explained(model: torch.nn.Module, algorithm: ExplainerAlgorithm) -> Explanation:
    how = {"node_mask_type": "attributes", "edge_mask_type": "object", "model_config": NODE}
    return Explainer(model, algorithm, explanation_type="model", **how)(features().float(), edges(), index=9)


@pytest.mark.parametrize("name", GNNS)
def test_every_gnn_expert_can_be_explained_again_and_again(name):
    model = build(name).float()
    for _ in range(2):
        found = explained(model, GNNExplainer(epochs=3))
        assert found.edge_mask.shape == (edges().size(1),)
        assert (found.edge_mask > 0).any()


@pytest.mark.parametrize("name", PYGS)
def test_masks_of_the_messages_are_those_of_pygs_layers(name):
    ours, theirs = build(name).float(), PYGS[name](7, 16, 2, 4, norm="batch_norm").eval()
    theirs.load_state_dict(ours.state_dict())
    found = []
    for model in (ours, theirs):
        torch.manual_seed(0)
        found.append(explained(model, GraphMaskExplainer(2, epochs=2, log=False)))
    torch.testing.assert_close(found[0].edge_mask, found[1].edge_mask)
    torch.testing.assert_close(found[0].node_mask, found[1].node_mask)


@pytest.mark.parametrize("name", ["gat", "gat-res"])
def test_attention_explains_by_its_weights(name):
    model = build(name)
    explainer = Explainer(
        model, AttentionExplainer(), explanation_type="model", edge_mask_type="object", model_config=NODE
    )
    found = explainer(features(), edges())
    assert found.edge_mask.shape == (edges().size(1),)
    assert ((found.edge_mask > 0) & (found.edge_mask <= 1)).any()


def test_the_mixture_as_a_whole_can_be_explained():
    class Pool(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mixture = Mowst(expert("mlp", 7, 4, **SIZE), expert("gcn", 7, 4, **SIZE), LearnedGate()).eval()

        def forward(self, x, edge_index):
            return self.mixture(x, edge_index).log_probs()

    assert (explained(Pool(), GNNExplainer(epochs=3)).edge_mask > 0).any()
