"""Features with rows that sum to one, as one expert is shown them: the same numbers wherever it is asked."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.preprocessing import normalize
from torch_geometric.data import Data

from mowst import Config, ExpertConfig
from mowst.experiment import Opened, read_config, run
from mowst.experiment.bench import Fitted
from mowst.experiment.building import build_expert, prepare
from mowst.experiment.reload import ask
from mowst.experiment.whole import of_run
from mowst.inference import answer, exported
from mowst.kernels import Averaged, SparseFeatures, Tabled, dense, prepare_features, unit_rows
from mowst.kernels.tabled import Raw
from mowst.models import EXPERTS, FusedGate, Mowst, Panel, reads_of, run_module
from tests.graphs import good

N, F = 40, 12
SMALL = Config(dataset="tests.graphs:good", regime="solo", strong=ExpertConfig("mlp"), epochs=4, seeds=1, device="cpu")


def features(share: float = 1.0) -> torch.Tensor:
    """Some negative, and a row of zeros."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N, F, generator=draw) * 3 * (torch.rand(N, F, generator=draw) < share)
    x[7] = 0
    return x


def divided(x: torch.Tensor) -> torch.Tensor:
    """The same by scikit-learn."""
    return torch.from_numpy(normalize(x.double().numpy(), norm="l1")).to(x.dtype)


@pytest.mark.parametrize("share", [1.0, 0.08])
def test_rows_are_those_of_scikit_learn_in_every_form_that_features_have(share):
    plain = features(share)
    x = prepare_features(plain)
    assert isinstance(x, SparseFeatures) == (share < 1)
    raw = Raw(torch.zeros(N, 1, dtype=torch.float64), 0)
    forms = [x, plain, plain.to_sparse(), plain.clone().requires_grad_(), Tabled(x, raw)]
    forms.append(Averaged(x, lambda hop: plain, unit_hop=lambda: lambda hop: divided(plain)))
    for each in forms:
        torch.testing.assert_close(dense(unit_rows(each)).detach(), divided(plain))
    assert type(unit_rows(x)) is type(x)
    assert torch.equal(unit_rows(forms[-1]).averages(1)[0], divided(plain))
    assert unit_rows(forms[-2]).raw is raw
    index = torch.tensor([3, 7, 21])
    torch.testing.assert_close(dense(unit_rows(forms[-1].take(index))), divided(plain)[index])


def test_it_is_kept_until_somebody_writes():
    x = features()
    assert unit_rows(x) is unit_rows(x), "so that its products are kept as well"
    x[3] *= -2.0
    x[7, 0] = 5.0
    torch.testing.assert_close(unit_rows(x), divided(x))


def test_bags_of_many_and_of_few_words_are_alike():
    x = features().abs()
    scaled = x * torch.rand(N, 1) + 0.1 * x
    torch.testing.assert_close(unit_rows(scaled), unit_rows(x))
    assert unit_rows(features()).lt(0).equal(features().lt(0)), "a negative number stays one"


def bags(share: float = 1.0) -> Data:
    """Counts, many or few a node, and a node without any."""
    data, draw = good(), torch.Generator().manual_seed(2)
    x = torch.rand(60, 30, generator=draw).mul(4).round() * (torch.rand(60, 30, generator=draw) < share)
    x[torch.arange(60), data.y] += torch.randint(1, 9, (60,), generator=draw)
    x[7] = 0
    data.x = x
    return data


def few() -> Data:
    return bags(0.02)


def bags_divided() -> Data:
    data = bags()
    data.x = divided(data.x)
    return data


def few_divided() -> Data:
    data = few()
    data.x = divided(data.x)
    return data


KINDS = {kind: ExpertConfig(kind, hidden_channels=8, norm="layer_norm") for kind in EXPERTS.names}
GRAPHS = "tests.test_unit_rows:{}"


def trained(graph: str, batch: str, part: ExpertConfig, root: object) -> Fitted:
    config = replace(SMALL, dataset=GRAPHS.format(graph), batch=batch, weak=part, data_root=str(root))
    return Opened(config).bench(0).train("weak")


