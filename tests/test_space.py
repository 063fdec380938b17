import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial
from torch import nn

from mowst import Config, ExpertConfig, GateConfig
from mowst.errors import InputError
from mowst.experiment.building import build
from mowst.experiment.reading import given_fields
from mowst.models.gates import DispersionGate
from mowst.models.outputs import Gated
from mowst.system.resources import folder
from mowst.tuning.fields import configured, placed, taken
from mowst.tuning.ranges import inside, read_search, typed
from mowst.tuning.search import first_points, published
from mowst.tuning.space import make_space

HERE = __name__
GRAPHS = sorted({path.stem.split("-", 1)[1].rsplit("-", 1)[0] for path in folder("configs").glob("*.yaml")})


class Backbone(nn.Module):
    """An expert of one's own that knows a width, and a parameter that nobody else has."""

    search = {"depth": (1, 3), "hidden_channels": [4, 5]}  # noqa: RUF012

    def __init__(self, in_channels, out_channels, hidden_channels=8, depth=1):
        super().__init__()
        assert hidden_channels in (4, 5, 64)
        assert 1 <= depth <= 3
        self.lin = nn.Linear(in_channels, out_channels)

    def forward(self, x, edge_index):
        return self.lin(x)


class Gate(DispersionGate):
    """A gate of one's own with a parameter of its own."""

    search = {"floor": (0.0, 0.5)}  # noqa: RUF012

    def __init__(self, dispersions, *, floor=0.1, detach=False):
        super().__init__(dispersions, detach=detach)
        self.floor = floor

    def forward(self, weak_logits, x, strong_logits=None):
        return Gated(self.measure(weak_logits).mean(-1).clamp_min(self.floor))


