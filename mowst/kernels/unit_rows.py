"""Node features of which every row is divided by the sum of its absolute values.

So bags of few and of many words look alike. A row of zeros has no sum to be divided by, and stays one; negative numbers
keep their sign. It is a matter of each row alone, the same in a batch, on a part of a graph, and on a new one.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from mowst.kernels.averaged import Averaged
from mowst.kernels.sparse import Rows, written_by_torch_alone
from mowst.kernels.sparse_features import SparseFeatures
from mowst.kernels.tabled import Tabled

_KEPT: MutableMapping[Tensor, tuple[int, Tensor]] = WeakTensorKeyDictionary()
"""By features that are not written into: their version, and what came of them."""


def unit_rows(x: Tensor) -> Tensor:
    """Divide each row of features [N, F] by the sum of its absolute values, and keep the form that they have.

    Of features that come again unchanged, as a graph's do in every epoch, the result is kept as long as they live, so
    that products with it can be kept, too (`SparseMatrix.times`).
    """
    if isinstance(x, Averaged):
        return x.beside_unit(unit_rows(x.features))
    if isinstance(x, Tabled):
        return x.beside(unit_rows(x.features))
    if torch.compiler.is_exporting() or x.requires_grad or x.is_inference() or torch.is_inference_mode_enabled():
        return _divided(x)
    if not (isinstance(x, SparseFeatures) or (x.layout == torch.strided and written_by_torch_alone(x))):
        return _divided(x)
    if x not in _KEPT or _KEPT[x][0] != x._version:
        _KEPT[x] = x._version, _divided(x)
    return _KEPT[x][1]


def _divided(x: Tensor) -> Tensor:
    """Divide now."""
    if not isinstance(x, SparseFeatures):
        plain = x if x.layout == torch.strided else x.to_dense()
        return F.normalize(plain, p=1.0, dim=-1, eps=torch.finfo(x.dtype).tiny)
    start, count = x.rows.start, x.rows.start.diff()
    value = torch.ones(len(x.rows.column), dtype=x.dtype, device=x.device) if x.rows.value is None else x.rows.value
    total = torch.segment_reduce(value.abs(), "sum", offsets=start.long()).clamp_min(torch.finfo(x.dtype).tiny)
    share = value / total.repeat_interleave(count)
    return SparseFeatures(Rows(start, x.rows.column, share), x.size(1), x.dtype)
