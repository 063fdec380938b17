"""Batch norm of a step, ReLU and dropout, forward and backward, as Triton kernels that read a matrix [N, H] in pieces.

Statistics and sums are kept in float32, whatever the precision of the matrix, and put together in an order that is
always the same. No mask is kept: whether an entry is dropped is a number of Philox (Salmon et al., 2011,
doi 10.1145/2063384.2063405) at its row and column; eight rows share a draw.

What Triton compiles names nothing but Triton: so arguments are tensors here, pointers and numbers as well.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


def _words(seed: tl.tensor, group: tl.tensor, place: tl.tensor) -> tl.tensor:
    """Draw four words of 32 bits for each group of rows and each column."""
    none = group[:, None].to(tl.int32) * 0 + place[None, :] * 0
    return tl.philox(tl.load(seed), none + group[:, None].to(tl.int32), none + place[None, :], none, none)


def _survives(words: tl.tensor, drops: tl.tensor, k: tl.constexpr) -> tl.tensor:
    """Tell whether the entries of the k-th row of each group are kept."""
    if k < 2:
        word = words[0]
    elif k < 4:
        word = words[1]
    elif k < 6:
        word = words[2]
    else:
        word = words[3]
    return ((word >> (16 * (k % 2))) & 0xFFFF).to(tl.int32) >= drops


def _column(
    values: tl.tensor, place: tl.tensor, inside: tl.tensor, other: tl.tensor, THERE: tl.constexpr, GROUPS: tl.constexpr
) -> tl.tensor:
    """Read a number of each column, and have it for every group; another one where there is none."""
    found = place * 0.0 + other
    if THERE:
        found = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
    return tl.broadcast_to(found[None, :], (GROUPS, found.shape[0]))


words_of: Any = triton.jit(_words)
survives: Any = triton.jit(_survives)
column_of: Any = triton.jit(_column)


def _moments(
    x: tl.tensor,
    parts: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    each: tl.tensor,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Find each column's mean, and its squares around that, in a part of the rows (Welford, then Chan et al.).

    Means are what they are beyond the first row, so that large ones cost no digits.
    """
    part = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    first = part * each + tl.arange(0, GROUPS) * STEP
    origin = column_of(x, place, inside, 0.0, True, GROUPS)
    mean = tl.zeros((GROUPS, BLOCK), tl.float32)
    squares = tl.zeros((GROUPS, BLOCK), tl.float32)
    count = tl.zeros((GROUPS,), tl.float32)
    seen = 0.0
    for begin in range(0, each, GROUPS * STEP):
        for k in tl.static_range(STEP):
            row = first + begin + k
            there = (row < rows)[:, None] & inside[None, :]
            value = tl.load(x + row[:, None] * stride + place[None, :], mask=there, other=0.0).to(tl.float32)
            seen += 1.0
            count += (row < rows).to(tl.float32)
            value -= origin
            away = tl.where(there, value - mean, 0.0)
            mean += away * (1.0 / seen)
            squares += away * (value - mean)
    weight = count[:, None]
    middle = tl.sum(weight * mean, axis=0) / tl.sum(count, axis=0)
    middle += tl.sum(weight * (mean - middle[None, :]), axis=0) / tl.sum(count, axis=0)  # what rounding left
    apart = mean - middle[None, :]
    here = parts + 2 * part * width + place
    tl.store(here, middle, mask=inside)
    tl.store(here + width, tl.sum(squares + weight * apart * apart, axis=0), mask=inside)


