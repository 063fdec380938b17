"""`--workers auto`: how many processes share the seeds of a run, by its size, its memory, and what they bring.

How many threads each seed has follows from the graph, the experts, the number of seeds and the machine alone, and a
seed's scores follow from these; how many processes there are may follow from what is free at the time.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch_geometric.data import Data

from mowst.experiment.batching import OF_FREE, estimated, free
from mowst.experiment.config import Config
from mowst.experiment.opening import Opened
from mowst.experiment.searching import searches
from mowst.system import free_memory, gpus, process_memory, usable_cpus

SMALL = 50e6
"""Multiplications in a pass of the largest expert up to which a seed gains less by a second thread than by having a
core of its own: on two cores, 1.2 times at 18, 23 and 41 million (digits, Cora, Amherst41)."""
IMPORTS = 5.0
"""Seconds that a new process takes before it opens the graph: 4.9 to 5.2 of a CPU were measured, on a busy machine."""
CONTEXT = 2**30
"""Bytes that a process takes of a GPU beside its tensors; not measured, half of it is usual."""
PAYS = 1.2
"""How many times as much must be done on a GPU by twice as many processes, for twice as many again to be tried."""
HEARD = 20
"""Validations from which that is judged."""


def passes(config: Config, data: Data) -> float:
    """Return the multiplications of a pass of the largest expert that looks at edges, without its first layer's.

    Of experts that are chosen later only their common width and depth are known.
    """
    experts = [part for role in (config.weak, config.strong) for part in (role.members.values() or [role])]
    width = max(part.hidden_channels for part in experts)
    depth = max(part.num_layers for part in experts)
    return float((len(data.y) * width + data.num_edges) * width * depth)


def sharing(config: Config, data: Data, device: torch.device) -> int:
    """Return how many processes the CPUs are to be divided among: one a seed, where threads do not bring more.

    On a GPU, where CPUs only hand on work, it is one a seed, too. Candidates are tried one after the other, before
    there are seeds to share.
    """
    if searches(config) or (device.type == "cpu" and passes(config, data) > SMALL):
        return 1
    return min(config.seeds, usable_cpus())


def fitting(there: float, each: float, own: float) -> int:
    """Return how many more processes fit into so many free bytes.

    Args:
        there: what is free.
        each: what a process takes.
        own: what the one that is there already may still take.
    """
    return max(0, int((OF_FREE * there - own) // each))


class Pace:
    """What processes bring that share a GPU: by the seconds of their epochs, like with like.

    The first seed is trained alone; that says what an epoch of each model and phase takes then.
    """

    def __init__(self) -> None:
        self.alone: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.begin(1)

    def begin(self, together: int) -> None:
        """Count anew, for so many processes, once each of them trains."""
        self.together, self.seeds, self.took, self.expected, self.count = together, set[int](), 0.0, 0.0, 0

    def hear(self, line: Mapping[str, Any], *, here: bool) -> None:
        """Take the record of one validation."""
        kind = line["model"], line["phase"]
        self.seeds |= set() if here else {line["seed"]}
        if self.together == 1:
            self.alone[kind].append(line["seconds"])
        elif len(self.seeds) >= self.together - 1 and kind in self.alone:
            self.took += line["seconds"]
            self.expected += sum(self.alone[kind]) / len(self.alone[kind])
            self.count += 1

    def gain(self) -> float | None:
        """Return how many times as much is done as by one process; none: too little was heard to tell."""
        return self.together * self.expected / self.took if self.count >= HEARD and self.took else None


class Sizing:
    """Says when processes join a run that trains, and how many.

    None join before training has lasted as long as a process takes to start, so that short runs start none. On a CPU
    all join at once, each with cores of its own. On one GPU as many join as are there, again and again, as long as each
    doubling does enough more.

    Args:
        start: seconds that a process takes to start.
        room: returns how many more there is room for, beside so many that have joined.
        gradually: whether what they bring is measured, as on one GPU.
        clock: seconds since whenever.
        told: called with the number of processes when some join.
    """

    def __init__(
        self,
        start: float,
        room: Callable[[int], int],
        *,
        gradually: bool = False,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[int], None] = lambda count: None,
    ):
        self.start, self.room, self.gradually, self.clock, self.told = start, room, gradually, clock, told
        self.since: float | None = None
        self.pace, self.last = Pace(), 1.0

    @classmethod
    def of(cls, opened: Opened, told: Callable[[int], None]) -> Sizing:
        """Return that of a run."""
        cards = len(gpus()) if opened.fabric.device.type == "cuda" else 0
        return cls(IMPORTS + opened.seconds, lambda beside: room(opened, beside), gradually=cards == 1, told=told)

    def hear(self, line: Mapping[str, Any], *, here: bool) -> None:
        """Take the record of one validation."""
        self.since = self.clock() if self.since is None else self.since
        if self.gradually:
            self.pace.hear(line, here=here)

    def more(self, beside: int, left: int) -> int:
        """Return how many processes are to join now."""
        if self.since is None or self.clock() - self.since < self.start:
            return 0
        if self.gradually and beside:
            if (gain := self.pace.gain()) is None or gain < PAYS * self.last:
                return 0
            self.last = gain
        self.since = self.clock()
        count = min(left, self.room(beside), beside + 1 if self.gradually else left)
        if count > 0:
            self.pace.begin(1 + beside + count)
            self.told(1 + beside + count)
        return max(0, count)


def room(opened: Opened, beside: int) -> int:
    """Return how many more processes may join a run: each has its own CPUs and its memory, and of several GPUs one."""
    device, step = opened.fabric.device, estimated(opened.config, opened.seed(opened.config.first_seed).data).step
    apart = usable_cpus() // torch.get_num_threads() - 1 - beside
    if device.type == "cpu":
        return min(apart, fitting(free_memory(), process_memory() + step, step))
    if device.type != "cuda":
        return 0
    apart = min(apart, fitting(free_memory(), process_memory(), 0))
    if (cards := len(gpus())) > 1:
        return min(apart, cards - 1 - beside)
    return min(apart, fitting(free(device), torch.cuda.max_memory_reserved(device) + CONTEXT + step, step))
