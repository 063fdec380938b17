"""A panel of experts: its pool is what its docstring says, it is fitted on held-out nodes alone, and is saved whole."""

import copy
import json

import numpy as np
import pytest
import torch
from rich.table import Table
from torch_geometric.data import Data

from mowst import Config, ExpertConfig, InputError, MowstClassifier
from mowst.evaluation import advise
from mowst.experiment import chosen, config_of, parse, parser, read_config, run, search, settled
from mowst.experiment.choosing import PANEL, PRESETS
from mowst.experiment.reading import check_file
from mowst.experiment.reload import ask
from mowst.experiment.scoring import runs_of
from mowst.models import DISPERSIONS, ROLES, FusedGate, Mowst, Panel, expert, parts_of
from mowst.reporting import closing, scores_table
from mowst.reporting.table import run_for_table
from mowst.training import panels
from mowst.training.panels import minimise, select, settle_panel, shortlist
from mowst.tuning import make_space
from tests.graphs import good

LAYERS = {"hidden_channels": 8, "num_layers": 2, "norm": "batch_norm", "dropout": 0.5}


@pytest.fixture
def panel():
    torch.manual_seed(0)
    return Panel({kind: expert(kind, 8, 3, **LAYERS) for kind in ("gcn", "sage", "mlp")}).eval()


def logits(count: int = 40, spread: float = 2.0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return [spread * torch.randn(count, 3, generator=draw) for _ in range(3)]


def pooled(panel, said):
    with torch.no_grad():
        return panel.pool(said, range(3))


def nll(panel, said, y):
    return torch.nn.functional.nll_loss(panel.pool(said, range(3)), y, reduction="sum")


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


def picked_by_hand(said, y, rounds):
    """Ensemble selection as its paper has it, with nothing shared between rounds, in float64."""
    names, bag, found = list(said), [], []
    for _ in range(rounds):
        tried = {}
        for name in names:
            mean = torch.stack([said[each].double().log_softmax(-1) for each in [*bag, name]]).mean(0)
            tried[name] = float(-mean.log_softmax(-1)[torch.arange(len(y)), y].mean())
        bag.append(min(names, key=tried.__getitem__))
        found.append((tried[bag[-1]], list(bag)))
    best = min(found, key=lambda each: each[0])[1]
    return {name: best.count(name) / len(best) for name in names}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rounds", [1, 2, 7, 20])
def test_selection_takes_in_each_round_the_expert_that_makes_the_labels_likeliest(seed, rounds):
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (50,), generator=draw)
    sharp = torch.nn.functional.one_hot(y, 4)
    said = {name: k * sharp + 2 * torch.randn(50, 4, generator=draw) for k, name in enumerate("abcd")}
    assert select(said, y, rounds) == pytest.approx(picked_by_hand(said, y, rounds))


def test_selection_leaves_out_who_only_harms_and_is_no_worse_than_the_likeliest_alone():
    draw = torch.Generator().manual_seed(5)
    y = torch.randint(3, (400,), generator=draw)
    good = 3.0 * torch.nn.functional.one_hot(y, 3) + torch.randn(400, 3, generator=draw)
    said = {"wrong": -good, "good": good}
    assert select(said, y) == {"wrong": 0.0, "good": 1.0}
    told = {"flat": torch.zeros(400, 3), "other": good + 2 * torch.randn(400, 3, generator=draw), "good": good}
    weights = select(told, y)
    pool = sum(weight * told[name].log_softmax(-1) for name, weight in weights.items())
    assert float(torch.nn.functional.cross_entropy(pool, y)) <= float(torch.nn.functional.cross_entropy(good, y)) + 1e-6


