"""A look every k epochs tells, keeps and decides what a look at every epoch does, bit for bit."""

import contextlib
import copy
import math
import warnings

import pytest
import torch

from mowst.evaluation import METRICS, signal
from mowst.kernels import recording
from mowst.models import LearnedGate, Mowst, expert
from mowst.training import OPTIMIZERS, Journal, Phase, Schedule, Term, Trainer, cross_entropy, separate, snapshot
from mowst.training.epochs import Epochs
from tests.replay import LAYERS, SPECS, ended, ready, same

LOOKS = [3, 7, 50]


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """Somebody ended the run."""


def states_of(name: str, every: int, ending: int) -> list[dict]:
    """Return the journal's states after each stretch of a run that ends after so many of them."""
    states = []

    def passed(journal: Journal) -> None:
        states.append(copy.deepcopy(journal.state_dict()))
        if len(states) == ending:
            raise Stopped

    journal = Journal(passed=passed, room=lambda: every)
    with contextlib.suppress(Stopped):
        ended(name, journal, every=every, epochs=9)
    return states


def plain(state):
    """A state without its seconds, with tensors as lists."""
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items() if key != "seconds"}
    if isinstance(state, list | tuple):
        return [plain(value) for value in state]
    return state.tolist() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("name", SPECS)
def test_every_regime_ends_as_with_a_look_at_every_epoch(name):
    pace = {"epochs": 10, "patience": 4}
    whole = ended(name, None, every=1, **pace)
    for every in LOOKS:
        assert same(ended(name, Journal(), every=every, **pace), whole)


def trained(score, every: int, objective=separate, pace=None, hook=None, model=None) -> Trainer:
    torch.manual_seed(0)
    model = model or Mowst(expert("mlp", 8, 3, **LAYERS), expert("gcn", 8, 3, **LAYERS), LearnedGate())
    trainer = Trainer(model, ready(), score, every=every, hook=hook)
    trains = tuple(name for name in ("weak", "strong", "gate") if hasattr(model, name)) or ("",)
    pace = {"epochs": 25, "patience": 6, "lr": 0.05, "optimizer": OPTIMIZERS.lookup("adamw"), **(pace or {})}
    try:
        trainer.fit(Phase("test", trains, (Term(objective),), **pace))
    except (FloatingPointError, Stopped) as error:
        trainer.error = str(error)
    return trainer


def end(trainer: Trainer) -> dict:
    history = [{key: value for key, value in line.items() if key != "seconds"} for line in trainer.history]
    found = {"history": history, "weights": plain(snapshot(trainer.model)), "random": torch.rand(3).tolist()}
    error = vars(trainer).get("error")
    return found | {"error": error, "score": trainer.best.score, "epoch": trainer.best.epoch}


PACES = {"plain": {}, "seldom": {"eval_every": 4}, "short": {"epochs": 2}, "last": {"last": True, "eval_every": 3}}


@pytest.mark.parametrize("pace", PACES.values(), ids=PACES)
@pytest.mark.parametrize(
    ("name", "metric", "every"),
    [("metric", "accuracy", 3), ("expected", "accuracy", 7), ("expected", "rocauc", 50), ("loss", "accuracy", 7)],
)
def test_every_signal_and_pace_ends_as_with_a_look_at_every_epoch(name, metric, pace, every):
    score = signal(name, METRICS.lookup(metric))
    assert end(trained(score, every, pace=pace)) == end(trained(score, 1, pace=pace))


def test_between_two_looks_there_are_so_many_epochs_and_none_in_vain(monkeypatch):
    """Patience ends a stretch, so that no epoch is run after which it was over."""
    runs, counts, forth = [], [], Epochs.forth
    monkeypatch.setattr(Epochs, "forth", lambda self, count, **told: (counts.append(count), forth(self, count))[1])
    model = expert("gcn", 8, 3, **LAYERS)
    model.register_forward_hook(lambda module, inputs, out: runs.append(module.training))
    trainer = trained(lambda out, y: 0.5, 7, cross_entropy, {"patience": 10}, model=model)
    assert counts == [1, 7, 2]
    assert sum(runs) == 10
    assert len(trainer.history) == 10


