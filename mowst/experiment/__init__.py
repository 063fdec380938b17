"""An experiment: its configuration and how it is read, the plan of what is trained, the graph opened once for all
seeds, the models of a seed, their scores, and what is left of them on disk.

It imports everything below but `mowst.tuning`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
