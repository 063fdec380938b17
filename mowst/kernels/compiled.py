"""The drawing of neighbours compiled by numba, an extra: the very draws of `mowst.kernels.sampling`, number for number.

Random numbers come from outside, so that a seed means the same with and without it. What it keeps from call to call is
room to remember in where a node is: one number of 32 bits for each, in each thread.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mowst.kernels.drawn import LABOR, STEP, STIRS, UNIFORM, Drawn, salted
from mowst.kernels.sparse import Rows

Array = Any
"""A numpy array, as numba sees it."""
ABSENT, MET = -1, -2
BITS = 64
_room = threading.local()


def neighbourhood(
    rows: Rows, seeds: Tensor, fanouts: Sequence[int], generator: torch.Generator | None, kind: str = UNIFORM
) -> Drawn:
    """Draw what `mowst.kernels.neighbourhood` does, on a CPU."""
    start, column = rows.start.numpy(), rows.column.numpy()
    place, marks = room = _room_for(len(start) - 1)
    front, base, count = seeds.numpy(), 0, len(seeds)
    found, parts, times = [front], [], []
    seat(place, front, 0)
    for fanout in fanouts:
        if kind == LABOR:
            salt = salted(generator)
            total = likely(start, column, front, fanout, salt)
            target, entry, stands, fresh = pick((start, column), front, (fanout, base, total, salt), room)
            times.append(stands)
        else:
            total, many = measure(start, front, fanout)
            draws = torch.rand(fanout if many else 0, many, dtype=torch.float64, generator=generator).numpy()
            target, entry, fresh = expand((start, column), front, (fanout, base, total), draws, room)
        new = settle(marks, fresh)
        seat(place, new, count)
        parts.append((target, look(place, column, entry), entry))
        found.append(new)
        front, base, count = new, count, count + len(new)
    nodes = np.concatenate(found)
    forget(place, nodes)
    whole = (np.concatenate(each) for each in ((nodes,), *zip(*parts, strict=True)) if len(each))
    out = [torch.from_numpy(each) for each in whole]
    stands_for = torch.from_numpy(np.concatenate(times)) if times else None
    return Drawn(out[0], out[1], out[2], out[3], tuple(accumulate(map(len, found))), stands_for)


def _room_for(nodes: int) -> tuple[Array, Array]:
    """Return a place for each node, all of them absent, and a bit for each, all of them 0."""
    if vars(_room).get("nodes") != nodes:
        _room.nodes, _room.place = nodes, np.full(nodes, ABSENT, np.int32)
        _room.marks = np.zeros(-(-nodes // BITS), np.uint64)
    return _room.place, _room.marks


def _measure(start: Array, front: Array, fanout: int) -> tuple[int, int]:
    """Return how many entries are drawn from the rows of some nodes, and how many of these have more than that."""
    total = many = 0
    for node in front:
        degree = start[node + 1] - start[node]
        if fanout >= 0 and degree > fanout:
            many += 1
            total += fanout
        else:
            total += degree
    return total, many


def _expand(
    rows: tuple[Array, Array], front: Array, sizes: tuple[int, int, int], draws: Array, room: tuple[Array, Array]
) -> tuple[Array, Array, int]:
    """Draw entries of the rows of some nodes, and mark the nodes that are met for the first time."""
    (start, column), (fanout, base, total), (place, marks) = rows, sizes, room
    target, entry = np.empty(total, np.int64), np.empty(total, np.int64)
    pick = np.empty(max(fanout, 1), np.int64)
    at = drawn = fresh = 0
    for i in range(len(front)):
        first = start[front[i]]
        degree = start[front[i] + 1] - first
        some = fanout >= 0 and degree > fanout
        for j in range(fanout if some else degree):
            one = j
            if some:
                top = degree - fanout + j
                one = int(draws[j, drawn] * (top + 1))
                for k in range(j):
                    if pick[k] == one:
                        one = top
                        break
                pick[j] = one
            target[at], entry[at] = base + i, first + one
            source = column[first + one]
            if place[source] == ABSENT:
                place[source] = MET
                marks[source // BITS] |= np.uint64(1) << np.uint64(source % BITS)
                fresh += 1
            at += 1
        drawn += some
    return target, entry, fresh


def _uniform(number: int, salt: int) -> float:
    """Return `mowst.kernels.sampling.uniform` of one number."""
    z = number * STEP + salt
    for shift, left, factor in STIRS:
        z = (z ^ ((z >> shift) & ((1 << left) - 1))) * factor
    return float((z >> 11) & ((1 << 53) - 1)) * 2.0**-53


uniform: Any = njit(inline="always")(_uniform)


def _likely(start: Array, column: Array, front: Array, fanout: int, salt: int) -> int:
    """Return how many entries are drawn from the rows of some nodes, each by itself."""
    total = 0
    for node in front:
        degree = start[node + 1] - start[node]
        if fanout < 0 or degree <= fanout:
            total += degree
        else:
            for place in range(start[node], start[node + 1]):
                total += uniform(column[place], salt) * degree < fanout
    return total


def _pick(
    rows: tuple[Array, Array], front: Array, sizes: tuple[int, int, int, int], room: tuple[Array, Array]
) -> tuple[Array, Array, Array, int]:
    """Draw entries of the rows of some nodes, each by itself, and mark the nodes that are met for the first time."""
    (start, column), (fanout, base, total, salt), (place, marks) = rows, sizes, room
    target, entry, times = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.float64)
    at = fresh = 0
    for i in range(len(front)):
        first, last = start[front[i]], start[front[i] + 1]
        degree = last - first
        few = degree if fanout < 0 or degree < fanout else fanout
        for one in range(first, last):
            source = column[one]
            if few < degree and not uniform(source, salt) * degree < few:
                continue
            target[at], entry[at], times[at] = base + i, one, degree / few
            if place[source] == ABSENT:
                place[source] = MET
                marks[source // BITS] |= np.uint64(1) << np.uint64(source % BITS)
                fresh += 1
            at += 1
    return target, entry, times, fresh


def _settle(marks: Array, fresh: int) -> Array:
    """Return the marked nodes in order, and take the marks away."""
    new = np.empty(fresh, np.int64)
    at = 0
    for word in range(len(marks)):
        held = marks[word]
        if held:
            for bit in range(BITS):
                if held & (np.uint64(1) << np.uint64(bit)):
                    new[at] = word * BITS + bit
                    at += 1
            marks[word] = 0
    return new


def _seat(place: Array, nodes: Array, first: int) -> None:
    """Number some nodes from one number on."""
    for i in range(len(nodes)):
        place[nodes[i]] = first + i


def _look(place: Array, column: Array, entry: Array) -> Array:
    """Return where the sources of some entries are."""
    source = np.empty(len(entry), np.int64)
    for i in range(len(entry)):
        source[i] = place[column[entry[i]]]
    return source


def _forget(place: Array, nodes: Array) -> None:
    """Let some nodes be absent again."""
    for i in range(len(nodes)):
        place[nodes[i]] = ABSENT


_compiled: Any = njit(nogil=True, cache=True)
measure, expand, settle = _compiled(_measure), _compiled(_expand), _compiled(_settle)
likely, pick = _compiled(_likely), _compiled(_pick)
seat, look, forget = _compiled(_seat), _compiled(_look), _compiled(_forget)
