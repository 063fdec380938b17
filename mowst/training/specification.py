"""What `--batch` says: a feed of rows, by its words."""

from __future__ import annotations

import re

from mowst.errors import InputError
from mowst.kernels import KINDS, OURS, SAMPLERS, UNIFORM
from mowst.training.batches import Feed, Whole
from mowst.training.feeds import SIZE, Hops, Neighbours, Parts


def feed_of(batch: str, seed: int = 0) -> Feed:
    """Return the feed of a specification: full, parts(10), neighbors(15,10,5), hops.

    Raises:
        InputError: it is none, or nobody here draws what it asks for.
    """
    try:
        feed = _said(batch, seed)
    except ValueError:
        feed = None
    if feed is None:
        raise InputError(
            "batch: must be auto, full, parts(10), hops, neighbors(15,10,5), or with options "
            f"neighbors(15,10,size=512,kind=labor,by=pyg), got {batch!r}"
        )
    if isinstance(feed, Neighbours):
        SAMPLERS[feed.by].check(feed.kind)
    return feed


def _said(batch: str, seed: int) -> Feed | None:
    """Return what a specification says; none if it says nothing that is known."""
    found = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", batch)
    kind, inner = (found[1], found[2]) if found else ("", None)
    words = [word.strip() for word in (inner or "").split(",") if word.strip()]
    options = {name.strip(): value.strip() for name, _, value in (w.partition("=") for w in words if "=" in w)}
    numbers = [int(word) for word in words if "=" not in word]
    size = int(options.pop("size", SIZE))
    if kind == "full" and inner is None:
        return Whole()
    if kind == "parts" and len(numbers) == 1 and numbers[0] >= 1 and not options and size == SIZE:
        return Parts(numbers[0], seed)
    if kind == "hops" and not numbers and not options and size >= 2:
        return Hops(size, seed)
    how, by = options.pop("kind", UNIFORM), options.pop("by", OURS)
    fit = numbers and all(number == -1 or number >= 1 for number in numbers) and size >= 2
    if kind == "neighbors" and fit and not options and how in KINDS and by in SAMPLERS:
        return Neighbours(tuple(numbers), size, seed, how, by)
    return None