def test_a_loss_of_ones_own_that_answers_with_a_number_is_looked_at_as_seldom():
    own = lambda out, y: float((out.probs().argmax(1) == y).float().mean())  # noqa: E731
    assert end(trained(own, 7)) == end(trained(own, 1))


class Breaking(torch.nn.Module):
    """A model whose buffer counts its epochs of training; its logits are no numbers from one of them on."""

    def __init__(self, at: int, bad: float):
        super().__init__()
        self.inner, self.at, self.bad = expert("mlp", 8, 3, **LAYERS), at, bad
        self.register_buffer("epoch", torch.zeros(()))

    def forward(self, x, edge_index):
        self.epoch += self.training
        broken = (self.epoch >= self.at) & torch.tensor(self.training)
        return self.inner(x, edge_index) * torch.where(broken, self.bad, 1.0)


@pytest.mark.parametrize(("at", "bad"), [(1, math.nan), (2, math.inf), (5, math.nan), (9, math.nan)])
def test_a_loss_that_is_no_number_ends_it_at_the_same_epoch(at, bad):
    score, pace, ends = signal("loss", METRICS.lookup("accuracy")), {"patience": 50}, []
    for every in (7, 1):
        torch.manual_seed(0)
        ends.append(end(trained(score, every, cross_entropy, pace, model=Breaking(at, bad))))
    assert ends[0] == ends[1]
    assert "is nan" in ends[0]["error"]
    assert len(ends[0]["history"]) == at - 1


@pytest.mark.parametrize("at", [1, 2, 5, 8, 9])
def test_a_hook_that_raises_ends_it_with_the_best_of_that_epoch(at):
    def until(line: dict) -> None:
        seen.append(line["epoch"])
        if line["epoch"] == at:
            raise Stopped("enough")

    ends = []
    for every in (7, 1):
        seen: list[int] = []
        ends.append(end(trained(signal("loss", METRICS.lookup("accuracy")), every, hook=until)))
        assert seen == list(range(1, at + 1))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["solo", "alternate"])
def test_it_is_stopped_and_goes_on_in_the_middle_and_its_checkpoint_is_the_same(name):
    whole = ended(name, Journal(), every=1, epochs=9)
    ones = {str(plain(state)) for state in states_of(name, 1, 14)}
    for state in states_of(name, 3, 4):
        assert str(plain(state)) in ones
        for every in (1, 3):
            journal = Journal()
            journal.load_state_dict(copy.deepcopy(state))
            assert same(ended(name, journal, every=every, epochs=9), whole)


def test_a_checkpoint_by_epochs_is_never_passed():
    epochs: list[int] = []
    journal = Journal(passed=lambda journal: epochs.append(journal.epochs), room=lambda: 5 - journal.epochs % 5)
    trainer = Trainer(expert("mlp", 8, 3, **LAYERS), ready(), lambda out, y: 0.5, journal=journal, every=4)
    for _ in range(2):
        trainer.fit(Schedule(epochs=12, patience=20).phase("test", ("",), Term(cross_entropy)))
    assert epochs == [1, 5, 9, 10, 12, 13, 15, 19, 20, 24]


def test_who_may_end_a_phase_is_asked_where_he_asks_to_be():
    def asked(every: int) -> tuple[list[int], dict]:
        torch.manual_seed(0)
        epochs: list[int] = []
        trainer = Trainer(expert("gcn", 8, 3, **LAYERS), ready(), signal("metric", METRICS.lookup("accuracy")))
        trainer.every, trainer.asks = every, lambda epoch: epoch in (4, 12)
        trainer.enough = lambda trainer, line: epochs.append(line["epoch"]) or line["epoch"] == 12
        trainer.fit(Schedule(epochs=20, patience=20).phase("test", ("",), Term(cross_entropy)))
        return epochs, end(trainer)

    (some, one), (each, other) = asked(7), asked(1)
    assert each == list(range(1, 13))
    assert {4, 12} <= {*some} < {*each}
    assert one == other


