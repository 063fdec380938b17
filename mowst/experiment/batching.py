"""`--batch auto`: the whole graph in every step where memory allows, parts of it where not; and what cannot be."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from typing import NamedTuple

import torch
from torch_geometric.data import Data

from mowst.errors import InputError
from mowst.experiment.building import classes_of
from mowst.experiment.config import Config
from mowst.kernels import SparseFeatures
from mowst.system import free_memory
from mowst.training import Neighbours, Parts, check_share, feed_of
from mowst.training import Whole as Undivided

AUTO = "auto"
OF_FREE = 0.7
"""Share of the free memory that a step may take."""
TENSORS = 5.0
"""Of a layer's output, [N, H], that a step keeps at its largest moment, gradients included: 2.5 were measured
(`benchmarks/scale.py`), and twice as much where freed memory is kept (`mowst.system.process`)."""


class Need(NamedTuple):
    """Bytes that training on the whole graph takes."""

    step: float
    inference: float
    """Without gradients: two layers are there at once."""


def estimated(config: Config, data: Data) -> Need:
    """Estimate what a step of the largest expert on the whole graph takes, beside the graph itself."""
    nodes, classes, numbers = len(data.y), classes_of(data), 4
    members = [part for role in (config.weak, config.strong) for part in role.members.values()]
    widths = [TENSORS * (part.num_layers - 1) * part.hidden_channels + 2 * TENSORS * classes for part in members]
    said = len(members) * classes
    widest = max((part.hidden_channels for part in members), default=0)
    sparse = isinstance(data.x, SparseFeatures) or data.x.layout != torch.strided
    features = 0 if sparse else 2 * data.num_features
    step = nodes * numbers * (max(widths, default=0.0) + said + features)
    return Need(step, nodes * numbers * (3 * widest + said + features))


def free(device: torch.device) -> int:
    """Return the bytes of memory that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def batched(config: Config, data: Data, device: torch.device, devices: int = 1) -> Config:
    """Return a configuration in which `auto` batches have become what memory allows on this graph.

    Several devices share the memory of a machine, unless it is their own.
    """
    if config.batch != AUTO:
        return config
    there = free(device) // (devices if device.type == "cpu" else 1)
    return replace(config, batch=chosen_batch(estimated(config, data), there, int(data.train_mask.sum()), devices))


def check_batch(config: Config, data: Data, devices: int = 1) -> None:
    """Refuse batches that this graph and these experts cannot have; say where there are more fan-outs than layers.

    Raises:
        InputError: there are more parts than training nodes, or fewer fan-outs than layers, or several devices cannot
            share them out.
    """
    feed, train = feed_of(config.batch), int(data.train_mask.sum())
    if not isinstance(feed, Undivided):
        check_share(devices, feed.count if isinstance(feed, Parts) else devices, train)
    if isinstance(feed, Parts) and feed.count > train:
        raise InputError(f"batch: {config.batch}: there are {train} training nodes; take fewer parts")
    if isinstance(feed, Neighbours):
        layers = max((part.num_layers for part in config.strong.members.values()), default=0)
        differ = f"batch: {config.batch}: has {len(feed.fanouts)} fan-outs, and the strong expert {layers} layers"
        if len(feed.fanouts) < layers:
            raise InputError(f"{differ}; give {layers} numbers")
        if len(feed.fanouts) > layers:  # of several experts that were tried, those with most layers need not be kept
            warnings.warn(f"{differ}, which need the first {layers} numbers", stacklevel=2)


def chosen_batch(need: Need, there: int, train: int, devices: int = 1) -> str:
    """Choose batches by memory, in bytes, and say so where it is not the whole graph; each device takes a part."""
    if need.step <= OF_FREE * there:
        return "full"
    room = max(OF_FREE * there - need.inference, 0.1 * there)
    count = max(2, min(train, math.ceil(need.step / room)))
    count = devices * math.ceil(count / devices)
    gib = [f"{size / 2**30:,.1f} GiB" for size in (need.step, there)]
    print(
        f"note: a step on the whole graph takes some {gib[0]} and {gib[1]} are free: --batch parts({count})",
        file=sys.stderr,
    )
    return f"parts({count})"
