"""`MowstClassifier`: fit and predict on a PyG `Data`, as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from torch import Tensor
from torch.export import ExportedProgram
from torch_geometric.data import Data

from mowst.data.assembling import Like
from mowst.data.given import as_mask
from mowst.errors import InputError
from mowst.experiment import (
    FIELDS,
    Config,
    Whole,
    asked_of,
    columns_of_labels,
    configuration,
    exported_whole,
    fetched,
    places_of,
    pushed,
    read_whole,
    refuse_unknown,
    trained,
    with_fields,
    write_whole,
)
from mowst.inference import Kept, Nodes, answer, predict
from mowst.models import ROLES, Mowst
from mowst.system import check_type_of


class UnfittedError(InputError, NotFittedError):
    """A classifier is asked before it was fitted."""


class MowstClassifier(ClassifierMixin, BaseEstimator):
    """A mixture of a weak and a strong expert as an estimator.

        classifier = MowstClassifier(strong="sage", epochs=200).fit(data)
        classifier.predict(data)            # [N] class of every node

    Nothing is looked at before `fit`. Once fitted it has `classes_` (what `predict` says, for each column of
    `predict_proba`), `class_names_` (what these columns are called), `model_`, `config_` (with the experts that were
    chosen), `history_`, `n_features_in_`, and, of a graph that was read from files or tables, `feature_names_in_`.

    Args:
        config: a whole configuration; its dataset and seeds are not looked at.
        seed: of initial weights and dropout.
        options: fields of `Config`, which say what they mean; none: as in `config`. `weak`, `strong` and `gate` may be
            names; of `preset="best"`, `budget="20m"` is the time for which candidates are tried.

    Raises:
        InputError: there is no such field.
    """

    @with_fields
    def __init__(self, config: Config | None = None, *, seed: int = 0, **options: Any):
        refuse_unknown(options)
        self.config, self.seed = config, seed
        for name in FIELDS:
            setattr(self, name, options.get(name))

    def set_params(self, **params: Any) -> Self:
        """Change parameters, of which the next `fit` takes notice."""
        refuse_unknown(params.keys() - {"config", "seed"})
        return super().set_params(**params)

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn that a graph is taken, with labels in it, and no array X."""
        tags = super().__sklearn_tags__()
        tags.no_validation, tags.target_tags.required = True, False
        tags.input_tags.two_d_array = False
        return tags

    def configuration(self) -> Config:
        """Return the whole configuration that the parameters say; who `auto` is, only a graph decides.

        Raises:
            InputError: a parameter is not what it must be.
        """
        return configuration(self.config, self.seed, {name: vars(self)[name] for name in FIELDS})

    def fit(self, data: Data, y: None = None) -> Self:
        """Train on `data.train_mask`, select on `data.val_mask`; labels elsewhere are not looked at.

        Features, labels and masks may be tensors, arrays or lists, masks also numbers of nodes or several columns, of
        which `seed` chooses; edges may have an `edge_weight`.

        Args:
            data: the graph, with its labels.
            y: none; it is there because scikit-learn's estimators have it.

        Raises:
            InputError: a parameter is not what it must be, or the graph is not fit for it (`mowst.data.check`).
        """
        config = self.configuration()
        if y is not None and isinstance(data, Data):
            raise InputError("y: the labels of a graph are its data.y; give none here")
        self._hold(trained(config, data, self.seed))
        return self

    def _hold(self, whole: Whole) -> None:
        """Take what was learned."""
        self._whole = whole
        self.model_, self.config_, self.history_ = whole.model, whole.config, whole.history
        self.classes_, self.class_names_ = np.array(whole.classes), list(whole.class_names)
        self.n_features_in_ = whole.features
        if whole.fitted is not None:
            self.feature_names_in_ = np.array(whole.fitted.names, dtype=object)
        elif "feature_names_in_" in vars(self):
            del self.feature_names_in_

    @property
    def model(self) -> Mowst:
        """The trained mixture, `model_`."""
        return self._fitted().model

    @property
    def class_names(self) -> list[Hashable]:
        """What each column of `predict_proba` is called: the graph's `class_names`, else the numbers in its `y`."""
        return self._fitted().class_names

    @property
    def like(self) -> Like:
        """What a new graph must share with the first: `mowst.data.read(path, like=classifier.like)`."""
        whole = self._fitted()
        return Like(whole.fitted, whole.class_names)

    def predict_proba(self, data: Data, nodes: Nodes | None = None, **options: Any) -> Tensor:
        """Probabilities `[N, C]`, or `[n, C]` for some nodes: their numbers `[n]`, or a list of their names.

        Options are as in `mowst.inference.modes.predict`.
        Column c is class `class_names_[c]`. The graph needs features and edges; labels are not looked at. For some
        nodes only what is within reach of them is run, where that is cheaper.

        Raises:
            InputError: the graph is unsound, or has other features or other class names than the one it was fitted on.
        """
        return self._on(data, partial(predict, nodes=places_of(data, nodes), **options)).cpu()

    def predict(self, data: Data, nodes: Nodes | None = None, **options: Any) -> Tensor:
        """Class of every node, `[N]`, or of the given ones, `[n]`, in the numbers of the `y` that it was fitted on."""
        found = self.predict_proba(data, nodes, **options).argmax(dim=-1)
        return torch.from_numpy(self.classes_)[found]

    def expert_of(self, data: Data, nodes: Nodes | None = None, **options: Any) -> NDArray[np.str_]:
        """Return who answered each node, `weak` or `strong`, `[N]` or `[n]`; in a pool, who has the greater weight.

        Arguments and errors as of `predict_proba`.
        """
        found = self._on(data, partial(answer, nodes=places_of(data, nodes), whose=True, **options))
        return np.where(found.weak.cpu().numpy(), *ROLES)

    def score(self, data: Data, mask: Any = "test_mask") -> float:
        """Return the share of the nodes in a mask, by name or in any form that `fit` takes, that are right, in [0, 1].

        Raises:
            InputError: the graph has no such mask, or no node is in it.
        """
        found = self.predict_proba(data).argmax(dim=-1)
        truth = columns_of_labels(self._fitted(), data)
        if len(truth) != len(found):
            raise InputError(f"y: must be a class for each of the {len(found)} nodes, is of {len(truth)}")
        name, given = (mask, data.get(mask)) if isinstance(mask, str) else ("mask", mask)
        if given is None:
            raise InputError(f"{name}: the data has none; give the name of a mask, or one")
        in_it = as_mask(given, name, len(found), self._fitted().seed)
        if not bool(in_it.any()):
            raise InputError(f"{name}: no node is in it")
        return float((found == truth)[in_it].float().mean())

    def keep(self, data: Data) -> Kept:
        """Prepare a graph that stays as it is for many queries: `keep(data).query(nodes)`, probabilities [n, C]."""
        return self._on(data, Kept)

    def exported(self, data: Data) -> ExportedProgram:
        """Export it as `(x [N, F], edge_index [2, E]) -> probabilities [N, C]`, features as they come included.

        See `mowst.inference.exported`; the graph is one to try it on.

        Raises:
            InputError: an expert cannot be exported, or the graph has weights of edges, which are no part of it.
        """
        return exported_whole(self._fitted(), data)

    def save(self, path: str | Path) -> Path:
        """Write it as a folder of safetensors and JSON, whole or not at all, and return the folder.

        The configuration that was fitted, with the experts that were chosen, class names, feature names and how columns
        became features are in it. Another classifier in that folder gives way; nothing else does.

        Raises:
            InputError: it is not fitted, the folder holds something else, or it cannot be written.
        """
        check_type_of("path", path, str | Path)
        write_whole(Path(path), self._fitted())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, device: str | None = None) -> Self:
        """Read one that `save` wrote, or the mixture of a run's folder; nothing that the folder holds is run.

        Its `config` is the one that was fitted, with the experts that were chosen.

        Args:
            path: the folder; of a run with several seeds, the one that validates best is taken.
            device: auto, cpu, cuda; by default the one it was trained on.

        Raises:
            InputError: there is none, it is damaged, or it names code of others that is not trusted
                (`mowst.names.trust`).
        """
        check_type_of("path", path, str | Path)
        check_type_of("device", device, str | None)
        whole = read_whole(Path(path), device)
        made = cls(whole.config, seed=whole.seed)
        made._hold(whole)
        return made

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the folder that `from_pretrained` reads, as `huggingface_hub` calls it; the same as `save`."""
        return self.save(path)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, download: bool = False, device: str | None = None, **options: Any
    ) -> Self:
        """Load a folder, or a model of the Hugging Face hub: what was fetched before, and only if asked for, anew.

        Args:
            name: a folder, or name/model.
            download: whether the network may be used.
            device: as of `load`.
            options: of `huggingface_hub.snapshot_download`: revision, token, cache_dir.

        Raises:
            InputError: it is not there, or as `load`.
        """
        check_type_of("name", name, str | Path)
        check_type_of("download", download, bool)
        folder = Path(name)
        return cls.load(folder if folder.is_dir() else fetched(str(name), download=download, **options), device=device)

    def push_to_hub(self, repo_id: str, *, private: bool = True, **options: Any) -> str:
        """Push it to the Hugging Face hub, which needs the network and `huggingface_hub`, and return the address.

        Args:
            repo_id: name/model.
            private: whether only you see it, where it is new.
            options: of `ModelHubMixin.push_to_hub`: token, commit_message, branch, create_pr.

        Raises:
            InputError: it is not fitted, or the hub refuses it or is not there.
        """
        check_type_of("repo_id", repo_id, str)
        self._fitted()
        return pushed(self.save, repo_id, private=private, **options)

    def _fitted(self) -> Whole:
        if "_whole" not in vars(self):
            raise UnfittedError("MowstClassifier: is not fitted yet; call fit(data) first")
        return self._whole

    def _on(self, data: Data, ask: Callable[..., Any]) -> Any:
        return asked_of(self._fitted(), data, ask)
