"""What a person sees while a run trains: phase, epoch, scores, and what is left to wait."""

import io
import re

import pytest
from rich.console import Console

from mowst.reporting.progress import SILENCE, Display


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def record(seed, epoch, phase="solo", model="strong"):
    return {"seed": seed, "model": model, "phase": phase, "epoch": epoch, "val": epoch / 100, "best": 0.9}


def shown(workers=1, seeds=4, terminal=False, epochs=10):
    clock = Clock()
    console = Console(file=io.StringIO(), width=120, force_terminal=terminal, color_system=None)
    return Display(console, epochs, workers=workers, seeds=seeds, clock=clock), clock


def seconds(words):
    number, unit = re.search(r"(?:about|at most) ([\d.]+) (s|min) left", words).groups()
    return float(number) * {"s": 1, "min": 60}[unit]


def test_after_the_first_seed_the_time_left_is_that_of_the_others():
    display, clock = shown(epochs=10)
    with display:
        for seed in range(4):
            for epoch in range(1, 11):
                display(record(seed, epoch))
                if seed:
                    left = display.left(record(seed, epoch), 1.0, clock.now)
                    assert seconds(left) == pytest.approx(10 * (4 - seed) - (epoch - 1), abs=0.6)
                clock.now += 1


def test_seeds_side_by_side_are_done_as_fast_as_others_begin():
    display, clock = shown(workers=2, seeds=6)
    with display:
        for step in range(7):  # two at a time, ten seconds each, begun five seconds apart
            for seed in range(6):
                if 0 <= step * 5 - seed * 5 < 10:
                    display(record(seed, 1 + step))
            if len(display.begun) > 3:
                latest = max(display.begun)
                left = display.left(record(latest, 5), 1.0, clock.now)
                assert clock.now - 100 + seconds(left) == pytest.approx(35, rel=0.35)
            clock.now += 5


def test_seeds_that_are_shared_later_have_a_line_each_and_no_phase_ends_twice():
    display, _ = shown(seeds=3)
    with display:
        display(record(1, 1, "a"))
        display.share(2)
        for seed, phase in ((2, "a"), (1, "a"), (2, "b"), (1, "b")):
            display(record(seed, 7, phase))
    said = display.console.file.getvalue().splitlines()
    assert said[0] == "2 processes share the seeds from now on"
    assert [line.partition(":")[0] for line in said[1:]] == [
        f"seed {seed}, strong, {phase}" for seed, phase in ((2, "a"), (1, "a"), (1, "b"), (2, "b"))
    ]


def test_in_the_first_seed_a_phase_takes_no_longer_than_its_epochs():
    display, clock = shown(epochs=100)
    with display:
        for epoch in range(1, 11):
            display(record(0, epoch))
            clock.now += 2
        left = display.left(record(0, 10), 18.0, clock.now)
    assert "at most" in left
    assert seconds(left) == pytest.approx(2 * 90, abs=30)


def test_a_log_has_a_line_for_a_phase_and_one_where_nothing_ended_for_long():
    display, clock = shown(epochs=100)
    with display:
        for epoch in range(1, 101):
            display(record(0, epoch))
            clock.now += 1
        display(record(0, 25, "rehearse strong", "mixture"))
    lines = display.console.file.getvalue().splitlines()
    within = [line for line in lines if "of at most 100" in line]
    assert 2 <= len(within) <= 100 / SILENCE
    assert all(re.search(r"now 0\.\d+, best 0\.9000, at most", line) for line in within)
    assert lines[-2] == "seed 0, strong, trained alone: 100 epochs, best 0.9000"
    assert lines[-1].startswith("seed 0, mixture, copies of the experts, for the gate: 25 epochs")


@pytest.mark.parametrize("workers", [1, 2])
def test_on_a_terminal_each_seed_that_trains_has_one_line(workers):
    display, clock = shown(workers=workers, terminal=True)
    with display:
        for seed in range(4):
            display(record(seed, 3))
            clock.now += 1
        tasks = [task for task in display.bar.tasks if task.visible]
        assert [task.description for task in tasks] == [
            f"seed {seed}, strong, trained alone" for seed in range(4 - workers, 4)
        ]
        assert {(task.completed, task.total, task.fields["scores"]) for task in tasks} == {
            (3, 10, "now 0.0300, best 0.9000")
        }
