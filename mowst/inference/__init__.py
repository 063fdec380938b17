"""From a trained mixture to predictions: of all nodes or of some, by the pool, by one expert a node, or from kept
logits.

It imports `mowst.models`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
