"""The processes that train one model together: who they are, and what they tell one another.

Each takes its share of every step (`Share`). Gradients are those of the whole step, its losses being averaged over the
nodes of all shares; one message carries them. Parameters, and what validation decides, are the same bit for bit
everywhere. What is drawn outside of steps is, too; inside, each draws for itself. A process on its own says nothing to
anybody, and pays for nothing.

Batch norm, too, divides by the mean and the deviation of the whole step (`mowst.training.norms`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn

from mowst.models import Turns, by_turns
from mowst.system import heard
from mowst.training.draws import random_states, set_random_states
from mowst.training.norms import StepNorm

Anything = TypeVar("Anything")
Named = TypeVar("Named", bound=tuple[Any, ...])


class Share(NamedTuple):
    """Which part of every step a process takes."""

    rank: int = 0
    size: int = 1
    """Parts that there are."""

    def of(self, nodes: Tensor) -> Tensor:
        """Return its part of nodes [n]: every `size`-th, from its own on."""
        return nodes if self.size == 1 else nodes[self.rank :: self.size]

    def turns(self, groups: Iterable[Anything]) -> Iterator[Anything]:
        """Return its groups of nodes: of every `size` in a row one is its own."""
        return islice(groups, self.rank, None, self.size)


class World:
    """The processes that a `Fabric` has joined; one, if it was made for one device, or there is none."""

    def __init__(self, fabric: Fabric | None = None):
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self.share = Share(self.fabric.global_rank, self.fabric.world_size)

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.share.size == 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, and that the others follow."""
        return self.share.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of what all processes have, of the same shape everywhere."""
        if self.alone:
            return value
        total = value.detach().clone(memory_format=torch.contiguous_format)
        with heard():
            dist.all_reduce(total)
        return total

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of what all processes have."""
        return value if self.alone else self.sum(value) / self.share.size

    def largest(self, number: float) -> float:
        """Return the largest number that a process has."""
        if self.alone:
            return number
        found = torch.tensor(float(number), dtype=torch.float64)
        with heard():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return float(found)

    def told(self, value: Anything) -> Anything:
        """Return what the first process has, whatever it is."""
        if self.alone:
            return value
        box: list[Any] = [value if self.first else None]
        with heard():
            dist.broadcast_object_list(box)
        found: Anything = box[0]
        return found

    def same(self, out: Named) -> Named:
        """Return named tensors as the first process has them; they have the same shapes everywhere."""
        if self.alone:
            return out
        told: list[Any] = [None if value is None else self._of_first(value) for value in out]
        return type(out)(*told)

    def _of_first(self, value: Tensor) -> Tensor:
        told = value.detach().clone(memory_format=torch.contiguous_format)
        with heard():
            dist.broadcast(told, 0)
        return told

    def turns(self) -> AbstractContextManager[None]:
        """Let processes share out, inside, what each of them would run on the whole graph (`mowst.models.Turns`)."""
        return by_turns(Turns() if self.alone else Turns(*self.share, self._tell))

    def _tell(self, rows: Tensor, owner: int) -> None:
        """Give all processes the rows that one of them has, in place, bit for bit."""
        with heard():
            dist.broadcast(rows.view(torch.uint8), owner)

    def alike(self, *modules: nn.Module) -> None:
        """Give modules the state that they have in the first process."""
        for module in () if self.alone else modules:
            state = self.told({name: value.cpu() for name, value in module.state_dict().items()})
            if not self.first:
                module.load_state_dict(state)

    def by_first(self, work: Callable[[], None], module: nn.Module) -> None:
        """Let the first process work on a module, and give the others what it has become."""
        if self.first:
            work()
        self.alike(module)

    def rows(self, out: Named, count: int) -> Named:
        """Put named tensors for every process's share of so many nodes together, in the order of the nodes."""
        if self.alone:
            return out
        found: list[Any] = [None if value is None else self._rows(value, count) for value in out]
        return type(out)(*found)

    def _rows(self, ours: Tensor, count: int) -> Tensor:
        whole = ours.new_zeros(count, *ours.shape[1:], dtype=torch.promote_types(ours.dtype, torch.float32))
        whole[self.share.rank :: self.share.size] = ours.detach().to(whole.dtype)
        return self.sum(whole).to(ours.dtype)

    def weighed(self, values: Sequence[Tensor], counts: Sequence[int]) -> Sequence[Tensor]:
        """Weigh means over so many nodes of this process, so that their mean over the processes is that of all nodes.

        A loss that is one number for its batch is weighed by these nodes, too.
        """
        if self.alone:
            return values
        ours = torch.tensor([float(count) for count in counts], dtype=torch.float64)
        weights = (ours * self.share.size / self.sum(ours).clamp_min(1)).tolist()
        return [value * weight for value, weight in zip(values, weights, strict=True)]

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Let every parameter have the mean of its gradients; one that nobody has a gradient of has none."""
        if self.alone:
            return
        free = [parameter for parameter in parameters if parameter.requires_grad]
        there = torch.tensor([float(parameter.grad is not None) for parameter in free])
        found = [torch.zeros_like(each) if each.grad is None else each.grad for each in free]
        flat = [each.detach().reshape(-1) for each in found]
        both = self.mean(torch.cat([*flat, there.to(flat[0].device)]))
        *means, anybody = torch.split(both, [*map(len, flat), len(free)])
        has = there.tolist() if bool(there.all()) else anybody.tolist()
        for parameter, value, is_there in zip(free, means, has, strict=True):
            parameter.grad = value.view_as(parameter).to(parameter.dtype) if is_there else None

    @torch.no_grad()
    def settle(self, *modules: nn.Module) -> None:
        """Let what modules remember be what the first process has; norms remember the same in all."""
        if self.alone:
            return
        for module in (inner for each in modules for inner in each.modules()):
            for value in module.buffers(recurse=False):
                value.copy_(self._of_first(value))

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Take steps together inside: batch norm is of all shares, and each process draws what no other draws.

        Behind it, all draw the same again.
        """
        if self.alone:
            yield
            return
        number = int(torch.randint(2**62, ()))
        before = random_states()
        torch.manual_seed(number + self.share.rank)
        try:
            with StepNorm(*self.share, self.sum):
                yield
        finally:
            set_random_states(before)
