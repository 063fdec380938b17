"""Training, one phase at a time.

A `Phase` (`mowst.training.phases`) names the parts of the model that train and the terms of the loss. `Trainer.fit` runs it from
the best weights so far: frozen parts are in evaluation mode without gradients, and what they say is computed once.
Losses see a copy of the data in which every label outside the training mask is -100, or the training nodes alone; test
labels never reach this file at all.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from mowst.errors import InputError
from mowst.evaluation.metrics import Output, rows
from mowst.kernels.sparse_features import by_column, rows_of
from mowst.models.gates import Gated
from mowst.models.mixture import run_module
from mowst.training.phases import Phase, Seen
from mowst.training.state import MovingAverage, snapshot

HIDDEN = -100
"""The label of a node whose label is not to be seen."""


class Trained(NamedTuple):
    """A part that was trained alone."""

    state: Mapping[str, Tensor]
    epochs: int
    """After which it validated best."""


class Trainer:
    """Fits phases one after another and keeps the weights that are best on validation.

    Args:
        model: called as `model(x, edge_index)`; a `Mixture` or logits `[N, C]`. If it has a method
            `constants(x, edge_index, trains)`, its answer is handed to every call of a phase as keyword arguments; if
            `edgeless(constants)` then says so, or the model that it does not look at edges (`sees_edges`), validation
            runs on the validation nodes alone, and training, where it can (`_seen`), on those with a label.
        data: graph with `x, edge_index, y, train_mask, val_mask`, and, if it was prepared, its adjacency `adj_t`.
        score: `(output, y) -> float` on the validation nodes, higher is better: the one early-stopping signal.
        fabric: device and precision; a CPU in float32 by default.
        hook: called after each evaluation with the record of the epoch; what it raises ends the training. The model
            has the weights of the epoch then, not their average, and those that multiply sparse features lie by column.
        trained: parts that were trained alone already, by name; `pretrain` takes them.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        score: Callable[[Output, Tensor], float],
        *,
        fabric: Fabric | None = None,
        hook: Callable[[dict[str, Any]], None] | None = None,
        trained: Mapping[str, Trained] | None = None,
    ):
        self.model, self.score, self.hook = model, score, hook
        self.fabric = fabric or Fabric(accelerator="cpu", devices=1)
        self.batch = copy.copy(data)
        self.batch.y = data.y.masked_fill(~data.train_mask, HIDDEN)
        self.graph = data.adj_t if "adj_t" in data else data.edge_index
        self.val = data.val_mask.nonzero().squeeze(-1)
        self.val_y = data.y[self.val]
        self.on = {"train": data.train_mask.nonzero().squeeze(-1), "all": None}
        self.fresh, self.trained, self.taken = snapshot(model), dict(trained or {}), set[str]()
        self.restart()
        self.history: list[dict[str, Any]] = []
        self.twins: Any = None
        self.lengths: dict[str, int] = {}

    def sub(self, part: str) -> Trainer:
        """Return a trainer of one part on its own, with the same data, score, history and hook."""
        trainer = copy.copy(self)
        trainer.model = self.model.get_submodule(part)
        trainer.restart()
        return trainer

    def twin(self, part: str, nodes: Tensor) -> Trainer:
        """Return a trainer of a copy of a part ("": all), with its first weights, that sees the labels of `nodes`."""
        trainer = copy.copy(self)
        trainer.model = copy.deepcopy(self.model.get_submodule(part))
        prefix = f"{part}." if part else ""
        fresh = {name: value for name, value in self.fresh.items() if name.startswith(prefix)}
        trainer.model.load_state_dict({name.removeprefix(prefix): value for name, value in fresh.items()})
        trainer.batch = copy.copy(self.batch)
        trainer.batch.train_mask = index_to_mask(nodes, len(self.batch.y))
        trainer.batch.y = self.batch.y.masked_fill(~trainer.batch.train_mask, HIDDEN)
        trainer.on = {**self.on, "train": nodes}
        trainer.restart()
        return trainer

    def restart(self) -> None:
        """Take the model's present weights as the starting point, whatever was best before."""
        self.average: MovingAverage | None = None
        self.best_score, self.best_state, self.best_epoch = -math.inf, snapshot(self.model), 0
        self.best_losses: dict[nn.Module, dict[str, Tensor]] = {}

    def consider(self) -> None:
        """Take the model's present weights as the best so far, and score them."""
        self.restart()
        self._keep(self._evaluate(self._validation({})), 0)

    def fit(self, phase: Phase) -> bool:
        """Run one phase from the best weights so far; true when the validation score improved.

        Parameters of losses are trained with the model, and are at the end what they were at its best.

        Raises:
            FloatingPointError: the loss or the score is not a number; the best weights so far are in place.
        """
        phase = phase.live()
        free = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.model.load_state_dict(self.best_state)
        self.best_losses = {loss: snapshot(loss) for loss in phase.losses()} | self.best_losses
        self.average = MovingAverage(self.model, phase.ema_decay) if phase.ema_decay else None
        try:
            with by_column(self.model, self.batch.x):
                return self._run(phase, free)
        finally:
            self.average = None
            self.model.load_state_dict(self.best_state)
            self.model.eval()
            for parameter in free:
                parameter.requires_grad_(True)
            for module, state in self.best_losses.items():
                module.load_state_dict(state)

    def _run(self, phase: Phase, free: list[nn.Parameter]) -> bool:
        """Run the epochs of a phase."""
        parts = self._thaw(phase, free)
        constants = self._constants(phase)
        seen, validation = self._seen(phase, constants), self._validation(constants)
        optimizer = self._optimizer(phase, parts)
        if self.best_score == -math.inf and not phase.last:
            self._keep(self._evaluate(validation), 0)
        before, waited = self.best_score, 0
        for epoch in range(1, phase.epochs + 1):
            start = time.perf_counter()
            loss = self._step(phase, epoch, parts, optimizer, constants, seen)
            if self.average is not None:
                self.average.update()
            if epoch % phase.eval_every and epoch < phase.epochs:
                continue
            score = self._evaluate(validation)
            waited = 0 if self._keep(score, epoch, always=phase.last) else waited + phase.eval_every
            self._record(phase, epoch=epoch, loss=float(loss), val=score, seconds=time.perf_counter() - start)
            if waited >= phase.patience:
                break
        return self.best_score > before

    @torch.no_grad()
    def output(self) -> Output:
        """Run the model with its present weights on all nodes, in evaluation mode."""
        self.model.eval()
        return self._call(self.model, {}, self.batch.x)

    def _thaw(self, phase: Phase, free: list[nn.Parameter]) -> list[nn.Module]:
        """Return the parts that train; of all parameters only what is free in them has a gradient."""
        self.model.eval().requires_grad_(False)
        parts = [self.model.get_submodule(name) for name in phase.trains]
        inside = {id(parameter) for part in parts for parameter in part.parameters()}
        for parameter in free:
            parameter.requires_grad_(id(parameter) in inside)
        return parts

    def _constants(self, phase: Phase) -> dict[str, Any]:
        constants = getattr(self.model, "constants", None)
        if constants is None or "" in phase.trains:
            return {}
        with self.fabric.autocast():
            return constants(self.batch.x, self.graph, phase.trains)

    def _optimizer(self, phase: Phase, parts: list[nn.Module]) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in part.parameters() if p.requires_grad], "lr": phase.lrs.get(name, phase.lr)}
            for name, part in zip(phase.trains, parts, strict=True)
        ]
        groups += [{"params": list(loss.parameters())} for loss in phase.losses()]
        try:
            return phase.optimizer(groups, lr=phase.lr, weight_decay=phase.weight_decay)
        except (TypeError, ValueError) as error:
            made = getattr(phase.optimizer, "func", phase.optimizer)
            name = getattr(made, "__name__", made)
            raise InputError(f"optimizer {name}: {error}") from None

    def _step(
        self,
        phase: Phase,
        epoch: int,
        parts: list[nn.Module],
        optimizer: torch.optim.Optimizer,
        constants: dict[str, Any],
        seen: Seen,
    ) -> Tensor:
        for part in parts:
            part.train()
        optimizer.zero_grad(set_to_none=True)
        out = self._call(self.model, constants, seen.batch.x)
        loss = torch.stack([term.weight_at(epoch - 1) * seen.reduce(term, out) for term in phase.terms]).sum()
        if not loss.isfinite():
            raise FloatingPointError(f"the loss of phase {phase.name!r} is {loss.item()}; a smaller lr may help")
        self.fabric.backward(loss)
        optimizer.step()
        return loss.detach()

    def _call(self, model: nn.Module, constants: dict[str, Any], x: Tensor) -> Output:
        with self.fabric.autocast():
            return run_module(model, x, self.graph, **constants)

    @torch.no_grad()
    def _evaluate(self, validation: Callable[[], Output]) -> float:
        self.model.eval()
        with nullcontext() if self.average is None else self.average.standing_in():
            score = self.score(validation(), self.val_y)
        if math.isnan(score):
            raise FloatingPointError(
                "the validation score is no number: a class has no validation node, or lr is large"
            )
        return score

    def _validation(self, constants: dict[str, Any]) -> Callable[[], Output]:
        """Return what runs the model for the validation nodes: alone, where what is left to run looks at no edge."""
        if not self._edgeless(constants):
            return lambda: rows(self._call(self.model, constants, self.batch.x), self.val)
        given = {name: rows_of_constant(value, self.val) for name, value in constants.items()}
        x = rows_of(self.batch.x, self.val)
        return lambda: self._call(self.model, given, x)

    def _edgeless(self, constants: dict[str, Any]) -> bool:
        part: Any = self.model
        return part.edgeless(constants) if hasattr(part, "edgeless") else not getattr(part, "sees_edges", True)

    def _seen(self, phase: Phase, constants: dict[str, Any]) -> Seen:
        """Return the nodes that a phase runs in training: those with a label, where no other changes the loss.

        That is so for a model that looks at no edge, trained by losses that say so (`node_wise`). Batch norm then sees
        the nodes with a label alone, which serves an MLP better where these are few.
        """
        train = self.on["train"]
        node_wise = all(term.on == "train" and getattr(term.loss, "node_wise", False) for term in phase.terms)
        if not node_wise or constants or len(train) < 2 or not self._edgeless(constants):
            return Seen(self.batch, self.on)
        return Seen(Data(x=rows_of(self.batch.x, train), y=self.batch.y[train]), {"train": None})

    def _keep(self, score: float, epoch: int, *, always: bool = False) -> bool:
        if not (always or score > self.best_score):
            return False
        now = self.model.state_dict() if self.average is None else self.average.state
        self.best_score, self.best_epoch = score, epoch
        self.best_state = {name: value.detach().clone() for name, value in now.items()}
        self.best_losses = {loss: snapshot(loss) for loss in self.best_losses}
        return True

    def _record(self, phase: Phase, **values: Any) -> None:
        record = {"phase": phase.name, **values, "best": self.best_score}
        self.history.append(record)
        if self.hook is not None:
            self.hook(record)


def epochs_between(before: Mapping[str, Any] | None, line: Mapping[str, Any]) -> int:
    """Return the epochs between a record of a history and the one before it, if there is one."""
    same = before is not None and all(before.get(key) == line.get(key) for key in ("seed", "model", "phase"))
    if before is None or not same or line["epoch"] <= before["epoch"]:
        return line["epoch"]
    return line["epoch"] - before["epoch"]


def rows_of_constant(value: Any, index: Tensor) -> Any:
    """Return some rows of what a model said before: logits [N, C], or what a gate answered."""
    if isinstance(value, Tensor):
        return value[index]
    return Gated(value.confidence[index], None if value.scale is None else value.scale[index])
