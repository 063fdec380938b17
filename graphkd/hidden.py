"""A model's hidden layers, seen from outside: the model need not be changed to be distilled.

with hidden_of(model) as layers:
for _ in range(epochs):
logits = model(x, edge_index)
value = loss(Signals(logits, tuple(layers)), teacher)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, overload

from torch import Tensor, nn
from torch_geometric.nn import Linear, MessagePassing

from graphkd.checks import shown


def hidden_of(model: nn.Module) -> Hidden:
    """Look at the hidden layers of a model, until the block or `close` ends it.

    Raises:
        ValueError: this is no model, or one without a linear or message-passing layer inside.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"hidden_of: model must be a torch.nn.Module, got {shown(model)}")
    if not any(True for _ in layers_of(model)):
        raise ValueError(f"hidden_of: {type(model).__name__} has no linear or message-passing layer to look at")
    return Hidden(model)


class Hidden(Sequence[Tensor]):
    """The hidden layers of a model at its latest run, each [N, H]: what went into each of its layers but the first.

    Layers are linear maps and message passing; hooks see their inputs (activations after norm, nonlinearity and
    dropout), with their gradient. `close` takes the hooks off.
    """

    def __init__(self, model: nn.Module):
        self.layers: tuple[Tensor, ...] = ()
        self._x: Any = None
        hooks = [(layer, self._see) for layer in layers_of(model)]
        self._handles = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer, see in hooks]
        self._handles.append(model.register_forward_pre_hook(self._begin, with_kwargs=True))

    def close(self) -> None:
        """Take the hooks off, and forget."""
        for handle in self._handles:
            handle.remove()
        self.layers, self._x = (), None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take the hooks off."""
        self.close()

    def __len__(self) -> int:
        """Return how many layers were seen."""
        return len(self.layers)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Tensor, ...]: ...

    def __getitem__(self, index: int | slice) -> Tensor | tuple[Tensor, ...]:
        """Return a layer, in the order in which they were run."""
        return self.layers[index]

    def _begin(self, model: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        self._x, self.layers = _first(arguments, named), ()

    def _see(self, layer: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        given = _first(arguments, named)
        if isinstance(given, Tensor) and all(given is not known for known in (self._x, *self.layers)):
            self.layers += (given,)


def layers_of(model: nn.Module) -> Iterator[nn.Module]:
    """Return a model's linear and message-passing layers, but not those that are part of another one."""
    for child in model.children():
        if isinstance(child, (MessagePassing, nn.Linear, Linear)):
            yield child
        else:
            yield from layers_of(child)


def _first(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    return next(iter((*arguments, *named.values())), None)
