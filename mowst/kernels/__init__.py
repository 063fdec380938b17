"""Arithmetic on graphs that knows nothing of learning: constant sparse matrices that multiply fast in both directions,
a graph as such a matrix, features that are mostly zeros, attention as a product, dropout from few random bits.

It imports torch and PyG, and `mowst.errors`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
