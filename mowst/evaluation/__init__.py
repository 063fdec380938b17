"""How good a prediction is, on nodes with labels: metrics and early-stopping signals, whether a difference is more than
chance, plain fusions to compare with, calibration, how far probabilities can be believed, the threshold of routing, the
diagnosis of a run.

It imports `mowst.models`.

Its public names are in `__init__.pyi`; they are imported when they are first asked for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