def _merge(
    x: tl.tensor,
    parts: tl.tensor,
    moments: tl.tensor,
    running_mean: tl.tensor,
    running_var: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    each: tl.tensor,
    count: tl.tensor,
    eps: tl.tensor,
    factor: tl.tensor,
    TRACKED: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Put the parts together: each column's mean and one over its deviation; and remember them."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    part = tl.arange(0, PARTS).to(tl.int64)
    there = (part < count)[:, None] & inside[None, :]
    weight = tl.where(part < count, tl.minimum(rows - part * each, each), 0).to(tl.float32)[:, None]
    here = parts + 2 * part[:, None] * width + place[None, :]
    mean = tl.load(here, mask=there, other=0.0)
    squares = tl.load(here + width, mask=there, other=0.0)
    total = rows * 1.0
    middle = tl.sum(weight * mean, axis=0) / total
    middle += tl.sum(weight * (mean - middle[None, :]), axis=0) / total
    apart = mean - middle[None, :]
    spread = tl.sum(squares + weight * apart * apart, axis=0)
    middle += tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(moments + place, middle, mask=inside)
    tl.store(moments + width + place, 1.0 / tl.sqrt_rn(spread / total + eps), mask=inside)
    if TRACKED:
        before = tl.load(running_mean + place, mask=inside, other=0.0)
        tl.store(running_mean + place, (1.0 - factor) * before + factor * middle, mask=inside)
        before = tl.load(running_var + place, mask=inside, other=0.0)
        tl.store(running_var + place, (1.0 - factor) * before + factor * (spread / (total - 1.0)), mask=inside)


def _forth(
    x: tl.tensor,
    out: tl.tensor,
    moments: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    seed: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    drops: tl.tensor,
    grow: tl.tensor,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    DROPS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Write the result for some rows and columns."""
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    middle = column_of(moments, place, inside, 0.0, True, GROUPS)
    narrow = column_of(moments + width, place, inside, 0.0, True, GROUPS)
    times = column_of(weight, place, inside, 1.0, WEIGHT, GROUPS)
    plus = column_of(bias, place, inside, 0.0, BIAS, GROUPS)
    if DROPS:
        words = words_of(seed, group, place)
    for k in tl.static_range(STEP):
        row = group * STEP + k
        there = (row < rows)[:, None] & inside[None, :]
        value = tl.load(x + row[:, None] * stride + place[None, :], mask=there, other=0.0).to(tl.float32)
        said = tl.fma((value - middle) * narrow, times, plus)
        said = tl.where(said <= 0.0, 0.0, said)  # which leaves what is no number
        if DROPS:
            said = tl.where(survives(words, drops, k), said * grow, 0.0)
        tl.store(out + row[:, None] * width + place[None, :], said.to(out.dtype.element_ty), mask=there)


def _back(
    x: tl.tensor,
    gradient: tl.tensor,
    out: tl.tensor,
    moments: tl.tensor,
    sums: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    seed: tl.tensor,
    rows: tl.tensor,
    width: tl.tensor,
    stride: tl.tensor,
    gradient_stride: tl.tensor,
    each: tl.tensor,
    drops: tl.tensor,
    grow: tl.tensor,
    ADDS: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
    DROPS: tl.constexpr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
) -> None:
    """Add up the gradient of what is normalised, and its products with that, in a part of the rows; or with their sums
    over all rows, write the gradient of `x`.
    """
    part = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < width
    middle = column_of(moments, place, inside, 0.0, True, GROUPS)
    narrow = column_of(moments + width, place, inside, 0.0, True, GROUPS)
    times = column_of(weight, place, inside, 1.0, WEIGHT, GROUPS)
    plus = column_of(bias, place, inside, 0.0, BIAS, GROUPS)
    if ADDS:
        plain = tl.zeros((GROUPS, BLOCK), tl.float32)
        along = tl.zeros((GROUPS, BLOCK), tl.float32)
    else:
        plain = column_of(sums, place, inside, 0.0, True, GROUPS) / rows
        along = column_of(sums + width, place, inside, 0.0, True, GROUPS) / rows
    for begin in range(0, each, GROUPS * STEP):
        group = (part * each + begin) // STEP + tl.arange(0, GROUPS)
        if DROPS:
            words = words_of(seed, group, place)
        for k in tl.static_range(STEP):
            row = group * STEP + k
            there = (row < rows)[:, None] & inside[None, :]
            value = tl.load(x + row[:, None] * stride + place[None, :], mask=there, other=0.0).to(tl.float32)
            given = gradient + row[:, None] * gradient_stride + place[None, :]
            given = tl.load(given, mask=there, other=0.0).to(tl.float32)
            normal = (value - middle) * narrow
            given = tl.where(tl.fma(normal, times, plus) <= 0.0, 0.0, given)
            if DROPS:
                given = tl.where(survives(words, drops, k), given * grow, 0.0)
            if ADDS:
                plain += given
                along += tl.where(there, given * normal, 0.0)
            else:
                given = narrow * times * (given - plain - normal * along)
                tl.store(out + row[:, None] * width + place[None, :], given.to(out.dtype.element_ty), mask=there)
    if ADDS:
        tl.store(out + 2 * part * width + place, tl.sum(plain, axis=0), mask=inside)
        tl.store(out + (2 * part + 1) * width + place, tl.sum(along, axis=0), mask=inside)


moments_of: Any = triton.jit(_moments)
merged: Any = triton.jit(_merge)
forth_of: Any = triton.jit(_forth)
back_of: Any = triton.jit(_back)