class Replays:
    """A recorder's double: what it records is done again by doing it again; it may refuse, or do something else."""

    def __init__(self, refuses: str = "", wrong=None, steps: int = 2):
        self.refuses, self.wrong, self.done, self.recorded, self.inside = refuses, wrong, 0, 0, False

    def aside(self):
        return warnings.catch_warnings()

    def __call__(self, work):
        if self.refuses:
            work()
            raise RuntimeError(self.refuses)
        work(), work()
        self.recorded += 1

        def again() -> None:
            self.done += 1
            (self.wrong or work)()

        return again


LONG = {"epochs": 26, "patience": 20}


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_recorded_epochs_are_the_same(decay):
    score, pace = signal("expected", METRICS.lookup("rocauc")), {**LONG, "ema_decay": decay}
    replays = Replays()
    with recording(replays):
        one = end(trained(score, None, pace=pace))
    assert replays.recorded == 2
    assert replays.done > 15
    assert one == end(trained(score, 1, pace=pace))


@pytest.mark.parametrize("name", ["solo", "alternate", "held-out"])
def test_recorded_epochs_of_every_regime_are_the_same(name):
    replays, pace = Replays(), {"epochs": 22, "patience": 22, "ema_decay": 0.0}
    with recording(replays):
        one = ended(name, Journal(), **pace)
    assert replays.recorded >= 2
    assert same(one, ended(name, Journal(), **pace))


@pytest.mark.parametrize(
    ("replays", "why"),
    [
        (Replays(refuses="operation not permitted\nwhen capturing"), "operation not permitted"),
        (Replays(wrong=lambda: None), "losses and scores are"),
        (Replays(refuses="  "), "RuntimeError"),
    ],
)
def test_what_cannot_be_recorded_or_differs_goes_on_without_and_says_so(replays, why):
    score = signal("metric", METRICS.lookup("accuracy"))
    with recording(replays), pytest.warns(UserWarning, match=why) as said:
        one = end(trained(score, None, pace=LONG))
    assert len([each for each in said if "not captured" in str(each.message)]) == 1
    assert "\n" not in str(said[0].message)
    assert one == end(trained(score, 1, pace=LONG))


def test_parameters_that_become_others_are_seen():
    """The step is recorded, but what it changes is not."""
    score = signal("metric", METRICS.lookup("accuracy"))

    class Still(Replays):
        def __call__(self, work):
            again = super().__call__(work)
            parts = [*model.parameters()]

            def still() -> None:
                before = [part.detach().clone() for part in parts]
                again()
                with torch.no_grad():
                    for part, was in zip(parts, before, strict=True):
                        part.copy_(was)

            return still

    torch.manual_seed(0)
    model = expert("mlp", 8, 3, **(LAYERS | {"dropout": 0.0}))
    with recording(Still()), pytest.warns(UserWarning, match="not captured"):
        trained(score, None, cross_entropy, LONG | {"lr": 1e-7}, model=model)


def test_an_optimiser_that_cannot_be_recorded_is_one_that_goes_on_without():
    """Nobody has told this one to keep its number of steps on the device."""
    score, pace = signal("metric", METRICS.lookup("accuracy")), LONG | {"optimizer": torch.optim.AdamW}
    with recording(Replays()), pytest.warns(UserWarning, match="capturable"):
        one = end(trained(score, None, pace=pace))
    assert one == end(trained(score, 1, pace=pace))


def test_a_short_phase_is_not_recorded():
    replays = Replays()
    with recording(replays):
        trained(signal("metric", METRICS.lookup("accuracy")), None, pace={"epochs": 12})
    assert replays.recorded == 0
