"""What is trained: experts, gates, the mixture of two experts, and the outputs that everything else is a function of.
A module that is put in a mixture says what it reads of a graph (`Reads`), a gate what it asks for (`Asks`).

It imports `mowst.kernels` and, to keep what is large on disk, `mowst.system`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