def draws(space, number=60, seed=0):
    """Draw at random: every trial's parameters and its configuration."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(number):
        trial = study.ask()
        config = space.draw(trial)
        yield trial.params, config


SPACES = {
    "default": make_space(Config()),
    "alone": make_space(Config(mixture=False)),
    "kinds": make_space(Config(), {"strong.kind": ["gcn", "sage", "gat", f"{HERE}:Backbone"], "weak.kind": ["mlp"]}),
    "gates": make_space(Config(), {"gate.kind": ["learned", "power", f"{HERE}:Gate"], "rounds": "1..5"}),
    "options": make_space(
        Config(
            strong=ExpertConfig("sage-res", options={"pre_linear": True}),
            gate=GateConfig("learned", features=True, options={"dropout": 0.5, "num_layers": 3}),
        ),
        {"strong.kind": ["sage-res", "gcn", "mlp"], "strong.options.residual": [True, False]},
    ),
    **{f"published {graph}": make_space(config) for graph in GRAPHS for config in [*published(graph)][:1]},
}


@pytest.mark.parametrize("name", SPACES)
def test_every_configuration_that_is_drawn_builds(name):
    for params, config in draws(SPACES[name], 25):
        build(config, 7, 3)
        for each in SPACES[name].dimensions:
            if each.name in params:
                assert inside(params[each.name], each.distribution)
                assert taken(config, each.path) == params[each.name]


@pytest.mark.parametrize("name", SPACES)
def test_only_what_changes_something_is_drawn_and_all_of_that(name):
    seen = set()
    for params, config in draws(SPACES[name]):
        seen |= params.keys()
        trained_with = config.mixture and config.regime != "held-out"
        assert ("gate.features" in params) == (config.gate_kind == "learned" and config.mixture)
        assert ("gate.options.alpha (power)" in params) == (config.gate_kind == "power" and config.mixture)
        assert ("gate_lr" in params) == ("pretrain" in params) == ("gate.detach" in params) == trained_with
        assert ("weak.dropout" in params) == config.mixture
        assert not ("rounds" in params and config.regime != "alternate")
    assert seen == {each.name for each in SPACES[name].dimensions}


@pytest.mark.parametrize("name", SPACES)
def test_a_drawn_configuration_is_found_again_from_its_parameters_in_any_order(name):
    space = SPACES[name]
    for params, config in draws(space, 20):
        assert space.draw(FixedTrial(params)) == config
        assert configured(space.config, dict(reversed(params.items()))) == config
        assert space.point(config) == params


def test_ranges_that_an_expert_or_a_gate_brings_are_its_own():
    space = SPACES["kinds"]
    for params, config in draws(space):
        ours = config.strong.kind == f"{HERE}:Backbone"
        assert (f"strong.options.depth ({HERE}:Backbone)" in params) == ours
        assert (config.strong.hidden_channels in (4, 5)) == ours
        assert ("strong.dropout" in params) != ours, "its constructor has no dropout"
    for params, config in draws(SPACES["gates"]):
        assert (f"gate.options.floor ({HERE}:Gate)" in params) == (config.gate.kind == f"{HERE}:Gate")


def test_a_file_or_flags_narrow_fix_and_add():
    search = {"lr": "1e-2..2e-2:log", "strong": {"num_layers": [2, 3], "dropout": 0.25}, "strong.kind": ["gcn", "sage"]}
    space = make_space(Config(), search | {"epochs": "10..20"}, fixed=["weak", "gate.kind"])
    ranges = {each.path: each.distribution for each in space.dimensions}
    assert ranges["lr"] == FloatDistribution(0.01, 0.02, log=True)
    assert ranges["strong.num_layers"] == CategoricalDistribution((2, 3))
    assert ranges["strong.kind"] == CategoricalDistribution(("gcn", "sage"))
    assert ranges["epochs"] == IntDistribution(10, 20)
    assert space.config.strong.dropout == 0.25
    assert not {"strong.dropout", "gate.kind"} & ranges.keys()
    assert not [path for path in ranges if path.startswith("weak.")]
    assert "weight_decay" in ranges


def test_what_is_asked_for_is_searched_even_where_the_field_is_given():
    assert {each.path for each in make_space(Config(), {"lr": "0.1..0.2"}, fixed=["lr"]).dimensions} >= {"lr"}


def test_flags_and_files_say_the_same(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("lr: 1e-3..1e-1:log\nstrong: {num_layers: [2, 3], norm: none}\ngate.detach: true\n")
    flags = ["lr=1e-3..1e-1:log", "strong.num_layers=2,3", "strong.norm=none", "gate.detach=true"]
    one, two = make_space(Config(), read_search(str(path), [])), make_space(Config(), read_search(None, flags))
    assert one == two
    assert one.config.gate.detach is True
    assert one.config.strong.norm == "none"


def test_fields_given_on_the_command_line_are_known():
    line = "--config some.yaml --trials 3 --lr 0.1 --strong sage --gate=power --weak.num-layers 3 --no-mixture"
    assert given_fields(line.split()) == ["lr", "strong.kind", "gate.kind", "weak.num_layers", "mixture"]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"learning_rate": "1..2"}, ["learning_rate", "lr"]),
        ({"strong.colour": [1, 2]}, ["strong.colour", "strong.dropout"]),
        ({"strong": 3}, ["'strong'", "strong.dropout"]),
        ({"lr": "0.1..0.1"}, ["lr", "empty"]),
        ({"lr": "0.2..0.1"}, ["lr", "empty"]),
        ({"weight_decay": "0..1:log"}, ["weight_decay", "empty", "above", "0"][:2]),
        ({"lr": "1..2:ln"}, ["lr", "1.0..2.0:ln", "log"]),
        ({"lr": "a..b"}, ["lr", "a"]),
        ({"lr": "-1..1"}, ["lr", "above 0"]),
        ({"lr": 0}, ["lr", "above 0"]),
        ({"strong.num_layers": []}, ["strong.num_layers", "no choices"]),
        ({"strong.num_layers": "1.5..3"}, ["strong.num_layers", "1.5"]),
        ({"strong.norm": "a..b"}, ["strong.norm", "no range"]),
        ({"strong.norm": ["none", "nrm"]}, ["nrm"]),
        ({"strong.kind": ["gnc"]}, ["gnc", "sage"]),
        ({"strong.options.colour": [1, 2]}, ["colour"]),
        ({"gate.options.alpha": "0.5..2"}, ["alpha"]),
        ({"rounds": "1..4", "regime": "joint"}, ["rounds", "changes nothing"]),
        ({"seeds": [1, 2]}, ["seeds", "--seeds"]),
        ({"dataset": ["cora"]}, ["dataset", "same for all"]),
        ({"gate.dispersions": [["max"]]}, ["gate.dispersions"]),
    ],
)
def test_a_space_that_cannot_be_is_one_line(search, words):
    with pytest.raises(InputError) as caught:
        make_space(Config(), search)
    said = str(caught.value)
    assert "\n" not in said
    assert all(word in said for word in words), said


def test_a_space_with_nothing_in_it_is_refused():
    with pytest.raises(InputError, match="nothing is left"):
        make_space(Config(mixture=False), fixed=["strong", "lr", "weight_decay", "ema_decay"])
    with pytest.raises(InputError, match=r"gate\.kind changes nothing"):
        make_space(Config(mixture=False), {"gate.kind": ["learned", "power"]})


def test_the_default_and_what_is_published_come_first_as_far_as_they_lie_inside():
    space = make_space(Config(dataset="Photo"))
    default, *rest = first_points(space)
    assert placed(space.draw(FixedTrial(default)), "gate", space.config.gate) == space.config
    assert default["gate.kind"] == "fused", "the regime's own"
    joint = make_space(placed(space.config, "regime", "joint"), fixed=["regime"])
    options = joint.draw(FixedTrial(first_points(joint)[0])).gate.options
    assert options == {"hidden_channels": 64, "dropout": 0.0}, "what the constructor has anyway"
    assert [point["lr"] for point in rest] == [0.001, 0.001, 0.01, 0.001]
    assert [point["ema_decay"] for point in rest] == [0.0, 0.0, 0.98, 0.0]
    layers = [point["strong.num_layers"] for point in rest if "strong.num_layers" in point]
    assert layers == [3, 2], "six layers are outside the range"
    assert {point["strong.hidden_channels"] for point in rest} == {64, 256}


def test_placing_a_value_changes_nothing_else():
    config = Config(gate=GateConfig("power", options={"alpha": 2.0}))
    assert placed(config, "gate.options.alpha", 3.0).gate.options == {"alpha": 3.0}
    assert config.gate.options == {"alpha": 2.0}
    assert placed(placed(config, "lr", 0.5), "lr", config.lr) == config


def test_what_is_asked_for_may_apply_to_another_kind_than_the_default():
    for search in ({"gate.options.alpha": "1.0..4.0"}, {"gate.features": [False, True]}):
        space = make_space(Config(), search)
        (path,) = search
        (each,) = (each for each in space.dimensions if each.path == path)
        assert any(each.name in params for params, _ in draws(space))
        assert all(build(config, 7, 3) for _, config in draws(space, 20))


def test_a_loss_brings_its_ranges_and_what_is_given_of_it_stays():
    config = Config(regime="solo", kd="nkd(temperature=2.0)+gld", teacher="strong")
    space = make_space(config, {"kd.gld.weight": "0.5..1.0"}, fixed=["regime", "teacher"])
    paths = {each.path for each in space.dimensions}
    assert {"kd.nkd.gamma", "kd.nkd.weight", "kd.gld.weight", "strong.dropout", "weak.dropout"} <= paths
    assert not {"kd.nkd.temperature", "gate_lr", "gate.kind", "pretrain", "regime", "objective"} & paths
    for params, drawn in draws(space, 20):
        nkd, gld = drawn.kd
        assert (nkd["name"], nkd["temperature"], nkd["gamma"]) == ("nkd", 2.0, params["kd.nkd.gamma"])
        assert 0.5 <= gld["weight"] <= 1
        assert space.point(drawn) == params
    assert "strong.dropout" not in {each.path for each in make_space(Config(regime="solo")).dimensions}
    assert given_fields(["--kd", "nkd", "--regime", "solo"]) == ["regime"]
    with pytest.raises(InputError, match="colour"):
        make_space(config, {"kd.gld.colour": [1, 2]})


def test_with_losses_the_regime_is_searched_only_if_asked_for():
    config = Config(regime="joint", kd="kd", teacher="strong")
    assert "regime" not in {each.path for each in make_space(config).dimensions}
    assert "regime" in {each.path for each in make_space(config, {"regime": ["joint", "alternate"]}).dimensions}


def test_a_panel_is_not_searched():
    with pytest.raises(InputError, match=r"strong: a panel \(gcn\+sage\)"):
        make_space(Config(strong=ExpertConfig(kind="gcn+sage")))


def test_a_wrong_value_names_its_field_once():
    with pytest.raises(InputError, match=r"^space: lr: must be float, got abc$"):
        typed("lr", "abc")
