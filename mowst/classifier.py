"""`MowstClassifier`: fit and predict on a PyG `Data`, in the manner of scikit-learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch_geometric.data import Data

from mowst.data import check, check_form
from mowst.data.given import Scale, as_mask, asked, class_names_of, taken
from mowst.data.labels import labels
from mowst.data.splits import shipped_masks
from mowst.errors import InputError, some, unknown
from mowst.evaluation import Metric
from mowst.experiment import (
    Bench,
    Config,
    advise,
    chosen,
    classes_of,
    fabric_of,
    judged_alone,
    prepare,
    regime_of,
    say_unweighted,
)
from mowst.inference import Kept, Nodes, predict
from mowst.models import ROLES, Mowst
from mowst.system import check_type_of


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
        self._given = {"config": config, "seed": seed, **options}
        if config is not None and not isinstance(config, Config):
            raise InputError(f"config: must be a mowst.Config, is {config!r}; an expert is given as strong='sage'")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise InputError(f"seed: must be a whole number from 0 to 2**32 - 1, is {seed!r}")
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
        if self.config.coverage is not None or self.config.abstain_risk is not None:
            raise InputError("MowstClassifier: coverage and abstain_risk: only mowst.run keeps nodes to calibrate with")
        self.seed = seed
        self.model: Mowst | None = None
        self.num_features: int | None = None
        self.class_names: list[Hashable] = []
        """What each column of `predict_proba` is called: the graph's `class_names`, else the numbers in its `y`."""
        self.history: list[dict[str, Any]] = []
        self._scale: Scale | None = None
        self._numbers: Tensor | None = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return what the classifier was made with, so that scikit-learn's `clone` makes another one."""
        return dict(self._given)

    def set_params(self, **options: Any) -> Self:
        """Change what the classifier was made with; it is then as new."""
        vars(self).update(vars(type(self)(**self._given | options)))
        return self

    def fit(self, data: Data) -> Self:
        """Train on `data.train_mask`, select on `data.val_mask`; labels elsewhere are not looked at.

        Features, labels and masks may be tensors, arrays or lists, masks also numbers of nodes or several columns, of
        which `seed` chooses; edges may have an `edge_weight`.

        Raises:
            InputError: the graph is not fit for it (`mowst.data.check`).
        """
        graph = taken(data)
        graph.train_mask, graph.val_mask, graph.test_mask = shipped_masks(graph, self.seed)
        if (metric := data.get("metric")) is not None:
            check_type_of("metric", metric, str | Metric)
            graph.metric = metric
        check(graph)
        advise(self.config, graph)
        self.num_features = graph.num_features
        self.class_names = graph.class_names if "class_names" in graph else list(range(classes_of(graph)))
        own = "class_names" not in data and all(isinstance(name, int) for name in self.class_names)
        self._numbers = torch.tensor(self.class_names) if own else None
        self._scale = Scale.of(graph.x) if self.config.standardize else None
        config = chosen(self.config, graph)
        fabric = fabric_of(config)
        ready = prepare(graph, config, fabric.device, self._scale)
        fitted = Bench(config, judged_alone(config), ready, self.seed, fabric).train("mixture")
        assert isinstance(fitted.model, Mowst)
        self.model, self.history = fitted.model, fitted.history
        say_unweighted(self.model, graph)
        return self

    def predict_proba(self, data: Data, nodes: Nodes | None = None, **options: Any) -> Tensor:
        """Probabilities `[N, C]`, or `[n, C]` for node ids `[n]`; options as in `mowst.inference.modes.predict`.

        Column c is class `class_names[c]`. The graph needs features and edges; labels are not looked at. For some nodes
        only what is within reach of them is run, where that is cheaper.

        Raises:
            InputError: the graph is unsound, or has other features or other class names than the one it was fitted on.
        """
        return self._on(data, partial(predict, nodes=nodes, **options)).cpu()

    def predict(self, data: Data, nodes: Nodes | None = None, **options: Any) -> Tensor:
        """Class of every node, `[N]`, or of the given ones, `[n]`, in the numbers of the `y` that it was fitted on."""
        found = self.predict_proba(data, nodes, **options).argmax(dim=-1)
        return found if self._numbers is None else self._numbers[found]

    def score(self, data: Data, mask: Any = "test_mask") -> float:
        """Return the share of the nodes in a mask, by name or in any form that `fit` takes, that are right, in [0, 1].

        Raises:
            InputError: the graph has no such mask, or no node is in it.
        """
        found = self.predict_proba(data).argmax(dim=-1)
        truth = self._columns(data)
        if len(truth) != len(found):
            raise InputError(f"y: must be a class for each of the {len(found)} nodes, is of {len(truth)}")
        name, given = (mask, data.get(mask)) if isinstance(mask, str) else ("mask", mask)
        if given is None:
            raise InputError(f"{name}: the data has none; give the name of a mask, or one")
        chosen = as_mask(given, name, len(found), self.seed)
        if not bool(chosen.any()):
            raise InputError(f"{name}: no node is in it")
        return float((found == truth)[chosen].float().mean())

    def _columns(self, data: Data) -> Tensor:
        """Return for the label of each node the column of `predict_proba` that is its class, -1 for none, [N]."""
        if data.get("y") is None:
            raise InputError("y: the data has none to compare with")
        plain = self.class_names == list(range(len(self.class_names)))
        given = class_names_of(data)
        found = labels(data.y, len(self.class_names) if plain or given is not None else None, names=given)
        names = found.names or given or list(range(int(found.y.max()) + 1))
        place = {name: column for column, name in enumerate(self.class_names)}
        columns = torch.tensor([*(place.get(name, -1) for name in names), -1])
        return columns[found.y]

    def keep(self, data: Data) -> Kept:
        """Prepare a graph that stays as it is for many queries: `keep(data).query(nodes)`, probabilities [n, C]."""
        return self._on(data, Kept)

    def _on(self, data: Data, do: Callable[..., Any]) -> Any:
        if self.model is None:
            raise InputError("MowstClassifier: is not fitted yet; call fit(data) first")
        graph = asked(data)
        check_form(graph)
        if self.num_features not in (None, graph.num_features):
            raise InputError(f"x: has {graph.num_features} features, the classifier was fitted on {self.num_features}")
        theirs = class_names_of(data)
        if theirs and theirs != self.class_names:
            raise InputError(
                f"class_names: the graph's are {some(theirs)}, the classifier was fitted on {some(self.class_names)}; "
                "give class_names=classifier.class_names to from_networkx"
            )
        fabric = fabric_of(self.config)
        ready = prepare(graph, self.config, fabric.device, self._scale)
        with torch.no_grad(), fabric.autocast():
            return do(self.model, ready.x, ready.adj_t)
