"""The machine around a run: settings of the process, several processes, native extensions, files that are whole or not
there, the folders that travel with the package, and being a program.

It imports `mowst.kernels`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
