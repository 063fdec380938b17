"""A panel of experts: its pool is what its docstring says, it is fitted on held-out nodes alone, and is saved whole."""

import copy

import numpy as np
import pytest
import torch

from mowst import Config, ExpertConfig, InputError, MowstClassifier
from mowst.evaluation import advise
from mowst.experiment import chosen, read_config, run
from mowst.experiment.choosing import PANEL
from mowst.experiment.reading import check_file
from mowst.experiment.reload import ask
from mowst.models import DISPERSIONS, ROLES, Mowst, Panel, expert, parts_of
from mowst.reporting import scores_table
from mowst.training.panels import minimise, nll, pooled
from tests.graphs import good

LAYERS = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm", "dropout": 0.5}


@pytest.fixture
def panel():
    torch.manual_seed(0)
    return Panel({kind: expert(kind, 8, 3, **LAYERS) for kind in ("gcn", "sage", "mlp")}).eval()


def logits(count: int = 40, spread: float = 2.0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [spread * torch.randn(count, 3, generator=draw) for _ in range(3)]


def test_the_pool_is_its_formula(panel):
    said = logits()
    with torch.no_grad():
        panel.bias.copy_(torch.tensor([0.3, 0.9, -0.1]))
        panel.slope.copy_(torch.tensor([[1.0, -0.5], [0.0, 0.2], [0.4, 0.4]]))
        wanted = torch.zeros(40, 3, dtype=torch.float64)
        for k, each in enumerate(said):
            p = each.double().softmax(-1)
            D = torch.stack([DISPERSIONS.lookup(name)(p) for name in ("variance", "negentropy")], -1)
            u = panel.bias[k].double() + (D * panel.slope[k].double()).sum(-1)
            wanted += (torch.log1p(torch.exp(10 * u)) / 10)[:, None] * p.log()
        got = panel.pool(said, range(3))
    assert torch.allclose(got.double().exp(), wanted.softmax(-1), atol=1e-5)


def test_it_begins_as_the_geometric_mean_and_can_lean_to_one_member(panel):
    said = logits()
    mean = torch.stack([each.log_softmax(-1) for each in said]).mean(0).softmax(-1)
    assert torch.allclose(pooled(panel, said).exp(), mean, atol=1e-5)
    panel.lean(1e-6, 1.0, 1e-6)
    assert torch.allclose(pooled(panel, said).exp(), said[1].softmax(-1), atol=1e-3)


def test_members_that_are_not_heard_are_not_run(panel):
    data = good()
    panel.active.copy_(torch.tensor([True, False, True]))
    panel.members[1].forward = lambda *args: pytest.fail("was run")
    with torch.no_grad():
        said = [panel.member(place, data.x, data.edge_index) for place in (0, 2)]
        assert torch.equal(panel(data.x, data.edge_index), panel.pool(said, [0, 2]))


def test_weights_are_fitted_to_who_is_right(panel):
    y = torch.randint(3, (200,), generator=torch.Generator().manual_seed(2))
    right = 3.0 * torch.nn.functional.one_hot(y, 3).float()
    draw = torch.Generator().manual_seed(3)
    said = [torch.randn(200, 3, generator=draw), right + torch.randn(200, 3, generator=draw), torch.zeros(200, 3)]
    panel.lean(1.0, 0.001, 0.001)
    before = float(nll(panel, said, y))
    minimise(panel, lambda it: nll(it, said, y), {"": 1.0, "slope": 10.0}, 200)
    assert float(nll(panel, said, y)) < before / 4
    assert float((pooled(panel, said).argmax(-1) == y).float().mean()) > 0.9


def test_a_stronger_pull_keeps_slopes_nearer_to_their_start(panel):
    said, y = logits(60), torch.randint(3, (60,), generator=torch.Generator().manual_seed(4))
    length = []
    for pull in (0.1, 10.0):
        fitted = copy.deepcopy(panel)
        minimise(fitted, lambda it: nll(it, said, y), {"": 1.0, "slope": pull}, 60)
        length.append(float(fitted.slope.norm()))
    assert length[1] < length[0] / 5


def test_it_is_trained_part_by_part(panel):
    model = Mowst(expert("mlp", 8, 3, **LAYERS), panel, torch.nn.Identity())
    assert parts_of(model, ROLES) == ("weak", "strong.members.0", "strong.members.1", "strong.members.2")
    assert panel.reads.hops == 2


def test_a_run_shows_every_member_and_predicts_again_from_its_folder(tmp_path):
    strong = ExpertConfig(kind="gcn+sage+hop-trees+neighbours", each=[{"norm": "none"}, {}, {}, {}])
    config = Config(dataset="sbm", strong=strong, seeds=1, epochs=30, device="cpu")
    result = run(config, tmp_path)
    assert {"weak", "gcn", "sage", "hop-trees", "neighbours", "mixture"} <= result["scores"].keys()
    shown = list(scores_table(result).columns[0].cells)
    assert shown[:5] == ["weak expert alone", *(f"{name} alone" for name in ("gcn", "sage", "hop-trees", "neighbours"))]
    validated = {name: found["val"][0] for name, found in result["scores"].items() if name in result["parameters"]}
    assert validated[advise(result).use] == max(validated.values())
    best = max(result["scores"][name]["val"][0] for name in ("gcn", "sage", "hop-trees", "neighbours"))
    assert result["scores"]["mixture"]["val"][0] > best - 2
    folder = tmp_path / "seed-0"
    again = read_config(folder)
    assert again.strong.members["gcn"].norm == "none"
    found, _ = ask(folder, again, nodes=None, how="pooled", threshold=None, seed=0)
    assert np.array_equal(found, np.load(folder / "predictions.npz")["mixture"])


def test_a_member_is_the_expert_that_it_is_alone(tmp_path):
    alone = run(Config(dataset="sbm", seeds=1, epochs=10, device="cpu"))
    panel = run(Config(dataset="sbm", strong=ExpertConfig(kind="sage+gcn"), seeds=1, epochs=10, device="cpu"))
    assert panel["scores"]["gcn"] == alone["scores"]["strong"]
    assert panel["scores"]["weak"] == alone["scores"]["weak"]


def test_test_labels_change_nothing(monkeypatch):
    data = good()
    first = MowstClassifier(strong="gcn+neighbours", epochs=10, device="cpu").fit(data).predict_proba(data)
    data.y[data.test_mask] = 0
    assert torch.equal(
        MowstClassifier(strong="gcn+neighbours", epochs=10, device="cpu").fit(data).predict_proba(data), first
    )


@pytest.mark.parametrize("kind", ["gcn+subprocess:Popen", "subprocess:Popen+gcn", "gcn+os:system+sage"])
def test_a_file_names_no_code_of_others_among_members_either(tmp_path, kind):
    (tmp_path / "c.yaml").write_text(f"strong:\n  kind: {kind}\n")
    with pytest.raises(InputError, match="--trust"):
        check_file(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("strong:\n  kind: gcn+torch_geometric.nn.models:GraphSAGE\n")
    check_file(tmp_path / "c.yaml")


def test_auto_becomes_a_plain_configuration_that_repeats_it(tmp_path):
    config = Config(dataset="tests.graphs:good", strong=ExpertConfig(kind="auto"), seeds=1, epochs=5, device="cpu")
    first = run(config, tmp_path / "a")
    written = read_config(tmp_path / "a" / "seed-0")
    assert written.strong.kind.split("+") == [kind for kind, _ in PANEL]
    assert written.strong.members["gcn"].norm == "none"
    assert run(written)["scores"] == first["scores"]
    assert MowstClassifier(strong="auto", epochs=2, device="cpu").fit(good()).predict(good()).shape == (60,)


def test_trees_are_left_out_where_they_would_take_too_long():
    data, config = good(), Config(strong=ExpertConfig(kind="auto"))
    assert "hop-trees" in chosen(config, data).strong.kind
    data.num_classes = 100_000
    data.x = torch.rand(60, 300)
    assert "hop-trees" not in chosen(config, data).strong.kind
    assert chosen(Config(), data) == Config()


def test_twice_the_same_kind_is_told_apart():
    part = ExpertConfig(kind="gcn+gcn+gcn", each=[{}, {"num_layers": 3}, {"num_layers": 4}])
    assert {name: member.num_layers for name, member in part.members.items()} == {"gcn": 2, "gcn 2": 3, "gcn 3": 4}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ExpertConfig(kind="gcn+sage", each=[{}]), "all 2"),
        (lambda: ExpertConfig(kind="gcn+sage", each=[{}, {"width": 3}]), "width"),
        (lambda: ExpertConfig(kind="gcn+sage", each=[{}, {"kind": "gat"}]), "kind"),
        (lambda: Config(strong=ExpertConfig(kind="gcn+nothing")), "nothing"),
        (lambda: Config(strong=ExpertConfig(kind="gcn+")), "unknown"),
        (lambda: Config(weak=ExpertConfig(kind="auto")), "weak.kind"),
        (lambda: Config(strong=ExpertConfig(kind="auto"), regime="nothing"), "regime"),
        (lambda: Config(strong=ExpertConfig(kind="gcn+sage", each=[{}, {"num_layers": 0}])), "num_layers"),
        (
            lambda: run(Config(strong=ExpertConfig(kind="gcn+sage"), regime="solo", kd="kd", teacher="strong")),
            "in a mixture",
        ),
        (lambda: run(Config(weak=ExpertConfig(kind="mlp+trees"), regime="solo")), "in a mixture"),
        (lambda: Panel({"gcn": torch.nn.Identity()}), "two members"),
        (lambda: MowstClassifier(strong="gcn+sage", regime="joint", epochs=1).fit(good()), "is a panel"),
    ],
)
def test_what_is_no_panel_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
