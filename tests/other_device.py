"""A device of our own beside the CPU, which keeps its tensors on the CPU and lets nobody mix them with the CPU's.

What runs on it puts every tensor where the others are, which is what a GPU asks for; what torch allows there it allows,
too: numbers (tensors without dimensions), and indices of the CPU. It says nothing about kernels, speed and streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "other"
COPIES = {"aten::_to_copy", "aten::copy_"}
WAITS = {
    "aten::_local_scalar_dense",
    "aten::bincount",
    "aten::equal",
    "aten::is_nonzero",
    "aten::linalg_eigh",
    "aten::linalg_solve_ex",
    "aten::masked_select",
    "aten::nonzero",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::unique_dim",
}
"""What a GPU makes Python wait for, beside copies and what asks how many entries a mask has."""
REFUSED: list[bool] = []
"""Whether waiting is refused now."""
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Kept:
    """What torch asks of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


class There(torch.Tensor):
    """A tensor of that device; `raw` is on the CPU."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> There:
        place = {}
        if raw.layout == torch.strided:
            place = {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
        made = torch.Tensor._make_wrapper_subclass(cls, raw.size(), dtype=raw.dtype, device=OTHER, **place)
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return done(op, args, kwargs or {})

    @property
    def layout(self) -> torch.layout:
        return self.raw.layout

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=OTHER if device is None else device)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(numbered(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(numbered(index), value)

    def tolist(self) -> Any:
        return self.raw.tolist()

    def __repr__(self) -> str:
        return f"There({self.raw})"


def done(op: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on what is kept on the CPU.

    Raises:
        RuntimeError: some of its tensors are there, and some are on the CPU.
    """
    name = op._schema.name
    if REFUSED and (why := waits(name, args, kwargs)):
        raise RuntimeError(f"{name} waits for the device: {why}")
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = [each for each in tensors if isinstance(each, There)]
    asked = tensors[:1] if name in INDEXED and isinstance(args[0], There) else tensors
    if there and name not in COPIES and any(each.dim() and not isinstance(each, There) for each in asked):
        raise RuntimeError(f"{name}: some tensors are on {OTHER}, and some on the CPU")
    result = op(*tree_map(inside, args), **tree_map(inside, kwargs))
    device = kwargs.get("device")
    stays = bool(there) if device is None else torch.device(device).type == NAME
    if name == "aten::copy_":
        stays = isinstance(args[0], There)
    known = {id(each.raw): each for each in there}
    return tree_map(lambda each: outside(each, known), result) if stays else result


def waits(name: str, args: Any, kwargs: Any) -> str:
    """Say for what an operation lets Python wait, if it does."""
    given = args[1] if name in INDEXED else ()
    if name in WAITS:
        return "its result is for Python"
    if any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in given):
        return "how many entries a mask has"
    if name == "aten::repeat_interleave" and kwargs.get("output_size") is None:
        return "how many there are"
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    if name == "aten::copy_":
        return "" if isinstance(tensors[0], There) == isinstance(tensors[1], There) else "a copy"
    if name == "aten::_to_copy" and (device := kwargs.get("device")) is not None:
        return "" if isinstance(tensors[0], There) == (torch.device(device).type == NAME) else "a copy"
    return ""


@contextmanager
def refused() -> Iterator[None]:
    """Refuse inside what lets Python wait for the device."""
    REFUSED.append(True)
    try:
        yield
    finally:
        REFUSED.pop()


class Replay:
    """Stands for a recorder of CUDA graphs: it lets work that waits for the device fail, and does other work again."""

    def aside(self) -> Any:
        return nullcontext()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        def again() -> None:
            with refused():
                work()

        again()
        return again


def outside(value: Any, known: dict[int, There]) -> Any:
    """Return what stands for a tensor of the CPU there: the one that is known already, or a new one."""
    if not isinstance(value, torch.Tensor):
        return value
    return known[id(value)] if id(value) in known else There(value)


def inside(value: Any) -> Any:
    """Return what stands for a tensor, or a device, on the CPU."""
    if isinstance(value, torch.device):
        return torch.device("cpu") if value.type == NAME else value
    return value.raw if isinstance(value, There) else value


def numbered(index: Any) -> Any:
    """Make tensors of lists of numbers, which torch would make below what it lets us do."""
    if isinstance(index, tuple):
        return tuple(map(numbered, index))
    return torch.tensor(index) if isinstance(index, list) else index


def made_by(make: Any) -> Any:
    """Let a function that makes a tensor from numbers make one there, too: torch does that below what it lets us do."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        if device is not None and torch.device(device).type == NAME:
            if REFUSED:
                raise RuntimeError(f"{make.__name__} waits for the device: a copy")
            return make(*args, **kwargs).to(device)
        return make(*args, device=device, **kwargs)

    return made


def counted(*args: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None) -> There:
    """`torch.arange`, which elsewhere is made empty and grows."""
    return There(torch.arange(*args, dtype=dtype))


_setup_privateuseone_for_python_backend(NAME, Kept())
OTHER = torch.device(NAME, 0)
LIBRARIES = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
LIBRARIES[0].fallback(lambda op, *args, **kwargs: done(op, args, kwargs), "PrivateUse1")
for each in ("arange", "arange.start", "arange.start_step"):
    LIBRARIES[1].impl(each, counted, "PrivateUse1")
torch.tensor, torch.as_tensor = made_by(torch.tensor), made_by(torch.as_tensor)


def fabric(config: Any = None, group: Any = None) -> Fabric:
    """Return what puts training on that device."""
    precision = "32-true" if config is None else config.precision
    strategy: Any = SingleDeviceStrategy(device=OTHER, accelerator=CPUAccelerator())
    return Fabric(strategy=strategy, precision=precision)
