"""What a person reads: tables on the terminal, progress while training, the page of a study.

It imports `mowst.data` and `mowst.evaluation`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
