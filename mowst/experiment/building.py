"""From a configuration to what is trained: device, prepared graph, experts, gate and mixture, with fresh weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import ACCELERATOR_REGISTRY
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures

from mowst.data.assembling import raw_of
from mowst.data.given import Scale
from mowst.data.uneven import say_uneven
from mowst.errors import InputError, some
from mowst.experiment.config import Config
from mowst.experiment.expert import ExpertConfig
from mowst.experiment.identity import tensors_hash
from mowst.experiment.plan import FINAL, regime_of, seats_of
from mowst.experiment.without_edges import with_averages, without_edges
from mowst.kernels import Adjacency, Tabled, dense, prepare_features, private, written_by_torch_alone
from mowst.models import (
    GATES,
    ROLES,
    LearnedGate,
    Learner,
    LogisticGate,
    Mowst,
    Neighbours,
    Panel,
    asks_of,
    expert,
    reads_of,
    shown_unit_rows,
)
from mowst.system import Group, Mapped, guard_scatter

LARGE = 2**24
"""Edges from which on an adjacency is kept on disk."""
KEPT = 2
"""Which form is kept there."""


def fabric_of(config: Config, group: Group | None = None) -> Fabric:
    """Return the device and precision of a configuration, on one device, or of each process of a group that is joined.

    Raises:
        InputError: the device is not here, lacks the precision, or there are fewer than the group has processes here.
    """
    precision: Any = config.precision
    try:
        fabric = Fabric(accelerator=config.device, devices=1, precision=precision)
    except (ValueError, RuntimeError, TypeError, ImportError):
        there = [name for name in ACCELERATOR_REGISTRY if ACCELERATOR_REGISTRY[name]["accelerator"].is_available()]
        raise InputError(f"device: {config.device!r} is not here; choose from auto, {', '.join(there)}") from None
    if not supports(fabric.device, config.precision):
        raise InputError(f"precision {config.precision!r}: this {fabric.device.type} device lacks it; choose 32-true")
    guard_scatter(fabric.device)
    if group is None:
        return fabric
    check_devices(fabric.device, group.local_size)
    together: dict[str, Any] = {"devices": group.local_size, "num_nodes": group.hosts, "strategy": "ddp"}
    fabric = Fabric(accelerator=config.device, precision=precision, **together)
    fabric.launch()
    return fabric


def check_devices(device: torch.device, count: int) -> None:
    """Refuse more devices than this machine has of a kind; of the CPU's processes there may be any number."""
    there = {"cpu": count, "cuda": torch.cuda.device_count()}.get(device.type, 1)
    if count > there:
        raise InputError(f"devices: {count} are asked for, and this machine has {there} of the kind {device.type}")


def supports(device: torch.device, precision: str) -> bool:
    """Whether a device computes in a precision by itself, without emulation."""
    if precision == "16-mixed":
        return device.type == "cuda"
    bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return precision != "bf16-mixed" or bfloat16


def prepare(data: Data, config: Config, device: torch.device, scale: Scale | None = None) -> Data:
    """Copy a graph to a device with its adjacency and features in their fast forms: `adj_t` and `x`.

    Args:
        data: the graph, checked.
        config: says what is done to features.
        device: where to.
        scale: of the features that a model was trained on, where these are standardised; by default the graph's own.
    """
    data, raw = copy.copy(data), raw_of(data)
    if config.standardize:
        data.x = (scale or Scale.of(data.x)).standardized(data.x)
    data.x = data.x.to(torch.get_default_dtype())
    if config.normalize_features:
        data.x = dense(data.x)
        data = NormalizeFeatures()(data)
    data.x = prepare_features(data.x)
    data = data.to(device)  # first: a GPU orders edges in a moment
    weight = data.get("edge_weight")
    weight = None if weight is None else weight.to(torch.get_default_dtype())
    keep = adjacencies(data, Path(config.data_root)) if weight is None and device.type == "cpu" else None
    data.adj_t = Adjacency.from_edge_index(data.edge_index, data.num_nodes, weight, keep=keep)
    data.x = with_averages(config, data.x if raw is None else Tabled(data.x, raw), data.adj_t)
    return data


def adjacencies(data: Data, root: Path) -> Mapped | None:
    """Return where the adjacency of a large graph is kept, under the folder of graphs; none for a small one."""
    edge_index = data.edge_index
    if edge_index.size(1) < LARGE:
        return None
    if written_by_torch_alone(edge_index):
        private(edge_index)  # to take its hash is to look at its memory, no more
    return Mapped(root / "adjacency", f"{KEPT}-{data.num_nodes}-{tensors_hash(edge_index)[:32]}")


def advise(config: Config, data: Data) -> None:
    """Say what a look at a graph suggests: columns of features that drown, classes that cannot be learned."""
    if not (config.standardize or config.normalize_features):
        say_uneven(data.x)
    trained = data.y[data.train_mask].bincount(minlength=classes_of(data))
    if absent := (trained == 0).nonzero().flatten().tolist():
        names = data.get("class_names") or range(len(trained))
        warnings.warn(
            f"train_mask: no node of class {some(names[k] for k in absent)} is in it: it is never predicted right",
            stacklevel=2,
        )


def say_unweighted(model: nn.Module, data: Data) -> None:
    """Say where edges have weights that no expert of a model uses."""
    reads = model.experts_read.values() if isinstance(model, Mowst) else [reads_of(model)]
    if "edge_weight" in data and not any(each.weights for each in reads):
        warnings.warn("edge_weight: no expert here uses the weights of edges; gcn, sage and gin do", stacklevel=2)


