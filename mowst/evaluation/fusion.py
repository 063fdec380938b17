"""The plain ways to put two trained experts together: what a gate has to beat.

| name             | prediction                                              | fitted on                              |
|------------------|---------------------------------------------------------|----------------------------------------|
| average          | (p + q) / 2                                             | nothing                                |
| calibrated       | the same, of logits divided by temperatures             | held-out training nodes (temperatures) |
| evidence         | softmax(log p + log q), of logits divided likewise      | held-out training nodes (temperatures) |
| stacked-on-val   | logistic regression on scaled [log p, log q] (Wolpert)  | **validation nodes**                   |

`evidence` is Bayes' rule for two independent observations under a uniform prior.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mowst.models import Logits, Mixture, log_probs


def average(weak: Tensor, strong: Tensor) -> Mixture:
    """Mix two experts' logits [N, C] with equal shares."""
    return Mixture(weak, strong, torch.full_like(weak[:, 0], 0.5))


def evidence(weak: Tensor, strong: Tensor) -> Mixture:
    """Add two experts' log-probabilities, from logits [N, C]."""
    return average(weak, strong)._replace(scale=torch.full_like(weak[:, 0], 2.0))


def stacked(weak: Tensor, strong: Tensor, y: Tensor, nodes: Tensor, *, folds: int = 5) -> Logits:
    """Logistic regression from both experts' log-probabilities to the label, fitted on `nodes` [n], -> logits [N, C].

    The rows of `nodes` themselves are predicted by regressions that did not see them, where every class that is there
    has enough of them; a class without a node there has a log-probability of log 1e-6, as good as excluded.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs = torch.cat([log_probs(weak), log_probs(strong)], dim=-1).cpu().double().numpy()
    index, labels = nodes.cpu().numpy(), y[nodes].cpu().numpy()
    seen, counts = np.unique(labels, return_counts=True)
    logits = np.full(weak.shape, np.log(1e-6))
    if len(seen) < 2:
        logits[:, seen] = 0.0
        return Logits(torch.from_numpy(logits).to(weak))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    logits[:, seen] = model.fit(inputs[index], labels).predict_log_proba(inputs)
    if counts.min() >= folds:
        logits[np.ix_(index, seen)] = cross_val_predict(
            model, inputs[index], labels, cv=folds, method="predict_log_proba"
        )
    return Logits(torch.from_numpy(logits).to(weak))
