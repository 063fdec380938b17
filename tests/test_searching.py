"""A search of the preset `best`: who is stopped early, who is tried again, and that it can be stopped and repeated."""

import math
from dataclasses import replace

import optuna
import pytest
import torch
from torch_geometric.data import Data

import mowst.experiment.opening as opening
from mowst import Config, ExpertConfig, InputError
from mowst.data.uneven import are_bags
from mowst.evaluation import accuracy, signal
from mowst.experiment import Opened, Saving, basis, config_of, parse, parser, read_config, run, search, settled
from mowst.experiment.bench import Bench
from mowst.experiment.checkpoint import Checkpoint, before
from mowst.experiment.choosing import LONG, PANEL, PRESETS, chosen, of_good
from mowst.experiment.plan import schedule_of
from mowst.experiment.rungs import REDUCTION, Rungs, among_best
from mowst.experiment.searching import tried
from mowst.experiment.sharing import SharedGraph
from mowst.experiment.trying import Tried
from mowst.kernels import unit_rows
from mowst.models import FusedGate, Mowst, Panel, expert
from mowst.run import command
from mowst.training import Schedule, Trainer, snapshot
from mowst.training.held_out import fit_expert
from tests.replay import ready

HOPELESS = {"hidden_channels": 1, "dropout": 0.9, "norm": "none"}
CANDIDATES = (
    ("gcn", {"norm": "none"}),
    ("sage", HOPELESS),
    ("gat", {"norm": "none", "pace": {"lr": 0.02, "weight_decay": 0.0}}),
    ("neighbours", {}),
    ("gcn", {"hidden_channels": 128, "norm": "none", "pace": {"lr": 0.03}}),
)
SHARES = 1 / 4, 3 / 4
SMALL = Config(dataset="sbm", preset="best", budget="9h", seeds=1, epochs=32, folds=2, device="cpu")


@pytest.fixture(autouse=True)
def candidates(monkeypatch):
    monkeypatch.setitem(PRESETS, "best", CANDIDATES)
    monkeypatch.setitem(PRESETS, "good", ())
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 1)
    monkeypatch.setattr("mowst.experiment.rungs.SHARES", SHARES)


@pytest.fixture
def trained(monkeypatch):
    """What benches train from now on, by bench and name: a search keeps none of it."""
    plain, found = Bench.train, {}

    def train(self, name):
        found[self, name] = plain(self, name)
        return found[self, name]

    monkeypatch.setattr(Bench, "train", train)
    return found


def bench_of(config: Config) -> Bench:
    return Opened(config).bench(config.first_seed)


def outcomes(lines: list[str]) -> list[str]:
    """What was said of candidates, without seconds, which are never the same."""
    return [",".join(part for part in line.split(",") if not part.endswith(" s")) for line in lines]