def test_a_panel_starts_at_the_weights_that_were_selected_and_runs_no_member_without(panel, monkeypatch):
    said, y = dict(zip("abc", logits(), strict=True)), torch.zeros(40, dtype=torch.long)
    fit = panels.minimise
    monkeypatch.setattr(panels, "minimise", lambda *given: None)
    pool = settle_panel(panel, said, {"a": 0.5, "b": 0.0, "c": 0.25}, y)
    assert panel.active.tolist() == [True, False, True]
    logs = torch.stack([said[name].log_softmax(-1) for name in "ac"])
    torch.testing.assert_close(pool, (2 * logs[0] + logs[1]).div(3).log_softmax(-1), atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(panels, "minimise", fit)
    fitted = settle_panel(panel, {name: said[name] for name in "ac"}, {"a": 0.5, "c": 0.25}, y)
    assert float(torch.nn.functional.nll_loss(fitted, y)) < float(torch.nn.functional.nll_loss(pool, y))


def test_only_members_that_validation_nodes_speak_for_have_a_twin(monkeypatch):
    config = Config(dataset="sbm", strong=ExpertConfig(kind="gcn+sage+neighbours"), seeds=1, epochs=10, device="cpu")
    phases = []
    run(config, hook=lambda line: phases.append(line["phase"]))
    twins = {phase for phase in phases if phase.startswith("rehearse")}
    seen = []

    def nobody(trainer):
        parts = shortlist(trainer)
        seen.append(parts)
        trainer.model.strong.active.copy_(torch.tensor([True, False, False]))
        return ("weak", "strong.members.0")

    monkeypatch.setattr("mowst.training.regimes.shortlist", nobody)
    phases.clear()
    result = run(config, hook=lambda line: phases.append(line["phase"]))
    assert twins == {f"rehearse {part}" for part in seen[0]}
    assert {phase for phase in phases if phase.startswith("rehearse")} == {"rehearse weak", "rehearse strong.members.0"}
    assert result["scores"]["mixture"]["test"][0] > 50


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
    assert shown[:2] == ["always the largest class", "labels spread over the edges"]
    assert shown[2:7] == ["weak expert alone", *(f"{name} alone" for name in strong.kind.split("+"))]
    validated = {name: found["val"][0] for name, found in result["scores"].items() if name in result["parameters"]}
    assert validated[advise(result).use] == max(validated.values())
    assert not any("--teacher" in step for step in advise(result).steps), (
        "it would train one expert in the place of all"
    )
    best = max(result["scores"][name]["val"][0] for name in ("gcn", "sage", "hop-trees", "neighbours"))
    assert result["scores"]["mixture"]["val"][0] > best - 2
    folder = tmp_path / "seed-0"
    again = read_config(folder)
    assert again.strong.members["gcn"].norm == "none"
    found, _ = ask(folder, again, nodes=None, how="pooled", threshold=None, seed=0)
    assert np.array_equal(found, np.load(folder / "predictions.npz")["mixture"])


@pytest.mark.parametrize("threshold", [0.0, 0.6, float("inf"), float("nan")])
def test_it_is_counted_for_how_many_nodes_each_expert_is_run(panel, threshold):
    panel.active.copy_(torch.tensor([True, False, True]))
    data, model = good(), Mowst(expert("mlp", 8, 3, **LAYERS), panel, FusedGate()).eval()
    model.threshold.fill_(threshold)
    ran = set()
    for name, member in zip(panel.names, panel.members, strict=True):
        member.register_forward_hook(lambda *given, name=name: ran.add(name))
    out = model(data.x, data.edge_index)
    assert ran == {"gcn", "mlp"}
    routed = out._replace(confidence=torch.rand(60, generator=torch.Generator().manual_seed(0)))
    found = runs_of((model, out), routed, data.test_mask)
    assert {name for name, shares in found.items() if shares["pooled"]} == ran | {"weak"}
    nodes = data.test_mask.nonzero().flatten().tolist()
    sent = sum(not float(routed.confidence[node]) >= threshold for node in nodes) / len(nodes)
    wanted = {"weak": 1.0, "gcn": sent, "sage": 0.0, "mlp": sent}
    assert {name: shares["routed"] for name, shares in found.items()} == pytest.approx(wanted)


def test_a_report_says_for_how_many_nodes_each_member_is_run(tmp_path):
    strong = ExpertConfig(kind="gcn+neighbours", each=[{"norm": "none"}, {}])
    result = run(Config(dataset="tests.graphs:good", strong=strong, seeds=2, epochs=4, device="cpu"), tmp_path)
    seeds = [json.loads((tmp_path / f"seed-{seed}" / "result.json").read_text())["run_for"] for seed in (0, 1)]
    for name in ("weak", "gcn", "neighbours"):
        for how in ("pooled", "routed"):
            assert result["run_for"][name][how] == pytest.approx(sum(each[name][how] for each in seeds) / 2)
    table = run_for_table(result)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert [row[0] for row in rows] == ["weak", "gcn", "neighbours"]
    assert any(isinstance(part, Table) and part.title == table.title for part in closing(result))
    page = (tmp_path / "report.html").read_text()
    for row in rows:
        assert "".join(f">{cell}</td>" for cell in row[:1]) in page
        assert row[1].endswith(" %")
    assert table.title in page
    pair = run(Config(dataset="tests.graphs:good", strong=ExpertConfig("gcn"), seeds=1, epochs=2, device="cpu"))
    assert set(pair["run_for"]) == {"weak", "strong"}
    assert not any(isinstance(part, Table) and part.title == table.title for part in closing(pair)), (
        "the diagnosis says it"
    )


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


@pytest.fixture
def presets(monkeypatch):
    """The presets as they are outside of the suite."""
    monkeypatch.setitem(PRESETS, "good", PANEL)


def test_by_default_a_preset_becomes_a_plain_configuration_that_repeats_the_run(tmp_path, presets):
    first = run(Config(dataset="tests.graphs:good", seeds=1, epochs=5, device="cpu"), tmp_path / "a")
    written = read_config(tmp_path / "a" / "seed-0")
    assert written.strong.kind.split("+") == [kind for kind, _ in PANEL]
    assert written.strong.members["gcn"].norm == "none"
    parsed = parse(parser("run", ""), ["--config", str(tmp_path / "a" / "chosen.yaml")])
    assert config_of(parsed) == written
    assert run(written)["scores"] == first["scores"]
    assert MowstClassifier(epochs=2, device="cpu").fit(good()).predict(good()).shape == (60,)


def test_where_labels_are_few_there_is_no_batch_norm_but_a_penalty_unless_something_else_is_asked_for(presets):
    data = good()
    found = chosen(Config(), data)
    assert found.strong.members["sage"].norm == "none"
    assert (found.optimizer, found.weight_decay) == ("adam", 5e-3)
    assert chosen(Config(weight_decay=0.1), data).weight_decay == 0.1
    assert chosen(Config(optimizer="adam"), data).weight_decay == 5e-4
    many = Data(x=torch.rand(400, 2), y=torch.arange(400) % 3, train_mask=torch.ones(400, dtype=torch.bool))
    found = chosen(Config(), many)
    assert found.strong.members["sage"].norm == "batch_norm"
    assert (found.optimizer, found.weight_decay) == ("adamw", 5e-4)


@pytest.mark.parametrize(
    "options", [{"regime": "joint"}, {"regime": "solo"}, {"kd": "nkd", "teacher": "strong"}, {"preset": "fast"}]
)
def test_who_is_trained_together_taught_or_fast_has_one_gcn(options, presets):
    assert chosen(Config(**options), good()).strong.kind == "gcn"


def test_a_study_of_the_default_tunes_a_pair(presets):
    assert make_space(Config()).config.strong.kind == "gcn"


def test_best_keeps_who_adds_to_the_others_and_goes_on_with_the_choice(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "best", (("gcn", {"norm": "none"}), ("sage", {}), ("neighbours", {}), ("gat", {})))
    config = Config(dataset="sbm", preset="best", seeds=1, epochs=20, device="cpu")
    said = []
    found = settled(config, tmp_path, said.append)
    assert [line.partition(":")[0] for line in said][:5] == ["weak", "gcn", "sage", "neighbours", "gat"]
    kept = said[-1].removeprefix("kept: ").split(", ")
    assert found.strong.kind.split("+") == [name.partition(" ")[0] for name in kept]
    weighed = {line.partition(":")[0]: line.partition("weight ")[2].partition(",")[0] for line in said[:-1]}
    assert all(float(weighed[name]) > 0 for name in kept if len(kept) > 1)
    assert settled(config, tmp_path, lambda line: pytest.fail("was searched again")) == found
    assert chosen(found, good()) == found, "it is plain"


def test_the_budget_of_best_decides_where_its_list_ends(monkeypatch):
    monkeypatch.setitem(PRESETS, "best", (("gcn", {}), ("sage", {}), ("neighbours", {})))
    said = []
    found = search(Config(dataset="sbm", preset="best", seeds=1, epochs=5, budget="0.001s", device="cpu"), said.append)
    assert found.strong.kind == "gcn"
    assert said[-2:] == ["0.001s are spent: 1 of 3 candidates were tried", "kept: gcn"]


@pytest.mark.parametrize("budget", ["", "20", "0m", "-3s", "1d", "20 m", "m", "nan s", "9999999m"])
def test_what_is_no_budget_is_refused(budget):
    with pytest.raises(InputError, match="budget: must be a time such as 90s, 20m or 2h"):
        Config(budget=budget)


def test_trees_are_left_out_where_they_would_take_too_long(presets):
    data, config = good(), Config()
    assert "hop-trees" in chosen(config, data).strong.kind
    data.num_classes = 100_000
    data.x = torch.rand(60, 300)
    assert "hop-trees" not in chosen(config, data).strong.kind
    given = Config(strong=ExpertConfig(kind="gcn"))
    assert chosen(given, data) == given


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


def test_two_panels_with_an_expert_of_one_name_are_refused_before_anything_is_trained():
    weak, strong = ExpertConfig(kind="mlp+trees"), ExpertConfig(kind="gcn+mlp")
    with pytest.raises(InputError, match="both panels have mlp; leave it out of one"):
        run(Config(weak=weak, strong=strong, epochs=2, seeds=1, device="cpu"))
