"""What a run needs to go on is one thing, and one that was stopped ends as if it had not been."""

import subprocess
import sys

import pytest
import torch

from mowst.errors import InputError
from mowst.evaluation import accuracy, signal
from mowst.models import expert
from mowst.training import Journal, Phase, Term, Trainer, cross_entropy
from tests.replay import LAYERS, SPECS, ended, ready, same


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """Somebody ended the run."""


def stopped_after_each_phase(name: str) -> list[dict]:
    """Return the journal's state after each phase, as a run leaves it that is stopped there."""
    whole = Journal()
    ended(name, whole)
    states = []
    for count in range(len(whole.finished)):

        def stop(journal: Journal, count: int = count) -> None:
            if len(journal.finished) > count:
                raise Stopped

        journal = Journal(stop)
        with pytest.raises(Stopped):
            ended(name, journal)
        states.append(journal.state_dict())
    return states


def stopped_within(name: str, epochs: list[int]) -> list[dict]:
    """Return the journal's state after so many validations in all, most of them within a phase."""
    states = []
    for count in epochs:
        journal, seen = Journal(), []

        def stop(line: dict, journal: Journal = journal, seen: list = seen, count: int = count) -> None:
            seen.append(line)
            if len(seen) == count:
                states.append(journal.state_dict())
                raise Stopped

        with pytest.raises(Stopped):
            ended(name, journal, stop)
        assert journal.state_dict()["underway"] is None  # the phase is over, and its weights are no longer in the model
        states.append(journal.state_dict())
    return states


@pytest.mark.parametrize("name", SPECS)
def test_a_regime_that_was_stopped_after_any_phase_ends_as_if_it_had_not_been(name):
    whole = ended(name, Journal())
    for state in stopped_after_each_phase(name):
        journal = Journal()
        journal.load_state_dict(state)
        assert same(ended(name, journal), whole)


@pytest.mark.parametrize("name", SPECS)
def test_a_regime_that_was_stopped_within_a_phase_ends_as_if_it_had_not_been(name):
    whole = ended(name, Journal())
    lines = len(whole["history"])
    for state in stopped_within(name, [1, 2, lines // 3, lines // 2, lines - 1]):
        journal = Journal()
        journal.load_state_dict(state)
        assert same(ended(name, journal), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
def test_a_fresh_process_goes_on_bit_for_bit(name, tmp_path):
    states = stopped_after_each_phase(name) + stopped_within(name, [2, 3])
    torch.save(states, tmp_path / "journals")
    subprocess.run([sys.executable, "-m", "tests.replay", name, str(tmp_path / "journals")], check=True)
    whole = ended(name, Journal())
    ends = torch.load(tmp_path / "journals.ended", weights_only=True)
    assert len(ends) == len(states) > 2
    assert all(same(end, whole) for end in ends)


@pytest.mark.parametrize("name", SPECS)
def test_a_state_is_tensors_and_plain_values(name, tmp_path):
    state, _ = stopped_within(name, [3])
    torch.save(state, tmp_path / "state")
    assert torch.load(tmp_path / "state", weights_only=True).keys() == {"finished", "underway"}
    assert {
        "model", "losses", "optimizer", "average", "scaler", "best", "counters", "history", "random", "seconds",
    } == state["underway"].keys()  # fmt: skip


def test_a_state_does_not_change_while_the_run_goes_on():
    journal, states = Journal(), []

    def keep(line: dict) -> None:
        states.append((journal.state_dict(), journal.state_dict()))

    ended("solo", journal, keep)
    early, late = states[0][0]["underway"], states[-1][0]["underway"]
    assert early["counters"]["epoch"] == 1
    assert any(not torch.equal(value, late["model"][key]) for key, value in early["model"].items())
    assert all(torch.equal(value, states[0][1]["underway"]["model"][key]) for key, value in early["model"].items())


def test_the_journal_of_another_run_is_refused():
    journal = Journal()
    ended("solo", journal)
    other = Journal()
    other.load_state_dict(journal.state_dict())
    trainer = Trainer(expert("mlp", 8, 3, **LAYERS), ready(), signal("metric", accuracy), journal=other)
    with pytest.raises(InputError, match="was 'solo', now it is 'another'"):
        trainer.fit(Phase("another", ("",), (Term(cross_entropy),)))


def test_without_a_journal_a_run_is_the_same():
    torch.manual_seed(0)
    assert same(ended("alternate", Journal()), ended("alternate", None))
