"""`MowstClassifier`: fit and predict on a PyG `Data`, in the manner of scikit-learn."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.data import check
from mowst.errors import InputError, unknown
from mowst.experiment import Bench, Config, fabric_of, judged_alone, prepare, regime_of
from mowst.inference import Kept, Nodes, predict
from mowst.models import ROLES, Mowst


class MowstClassifier:
    """A mixture of a weak and a strong expert as an estimator.

        classifier = MowstClassifier(strong="sage", epochs=200).fit(data)
        classifier.predict(data)            # [N] class of every node

    Args:
        config: a whole configuration; its dataset and seeds are not looked at.
        seed: of initial weights and dropout.
        options: fields of `Config` to change; `weak`, `strong` and `gate` may be names.
    """

    def __init__(self, config: Config | None = None, *, seed: int = 0, **options: Any):
        config = config or Config()
        for name in ("weak", "strong", "gate"):
            if isinstance(options.get(name), str):
                options[name] = dataclasses.replace(getattr(config, name), kind=options[name])
        fields = [entry.name for entry in dataclasses.fields(Config)]
        if wrong := [name for name in options if name not in fields]:
            raise unknown("MowstClassifier: option", wrong[0], fields)
        self.config = dataclasses.replace(config, **options)
        if regime_of(self.config).alone:
            raise InputError(f"MowstClassifier: regime {self.config.regime} trains no mixture")
        if self.config.teacher not in (None, *ROLES):
            raise InputError(f"MowstClassifier: teacher {self.config.teacher}: only mowst.run reads one; give strong")
        self.seed = seed
        self.model: Mowst | None = None
        self.num_features: int | None = None
        self.history: list[dict[str, Any]] = []

    def fit(self, data: Data) -> Self:
        """Train on `data.train_mask`, select on `data.val_mask`; labels elsewhere are not looked at.

        Raises:
            InputError: the graph is not fit for it (`mowst.data.check`).
        """
        if not isinstance(data, Data):
            raise InputError(f"data: must be a PyG Data, is {type(data).__name__}; mowst.from_networkx makes one")
        if "test_mask" not in data and "val_mask" in data:
            data = copy.copy(data)
            data.test_mask = torch.zeros_like(data.val_mask)
        check(data)
        self.num_features = data.num_features
        fabric = fabric_of(self.config)
        ready = prepare(data, self.config, fabric.device)
        fitted = Bench(self.config, judged_alone(self.config), ready, self.seed, fabric).train("mixture")
        assert isinstance(fitted.model, Mowst)
        self.model, self.history = fitted.model, fitted.history
        return self

    def predict_proba(self, data: Data, nodes: Nodes | None = None, **options: Any) -> Tensor:
        """Probabilities `[N, C]`, or `[n, C]` for node ids `[n]`; options as in `mowst.inference.modes.predict`.

        For some nodes only what is within reach of them is run, where that is cheaper.
        """
        return self._on(data, partial(predict, nodes=nodes, **options)).cpu()

    def predict(self, data: Data, nodes: Nodes | None = None, **options: Any) -> Tensor:
        """Class of every node, `[N]`, or of the given ones, `[n]`."""
        return self.predict_proba(data, nodes, **options).argmax(dim=-1)

    def keep(self, data: Data) -> Kept:
        """Prepare a graph that stays as it is for many queries: `keep(data).query(nodes)`, probabilities [n, C]."""
        return self._on(data, Kept)

    def _on(self, data: Data, do: Callable[..., Any]) -> Any:
        if self.model is None:
            raise RuntimeError("fit the classifier first")
        if self.num_features not in (None, data.num_features):
            raise InputError(f"x: has {data.num_features} features, the classifier was fitted on {self.num_features}")
        fabric = fabric_of(self.config)
        ready = prepare(data, self.config, fabric.device)
        with torch.no_grad(), fabric.autocast():
            return do(self.model, ready.x, ready.adj_t)
