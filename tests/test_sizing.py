"""How many processes share the seeds where nobody has said a number."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Data

from mowst import Config, ExpertConfig
from mowst.errors import InputError
from mowst.experiment import sizing
from mowst.experiment.batching import OF_FREE
from mowst.experiment.runs import run
from mowst.experiment.sizing import HEARD, PAYS, SMALL, Pace, Sizing, fitting, passes, sharing
from mowst.run import command
from mowst.system import memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK = Config(
    dataset="sbm",
    epochs=4,
    seeds=3,
    weak=ExpertConfig("mlp", hidden_channels=4),
    strong=ExpertConfig("gcn", hidden_channels=4),
)


class Clock:
    """Seconds that pass when they are told to."""

    now = 50.0

    def __call__(self):
        return self.now


def graph(nodes, edges):
    return Data(y=torch.zeros(nodes, dtype=torch.long), edge_index=torch.zeros(2, edges, dtype=torch.long))


def line(seed=0, model="strong", seconds=1.0):
    return {"seed": seed, "model": model, "phase": "solo", "seconds": seconds}


# --- Threads


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(sizing, "usable_cpus", lambda: 8)
    return monkeypatch


@pytest.mark.parametrize(("seeds", "expected"), [(1, 1), (3, 3), (8, 8), (20, 8)])
def test_on_a_small_graph_and_on_a_gpu_each_seed_has_its_share_of_the_cpus_and_on_a_large_graph_all(
    eight, seeds, expected
):
    config, small, large = replace(QUICK, seeds=seeds), graph(1000, 5000), graph(10**6, 100)
    config = replace(config, strong=replace(config.strong, hidden_channels=64))
    assert passes(config, small) < SMALL < passes(config, large)
    assert sharing(config, small, CPU) == sharing(config, large, CUDA) == expected
    assert sharing(config, large, CPU) == 1
    assert sharing(replace(config, preset="best", strong=ExpertConfig("auto")), small, CPU) == 1, "a search comes first"


def test_more_nodes_edges_width_and_depth_are_more_work_whoever_of_a_panel_has_them():
    data, panel = graph(100, 500), ExpertConfig("gcn+sage", hidden_channels=8)
    base = replace(QUICK, strong=panel)
    wide = replace(panel, each=[{}, {"hidden_channels": 9}])
    deep = replace(panel, each=[{"num_layers": 3}, {}])
    least = passes(base, data)
    assert min(passes(base, graph(101, 500)), passes(base, graph(100, 501))) > least
    assert min(passes(replace(base, strong=other), data) for other in (wide, deep)) > least
    assert passes(replace(base, strong=replace(panel, kind="auto")), data) == least, "who it is, is chosen later"


# --- Memory


@pytest.mark.parametrize("there", [0, 10, 99.9, 100, 1234, 10**12])
def test_those_that_fit_take_no_more_than_their_share_of_what_is_free_and_one_more_would(there):
    each, own = 30.0, 40.0
    count = fitting(there, each, own)
    assert count == 0 or own + count * each <= OF_FREE * there
    assert own + (count + 1) * each > OF_FREE * there


def opened(device, step):
    return SimpleNamespace(
        fabric=SimpleNamespace(device=device),
        config=SimpleNamespace(first_seed=0),
        seed=lambda seed: SimpleNamespace(data=None),
        step=step,
    )


@pytest.fixture
def machine(eight):
    """Eight CPUs of which this process takes two, 100 bytes of memory of which it has 20, and a card of 2**35 bytes."""
    eight.setattr(sizing, "estimated", lambda config, data: SimpleNamespace(step=10))
    eight.setattr(torch, "get_num_threads", lambda: 2)
    eight.setattr(sizing, "free_memory", lambda: 10**6)
    eight.setattr(sizing, "process_memory", lambda: 20)
    eight.setattr(sizing, "free", lambda device: 2**35)
    eight.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**31)
    eight.setattr(sizing, "gpus", lambda: ["0"])
    return eight


def test_each_process_has_its_cpus_and_its_memory(machine):
    assert [sizing.room(opened(CPU, 10), beside) for beside in range(4)] == [3, 2, 1, 0]
    machine.setattr(sizing, "free_memory", lambda: 100)
    assert sizing.room(opened(CPU, 10), 0) == (OF_FREE * 100 - 10) // 30 == 2
    machine.setattr(sizing, "free_memory", lambda: 50)
    assert sizing.room(opened(CPU, 10), 0) == 0
    assert sizing.room(opened(torch.device("meta"), 10), 0) == 0


def test_on_a_gpu_its_memory_bounds_them_too_and_of_several_each_has_one(machine):
    assert sizing.room(opened(CUDA, 10), 0) == 3, "the CPUs"
    machine.setattr(torch.cuda, "max_memory_reserved", lambda device: 2**33)
    assert sizing.room(opened(CUDA, 10), 0) == OF_FREE * 2**35 // (2**33 + sizing.CONTEXT + 10) == 2, "the card"
    machine.setattr(sizing, "free_memory", lambda: 40)
    assert sizing.room(opened(CUDA, 10), 0) == 1, "the memory of the machine"
    machine.setattr(sizing, "free_memory", lambda: 10**6)
    machine.setattr(sizing, "gpus", lambda: ["0", "1", "2"])
    assert [sizing.room(opened(CUDA, 10), beside) for beside in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("version", [0, 1])
def test_a_control_group_bounds_free_memory_less_the_files_that_it_can_give_back(tmp_path, monkeypatch, version):
    _, most, taken, files = memory.GROUPS[version]
    monkeypatch.setattr(memory, "GROUPS", ((str(tmp_path), most, taken, files),))
    unbounded = memory.free_memory()
    for name, text in ((most, "1000000\n"), (taken, "900000\n"), ("memory.stat", f"anon 5\n{files} 250000\n")):
        (tmp_path / name).write_text(text)
    assert memory.free_memory() == 350_000
    (tmp_path / taken).write_text("9000000\n")
    assert memory.free_memory() == 0
    (tmp_path / most).write_text("max\n")
    assert memory.free_memory() > unbounded / 2


# --- When, and how many


def test_none_join_before_training_has_lasted_as_long_as_a_process_takes_to_start():
    clock, told = Clock(), []
    sized = Sizing(6.0, lambda beside: 5 - beside, clock=clock, told=told.append)
    assert sized.more(0, 9) == 0, "nothing is trained yet"
    clock.now += 100
    for seconds in (0.0, 3.0, 2.9):
        clock.now += seconds
        sized.hear(line(), here=True)
        assert sized.more(0, 9) == 0
    clock.now += 0.2
    assert sized.more(0, 9) == 5
    assert told == [6]
    clock.now += 100
    assert sized.more(5, 4) == 0, "there is no room for more"


def test_no_more_join_than_there_are_seeds_for_and_room_is_looked_for_again_later():
    clock, rooms = Clock(), iter([0, 5])
    sized = Sizing(6.0, lambda beside: next(rooms), clock=clock)
    sized.hear(line(), here=True)
    clock.now += 7
    assert sized.more(0, 3) == 0
    assert sized.more(0, 3) == 0, "it was just looked for"
    clock.now += 7
    assert sized.more(0, 3) == 3
    by_steps = Sizing(0.0, lambda beside: 9, gradually=True, clock=clock)
    by_steps.hear(line(), here=True)
    assert by_steps.more(0, 9) == 1
    for _ in range(HEARD):
        by_steps.hear(line(1), here=False)
    assert by_steps.more(1, 1) == 1, "and not two"


@pytest.mark.parametrize("slower", [1.0, 1.3, 1.7, 2.0])
def test_what_processes_bring_is_their_number_over_how_much_slower_each_becomes(slower):
    pace = Pace()
    for model, seconds in (("weak", 1.0), ("strong", 7.0), ("weak", 3.0)):
        pace.hear(line(model=model, seconds=seconds), here=True)
    pace.begin(2)
    for _ in range(HEARD):
        pace.hear(line(seconds=99.0), here=True)
    assert pace.gain() is None, "the other does not train yet"
    for _ in range(HEARD):
        assert pace.gain() is None
        pace.hear(line(1, "weak", 2.0 * slower), here=False)
        pace.hear(line(1, "mixture", 1000.0), here=False)  # of which nothing was heard before
    pace.hear(line(0, "strong", 7.0 * slower), here=True)
    assert pace.gain() == pytest.approx(2 / slower)


@pytest.mark.parametrize("most", [1.1, 1.5, 2.0, 3.0, 16.0])
def test_on_a_gpu_processes_double_as_long_as_that_does_enough_more(most):
    """A card that does `most` times as much as one process asks of it, however many ask."""
    clock, beside, seed = Clock(), 0, 0
    sized = Sizing(6.0, lambda beside: 15 - beside, gradually=True, clock=clock)
    for _ in range(10):
        together = 1 + beside
        for _ in range(2 * HEARD):
            for other in range(together):
                sized.hear(line(seed + other, seconds=together / min(together, most)), here=other == 0)
        clock.now += 7
        beside += sized.more(beside, 99)
        seed += together
    gains = [min(count, most) for count in (1, 2, 4, 8, 16)]
    expected = 2
    while expected < 16 and gains[expected.bit_length() - 1] >= PAYS * gains[expected.bit_length() - 2]:
        expected *= 2
    assert 1 + beside == expected


# --- Whole runs


def test_a_short_run_starts_no_process(monkeypatch, tmp_path):
    monkeypatch.setattr("mowst.system.company.Company.start", lambda *_: pytest.fail("a process"))
    flags = "--dataset sbm --preset fast --epochs 2 --seeds 3 --quiet --no-report"
    command([*flags.split(), "--out", str(tmp_path / "out")])
    assert len(json.loads((tmp_path / "out" / "result.json").read_text())["seeds"]) == 3


@pytest.fixture
def at_once(monkeypatch):
    """Let one process join as soon as something is trained."""
    monkeypatch.setattr(sizing, "IMPORTS", -1e9)
    monkeypatch.setattr(sizing, "room", lambda opened, beside: 1 - beside)


def in_order(lines):
    return sorted([each[key] for key in ("seed", "model", "phase", "epoch", "val")] for each in lines)


def test_scores_are_the_same_whoever_trains_a_seed_and_a_run_goes_on_with_another_number(tmp_path, at_once):
    expected, heard, joined, out = [], [], [], tmp_path / "out"
    one = run(QUICK, hook=expected.append, report=False)

    def hook(line):
        heard.append(line)
        end = time.monotonic() + 100
        while joined and line["seed"] == 0 and not (out / "seed-1").exists():
            assert time.monotonic() < end
            time.sleep(0.01)

    several = run(QUICK, out, workers="auto", hook=hook, report=False, joined=joined.append)
    assert joined == [2]
    assert several["scores"] == one["scores"]
    assert in_order(heard) == in_order(expected)
    done = {1: one["runs"][1]}
    rest = run(QUICK, workers="auto", done=done)
    assert rest["scores"] == one["scores"]
    assert rest["runs"][1] is done[1]


def test_a_number_of_workers_that_is_none_is_a_line():
    for word in ("0", "-1", "many", "1.5", ""):
        with pytest.raises(InputError) as caught:
            command(["--dataset", "sbm", "--workers", word])
        assert str(caught.value) == f"workers: must be a whole number from 1 or auto, got {word or repr(word)}"
    for wrong in (0, -1, "many", 1.5, None):
        with pytest.raises(InputError, match="workers: must be a whole number from 1, or auto, got "):
            run(QUICK, workers=wrong)