def build(config: Config, in_channels: int, num_classes: int) -> Mowst:
    """Build the experts and the gate of a configuration, with fresh weights from torch's generator."""
    weak, strong = (build_role(role, config, in_channels, num_classes) for role in ROLES)
    for role, part in zip(ROLES, (weak, strong), strict=True):
        if isinstance(part, Learner | Panel) and not regime_of(config).apart:
            why = "is a panel" if isinstance(part, Panel) else "learns by itself"
            raise InputError(
                f"regime {config.regime}: trains both by gradients, and the {role} expert {why}; take held-out"
            )
    if isinstance(weak, Learner | Panel) and config.kd is not None:
        raise InputError("kd: the weak expert must be a single one that is trained by gradients, such as mlp")
    kind = config.gate_kind
    gate_class: Any = GATES.lookup(kind)
    options = dict(config.gate.options)
    if config.gate.features:
        if gate_class is not LearnedGate and "in_channels" not in options:
            raise InputError(f"gate {kind}: only the learned gate sees features; use --gate learned")
        options["in_channels"] = in_channels
    try:
        gate = gate_class(config.gate.dispersions, detach=config.gate.detach, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"gate {kind}: {error}") from None
    routed = asks_of(gate).strong and regime_of(config).holds_out
    return Mowst(weak, strong, gate, LogisticGate(config.gate.dispersions) if routed else None)


def part_of(role: str, config: Config) -> ExpertConfig:
    """Return the configuration of the `weak` or the `strong` expert."""
    return {"weak": config.weak, "strong": config.strong}[role]


def build_role(role: str, config: Config, in_channels: int, num_classes: int) -> nn.Module:
    """Build the `weak` or `strong` expert of a configuration: one expert, or a panel of several."""
    members = part_of(role, config).members
    if not members:
        raise InputError(f"{role}.kind: auto is for a graph to decide; ask mowst.experiment.chosen(config, data) first")
    made = {
        name: without_edges(config, f"{role} expert {part.kind}", build_expert(role, part, in_channels, num_classes))
        for name, part in members.items()
    }
    return Panel(made) if len(made) > 1 else next(iter(made.values()))


def build_expert(role: str, part: ExpertConfig, in_channels: int, num_classes: int) -> nn.Module:
    """Build one expert in a role, and try it on two nodes joined by an edge.

    One that fails on them is said, for it may need another graph than this one.

    Raises:
        InputError: it cannot be built, has nothing to train, or does not answer with logits [N, C].
    """
    what = f"{role} expert {part.kind}"
    options = {key: getattr(part, key) for key in ("norm", "hidden_channels", "num_layers", "dropout")}
    if own := sorted({*options, "in_channels", "out_channels", "kind"} & set(part.options)):
        raise InputError(f"{what}: options: {own[0]} is a field of its own, give --{role}.{own[0]}")
    make = partial(expert, part.kind, in_channels, num_classes, **options, **part.options)
    refuse_giant(what, make)
    try:
        made = make()
    except InputError as error:
        raise InputError(f"{role} {error}") from None
    if not isinstance(made, Learner) and not any(parameter.requires_grad for parameter in made.parameters()):
        raise InputError(f"{what}: has no parameter to train")
    if isinstance(made, Learner) and part.class_weight != "none":
        raise InputError(f"{what}: class_weight: it learns by itself, by a loss of its own; give it to another expert")
    if part.unit_rows and not isinstance(made, Neighbours):
        made = shown_unit_rows(made)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            said = copy.deepcopy(made).eval()(torch.zeros(2, in_channels), torch.tensor([[0, 1], [1, 0]]))
    except Exception as error:  # of a third party's module: anything
        warnings.warn(f"{what}: fails on two nodes joined by an edge ({reason_of(error)})", stacklevel=2)
        return made
    if not isinstance(said, Tensor) or said.shape != (2, num_classes):
        shape = list(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise InputError(f"{what}: must return logits [N, {num_classes}], and for N = 2 returned {shape}")
    return made


def refuse_giant(what: str, make: Callable[[], nn.Module]) -> None:
    """Refuse an expert whose weights, with gradients and what an optimiser keeps of them, are more than the memory."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            numbers = sum(parameter.numel() for parameter in make().parameters())
    except Exception:  # what is wrong with it, or that it cannot be made without memory, is seen when it is made
        return
    needed, there = 16 * numbers, psutil.virtual_memory().total
    if needed > there:
        raise InputError(
            f"{what}: of {numbers:,} weights needs some {needed / 2**30:,.0f} GiB to train, and this machine has "
            f"{there / 2**30:,.0f}; take fewer hidden_channels, num_layers or heads"
        )


def reason_of(error: BaseException) -> str:
    """Say in a line what a third party's code raised."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def build_model(name: str, config: Config, in_channels: int, num_classes: int) -> nn.Module:
    """Build the `mixture` or `final`, an expert by its role or name in a panel, or the `student` of a regime."""
    if name in ("mixture", FINAL):
        return build(config, in_channels, num_classes)
    if name in (seats := seats_of(config)):
        role, part = seats[name]
        return without_edges(config, f"{role} expert {part.kind}", build_expert(role, part, in_channels, num_classes))
    role = name if name in ROLES else regime_of(config).alone or "weak"
    made = build_role(role, config, in_channels, num_classes)
    if isinstance(made, Panel):
        raise InputError(f"{role} expert {part_of(role, config).kind}: a panel is fitted in a mixture; give one expert")
    return made


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch inside, and leave its generators outside as they were."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def classes_of(data: Data) -> int:
    """Return the number of classes C that a graph names, or that its labels go up to."""
    return data["num_classes"] if "num_classes" in data else int(data.y.max()) + 1
