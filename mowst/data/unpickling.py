"""Reading graphs whose files are pickles by nature: arrays and plain values out of them, and nothing that runs code."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

ALLOWED = {
    "numpy": ("_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"),
    "scipy": ("csr_matrix", "csc_matrix", "coo_matrix", "csr_array", "csc_array", "coo_array"),
    "collections": ("defaultdict", "OrderedDict"),
    "copyreg": ("_reconstructor",),
    "_codecs": ("encode",),
    "builtins": ("list", "dict", "set", "tuple", "int", "float", "complex", "str", "bytes", "bool", "object", "slice"),
}
ALLOWED |= {"__builtin__": ALLOWED["builtins"], "copy_reg": ALLOWED["copyreg"]}  # as Python 2 wrote them
"""What a pickle of arrays needs, by package and name."""


class ArraysOnly(pickle.Unpickler):
    """Unpickles arrays of numpy and scipy in lists and dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is one of these.

        Raises:
            UnpicklingError: it is not.
        """
        if name not in ALLOWED.get(module.partition(".")[0], ()):
            raise pickle.UnpicklingError(f"the file names {module}.{name}; arrays and plain values alone are read")
        return super().find_class(module, name)


def arrays(file: Any, **options: Any) -> Any:
    """Unpickle a file as `pickle.load` does, arrays and plain values alone."""
    return ArraysOnly(file, **options).load()


@contextmanager
def allowing(*kinds: Any) -> Iterator[None]:
    """Let torch read these kinds from files of tensors, and leave what was allowed before as it was.

    What `torch.serialization.safe_globals` is given is forgotten at its end, PyG's own kinds too.
    """
    import torch

    new = [kind for kind in kinds if kind not in torch.serialization.get_safe_globals()]
    with torch.serialization.safe_globals(new):
        yield


@contextmanager
def plain_files() -> Iterator[None]:
    """Let nothing that loads a graph unpickle more than arrays and tensors: PyG would, and run code with it."""
    with mock.patch.dict(os.environ, TORCH_FORCE_WEIGHTS_ONLY_LOAD="1"), mock.patch.object(pickle, "load", arrays):
        yield