@pytest.fixture(scope="module")
def whole():
    """A search that nobody stops: what it chose, and what it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "best", CANDIDATES)
        patch.setitem(PRESETS, "good", ())
        patch.setattr("mowst.experiment.trying.DRAWS", 2)
        patch.setattr("mowst.experiment.rungs.SHARES", SHARES)
        said = []
        return search(SMALL, said.append), said


# --- Rungs


def test_who_is_among_the_best_is_who_optuna_s_pruner_lets_go_on():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = (torch.randint(0, 12, (14,), generator=draw) / 12).tolist()  # some are alike
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
        study = optuna.create_study(direction="maximize", pruner=pruner)
        for place, score in enumerate(scores):
            trial = study.ask()
            trial.report(score, 1)
            assert among_best(score, scores[:place]) == (not trial.should_prune()), scores[: place + 1]
            study.tell(trial, score)


def test_who_promises_nothing_is_stopped_at_a_rung_and_is_heard_no_more(whole):
    found, said = whole
    first = math.ceil(SHARES[0] * SMALL.epochs)
    line = next(line for line in said if line.startswith("sage:"))
    assert line.startswith(f"sage: stopped after {first} epochs at ")
    assert "hidden_channels 1, dropout 0.9" in line, "it is said what it was"
    assert all(member.hidden_channels > 1 for member in found.strong.members.values())
    assert [line.split(":")[0] for line in said[:6]] == ["weak", "gcn", "sage", "gat", "neighbours", "gcn 2"]
    assert "norm" not in said[4], "it has none"


def test_rungs_are_shares_of_the_epochs_that_a_candidate_may_take_at_its_first_validation_from_there_on(
    trained, monkeypatch
):
    asked = []
    monkeypatch.setattr("mowst.experiment.rungs.among_best", lambda score, others: asked.append(len(others)) or True)
    many = tuple(("gcn", {"norm": "none", "seed": seed, "pace": {"eval_every": 5}}) for seed in range(3))
    monkeypatch.setitem(PRESETS, "best", many)
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    found = Tried(bench_of(replace(SMALL, epochs=48)), lambda line: None)
    found.chosen()
    assert asked == [0, 0, 1, 1, 2, 2]
    history = trained[found.bench, "gcn 2"].history
    assert [line["epoch"] for line in history][:3] == [5, 10, 15]
    for reached, epoch in zip(found.rungs.reached, (15, 40), strict=True):
        assert reached[1] == next(line["best"] for line in history if line["epoch"] == epoch)


def test_only_those_of_one_pace_are_compared():
    rungs, first = Rungs(), math.ceil(SHARES[0] * 500)
    for lr, best, goes_on in ((0.01, 0.9, True), (0.003, 0.5, True), (0.003, 0.4, False), (0.01, 0.8, False)):
        rungs.begin(Schedule(lr=lr))
        record = {"epoch": first, "best": best}
        assert rungs.passes(record) == goes_on
        rungs.end([record])


def test_another_draw_is_not_let_on_by_its_rank_alone():
    rungs, (first, last) = Rungs(), (math.ceil(share * 500) for share in SHARES)
    for again, best, goes_on in ((False, 0.5, True), (True, 0.9, False), (False, 0.8, False), (False, 0.95, True)):
        rungs.begin(Schedule(), again=again)
        assert rungs.passes({"epoch": first - 1, "best": 0.0})
        assert rungs.passes({"epoch": first, "best": best}) == (goes_on or again), "at first it may stand anywhere"
        assert rungs.passes({"epoch": last, "best": best}) == goes_on
        rungs.end([{"epoch": epoch, "best": best} for epoch in (first, last)])


def test_who_adds_to_the_others_goes_on_wherever_it_stands_as_if_nobody_had_asked(trained, monkeypatch):
    monkeypatch.setattr("mowst.experiment.rungs.among_best", lambda score, others: False)
    weights = {"": 0.05}
    plain = "mowst.experiment.trying.select"
    monkeypatch.setattr(plain, lambda said, y, **more: {name: weights.get(name, 1.0) for name in said})
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    lines, searched = [], bench_of(SMALL)
    tried(searched, lines.append)
    assert not any("stopped" in line for line in lines)
    alone = bench_of(SMALL).train("gat")
    assert [line["val"] for line in trained[searched, "gat"].history] == [line["val"] for line in alone.history]
    weights[""] = 0.0
    lines.clear()
    found = tried(bench_of(SMALL), lines.append)
    assert [line.split(":")[0] for line in lines if "stopped" in line] == ["gcn", "sage", "gat", "gcn 2"]
    assert found.strong.kind == "neighbours", "who learns by itself has no rungs"


def test_whom_good_trains_nobody_stops(monkeypatch):
    monkeypatch.setattr("mowst.experiment.rungs.among_best", lambda score, others: False)
    monkeypatch.setattr(
        "mowst.experiment.trying.select", lambda said, y, **more: {name: float(name != "") for name in said}
    )
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    monkeypatch.setitem(PRESETS, "good", (("gcn", {"norm": "batch_norm"}), CANDIDATES[1], CANDIDATES[4]))
    lines = []
    tried(bench_of(SMALL), lines.append)
    assert [line.split(":")[0] for line in lines if "stopped" in line] == ["gat", "gcn 2"], "the first two are good's"


def test_best_begins_with_whom_good_trains(monkeypatch):
    monkeypatch.setitem(PRESETS, "good", PANEL)
    assert of_good(LONG) == of_good(PANEL) == len(PANEL) > 0
    assert of_good(LONG[1:]) == len(PANEL) - 1, "one may be left out on a graph"
    assert of_good(LONG[len(PANEL) :]) == 0


def test_who_goes_on_is_trained_as_without_rungs(trained):
    searched, alone = (bench_of(SMALL) for _ in range(2))
    lines = []
    tried(searched, lines.append)
    ended = [line.split(":")[0] for line in lines if " alone, " in line]
    assert {"weak", "gcn", "gcn 2"} <= set(ended)
    for name in ("weak", "gcn", "gcn 2"):
        one, other = trained[searched, name], alone.train(name)
        assert [line["val"] for line in one.history] == [line["val"] for line in other.history]
        for key, value in snapshot(other.model).items():
            assert torch.equal(one.model.state_dict()[key], value), (name, key)


def test_a_candidate_whose_training_diverges_is_left_out_and_no_other_for_it(monkeypatch):
    wild = {"pace": {"lr": 1e30}}
    monkeypatch.setitem(PRESETS, "best", (("sage", wild), *CANDIDATES[:2], ("gat", wild)))
    lines = []
    found = search(SMALL, lines.append)
    said = [line.partition(": ")[::2] for line in lines]
    assert [name for name, words in said if words.startswith("left out: ")] == ["sage", "gat"]
    assert "gcn" in found.strong.kind
    assert not {"sage", "gat"} & set(found.strong.members)
    monkeypatch.setitem(PRESETS, "best", (("sage", wild), ("gat", wild)))
    with pytest.raises(FloatingPointError, match="every candidate diverged"):
        search(SMALL)


# --- Budget


def test_the_first_candidate_runs_to_its_end_and_one_is_always_kept(monkeypatch):
    monkeypatch.setitem(PRESETS, "best", (("sage", HOPELESS), *CANDIDATES))
    lines = []
    found = search(replace(SMALL, budget="0.001s"), lines.append)
    assert lines[-2:] == ["0.001s are spent: 1 of 6 candidates were tried", "kept: sage"]
    assert "stopped" not in lines[1]
    assert found.strong == replace(SMALL.strong, kind="sage", **HOPELESS)


def test_who_is_in_training_when_time_is_up_is_stopped(monkeypatch):
    bench, now = bench_of(replace(SMALL, budget="1000s")), 0.0
    monkeypatch.setattr(Bench, "clock", property(lambda self: lambda: now))

    def hook(line):
        nonlocal now
        now += 1100.0 * (line["model"] == "gat" and line["epoch"] == 4)

    bench.hook, lines = hook, []
    tried(bench, lines.append)
    assert lines[3].startswith("gat: stopped after 4 epochs")
    assert lines[4] == "1000s are spent: 3 of 5 candidates were tried"


def test_every_fold_is_held_out_where_the_budget_is_enough_for_all_twins(trained, monkeypatch):
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    monkeypatch.setitem(PRESETS, "best", (*CANDIDATES[:1], *CANDIDATES[3:4]))
    now = 0.0
    monkeypatch.setattr(Bench, "clock", property(lambda self: lambda: now))

    def hook(line):
        nonlocal now
        now += 100.0 * (line["model"] == "gcn" and line["epoch"] in (1, 32))

    def searched(budget):
        bench = bench_of(replace(SMALL, budget=budget, folds=3))
        bench.hook = hook
        return tried(bench), trained[bench, "gcn"]

    found, fitted = searched("9h")
    assert found.rehearsals == 3
    needed = 200 + 200 + 3 * 200 * fitted.best_epoch / 32  # searched, trained again, a twin for each fold
    assert searched(f"{needed - 1}s")[0] == replace(found, rehearsals=1, budget=f"{needed - 1}s")
    assert searched(f"{needed + 1}s")[0].rehearsals == 3


def test_after_the_list_those_that_are_heard_are_tried_from_other_weights_the_weightiest_first(whole):
    _, said = whole
    ends = [line for line in said[1:-1] if "weight" in line]
    listed, further = said[1:6], [line for line in said[6:-1] if not line.startswith("there is time left")]
    assert further
    assert all("seed" not in line for line in listed)
    draws = [int(line.rpartition("seed ")[2]) for line in further]
    assert draws == sorted(draws)
    assert set(draws) == {1, 2}
    assert not any(line.startswith("neighbours") for line in further), "it has no first weights"
    assert len(set(ends)) == len(ends), "none is the same again"


# --- Repeated, stopped, taken up again


@pytest.mark.slow  # of what the others say, too
def test_without_a_limit_a_search_is_deterministic(whole, monkeypatch):
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 2)
    said = []
    assert search(SMALL, said.append) == whole[0]
    assert outcomes(said) == outcomes(whole[1])


def stopping(monkeypatch, model: str, epoch: int) -> list[tuple[str, int]]:
    """Stop what is trained the first time that a model comes to an epoch; return what is trained from now on."""
    made, trained = Opened.bench, []

    def watched(self, seed, hook=None):
        def ends(line):
            trained.append((line["model"], line["epoch"]))
            if trained.count((model, epoch)) == 1 and trained[-1] == (model, epoch):
                raise KeyboardInterrupt

        return made(self, seed, ends)

    monkeypatch.setattr(Opened, "bench", watched)
    return trained


@pytest.mark.parametrize(
    ("model", "epoch"),
    [pytest.param("gcn", 3, marks=pytest.mark.slow), ("gat", 7), pytest.param("gcn 2", 2, marks=pytest.mark.slow)],
)
def test_a_search_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(whole, tmp_path, monkeypatch, model, epoch):
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 2)
    trained = stopping(monkeypatch, model, epoch)
    with pytest.raises(KeyboardInterrupt):
        settled(SMALL, tmp_path, saving=Saving(minutes=0))
    assert not (tmp_path / "chosen.yaml").exists()
    before, said = len(trained), []
    assert settled(SMALL, tmp_path, said.append, Saving(minutes=0)) == whole[0]
    assert outcomes(said) == outcomes(whole[1])
    assert trained[before] == (model, epoch), "no epoch before it was trained again"
    assert not (tmp_path / "search").exists()


def test_so_does_one_for_devices_that_share_every_step_and_train_what_it_keeps_anew(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "best", (CANDIDATES[0], CANDIDATES[3]))
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    config, often = replace(SMALL, batch="parts(2)", epochs=8), Saving(minutes=0)
    expected = settled(config, tmp_path / "whole", saving=often, shared=SharedGraph(2))
    assert [path.name for path in (tmp_path / "whole").iterdir()] == ["chosen.yaml"]
    trained, place = stopping(monkeypatch, "gcn", 3), tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        settled(config, place, saving=often, shared=SharedGraph(2))
    there = before(config, place, {})
    assert (there.devices, there.said) == (2, "the search after 1 phases and 2 epochs")
    with pytest.raises(InputError, match="of another number of --devices: 2, here it is 1"):
        settled(config, place, saving=often)
    done = len(trained)
    assert settled(config, place, saving=often, shared=SharedGraph(2)) == expected
    assert trained[done] == ("gcn", 3), "no epoch before it was trained again"


def test_where_devices_take_a_seed_each_the_first_one_has_what_the_search_has_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "best", (CANDIDATES[0], CANDIDATES[3]))
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    config, often = replace(SMALL, batch="full", epochs=4, seeds=2), Saving(minutes=0)
    found = settled(config, tmp_path, saving=often, shared=SharedGraph(2))
    held = Checkpoint(tmp_path / "seed-0", lambda: basis(Opened(found), 0), often)
    held.read()
    assert len(held.journal.finished) == 1 + len(found.strong.members)


def test_what_was_tried_counts_also_where_it_takes_longer_to_read_than_the_budget_allows(tmp_path, monkeypatch):
    made, late = Opened.bench, False

    def watched(self, seed, hook=None):
        def ends(line):
            if not late and (line["model"], line["epoch"]) == ("gat", 3):
                raise KeyboardInterrupt

        return made(self, seed, ends)

    monkeypatch.setattr(Opened, "bench", watched)
    with pytest.raises(KeyboardInterrupt):
        settled(SMALL, tmp_path, saving=Saving(minutes=0))
    late, times, said = True, iter(range(10**6)), []
    monkeypatch.setattr(Bench, "clock", property(lambda self: lambda: 1e6 * next(times)))
    settled(SMALL, tmp_path, said.append, Saving(minutes=0))
    assert [line.split(":")[0] for line in said[:4]] == ["weak", "gcn", "sage", "gat"]
    assert said[4] == "9h are spent: 3 of 5 candidates were tried"


def test_where_a_search_stands_is_no_use_to_another_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(SMALL, lambda line: (_ for _ in ()).throw(KeyboardInterrupt), tmp_path, Saving(minutes=0))
    with pytest.raises(InputError, match="of another configuration"):
        search(replace(SMALL, lr=0.02), lambda line: None, tmp_path, Saving(minutes=0))


@pytest.mark.parametrize("saving", [pytest.param(None, marks=pytest.mark.slow), Saving()])
def test_the_choice_repeats_the_run_bit_for_bit(tmp_path, saving):
    trained = []
    first = run(SMALL, tmp_path / "a", saving=saving, hook=lambda line: trained.append(line["phase"]))
    assert ("solo" in trained) == (saving is None), "what the search has trained is not trained again"
    parsed = parse(parser("run", ""), ["--config", str(tmp_path / "a" / "chosen.yaml")])
    again = run(config_of(parsed), tmp_path / "b")
    assert again["scores"] == first["scores"]
    weights = [(tmp_path / name / "seed-0" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_the_graph_is_prepared_once_for_the_search_and_the_run(tmp_path, monkeypatch):
    prepared, plain = [], opening.prepare
    monkeypatch.setattr(opening, "prepare", lambda *given: prepared.append(1) or plain(*given))
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    line = "--dataset sbm --preset best --seeds 1 --epochs 4 --device cpu --quiet --no-report --out"
    command([*line.split(), str(tmp_path)])
    assert read_config(tmp_path / "seed-0").strong.kind in (tmp_path / "chosen.yaml").read_text()
    assert len(prepared) == 1


# --- Who is on the list of a graph


def bags(count: int = 120, share: float = 0.2) -> torch.Tensor:
    """Few and many words."""
    draw = torch.Generator().manual_seed(0)
    return (torch.rand(count, 40, generator=draw) < 2 * share * torch.rand(count, 1, generator=draw)).float()


def test_a_candidate_that_can_bring_nothing_on_a_graph_is_left_out(monkeypatch):
    several = (("gcn", {}), ("gat", {"unit_rows": True}), ("sage", {"class_weight": "balanced"}))
    monkeypatch.setitem(PRESETS, "best", several)

    def kinds(x, y, **options):
        data = Data(x=x, y=y, train_mask=torch.ones(len(y), dtype=torch.bool), num_nodes=len(y))
        return chosen(Config(preset="best", **options), data).strong.kind

    equal, unequal = torch.arange(120) % 3, (torch.arange(120) % 5).clamp(max=1)
    assert kinds(bags(), unequal) == "gcn+gat+sage"
    assert kinds(bags().to_sparse(), equal) == "gcn+gat"
    assert kinds(bags() - 0.5, unequal) == kinds(bags(share=2.0), unequal) == "gcn+sage"
    assert kinds(bags(), equal, standardize=True) == kinds(bags(), equal, normalize_features=True) == "gcn"
    assert kinds(unit_rows(bags()), equal) == "gcn", "they sum to one already"


@pytest.mark.parametrize("layout", [torch.strided, torch.sparse_coo, torch.sparse_csr])
def test_bags_are_known_whatever_their_form_and_however_many_rows_are_looked_at(layout, monkeypatch):
    monkeypatch.setattr("mowst.data.uneven.AT_ONCE", 400)
    for x in (bags(), -bags(), bags(share=2.0), unit_rows(bags()), torch.zeros(9, 4), 0 * bags(), bags() * 1e-9):
        filled, sums = x[x != 0], x.sum(1)[x.sum(1) != 0].double()
        right = len(filled) > 0 and bool((x >= 0).all()) and 2 * len(filled) < x.numel()
        right = right and bool(sums.std() > 0.1 * sums.mean())
        assert are_bags(x.to_sparse(layout=layout) if layout != torch.strided else x) == right


# --- A pace and a draw of its own


def test_an_expert_with_a_pace_of_its_own_is_trained_as_if_the_run_had_it():
    pace = {"optimizer": "adam", "lr": 0.003, "weight_decay": 0.01, "epochs": 9, "patience": 4, "ema_decay": 0.9}
    panel = ExpertConfig(kind="gcn+sage", each=[{}, {"pace": pace}])
    own = bench_of(replace(SMALL, strong=panel)).train("sage")
    plain = bench_of(replace(SMALL, strong=ExpertConfig(kind="sage"), **pace)).train("strong")
    assert own.history == [line | {"seconds": own.history[k]["seconds"]} for k, line in enumerate(plain.history)]
    other = bench_of(replace(SMALL, strong=panel)).train("gcn")
    assert len(other.history) > 9


def test_its_twin_has_the_same_pace():
    panel = Panel({kind: expert(kind, 8, 3, hidden_channels=4, num_layers=2) for kind in ("gcn", "sage")})
    model = Mowst(expert("mlp", 8, 3, hidden_channels=4, num_layers=2), panel, FusedGate())
    trainer = Trainer(model, ready(), signal("metric", accuracy))
    own = schedule_of(replace(SMALL, strong=ExpertConfig(kind="gcn+sage", each=[{}, {"pace": {"lr": 1e-9}}])), 0).own
    assert own == {"strong.members.1": {"lr": 1e-9}}
    for part, moves in {"strong.members.0": True, "strong.members.1": False, "weak": True}.items():
        before = snapshot(trainer.model.get_submodule(part))
        after = fit_expert(trainer, Schedule(epochs=3, own=own), "x", part, last=True).model.state_dict()
        far = max(float((after[name] - value).abs().max()) for name, value in before.items())
        assert (far > 1e-3) == moves


def test_draws_differ_and_the_first_is_that_of_the_run():
    strong = ExpertConfig(kind="gcn+gcn+gcn", each=[{"seed": 0}, {"seed": 1}, {"seed": 1}])
    bench = bench_of(replace(SMALL, strong=strong, epochs=2))
    plain = bench_of(replace(SMALL, strong=ExpertConfig(kind="gcn"), epochs=2)).train("strong")
    first, second, again = (bench.train(name).output.of("").values for name in ("gcn", "gcn 2", "gcn 3"))
    assert torch.equal(first, plain.output.of("").values)
    assert torch.equal(second, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ExpertConfig(pace={"rounds": 3}), "pace: unknown 'rounds'"),
        (lambda: Config(strong=ExpertConfig(pace={"lr": 0.0})), "lr: must be above 0"),
        (lambda: Config(weak=ExpertConfig("mlp", pace={"epochs": "many"})), "epochs: must be int"),
        (lambda: Config(strong=ExpertConfig(pace={"optimizer": "sgdd"})), "optimizer: unknown 'sgdd'"),
        (lambda: Config(strong=ExpertConfig(pace={"lr": 0.1}), regime="joint"), "pace, seed and class_weight: an"),
        (lambda: Config(strong=ExpertConfig(seed=1), regime="alternate"), "pace, seed and class_weight: an"),
        (lambda: ExpertConfig(seed=-1), "seed: must be at least 0"),
    ],
)
def test_what_is_no_pace_is_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_a_search_that_stops_by_a_sample_of_the_validation_nodes_compares_what_is_said_of_all(monkeypatch):
    monkeypatch.setattr("mowst.experiment.rungs.among_best", lambda score, others: False)
    said = []
    search(replace(SMALL, eval_nodes=50), said.append)
    assert any("stopped after" in line for line in said)


def test_a_search_goes_on_after_a_candidate_that_diverged(tmp_path, monkeypatch):
    """What diverged does so again, and those after it have what they were, not what the one before them was."""
    wild = ("gcn", {"norm": "none", "pace": {"lr": 1e30}})
    monkeypatch.setitem(PRESETS, "best", (wild, *CANDIDATES[:1], ("neighbours", {})))
    monkeypatch.setattr("mowst.experiment.trying.DRAWS", 0)
    whole_said, said = [], []
    wanted = search(SMALL, whole_said.append)
    assert any("left out" in line for line in whole_said)

    class StopError(Exception):
        pass

    def told(line):
        said.append(line)
        if line.startswith("neighbours"):
            raise StopError

    with pytest.raises(StopError):
        search(SMALL, told, tmp_path, Saving(0.0))
    said.clear()
    there = before(SMALL, tmp_path, {})
    assert there.config.batch == "full", "what the memory of then allowed, whatever is free now"
    assert there.said.startswith("the search after 4 phases")
    assert search(SMALL, said.append, tmp_path, Saving(0.0)) == wanted
    assert outcomes(said) == outcomes(whole_said)


def test_a_candidate_is_not_called_as_a_member_of_the_weak_panel_is():
    found = search(replace(SMALL, weak=ExpertConfig(kind="mlp+gcn"), epochs=4))
    assert "gcn" not in found.strong.kind.split("+")


def test_devices_that_could_not_share_the_run_are_refused_before_the_search():
    said = []
    with pytest.raises(InputError, match="not divided among 2"):
        search(replace(SMALL, batch="full"), said.append, shared=SharedGraph(2))
    assert not said