def cases() -> list[object]:
    """Kinds, batches, and forms of features; those that are much like others are slow."""
    full = [(kind, "full", "bags") for kind in KINDS if kind != "neighbours"]
    full += [(kind, "full", "few") for kind in ("mlp", "gcn", "sage", "hop-trees")]
    others = [("sage", "neighbors(5,5,size=16)", "bags"), ("gcn-res", "parts(3)", "bags")]
    others += [(kind, "hops(size=16)", "bags") for kind in ("mlp", "sign", "hop-trees")]
    slow = [(kind, "neighbors(5,5,size=16)", graph) for kind in ("gcn", "gat-res", "sign") for graph in ("bags", "few")]
    slow += [("mlp", "parts(3)", "few"), ("trees", "hops(size=16)", "bags"), ("sign", "hops(size=16)", "few")]
    slow += [(kind, "full", "few") for kind in ("gin", "gat", "sage-res", "sign", "trees")]
    return [*full, *others, *(pytest.param(*each, marks=pytest.mark.slow) for each in slow)]


@pytest.mark.parametrize(("kind", "batch", "graph"), cases())
def test_an_expert_is_trained_as_on_a_graph_whose_rows_were_divided(kind, batch, graph, tmp_path):
    own = trained(graph, batch, replace(KINDS[kind], unit_rows=True), tmp_path)
    other = trained(f"{graph}_divided", batch, KINDS[kind], tmp_path)
    said = [each.output.of("").values for each in (own, other)]
    torch.testing.assert_close(*said, rtol=1e-3, atol=1e-4)
    plain = trained(graph, batch, KINDS[kind], tmp_path).output.of("").values
    assert not torch.allclose(plain, said[0], atol=1e-2), "it matters"


PANEL = ExpertConfig(
    kind="gcn+gcn+hop-trees+sign+neighbours",
    hidden_channels=8,
    each=[{"unit_rows": True}, {}, {"unit_rows": True}, {"unit_rows": True}, {"unit_rows": True}],
)


def test_a_member_of_a_panel_has_them_and_the_others_have_not(tmp_path):
    """In training, from a folder, for some nodes, and on another graph of other sums."""
    config = replace(SMALL, dataset=GRAPHS.format("bags"), regime="held-out", strong=PANEL)
    config = replace(config, weak=ExpertConfig("mlp", hidden_channels=8, unit_rows=True))
    run(config, tmp_path)
    folder = tmp_path / "seed-0"
    kept = read_config(folder)
    assert replace(kept, batch=config.batch) == config
    found, _ = ask(folder, kept, nodes=[5, 7, 9], how="pooled", threshold=None, seed=0)
    np.testing.assert_allclose(found, np.load(folder / "predictions.npz")["mixture"][[5, 7, 9]], atol=1e-5)
    whole = of_run(folder)
    assert isinstance(whole.model.strong, Panel)
    shown = [reads.unit_rows for reads in whole.model.strong.members_read]
    assert shown == [True, False, True, True, False]
    assert whole.model.experts_read["weak"].unit_rows
    scaled = bags()
    scaled.x = 3 * scaled.x
    for place, member in enumerate(whole.model.strong.members):
        one, other = (
            run_module(member, reads_of(member), prepared.x, prepared.adj_t)
            for prepared in (prepare(each, config, torch.device("cpu")) for each in (bags(), scaled))
        )
        alike = torch.allclose(one, other, atol=1e-5)
        assert alike == shown[place], place


def test_a_program_that_is_exported_divides_too():
    parts = (replace(KINDS[kind], unit_rows=True) for kind in ("mlp", "gcn"))
    model = Mowst(*(build_expert("weak", part, 30, 3) for part in parts), FusedGate()).eval()
    data = bags()
    said = exported(model, data.x, data.edge_index).module()(data.x, data.edge_index)
    scaled = exported(model, data.x, data.edge_index).module()(2 * data.x, data.edge_index)
    torch.testing.assert_close(said, model(data.x, data.edge_index).probs().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled, said)


def test_what_is_asked_of_some_nodes_is_what_is_said_of_all():
    data = prepare(bags(), SMALL, torch.device("cpu"))
    for kind in ("sage", "gcn-res", "gin"):
        model = Mowst(
            build_expert("weak", replace(KINDS["mlp"], unit_rows=True), 30, 3),
            build_expert("strong", replace(KINDS[kind], unit_rows=True), 30, 3),
            FusedGate(),
        ).eval()
        with torch.no_grad():
            expected = model(data.x, data.adj_t).probs()[[4, 7]]
        found = answer(model, data.x, data.adj_t, nodes=[4, 7])
        torch.testing.assert_close(found.probabilities, expected, rtol=1e-4, atol=1e-5)
