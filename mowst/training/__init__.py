"""Training: a phase says which parts of a model learn from which losses, a feed which nodes are run for a step, the
trainer runs a phase, a regime runs phases. What a phase needs to go on is one object; what it came to is in a journal.

It imports `mowst.models`, `mowst.evaluation` and `graphkd`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
